"""A VAE of Haiku modules, with distrax distributions.

    python -m experiments.compose.haiku_vae

Expected: test log p(x) of -22.94 nats (scikit-learn's digits, binarised, 500 importance samples).
"""

import distrax
import haiku as hk
import jax
import jax.numpy as jnp
import optax
import tyro

import vae_jax
from vae_jax import run
from vae_jax.run.data import named

LATENT_DIM, HIDDEN = 8, 200
PRIOR = distrax.MultivariateNormalDiag(jnp.zeros(LATENT_DIM), jnp.ones(LATENT_DIM))


def encode(x):
    """q(z|x); to be called inside a Haiku transform."""
    mean, log_scale = jnp.split(
        hk.nets.MLP([HIDDEN, 2 * LATENT_DIM], activation=jnp.tanh)(x), 2, -1
    )
    return distrax.MultivariateNormalDiag(mean, jnp.exp(log_scale))


def decode(z, x_dim):
    """p(x|z); to be called inside a Haiku transform."""
    logits = hk.nets.MLP([HIDDEN, x_dim], activation=jnp.tanh)(z)
    return distrax.Independent(distrax.Bernoulli(logits=logits), 1)


def main(epochs: int = 200, seed: int = 0) -> float:
    """Trains, and returns the test log p(x) in nats."""
    digits = named.load("digits")
    train, test = (
        jnp.asarray(split.images.reshape(len(split.images), -1))
        for split in (digits.train, digits.test)
    )
    encoder = hk.without_apply_rng(hk.transform(encode))
    decoder = hk.without_apply_rng(hk.transform(lambda z: decode(z, train.shape[-1])))

    def loss(params, key, image):
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, image)
        posterior = encoder.apply(params["encoder"], x)
        z = vae_jax.sample(draw_key, posterior)
        bound = vae_jax.elbo(x, z, posterior, PRIOR, decoder.apply(params["decoder"], z))
        return -bound.value.mean(), bound

    @jax.jit
    def test_log_px(params, key):
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, test)
        posterior = encoder.apply(params["encoder"], x)

        def decode(z):
            return decoder.apply(params["decoder"], z)

        estimate = vae_jax.log_likelihood(draw_key, x, posterior, PRIOR, decode, num_samples=500)
        return estimate.value.mean()

    *init_keys, train_key, test_key = jax.random.split(jax.random.key(seed), 4)
    params = {
        "encoder": encoder.init(init_keys[0], jnp.zeros((1, train.shape[-1]))),
        "decoder": decoder.init(init_keys[1], jnp.zeros((1, LATENT_DIM))),
    }
    plan = run.Plan(epochs=epochs, batch_size=100)
    fitted = run.fit(train_key, loss, params, optax.adam(1e-3), train, plan)
    figure = float(test_log_px(fitted.params, test_key))
    print(f"test log p(x): {figure:.2f} nats")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
