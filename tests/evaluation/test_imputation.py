"""What is imputed against a linear Gaussian model, whose conditional is a formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vae_jax
from vae_jax import Masked, Normal, networks
from vae_jax.evaluation import imputation

RNG = np.random.default_rng(0)
WEIGHTS, SCALE = RNG.normal(size=(2, 4)), 0.5
X = np.array(
    [[0.5, np.nan, -1.0, np.nan], [np.nan] * 4, [np.nan, 1.0, 2.0, 0.0], [0.1, 0.2, 0.3, 0.4]],
    np.float32,
)
# From a proposal that is not the posterior: the weights are what makes it right.
MODEL = vae_jax.VAE(
    lambda key, x, label=None: None,
    lambda params, x, label=None: Normal(jnp.full((len(x), 2), 0.3), 1.3),
    lambda params, label=None: Normal(jnp.zeros(2), 1.0),
    lambda params, z, label=None: Masked(Normal(z @ params, SCALE)),
)
PARAMS = jnp.asarray(WEIGHTS, jnp.float32)


def conditional(x):
    """Mean and standard deviation of each missing entry, by the joint covariance in float64."""
    covariance = WEIGHTS.T @ WEIGHTS + SCALE**2 * np.eye(4)
    o, m = np.flatnonzero(~np.isnan(x)), np.flatnonzero(np.isnan(x))
    gain = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    left = covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]
    mean, deviation = x.astype(float), np.zeros(4)
    mean[m], deviation[m] = gain @ x[o], np.sqrt(np.diag(left))
    return mean, deviation


@pytest.mark.parametrize(("batch_size", "at_once"), [(3, 6_000), (4, 1_000)])
def test_the_exact_conditional_of_a_linear_model(batch_size, at_once, monkeypatch):
    monkeypatch.setattr(imputation, "_BYTES", 4 * 4 * batch_size * at_once)
    filled = vae_jax.impute(
        jax.random.key(0),
        *(MODEL, PARAMS, X),
        num_samples=6_000,
        quantiles=(0.05, 0.5, 0.95),
        num_draws=1_000,
        batch_size=batch_size,
    )
    mean, deviation = map(np.stack, zip(*map(conditional, X), strict=True))
    assert filled.quantiles.shape == (3, 4, 4)
    assert filled.draws.shape == (1_000, 4, 4)
    least = filled.effective_sample_size.min()
    assert 100 < least < 6_000
    error = deviation / np.sqrt(least)
    assert (np.abs(filled.mean - mean) <= 5 * error + 1e-6).all()
    for q, found in zip((0.05, 0.5, 0.95), filled.quantiles, strict=True):
        assert (np.abs(found - (mean + scipy.stats.norm.ppf(q) * deviation)) <= 10 * error).all()
    np.testing.assert_allclose(filled.draws.mean(0), mean, atol=8 * error.max())
    np.testing.assert_allclose(filled.draws.std(0), deviation, rtol=0.1, atol=1e-4)
    known = ~np.isnan(X)
    for array in (filled.mean, *filled.quantiles, *filled.draws[:9]):
        np.testing.assert_array_equal(array[known], X[known])


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"x": np.zeros((2, 4), int)}, TypeError, "x has dtype int64: pass floats"),
        ({"num_samples": 1}, ValueError, "num_samples is 1: give 2 or more"),
        ({"quantiles": (5,)}, ValueError, r"quantiles are \(5,\)"),
        (
            {"model": MODEL._replace(decode=lambda params, z, label=None: Normal(z @ params, 1.0))},
            ValueError,
            r"the weights of example 0 are no numbers: .*ZeroFilled.*Masked",
        ),
    ],
)
def test_what_cannot_be_imputed(how, error, message):
    given = {"model": MODEL, "params": PARAMS, "x": X, "num_samples": 4} | how
    with pytest.raises(error, match=message):
        vae_jax.impute(jax.random.key(0), **given)


def test_a_network_sees_what_is_missing_apart_from_zero():
    network = networks.ZeroFilled(networks.MLP((2,), hidden=()))
    x = jnp.array([[0.0, 1.0], [jnp.nan, 1.0]])
    params = network.init(jax.random.key(0), x)
    (kernel,) = (a for a in jax.tree.leaves(params) if a.ndim == 2)
    both = np.array([[0, 1, 1, 1], [0, 1, 0, 1]], np.float32)
    np.testing.assert_allclose(network.apply(params, x), both @ np.asarray(kernel), rtol=1e-5)


def test_the_decoder_of_a_row():
    import flax.linen as nn

    parts = (
        networks.NormalDecoder(nn.Dense(4), per_entry=True),
        networks.NegativeBinomialDecoder(nn.Dense(1), 3.0),
        networks.OrderedLogisticDecoder(4),
        networks.ClassDecoder(3),
    )
    decoder = networks.ColumnsDecoder(networks.MLP((8,), hidden=()), parts)
    z = jnp.zeros((5, 2))
    likelihood = decoder.apply(decoder.init(jax.random.key(0), z), z)
    assert likelihood.shape == (5, 5)
    _, counts, ordered, classes = likelihood.parts
    np.testing.assert_allclose(counts.mean, 3, rtol=1e-6)
    each = jnp.broadcast_to(jnp.arange(4)[:, None, None], (4, 5, 1))
    np.testing.assert_allclose(ordered.log_prob(each), np.log(1 / 4), rtol=1e-5)
    np.testing.assert_allclose(classes.log_prob(jnp.zeros((5, 1), int)), np.log(1 / 3), rtol=1e-6)
