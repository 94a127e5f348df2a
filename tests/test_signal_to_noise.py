"""How the encoder's gradient loses or keeps its signal as draws are added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax import Normal

# p(z) = N(0, 1), p(x|z) = N(w z + b, 0.8^2), and q(z|x) = N(mean, 0.82^2), half a scale off.
X, WEIGHT, BIAS = (np.array([v], np.float32) for v in ([0.5, -0.3], [0.9, -0.6], [0.1, 0.2]))
PRIOR = Normal(jnp.zeros(1), 1.0)


def decode(z):
    return Normal(z * WEIGHT[None] + BIAS[None], 0.8)


def iwae(x, z, posterior, prior, decode):
    return vae_jax.iwae(x, z, posterior, prior, decode(z))


def gradients(bound, num_draws, num):
    """Of the posterior's mean, [num]."""

    def value(mean, key):
        posterior = Normal(mean, 0.82)
        z = vae_jax.sample(key, posterior, num_draws)
        return bound(X, z, posterior, PRIOR, decode).value.sum()

    @jax.jit
    def run(keys):
        one = lambda key: jax.grad(value)(jnp.full((1, 1), 0.84), key)  # noqa: E731
        return jax.lax.map(one, keys, batch_size=max(1, 2**15 // num_draws))

    return np.asarray(run(jax.random.split(jax.random.key(num_draws), num)), np.float64).ravel()


# Rainforth et al. 2018, theorem 1, and Tucker et al. 2019, section 4.


def slope(draws, signal_to_noise):
    return np.polyfit(np.log(draws), np.log(signal_to_noise), 1)[0]


def test_slopes_in_the_draws():
    """Both have one mean, which is DReG's: that of the IWAE drowns in its noise."""
    draws = (16, 64, 256)
    mean, doubly, noise = [], [], []
    for k in draws:
        found = gradients(vae_jax.doubly_reparameterized, k, 8000)
        mean.append(abs(found.mean()))
        doubly.append(found.std())
        noise.append(gradients(iwae, k, 8000).std())
    assert slope(draws, np.divide(mean, noise)) == pytest.approx(-0.5, abs=0.07)
    assert slope(draws, np.divide(mean, doubly)) == pytest.approx(0.5, abs=0.07)


@pytest.mark.long
def test_slopes_in_the_draws_each_with_its_own_mean():
    draws = (8, 32, 128, 256)
    for bound, want in ((iwae, -0.5), (vae_jax.doubly_reparameterized, 0.5)):
        ratios = []
        for k in draws:
            found = gradients(bound, k, 600_000)
            ratios.append(abs(found.mean()) / found.std())
        assert slope(draws, ratios) == pytest.approx(want, abs=0.07)
