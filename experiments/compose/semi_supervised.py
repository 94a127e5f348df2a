"""A semi-supervised VAE: MNIST with 100 labels (Kingma et al. 2014, model M2).

    python -m experiments.compose.semi_supervised

Expected: test accuracy of FIGURE.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import vae_jax
from experiments import data

CLASSES = jnp.eye(10)


class Encoder(nn.Module):
    """q(z|x,y)."""

    hidden: int
    latent_dim: int

    @nn.compact
    def __call__(self, x, y):
        # Two layers in place of one over (x, y): x is multiplied once for all ten y.
        h = nn.softplus(nn.Dense(self.hidden)(x) + nn.Dense(self.hidden, use_bias=False)(y))
        mean, raw_scale = jnp.split(nn.Dense(2 * self.latent_dim)(h), 2, axis=-1)
        return vae_jax.Normal(mean, nn.softplus(raw_scale) + 1e-4)


class Decoder(nn.Module):
    """p(x|y,z)."""

    hidden: int
    x_dim: int

    @nn.compact
    def __call__(self, z, y):
        h = nn.softplus(nn.Dense(self.hidden)(z) + nn.Dense(self.hidden, use_bias=False)(y))
        return vae_jax.Bernoulli(nn.Dense(self.x_dim)(h))


class Classifier(nn.Module):
    """q(y|x)."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        return vae_jax.Categorical(nn.Dense(10)(nn.relu(nn.Dense(self.hidden)(x))))


def main(
    dataset: str = "mnist",
    data_dir: str | None = None,
    num_labels: int = 100,
    epochs: int = 30,
    batch_size: int = 200,
    hidden: int = 500,
    latent_dim: int = 50,
    learning_rate: float = 1e-3,
    alpha: float = 1.0,
    labelled_weight: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
) -> float:
    """Trains on all images and `num_labels` of the labels; returns the accuracy on the test set."""
    loaded = data.load(dataset, data_dir=data_dir)
    images = jnp.asarray(loaded.train.images.reshape(len(loaded.train.images), -1))
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            rng.choice(np.flatnonzero(loaded.train.labels == c), num_labels // 10, replace=False)
            for c in range(10)
        ]
    )
    labelled, labels = images[rows], CLASSES[loaded.train.labels[rows]]

    encoder, decoder = Encoder(hidden, latent_dim), Decoder(hidden, images.shape[-1])
    classifier = Classifier(hidden)
    prior = vae_jax.Normal(jnp.zeros(latent_dim), 1.0)

    def bound_of_pair(params, key, x, y):
        """The bound on log p(x, y), without the constant log p(y)."""
        posterior = encoder.apply(params["encoder"], x, y)
        z = vae_jax.sample(key, posterior)
        likelihood = decoder.apply(params["decoder"], z, y)
        x = jnp.broadcast_to(x, likelihood.shape)
        return vae_jax.elbo(x, z, posterior, prior, likelihood).value

    def loss(params, key, image):
        image_key, label_image_key, draw_key, label_draw_key, noise_key = jax.random.split(key, 5)
        x = vae_jax.binarize(image_key, image)
        flip = noise * jax.random.normal(noise_key, (len(x) + len(labels), x.shape[-1]))
        q_y = classifier.apply(params["classifier"], x + flip[: len(x)])
        given_y = bound_of_pair(params, draw_key, x, CLASSES[:, None])  # [10, B]
        p_y = vae_jax.Categorical(jnp.zeros(10))
        unlabelled = (jax.nn.softmax(q_y.logits).T * given_y).sum(0)
        unlabelled -= vae_jax.kl_divergence(q_y, p_y)

        x = vae_jax.binarize(label_image_key, labelled)
        labelled_bound = bound_of_pair(params, label_draw_key, x, labels)
        log_q = classifier.apply(params["classifier"], x + flip[len(image) :]).log_prob(
            labels.argmax(-1)
        )
        objective = (
            unlabelled.mean() + labelled_weight * labelled_bound.mean() + alpha * log_q.mean()
        )
        return -objective, unlabelled

    key = jax.random.key(seed)
    init_key, train_key = jax.random.split(key)
    keys = jax.random.split(init_key, 3)
    x, y, z = jnp.zeros((1, images.shape[-1])), CLASSES[:1], jnp.zeros((1, latent_dim))
    params = {
        "encoder": encoder.init(keys[0], x, y),
        "decoder": decoder.init(keys[1], z, y),
        "classifier": classifier.init(keys[2], x),
    }
    steps = epochs * (len(images) // batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps), b1=0.9)
    state = vae_jax.init_state(train_key, params, optimizer, average=True)
    train_epoch = vae_jax.make_train_epoch(loss, optimizer)

    @jax.jit
    def accuracy(params, images, labels):
        logits = classifier.apply(params["classifier"], images.astype(jnp.float32) / 255).logits
        return (logits.argmax(-1) == labels).mean()

    test = loaded.test.images.reshape(len(loaded.test.images), -1), loaded.test.labels
    for epoch in range(epochs):
        order = vae_jax.shuffle(state.key, epoch, num_examples=len(images), batch_size=batch_size)
        state, metrics = train_epoch(state, images, order)
        figure, averaged = (accuracy(p, *test) for p in (state.params, state.average))
        bound = metrics.aux.mean()
        print(f"epoch {epoch + 1}: bound {bound:.2f} nats, test {figure:.4f}, {averaged:.4f}")
    return float(figure)


if __name__ == "__main__":
    tyro.cli(main)
