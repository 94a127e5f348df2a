"""Densities against SciPy, at the extremes too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

import vae_jax
from tests.distributions.cases import DISTRIBUTIONS, GAUSSIANS, covariance, eager_and_jitted, noise
from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal


def test_normal_density():
    x, mean, scale = noise(0, 4, 3), noise(1, 4, 3), np.exp(noise(2, 4, 3))
    expected = stats.norm(mean, scale).logpdf(x).sum(-1)
    np.testing.assert_allclose(Normal(mean, scale).log_prob(x), expected, rtol=1e-5, atol=1e-5)


def test_normal_density_of_an_image_sums_its_three_axes():
    x, mean, scale = noise(0, 4, 2, 3, 1), noise(1, 4, 2, 3, 1), np.exp(noise(2, 4, 2, 3, 1))
    expected = stats.norm(mean, scale).logpdf(x).sum((1, 2, 3))
    actual = Normal(mean, scale, event_ndims=3).log_prob(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_multivariate_normal_density():
    x, distribution = noise(0, 4, 3), GAUSSIANS["full"](1)
    expected = [
        stats.multivariate_normal(m, c).logpdf(v)
        for v, m, c in zip(x, distribution.mean, covariance(distribution), strict=True)
    ]
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-5)


def test_bernoulli_density():
    logits = 3 * noise(0, 4, 50)
    x = (noise(1, 4, 50) > 0).astype(np.float32)
    expected = stats.bernoulli(special.expit(logits.astype(np.float64))).logpmf(x).sum(-1)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), expected, rtol=1e-5)


def test_bernoulli_density_of_a_grey_pixel_is_the_negative_cross_entropy():
    logits, x = 3 * noise(0, 4, 50), special.expit(noise(1, 4, 50))
    p = special.expit(logits.astype(np.float64))
    expected = (special.xlogy(x, p) + special.xlog1py(1 - x, -p)).sum(-1)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), expected, rtol=1e-5)


def test_categorical_density():
    logits = 2 * noise(0, 4, 5)
    p = special.softmax(logits.astype(np.float64), axis=-1)
    p /= p.sum(-1, keepdims=True)
    for k in range(5):
        expected = stats.multinomial(1, p).logpmf(np.eye(5, dtype=int)[k])
        actual = Categorical(logits).log_prob(np.full(4, k))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("k", [-1, 3])
@eager_and_jitted
def test_a_class_out_of_range(jit, k):
    categorical = Categorical(np.array([0.1, 0.2, 0.7], np.float32))
    # A constant is known inside jit too.
    with pytest.raises(ValueError, match=rf"Categorical is {k} .* 3 classes: .* from 0 to 2"):
        jit(lambda offset: offset + categorical.log_prob(np.array([0, k])))(np.zeros(2))


@pytest.mark.parametrize("k", [-1, 0, 2, 3])
def test_a_class_that_is_traced_may_be_out_of_range(k):
    p = np.exp([0.1, 0.2, 0.7]) / np.exp([0.1, 0.2, 0.7]).sum()
    density = stats.rv_discrete(values=(range(3), p))
    log_prob = jax.jit(lambda logits, k: Categorical(logits).log_prob(k))
    logits = np.array([0.1, 0.2, 0.7], np.float32)
    np.testing.assert_allclose(log_prob(logits, k), density.logpmf(k), rtol=1e-5)
    assert np.isfinite(jax.grad(log_prob)(logits, k)).all()


def test_joint_density_is_the_sum_of_its_parts():
    parts = DISTRIBUTIONS["joint"].parts
    x = noise(0, 7, 4, 3), noise(1, 4, 3)
    expected = stats.norm(parts[0].mean, parts[0].scale).logpdf(x[0]).sum(-1) + [
        stats.multivariate_normal(m, c).logpdf(v)
        for v, m, c in zip(x[1], parts[1].mean, covariance(parts[1]), strict=True)
    ]
    np.testing.assert_allclose(vae_jax.log_prob(Joint(parts), x), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (7, 4, 3)], ids=str)
def test_leading_axes_broadcast(shape):
    x, mean, scale = noise(0, *shape), noise(1, 4, 3), np.exp(noise(2, 4, 3))
    expected = stats.norm(mean, scale).logpdf(x).sum(-1)
    np.testing.assert_allclose(Normal(mean, scale).log_prob(x), expected, rtol=1e-5)
    x, shared = noise(0, 7, 4, 3), GAUSSIANS["full"](1)
    shared = MultivariateNormal(shared.mean[0], shared.scale_tril[0])
    expected = stats.multivariate_normal(shared.mean, covariance(shared)).logpdf(x)
    np.testing.assert_allclose(shared.log_prob(x), expected, rtol=1e-5)


def test_gradient_of_density_is_the_finite_difference_of_scipy():
    x, mean, scale = noise(0, 3), noise(1, 3), np.exp(noise(2, 3))
    gradient = jax.grad(lambda d: d.log_prob(x))(Normal(mean, scale))
    for name, of in (
        ("mean", lambda mean: stats.norm(mean, scale).logpdf(x).sum()),
        ("scale", lambda scale: stats.norm(mean, scale).logpdf(x).sum()),
    ):
        at = {"mean": mean, "scale": scale}[name].astype(np.float64)
        expected = optimize.approx_fprime(at, of)
        np.testing.assert_allclose(getattr(gradient, name), expected, rtol=1e-3)


def test_bfloat16_parameters_lose_nothing_in_the_sum():
    logits = jnp.asarray(2 * noise(0, 4, 784), jnp.bfloat16)
    x = jnp.asarray(noise(1, 4, 784) > 0, jnp.bfloat16)
    actual = Bernoulli(logits).log_prob(x)
    expected = stats.bernoulli(special.expit(np.asarray(logits, np.float64))).logpmf(x).sum(-1)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


# Extremes


def test_bernoulli_at_extreme_logits():
    logits = jnp.array([-1e4, -1e4, -89.0, 0.0, 89.0, 1e4, 1e4])
    x = jnp.array([0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    expected = np.where(x == 1, special.log_expit(logits), special.log_expit(-logits))
    each = Bernoulli(logits, event_ndims=0)
    np.testing.assert_allclose(each.log_prob(x), expected, rtol=1e-6)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), expected.sum(), rtol=1e-6)
    gradient = jax.grad(lambda d: d.log_prob(x))(Bernoulli(logits)).logits
    np.testing.assert_allclose(gradient, x - special.expit(logits), atol=1e-7)


@pytest.mark.parametrize("size", [1, 2, 7, 16, 48, 784])
def test_bernoulli_normaliser_of_any_number_of_pixels(size):
    logits = 20 * noise(0, 4, size)
    expected = special.log_expit(-logits.astype(np.float64)).sum(-1)
    actual = Bernoulli(logits).log_prob(jnp.zeros((4, size)))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("logits", [1e4, -1e4])
@pytest.mark.parametrize("make", [Bernoulli, Categorical])
def test_divergence_at_extreme_logits_is_finite_with_finite_gradient(make, logits):
    def divergence(logits, other):
        return vae_jax.kl_divergence(make(logits), make(other))

    extreme = jnp.array([logits, 0.0, 1.0])
    for pair in ((extreme, jnp.zeros(3)), (jnp.zeros(3), extreme), (extreme, -extreme)):
        value, gradients = jax.value_and_grad(divergence, argnums=(0, 1))(*pair)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(g).all() for g in gradients)


def test_categorical_with_an_impossible_class():
    impossible = Categorical(jnp.array([0.0, 0.0, -jnp.inf]))
    possible = Categorical(jnp.zeros(3))
    p = [0.5, 0.5, 0.0]

    def divergence(logits):
        return vae_jax.kl_divergence(Categorical(logits), possible)

    value, gradient = jax.value_and_grad(divergence)(impossible.logits)
    np.testing.assert_allclose(value, stats.entropy(p, np.full(3, 1 / 3)), rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    assert vae_jax.kl_divergence(possible, impossible) == jnp.inf
    np.testing.assert_allclose(vae_jax.kl_divergence(impossible, impossible), 0, atol=1e-7)
    assert impossible.log_prob(jnp.array(2)) == -jnp.inf
