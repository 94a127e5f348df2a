"""What is measured of a model, against a linear-Gaussian one, of which all is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vae_jax
from vae_jax.run import probe

N, D, Z = 600, 3, 2
RNG = np.random.default_rng(0)
WEIGHTS = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], np.float32)
OFFSETS = np.array([[0.0, 0, 0], [3.0, 0, 0]], np.float32)  # of the labels
NOISE = 0.5
# q = p(z|x) = N(PULL (x - offset), COVARIANCE)
COVARIANCE = np.linalg.inv(np.eye(Z) + WEIGHTS @ WEIGHTS.T / NOISE**2)
PULL = COVARIANCE @ WEIGHTS / NOISE**2


def model_of(*, labelled=False):
    """The exact posterior of the data below; p(x|z) has the parameters' weights and noise."""
    tril = jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)

    def offset(label):
        return jnp.asarray(OFFSETS)[label] if labelled else jnp.zeros((1, D))

    def encode(params, x, label=None):
        mean = (x - offset(label)) @ jnp.asarray(PULL.T, jnp.float32)
        return vae_jax.MultivariateNormal(mean, jnp.broadcast_to(tril, (*mean.shape, Z)))

    def prior(params, label=None):
        return vae_jax.Normal(jnp.zeros(Z), 1.0, event_ndims=1)

    def decode(params, z, label=None):
        mean = z @ params["weights"] + jnp.broadcast_to(offset(label), (*z.shape[:-1], D))
        return vae_jax.Normal(mean, params["noise"], event_ndims=1)

    return vae_jax.VAE(None, encode, prior, decode)


MODEL, TRUE = model_of(), {"weights": jnp.asarray(WEIGHTS), "noise": jnp.float32(NOISE)}


def batch(num, *, labelled=False):
    z = RNG.normal(size=(num, Z))
    label = np.arange(num, dtype=np.int32) // 2 % 2  # runs of two: half of the others are others'
    x = z @ WEIGHTS + NOISE * RNG.normal(size=(num, D)) + OFFSETS[label * labelled]
    return vae_jax.Batch(x.astype(np.float32), label if labelled else None)


def splits_of(**options):
    return {name: batch(N, **options) for name in ("train", "validation", "test")}


def probed(splits, model=MODEL, **params):
    return probe.probe(jax.random.key(0), model, TRUE | params, splits)


def assert_mean(found, expected):
    """Of as many noisy values, that their means agree within four standard errors."""
    off = found - expected
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))


@pytest.fixture(scope="module")
def exact():
    """The measurements of the true model, and its data."""
    splits = splits_of()
    return probed(splits), splits


def marginal(x):
    covariance = WEIGHTS.T @ WEIGHTS + NOISE**2 * np.eye(D)
    return scipy.stats.multivariate_normal(np.zeros(D), covariance).logpdf(x)


def test_the_bound_is_log_p_of_x_and_no_weight_is_heavy(exact):
    found, splits = exact
    for name in splits:
        assert_mean(found.elbo[name], marginal(splits[name].image))  # of ten draws each
    assert (found.pareto_k < 0.7).all()  # all weights are alike


def test_kl_and_use_of_the_latents(exact):
    found, splits = exact
    mean = splits["test"].image @ PULL.T
    log_det = np.linalg.slogdet(COVARIANCE)[1]
    kl = 0.5 * (np.trace(COVARIANCE) + np.square(mean).sum(1) - Z - log_det)
    np.testing.assert_allclose(found.kl, kl.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.moved, mean.var(0), rtol=1e-4)
    assert found.kl_per_dimension is None  # no sum over dimensions
    assert found.label_gain is None
    assert found.mixture is None


def test_the_gain_by_ones_own_code(exact):
    """E log p(x|z) - log p(x|z'), z' of another example: |W (z' - z)|^2 in units of the noise."""
    found, _ = exact
    # z and x share W z; W z' is independent: the two squares differ by those of W z and W z'.
    own = NOISE**2 * D  # E |x - W z|^2 with z from p(z|x): of two draws of one posterior
    other = np.trace(WEIGHTS.T @ WEIGHTS) * 2 + NOISE**2 * D
    expected = (other - own) / (2 * NOISE**2)
    assert_mean(found.code_gain, expected)


def test_ranks_are_alike_where_the_likelihood_is_true_and_only_there(exact):
    found, splits = exact
    assert found.ranks.sum() == N * D
    assert scipy.stats.chisquare(found.ranks).pvalue > 1e-3
    wide = probed(splits, noise=jnp.float32(2 * NOISE))
    # Values fall in the middle of draws that are twice as wide: the outer eighths are nearly empty.
    draws = scipy.stats.norm.cdf(RNG.normal(size=100_000) * NOISE)
    share = ((draws < 0.1) | (draws > 0.9)).mean()
    outer = (wide.ranks[:2].sum() + wide.ranks[-2:].sum()) / wide.ranks.sum()
    assert abs(outer - share) < 0.02


def test_codes_of_a_true_model_are_draws_of_its_prior(exact):
    found, _ = exact
    for of in found.codes["test"].T, found.of_prior["test"].T:
        for values in of:
            assert scipy.stats.kstest(values, "norm").pvalue > 1e-3


def test_a_decoder_without_z_gains_nothing(exact):
    _, splits = exact
    found = probed(splits, weights=jnp.zeros((Z, D)))
    np.testing.assert_allclose(found.code_gain, 0, atol=1e-5)
    assert found.kl > 0.5


def test_the_gain_by_ones_own_label():
    splits = splits_of(labelled=True)
    found = probed(splits, model_of(labelled=True))
    x, label = splits["test"]
    own = marginal(x - OFFSETS[label])
    other = np.roll(label, 1)
    # The exact posterior under either label, so that each bound is a log p(x|c).
    assert_mean(found.elbo["test"], own)
    assert_mean(found.label_gain, own - marginal(x - OFFSETS[other]))
    assert np.abs(found.label_gain[label == other]).max() < 1e-4  # the same draws


def test_what_is_missing_has_no_rank():
    x = jnp.array([[0.0, jnp.nan], [9.0, jnp.nan]])
    ranks = probe._rank(jax.random.key(0), x, jnp.zeros((19, 2, 2)))
    assert ranks[:, 1].tolist() == [-1, -1]
    assert ranks[1, 0] == 19  # above all
    many = probe._rank(jax.random.key(1), jnp.zeros(20_000), jnp.zeros((19, 20_000)))
    assert scipy.stats.chisquare(np.bincount(many)).pvalue > 1e-3  # ties by lot
