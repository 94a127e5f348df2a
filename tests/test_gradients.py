"""The score function's gradient against expectations that are known, or sums over all outcomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vae_jax
from vae_jax import Categorical, Normal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5)).astype(np.float32)
# Nodes and weights whose weighted sum is the expectation over N(0, 1) of any cubic, and more.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@pytest.mark.parametrize("baseline", [0.0, -7.0, "each"])
def test_score_function_gives_the_gradient_of_an_expectation(baseline):
    """Of z^3 under N(m, s^2), whose expectation is m^3 + 3 m s^2."""
    mean, scale = 0.7, 0.4
    z = jnp.asarray(mean + scale * NODES, jnp.float32)
    if baseline == "each":
        baseline = jnp.full(len(NODES), 2.5)

    def expectation(mean, scale):
        posterior = Normal(mean[None], scale[None])
        value = vae_jax.score_function(z**3, posterior.log_prob(z[:, None]), baseline)
        return jnp.asarray(WEIGHTS, jnp.float32) @ value

    value, gradient = jax.value_and_grad(expectation, argnums=(0, 1))(
        jnp.float32(mean), jnp.float32(scale)
    )
    np.testing.assert_allclose(value, mean**3 + 3 * mean * scale**2, rtol=1e-5)
    expected = (3 * mean**2 + 3 * scale**2, 6 * mean * scale)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_score_function_of_a_discrete_latent():
    logits, cost = RNG.normal(size=5), RNG.normal(size=5)
    p = special.softmax(logits)

    def expectation(logits):
        log_probs = Categorical(logits).log_prob(jnp.arange(5))
        value = vae_jax.score_function(jnp.asarray(cost, jnp.float32), log_probs, 0.3)
        return jnp.asarray(p, jnp.float32) @ value

    gradient = jax.grad(expectation)(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(gradient, p * (cost - p @ cost), rtol=0, atol=1e-6)


def test_score_function_keeps_the_value_and_its_own_gradient():
    def total(weight):
        return vae_jax.score_function(weight * X[0], weight * jnp.ones(5), 1.0).sum()

    value, gradient = jax.value_and_grad(total)(jnp.float32(2.0))
    np.testing.assert_allclose(value, 2 * X[0].sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, X[0].sum() + (2 * X[0] - 1).sum(), rtol=1e-5)
