"""Divergences against formulae, quadrature and the mean log-ratio."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import integrate, special, stats

import vae_jax
from tests.distributions.cases import (
    DISTRIBUTIONS,
    GAUSSIANS,
    NUM_DRAWS,
    covariance,
    each_distribution,
    each_pair,
    noise,
    within_standard_errors,
)
from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal


@each_pair
def test_gaussian_divergence_is_the_formula(of, against):
    posterior, prior = GAUSSIANS[of](0), GAUSSIANS[against](10)
    s, t = covariance(posterior), covariance(prior)
    shift = (np.asarray(prior.mean) - np.asarray(posterior.mean)).astype(np.float64)
    expected = 0.5 * (
        np.trace(np.linalg.solve(t, s), axis1=-2, axis2=-1)
        + np.einsum("bi,bi->b", shift, np.linalg.solve(t, shift[..., None])[..., 0])
        - 3
        + np.linalg.slogdet(t)[1]
        - np.linalg.slogdet(s)[1]
    )
    np.testing.assert_allclose(vae_jax.kl_divergence(posterior, prior), expected, rtol=1e-4)


@each_pair
def test_gaussian_divergence_is_the_mean_log_ratio(of, against):
    posterior, prior = GAUSSIANS[of](0), GAUSSIANS[against](10)
    z = np.asarray(vae_jax.sample(jax.random.key(0), posterior, NUM_DRAWS), np.float64)

    def log_density(distribution):
        parts = zip(np.asarray(distribution.mean), covariance(distribution), strict=True)
        return np.stack(
            [stats.multivariate_normal(m, c).logpdf(z[:, i]) for i, (m, c) in enumerate(parts)], -1
        )

    log_ratio = log_density(posterior) - log_density(prior)
    assert within_standard_errors(log_ratio, vae_jax.kl_divergence(posterior, prior))


@each_pair
def test_gaussian_divergence_is_the_integral(of, against):
    one = {
        "diagonal": lambda m, s: Normal(jnp.array([m]), s),
        "full": lambda m, s: MultivariateNormal(jnp.array([m]), jnp.array([[s]])),
    }
    for p, q in (((0.3, 0.7), (0.0, 1.0)), ((-1.0, 2.0), (0.5, 0.9))):
        log_p, log_q = stats.norm(*p).logpdf, stats.norm(*q).logpdf
        expected, _ = integrate.quad(
            lambda z, p=log_p, q=log_q: np.exp(p(z)) * (p(z) - q(z)), -25, 25, points=[p[0]]
        )
        actual = vae_jax.kl_divergence(one[of](*p), one[against](*q))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@each_pair
def test_gradient_of_gaussian_divergence_is_its_finite_difference(of, against):
    check_grads(
        lambda p, q: vae_jax.kl_divergence(p, q).sum(),
        (GAUSSIANS[of](0), GAUSSIANS[against](10)),
        order=1,
        modes=["rev"],
        rtol=1e-2,
        atol=1e-2,
    )


@each_pair
def test_prior_without_batch_axes_stands_for_every_example(of, against):
    posterior = GAUSSIANS[of](0)
    shared = jax.tree.map(lambda a: a[0], GAUSSIANS[against](10))
    repeated = jax.tree.map(lambda a: jnp.stack([a] * 4), shared)
    actual = vae_jax.kl_divergence(posterior, shared)
    assert actual.shape == (4,)
    np.testing.assert_allclose(actual, vae_jax.kl_divergence(posterior, repeated), rtol=1e-6)


def test_bernoulli_divergence():
    logits, prior_logits = 3 * noise(0, 4, 50), 3 * noise(1, 4, 50)
    p, q = (special.expit(a.astype(np.float64)) for a in (logits, prior_logits))
    expected = (special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)).sum(-1)
    actual = vae_jax.kl_divergence(Bernoulli(logits), Bernoulli(prior_logits))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    shared = vae_jax.kl_divergence(Bernoulli(logits), Bernoulli(prior_logits[0]))
    expected = (special.rel_entr(p, q[0]) + special.rel_entr(1 - p, 1 - q[0])).sum(-1)
    np.testing.assert_allclose(shared, expected, rtol=1e-5)


def test_categorical_divergence():
    logits, prior_logits = 2 * noise(0, 4, 5), 2 * noise(1, 4, 5)
    p, q = (special.softmax(a.astype(np.float64), axis=-1) for a in (logits, prior_logits))
    actual = vae_jax.kl_divergence(Categorical(logits), Categorical(prior_logits))
    np.testing.assert_allclose(actual, stats.entropy(p, q, axis=-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        (DISTRIBUTIONS["bernoulli"], Bernoulli(noise(9, 3))),
        (DISTRIBUTIONS["categorical"], Categorical(noise(9, 5))),
        (DISTRIBUTIONS["image"], Normal(jnp.zeros((2, 3, 1)), 1.0, event_ndims=3)),
        (
            DISTRIBUTIONS["joint"],
            Joint((Normal(jnp.zeros(3), 1.0), Normal(jnp.zeros(3), 2.0)), ancestral=True),
        ),
    ],
    ids=["bernoulli", "categorical", "image", "joint"],
)
def test_divergence_is_the_mean_log_ratio_of_the_densities(posterior, prior):
    # The densities are checked against SciPy above.
    x = vae_jax.sample(jax.random.key(0), posterior, NUM_DRAWS)
    log_ratio = posterior.log_prob(x) - prior.log_prob(x)
    assert within_standard_errors(log_ratio, vae_jax.kl_divergence(posterior, prior))


@each_distribution
def test_divergence_from_itself_is_zero(distribution):
    np.testing.assert_allclose(vae_jax.kl_divergence(distribution, distribution), 0, atol=1e-5)
