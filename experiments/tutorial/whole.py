"""A variational autoencoder, whole: encoder, decoder, loss, training, new images, images by class.

pip install "vae_jax[run]"      # brings scikit-learn, whose 8x8 digits need no download
python whole.py                 # less than a minute on a CPU; leaves whole.png
python whole.py fashion.npz     # images of your own: image [N, H, W] from 0 to 255, label [N]
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import vae_jax

LATENTS, HIDDEN, STEPS, BATCH_SIZE, LEARNING_RATE = 10, 128, 3000, 128, 2e-3


class Encoder(nn.Module):
    """q(z|x), or q(z|x,c): a mean and a standard deviation for each latent dimension."""

    @nn.compact
    def __call__(self, x, c=None):
        h = x.reshape(len(x), -1)
        h = h if c is None else jnp.concatenate([h, c], axis=-1)
        h = nn.relu(nn.Dense(HIDDEN)(h))
        return vae_jax.Normal(nn.Dense(LATENTS)(h), jnp.exp(nn.Dense(LATENTS)(h)))


class Decoder(nn.Module):
    """p(x|z), or p(x|z,c): for each pixel the probability (here its logit) of being on."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z, c=None):
        h = z if c is None else jnp.concatenate([z, c], axis=-1)
        h = nn.relu(nn.Dense(HIDDEN)(h))
        logits = nn.Dense(np.prod(self.shape))(h)
        return vae_jax.Bernoulli(logits.reshape(len(z), *self.shape), event_ndims=3)


def variational_loss(model):
    def loss(params, key, batch):
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, batch.image)
        posterior = model.encode(params, x)  # q(z|x)
        z = vae_jax.sample(draw_key, posterior)  # mean + scale * noise
        likelihood = model.decode(params, z)  # p(x|z)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params), likelihood)
        return -bound.value.mean(), bound

    return loss


def conditional_loss(model):
    def loss(params, key, batch):
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, batch.image)
        posterior = model.encode(params, x, batch.label)  # q(z|x,c)
        prior = model.prior(params, batch.label)  # p(z|c)
        z = vae_jax.sample(draw_key, posterior)
        likelihood = model.decode(params, z, batch.label)  # p(x|z,c)
        bound = vae_jax.elbo(x, z, posterior, prior, likelihood)
        return -bound.value.mean(), bound

    return loss


def train(key, params, loss, data):
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS))

    @jax.jit
    def step(params, state, key, data):
        rows_key, loss_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (BATCH_SIZE,), 0, len(data.image))
        batch = jax.tree.map(lambda array: array[rows], data)
        gradient, bound = jax.grad(loss, has_aux=True)(params, loss_key, batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, bound.value.mean()

    state = optimizer.init(params)
    for number, step_key in enumerate(jax.random.split(key, STEPS), start=1):
        params, state, elbo = step(params, state, step_key, data)
        if number % (STEPS // 5) == 0:
            print(f"step {number}: ELBO {elbo:.1f} nats")
    return params


def save(path, images, columns):
    images = np.pad(images[..., 0], [(0, 0), (1, 0), (1, 0)])  # a line between them
    grid = images.reshape(-1, columns, *images.shape[1:]).swapaxes(1, 2)
    plt.imsave(path, grid.reshape(-1, grid.shape[2] * grid.shape[3]), cmap="gray_r", vmin=0, vmax=1)


def main(path=None):
    bunch = load_digits()
    file = np.load(path) if path else {"image": bunch.images * 255 / 16, "label": bunch.target}
    image = jnp.asarray(file["image"], jnp.uint8)[..., None]
    classes, pictures = 4 * jnp.eye(10), []  # a class is ten numbers, nine of them 0
    c, twos = classes[file["label"]], jnp.broadcast_to(classes[2], (20, 10))
    num = len(image) * 9 // 10
    data, test = vae_jax.Batch(image[:num], c[:num]), vae_jax.Batch(image[num:], c[num:])
    model = vae_jax.make_vae(Encoder(), Decoder(image.shape[1:]), LATENTS)
    for make_loss, c_0, asked in [(variational_loss, None, None), (conditional_loss, c[:1], twos)]:
        loss = make_loss(model)
        params = model.init(jax.random.key(0), jnp.zeros((1, *image.shape[1:])), c_0)
        params = train(jax.random.key(1), params, loss, data)
        print(f"test: ELBO {-loss(params, jax.random.key(2), test)[0]:.2f} nats")
        z = jax.random.normal(jax.random.key(3), (20, LATENTS))  # from the prior
        pictures.append(model.decode(params, z, asked).mean)
    save("whole.png", np.concatenate(pictures), columns=10)  # two rows of any class, two of 2s


if __name__ == "__main__":
    main(*sys.argv[1:])
