"""A VAE of Flax NNX modules.

    python -m experiments.compose.nnx_vae

Expected: test log p(x) of -23.29 nats (scikit-learn's digits, binarised, 500 importance samples).
"""

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import nnx

import vae_jax
from vae_jax import run
from vae_jax.run.data import named


class VAE(nnx.Module):
    def __init__(self, x_dim, latent_dim=8, hidden=200, *, rngs):
        self.encoder = nnx.Sequential(
            nnx.Linear(x_dim, hidden, rngs=rngs),
            nnx.tanh,
            nnx.Linear(hidden, 2 * latent_dim, rngs=rngs),
        )
        self.decoder = nnx.Sequential(
            nnx.Linear(latent_dim, hidden, rngs=rngs),
            nnx.tanh,
            nnx.Linear(hidden, x_dim, rngs=rngs),
        )

    def encode(self, x):
        mean, log_scale = jnp.split(self.encoder(x), 2, axis=-1)
        return vae_jax.Normal(mean, jnp.exp(log_scale))

    def decode(self, z):
        return vae_jax.Bernoulli(self.decoder(z))

    @property
    def prior(self):
        return vae_jax.Normal(jnp.zeros(self.decoder.layers[0].in_features), 1.0)


def main(epochs: int = 200, seed: int = 0) -> float:
    """Trains, and returns the test log p(x) in nats."""
    digits = named.load("digits")
    train, test = (
        jnp.asarray(split.images.reshape(len(split.images), -1))
        for split in (digits.train, digits.test)
    )
    # Split once: inside jit the parameters are a pytree like any other, and a step costs no more.
    graph, params = nnx.split(VAE(train.shape[-1], rngs=nnx.Rngs(seed)))

    def loss(params, key, image):
        model = nnx.merge(graph, params)
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, image)
        bound = vae_jax.autoencode(draw_key, x, model.encode, model.prior, model.decode)
        return -bound.value.mean(), bound

    @jax.jit
    def test_log_px(params, key):
        model = nnx.merge(graph, params)
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, test)
        estimate = vae_jax.log_likelihood(
            draw_key, x, model.encode(x), model.prior, model.decode, num_samples=500
        )
        return estimate.value.mean()

    train_key, test_key = jax.random.split(jax.random.key(seed))
    plan = run.Plan(epochs=epochs, batch_size=100)
    fitted = run.fit(train_key, loss, params, optax.adam(1e-3), train, plan)
    figure = float(test_log_px(fitted.params, test_key))
    print(f"test log p(x): {figure:.2f} nats")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
