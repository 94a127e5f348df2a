"""What `vae_jax.elbo` costs inside a jitted step, beside the same loss written out by hand.

    python -m benchmarks.overhead

The two take turns, so that a busy second of the machine falls on both; the figure is the ratio of
their fastest steps.
"""

import statistics
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


def seconds_per_step(rounds=20, steps=50):
    """Seconds per step of each loss, its gradient and a descent along it, one per round."""
    params, key, x = example()

    def make(loss):
        @jax.jit
        def step(params, key):
            gradient = jax.grad(loss)(params, key, x)
            return jax.tree.map(lambda p, g: p - 1e-4 * g, params, gradient)

        return step

    functions = {loss.__name__: make(loss) for loss in (with_vae_jax, by_hand)}
    seconds = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, step in functions.items():
            start, state = time.perf_counter(), params
            for i in range(steps):
                state = step(state, jax.random.fold_in(key, i))
            jax.block_until_ready(state)
            if turn:  # the first compiles
                seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def main():
    seconds = seconds_per_step()
    print(machine.describe())
    for name, values in seconds.items():
        print(
            f"{name:14s} {min(values) * 1e3:.3f} ms, median {statistics.median(values) * 1e3:.3f}"
        )
    ratio = min(seconds["with_vae_jax"]) / min(seconds["by_hand"])
    print(f"ratio of the fastest: {ratio:.3f}")


if __name__ == "__main__":
    main()
