"""A sequence VAE: the rows of a digit from top to bottom, the prior carried by a recurrent state.

    python -m experiments.compose.sequence_vae

The variational recurrent network of Chung et al. 2015: p(z_t|h_t), p(x_t|z_t, h_t), q(z_t|x_t, h_t)
and h_{t+1} = f(h_t, x_t, z_t). The bound on log p(x) is the sum of the steps' bounds (their
equation 11).

Expected: test ELBO of -22.66 nats (scikit-learn's digits, binarised, 8 rows of 8 pixels).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import tyro

import vae_jax
from vae_jax import networks, run
from vae_jax.run.data import named


class Cell(nn.Module):
    """One row: (state, (key, x)) -> (state, bound)."""

    latent_dim: int = 4
    hidden: int = 100

    @nn.compact
    def __call__(self, state, inputs):
        key, x = inputs  # one key, [B, D]

        def gaussian():
            return networks.Encoder(networks.MLP((2 * self.latent_dim,), (self.hidden,)))

        prior = gaussian()(state)
        posterior = gaussian()(jnp.concatenate([state, x], axis=-1))
        z = vae_jax.sample(key, posterior)
        decoder = networks.BernoulliDecoder(networks.MLP((x.shape[-1],), (self.hidden,)))
        likelihood = decoder(jnp.concatenate([state, z], axis=-1))
        bound = vae_jax.elbo(x, z, posterior, prior, likelihood)
        state, _ = nn.GRUCell(self.hidden)(state, jnp.concatenate([x, z], axis=-1))
        return state, bound


def main(epochs: int = 200, seed: int = 0) -> float:
    """Trains, and returns the test ELBO in nats."""
    digits = named.load("digits")
    train, test = (jnp.asarray(split.images[..., 0]) for split in (digits.train, digits.test))
    cell = Cell()

    def sequence_bound(params, key, image):
        """The bound of whole sequences, [B], with its terms summed over the rows."""
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, image).swapaxes(0, 1)  # [T, B, D]
        keys = jax.random.split(draw_key, len(x))
        state = jnp.zeros((x.shape[1], cell.hidden))

        def step(state, inputs):
            return cell.apply(params, state, inputs)

        _, bounds = jax.lax.scan(step, state, (keys, x))  # each [T, B]
        return jax.tree.map(lambda steps: steps.sum(0), bounds)

    def loss(params, key, image):
        bound = sequence_bound(params, key, image)
        return -bound.value.mean(), bound

    init_key, draw_key, train_key, test_key = jax.random.split(jax.random.key(seed), 4)
    example = jnp.zeros((1, cell.hidden)), (draw_key, jnp.zeros((1, train.shape[-1])))
    plan = run.Plan(epochs=epochs, batch_size=100)
    fitted = run.fit(train_key, loss, cell.init(init_key, *example), optax.adam(1e-3), train, plan)
    bound = float(jax.jit(sequence_bound)(fitted.params, test_key, test).value.mean())
    print(f"test elbo: {bound:.2f} nats")
    return bound


if __name__ == "__main__":
    tyro.cli(main)
