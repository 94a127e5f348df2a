"""A VAE in plain JAX: parameters are a dict, layers are functions.

    python -m experiments.compose.plain_vae

Expected: test log p(x) of -23.20 nats (scikit-learn's digits, binarised, 500 importance samples).
"""

import itertools

import jax
import jax.numpy as jnp
import optax
import tyro

import vae_jax
from vae_jax import run
from vae_jax.run.data import named

LATENT_DIM, HIDDEN = 8, 200


def init_layer(key, inputs, outputs):
    return {"w": jax.random.normal(key, (inputs, outputs)) / inputs**0.5, "b": jnp.zeros(outputs)}


def init(key, x_dim):
    widths = [x_dim, HIDDEN, 2 * LATENT_DIM], [LATENT_DIM, HIDDEN, x_dim]
    encoder, decoder = (
        [init_layer(k, *sizes) for k, sizes in zip(keys, itertools.pairwise(w), strict=False)]
        for keys, w in zip(jax.random.split(key, (2, 2)), widths, strict=True)
    )
    return {"encoder": encoder, "decoder": decoder}


def network(layers, x):
    hidden, output = layers
    return jnp.tanh(x @ hidden["w"] + hidden["b"]) @ output["w"] + output["b"]


def encode(params, x):
    mean, log_scale = jnp.split(network(params["encoder"], x), 2, axis=-1)
    return vae_jax.Normal(mean, jnp.exp(log_scale))


def decode(params, z):
    return vae_jax.Bernoulli(network(params["decoder"], z))


PRIOR = vae_jax.Normal(jnp.zeros(LATENT_DIM), 1.0)


def loss(params, key, image):
    binarize_key, draw_key = jax.random.split(key)
    x = vae_jax.binarize(binarize_key, image)
    posterior = encode(params, x)
    z = vae_jax.sample(draw_key, posterior)
    bound = vae_jax.elbo(x, z, posterior, PRIOR, decode(params, z))
    return -bound.value.mean(), bound


@jax.jit
def test_log_px(params, key, image):
    binarize_key, draw_key = jax.random.split(key)
    x = vae_jax.binarize(binarize_key, image)
    estimate = vae_jax.log_likelihood(
        draw_key, x, encode(params, x), PRIOR, lambda z: decode(params, z), num_samples=500
    )
    return estimate.value.mean()


def main(epochs: int = 200, seed: int = 0) -> float:
    """Trains, and returns the test log p(x) in nats."""
    digits = named.load("digits")
    train, test = (
        jnp.asarray(split.images.reshape(len(split.images), -1))
        for split in (digits.train, digits.test)
    )
    init_key, train_key, test_key = jax.random.split(jax.random.key(seed), 3)
    plan = run.Plan(epochs=epochs, batch_size=100)
    fitted = run.fit(
        train_key, loss, init(init_key, train.shape[-1]), optax.adam(1e-3), train, plan
    )
    figure = float(test_log_px(fitted.params, test_key, test))
    print(f"test log p(x): {figure:.2f} nats")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
