"""What `vae_jax.elbo` costs inside a jitted step, beside the same loss written out by hand.

    python -m benchmarks.overhead

The two take turns, so that a busy second of the machine falls on both; the figure is the median
over the rounds of the ratio within a round. A second copy of the loss by hand says what the
machine's own noise is.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from benchmarks import machine

X_DIM, HIDDEN, LATENT_DIM = 784, 400, 20


def example(batch_size=128):
    """Parameters, a key and a batch of zeros and ones."""
    rng = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32)

    params = {
        "encoder": [array(X_DIM, HIDDEN), array(HIDDEN, 2 * LATENT_DIM)],
        "decoder": [array(LATENT_DIM, HIDDEN), array(HIDDEN, X_DIM)],
    }
    x = jnp.asarray(rng.random((batch_size, X_DIM)) < 0.5, jnp.float32)
    return params, jax.random.key(0), x


def network(weights, x):
    return jnp.tanh(x @ weights[0]) @ weights[1]


def with_vae_jax(params, key, x):
    mean, log_scale = jnp.split(network(params["encoder"], x), 2, axis=-1)
    posterior = vae_jax.Normal(mean, jnp.exp(log_scale))
    prior = vae_jax.Normal(jnp.zeros(LATENT_DIM), 1.0)
    z = vae_jax.sample(key, posterior)
    likelihood = vae_jax.Bernoulli(network(params["decoder"], z))
    return -vae_jax.elbo(x, z, posterior, prior, likelihood).value.mean()


def by_hand(params, key, x):
    mean, log_scale = jnp.split(network(params["encoder"], x), 2, axis=-1)
    z = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)
    logits = network(params["decoder"], z)
    log_likelihood = (x * logits - jnp.logaddexp(0.0, logits)).sum(-1)
    kl = 0.5 * (jnp.exp(2 * log_scale) + mean**2 - 1 - 2 * log_scale).sum(-1)
    return -(log_likelihood - kl).mean()


def seconds_per_step(losses, rounds, steps=50):
    """[rounds, losses]: seconds per step, the gradient of a loss and a descent along it."""
    params, key, x = example()

    def make(loss):
        @jax.jit
        def train(params, key):
            def step(params, key):
                gradient = jax.grad(loss)(params, key, x)
                return jax.tree.map(lambda p, g: p - 1e-4 * g, params, gradient), None

            return jax.lax.scan(step, params, jax.random.split(key, steps))[0]

        jax.block_until_ready(train(params, key))  # compiles
        return train

    functions = [make(loss) for loss in losses]
    seconds = np.empty((rounds, len(losses)))
    for turn in range(rounds):
        # Each goes first as often as the others.
        for i in np.roll(np.arange(len(losses)), turn):
            start = time.perf_counter()
            jax.block_until_ready(functions[i](params, key))
            seconds[turn, i] = (time.perf_counter() - start) / steps
    return seconds


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--rounds", type=machine.positive, default=60, help="timed passes of 50 steps; 60"
    )
    rounds = parser.parse_args().rounds
    of = machine.describe()
    print(f"{of['device']}, {of['cores']} cores, jax {of['versions']['jax']}, {rounds} rounds")
    seconds = seconds_per_step([with_vae_jax, by_hand, by_hand], rounds)
    for name, column in zip(["vae_jax", "by hand", "by hand, again"], seconds.T, strict=True):
        ratio = column / seconds[:, 1]
        print(
            f"{name:14s} {np.median(column) * 1e3:.3f} ms a step, {np.median(ratio):.3f} of the "
            "time by hand"
        )


if __name__ == "__main__":
    machine.run(main)
