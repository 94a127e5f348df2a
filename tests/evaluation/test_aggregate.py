"""The split of the KL against SciPy's densities and against Gaussians in closed form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import Categorical, Normal

RNG = np.random.default_rng(0)
NUM, LATENT_DIM = 7, 3
MEAN, SCALE = RNG.normal(size=(NUM, LATENT_DIM)), np.exp(RNG.normal(size=(NUM, LATENT_DIM)) / 2)
Z = (MEAN + SCALE * RNG.normal(size=(NUM, LATENT_DIM))).astype(np.float32)
POSTERIOR = Normal(MEAN.astype(np.float32), SCALE.astype(np.float32))
PRIOR = Normal(jnp.array([0.0, 0.5, -1.0]), jnp.array([1.0, 2.0, 0.5]))


@pytest.mark.few(1)
@pytest.mark.parametrize("num", [NUM, 4])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_each_term_of_each_draw(num, batch_size):
    split = vae_jax.aggregate_kl(jnp.asarray(Z[:num]), POSTERIOR, PRIOR, batch_size=batch_size)
    each = stats.norm(MEAN, SCALE).logpdf(Z[:num, None])  # [A, N, Z]
    own = each[np.arange(num), np.arange(num)].sum(-1)
    aggregate = special.logsumexp(each.sum(-1), axis=1, b=1 / NUM)
    marginal = special.logsumexp(each, axis=1, b=1 / NUM)
    prior = stats.norm(np.asarray(PRIOR.mean), np.asarray(PRIOR.scale)).logpdf(Z[:num])
    expected = own - aggregate, aggregate - marginal.sum(-1), marginal - prior
    for actual, of in zip(split, expected, strict=True):
        np.testing.assert_allclose(actual, of, rtol=1e-4, atol=1e-5)


def test_terms_add_up_to_the_kl():
    z = jnp.asarray(Z)
    information, correlation, each = vae_jax.aggregate_kl(z, POSTERIOR, PRIOR)
    np.testing.assert_allclose(
        information + correlation + each.sum(-1),
        POSTERIOR.log_prob(z) - PRIOR.log_prob(z),
        rtol=1e-4,
        atol=1e-5,
    )


def test_gaussians_in_closed_form():
    """Means N(0, S - s^2 I) and noise s: q(z) is N(0, S), but for 1/N of its entropy."""
    num, noise = 3000, 0.6
    covariance = np.array([[1.5, 0.8], [0.8, 1.0]])
    mean = RNG.multivariate_normal([0, 0], covariance - noise**2 * np.eye(2), size=num)
    posterior = Normal(mean.astype(np.float32), noise)
    z = vae_jax.sample(jax.random.key(0), posterior)
    split = jax.jit(vae_jax.aggregate_kl)(z, posterior, Normal(jnp.zeros(2), 1.0))
    determinant, variances = np.linalg.det(covariance), np.diag(covariance)
    expected = (
        0.5 * math.log(determinant / noise**4),
        0.5 * math.log(variances.prod() / determinant),
        0.5 * (variances - 1 - np.log(variances)),
    )
    for actual, of in zip(split, expected, strict=True):
        error = np.std(actual, axis=0) / math.sqrt(num)
        assert (np.abs(np.mean(actual, axis=0) - of) < 4 * error + 0.02).all()
        assert np.max(error) < 0.03


def test_what_has_no_split():
    z = jnp.asarray(Z)
    with pytest.raises(TypeError, match=r"prior is a Categorical: pass a vae_jax\.Normal"):
        vae_jax.aggregate_kl(z, POSTERIOR, Categorical(z))
    with pytest.raises(TypeError, match=r"posterior is a Categorical: pass a vae_jax\.Normal"):
        vae_jax.aggregate_kl(z, Categorical(z), PRIOR)
    with pytest.raises(ValueError, match=r"z has shape \(7, 3\), posterior \(2, 3\) and prior"):
        vae_jax.aggregate_kl(z, Normal(z[:2], 1.0), PRIOR)
    with pytest.raises(ValueError, match=r"z has shape \(2, 7, 3\), posterior"):
        vae_jax.aggregate_kl(jnp.stack([z, z]), POSTERIOR, PRIOR)
