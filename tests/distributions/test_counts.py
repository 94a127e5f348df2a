"""A negative binomial whose concentrations are shared by the batch: density, derivatives, draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vae_jax import NegativeBinomial, ZeroInflated, sample

RNG = np.random.default_rng(0)
R = np.exp(RNG.uniform(-5, 9, 40)).astype(np.float32)
MEAN = np.exp(RNG.uniform(-6, 8, (3, 6, 40))).astype(np.float32)
VALUE = np.where(RNG.random((6, 40)) < 0.3, 0, RNG.poisson(MEAN[0])).astype(np.float32)


@jax.jit
def densities(mean, r, value):
    """Of each event, with concentrations that are shared and that are not; and of each entry."""
    full = jnp.broadcast_to(r, mean.shape)
    return (
        NegativeBinomial(mean, r).log_prob(value),
        NegativeBinomial(mean, full).log_prob(value),
        NegativeBinomial(mean, r, event_ndims=0).log_prob(value),
    )


def test_the_density_is_scipys_and_that_of_a_concentration_for_each_entry():
    r = R.astype(np.float64)
    expected = stats.nbinom(r, r / (r + MEAN)).logpmf(VALUE)
    shared, full, each = densities(MEAN, R, VALUE)
    np.testing.assert_allclose(shared, expected.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(shared, full, rtol=1e-6)
    np.testing.assert_allclose(each, expected, rtol=2e-4, atol=2e-5)


def test_its_derivatives_are_those_of_digamma_in_both_modes():
    k, mean, r = (a.astype(np.float64) for a in (VALUE, MEAN, R))
    of_mean = k / mean - (k + r) / (mean + r)
    of_r = special.digamma(k + r) - special.digamma(r) + np.log(r / (mean + r))
    of_r = (of_r + 1 - (r + k) / (mean + r)).sum((0, 1))

    def total(mean, r):
        return NegativeBinomial(mean, r).log_prob(VALUE).sum()

    backward = jax.jit(jax.grad(total, argnums=(0, 1)))(MEAN, R)
    np.testing.assert_allclose(backward[0], of_mean, rtol=1e-3, atol=1e-6)
    # Of a large concentration hardly anything depends on it: by what moves the logarithm of it.
    np.testing.assert_allclose(R * backward[1], r * of_r, rtol=1e-4, atol=1e-2)
    ones = jnp.ones_like(MEAN), jnp.asarray(R)
    forward = jax.jit(lambda m, r: jax.jvp(total, (m, r), ones)[1])(MEAN, R)
    np.testing.assert_allclose(forward, of_mean.sum() + (r * of_r).sum(), rtol=1e-3)


def test_zeros_for_two_reasons_by_the_formula():
    logits = RNG.normal(size=MEAN.shape).astype(np.float32)
    r = R.astype(np.float64)
    counted = stats.nbinom(r, r / (r + MEAN)).pmf(VALUE)
    share = special.expit(logits.astype(np.float64))
    expected = np.log(share * (VALUE == 0) + (1 - share) * counted + 1e-300)
    likely = expected > -600
    each = jax.jit(
        lambda m, r, of, k: ZeroInflated(NegativeBinomial(m, r, event_ndims=0), of).log_prob(k)
    )(MEAN, R, logits, VALUE)
    np.testing.assert_allclose(np.asarray(each)[likely], expected[likely], rtol=2e-4, atol=2e-5)


def test_draws_have_the_means_shape():
    draw = functools.partial(sample, sample_shape=5)
    drawn = jax.eval_shape(draw, jax.random.key(0), NegativeBinomial(MEAN, R))
    assert (drawn.shape, drawn.dtype) == ((5, *MEAN.shape), jnp.int32)


@pytest.mark.long
def test_draws_are_those_of_a_concentration_for_each_entry():
    mean, r = jnp.array([[5.0, 0.5], [50.0, 2.0]]), jnp.array([2.0, 0.7])
    draw = jax.jit(lambda mean, r: sample(jax.random.key(0), NegativeBinomial(mean, r), 50))
    shared, full = draw(mean, r), draw(mean, jnp.broadcast_to(r, mean.shape))
    np.testing.assert_array_equal(shared, full)
    assert len(np.unique(shared)) > 20


def test_what_is_no_count_and_a_shape_that_is_none():
    with pytest.raises(ValueError, match=r"of a NegativeBinomial is \d\.5: pass counts"):
        NegativeBinomial(MEAN, R).log_prob(VALUE + 0.5)
    traced = jax.jit(NegativeBinomial(MEAN, R).log_prob)(-VALUE - 1)
    assert (np.asarray(traced) == -np.inf).all()
    with pytest.raises(ValueError, match=r"concentration has shape \(39,\)"):
        NegativeBinomial(MEAN, R[:39])
