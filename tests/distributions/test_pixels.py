"""Distributions of pixels and of heavy tails where they are hard: at 0, far off, and all 256."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

import vae_jax
from tests.distributions.cases import noise
from vae_jax import (
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Laplace,
    MixtureOfDiscretizedLogistics,
    Normal,
    RelaxedBernoulli,
    RelaxedCategorical,
    StudentT,
)

# Bytes

LEVELS = np.arange(256)


@pytest.mark.parametrize("mean", [0.5, -0.02, 1.3, -40.0])
def test_all_bytes_have_a_probability_of_one(mean):
    scale = jnp.logspace(-4, 4, 17)[None, :, None]
    of = DiscretizedLogistic(jnp.full((1, 17, 1), mean), scale)
    total = special.logsumexp(of.log_prob(jnp.asarray(LEVELS)[:, None, None]), axis=0)
    np.testing.assert_allclose(total, 0, atol=2e-5)


def test_a_byte_has_the_share_of_its_interval():
    mean, scale = 0.3, 0.02
    edges = np.r_[-np.inf, LEVELS[1:] / 256, np.inf]
    exact = stats.logistic(mean, scale)
    share = np.where(edges[1:] < mean, np.diff(exact.cdf(edges)), -np.diff(exact.sf(edges)))
    found = DiscretizedLogistic(jnp.float32(mean), scale, event_ndims=0).log_prob(LEVELS)
    np.testing.assert_allclose(found, np.log(share), rtol=2e-6)


def test_one_channel_and_one_component_are_a_discretized_logistic():
    mean, scale = jnp.asarray(noise(0, 4, 5, 1)), jnp.exp(jnp.asarray(noise(1, 4, 5, 1)))
    none = jnp.zeros((4, 5, 0, 1))
    level = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 1), np.uint8)
    mixture = MixtureOfDiscretizedLogistics(
        jnp.zeros((4, 5, 1)), mean[..., None], scale[..., None], none, event_ndims=2
    )
    plain = DiscretizedLogistic(mean, scale, event_ndims=2)
    np.testing.assert_allclose(mixture.log_prob(level), plain.log_prob(level), rtol=1e-6)
    assert vae_jax.sample(jax.random.key(0), mixture, 3).shape == level.shape


def test_the_mean_of_a_mixture_is_that_of_its_draws():
    """Far from 0 and 1, which cut the draws, and to within what a level is wide."""
    rng = np.random.default_rng(0)
    mixture = MixtureOfDiscretizedLogistics(
        jnp.asarray(rng.normal(size=(4, 2)), jnp.float32),
        jnp.asarray(rng.uniform(0.4, 0.6, (4, 3, 2)), jnp.float32),
        0.01,
        jnp.asarray(rng.uniform(-1, 1, (4, 3, 2)), jnp.float32),
        event_ndims=2,
    )
    draws = (np.asarray(vae_jax.sample(jax.random.key(0), mixture, 20_000)) + 0.5) / 256
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - mixture.mean) < 4.5 * error).all()


# Greys


def test_the_continuous_bernoulli_from_logit_0_to_where_exp_overflows():
    """Value, gradient and mean against the formulae as they stand, in 80 bits."""
    sizes = np.array([1e-6, 1e-3, 0.4999, 0.5001, 1.0, 20.0, 300.0, 1e4])
    logits = np.concatenate([-sizes, [0.0], sizes]).astype(np.float32)
    exact, nonzero = logits.astype(np.longdouble), logits != 0
    safe = np.where(nonzero, exact, 1)
    normaliser = np.where(nonzero, np.log(np.expm1(safe) / safe), 0)
    mean = np.where(nonzero, 1 / -np.expm1(-safe) - 1 / safe, 0.5)
    value = np.linspace(0, 1, len(logits), dtype=np.float32)
    of = ContinuousBernoulli(logits, event_ndims=0)
    expected = (exact * value - normaliser).astype(float)
    np.testing.assert_allclose(of.log_prob(value), expected, rtol=2e-6, atol=2e-7)
    np.testing.assert_allclose(of.mean, mean.astype(float), rtol=2e-6)
    gradient = jax.grad(lambda of: of.log_prob(value).sum())(of).logits
    np.testing.assert_allclose(gradient, (value - mean).astype(float), atol=1e-6)


# Heavy tails


def test_student_is_scipys_from_one_to_ten_million_degrees_of_freedom():
    """Where the logarithms of two gamma functions leave nothing of their difference."""
    df = np.logspace(-2, 7, 19).astype(np.float32)
    value = np.array([0.0, 1.0, 300.0], np.float32)[:, None]
    found = StudentT(jnp.zeros(19), 1.0, df, event_ndims=0).log_prob(value + 0 * df)
    expected = stats.t.logpdf(value.astype(float), df.astype(float))
    near = value[:, 0] < 300  # where SciPy's own is exact for large df
    np.testing.assert_allclose(found[near], expected[near], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(found[~near][:, :9], expected[~near][:, :9], rtol=2e-6)
    limit = StudentT(jnp.zeros(1), 1.0, 1e12).log_prob(jnp.ones(1))
    np.testing.assert_allclose(limit, stats.norm.logpdf(1), rtol=1e-6)


# Relaxed


@pytest.mark.parametrize(
    ("kind", "share"),
    [(RelaxedBernoulli, special.expit), (RelaxedCategorical, special.softmax)],
)
def test_straight_through_draws_are_discrete_with_the_gradient_of_the_relaxed(kind, share):
    logits = np.array([0.4, -1.0, 0.1], np.float32)
    hard = np.asarray(kind(logits, 0.7).sample_straight_through(jax.random.key(0), (20_000,)))
    assert set(np.unique(hard)) == {0, 1}
    if kind is RelaxedCategorical:
        assert (hard.sum(axis=1) == 1).all()
    for ones, probability in zip(hard.sum(axis=0), share(logits.astype(float)), strict=True):
        assert stats.binomtest(int(ones), 20_000, probability).pvalue > 1e-3

    def total(logits, sample):
        return sample(kind(logits, 0.7), jax.random.key(1)) @ jnp.arange(1.0, 4.0)

    soft, straight = (
        jax.grad(total)(logits, sample) for sample in (kind.sample, kind.sample_straight_through)
    )
    np.testing.assert_array_equal(soft, straight)
    assert (soft != 0).all()


# The best scale


def test_no_scale_is_better_than_the_optimal_one():
    x, mean = noise(0, 4, 2, 3, 1), noise(1, 5, 4, 2, 3, 1)
    found = vae_jax.optimal_scale(x, mean)
    best = optimize.minimize_scalar(
        lambda log_scale: -stats.norm.logpdf(x, mean, np.exp(log_scale)).sum()
    )
    np.testing.assert_allclose(np.log(found), best.x, atol=1e-6)
    value = Normal(mean, found, event_ndims=3).log_prob(x).sum()
    np.testing.assert_allclose(value, -best.fun, rtol=1e-6)

    def log_prob(mean, hold):
        scale = vae_jax.optimal_scale(x, mean)
        scale = jax.lax.stop_gradient(scale) if hold else scale
        return Normal(mean, scale, event_ndims=3).log_prob(x).sum()

    moving, held = (jax.grad(log_prob)(jnp.asarray(mean), hold) for hold in (False, True))
    np.testing.assert_allclose(moving, held, atol=1e-4)  # at a maximum the scale moves nothing
    assert vae_jax.optimal_scale(x, x) == np.float32(1e-3)
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\) but mean has shape \(2, 4\)"):
        vae_jax.optimal_scale(jnp.zeros((4, 2)), jnp.zeros((2, 4)))


# What does not fit


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (DiscretizedLogistic(jnp.zeros(2), 1.0), jnp.array([-1, 256])),
        (ContinuousBernoulli(jnp.zeros(2)), jnp.array([0.5, 1.5])),
        (RelaxedBernoulli(jnp.zeros(2), 1.0), jnp.array([0.5, -0.5])),
        (RelaxedCategorical(jnp.zeros(2), 1.0), jnp.array([1.5, -0.5])),
        (Categorical(jnp.zeros((2, 3)), event_ndims=1), jnp.array([0, 3])),
    ],
    ids=lambda of: type(of).__name__,
)
def test_a_value_outside_is_refused_where_it_is_known_and_impossible_where_not(of, value):
    with pytest.raises(ValueError, match=f"the value of a {type(of).__name__} is "):
        of.log_prob(value)
    assert jax.jit(of.log_prob)(value) == -np.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StudentT(jnp.zeros(2), 1.0, 0.0), "df has a least value of 0.0: it must be pos"),
        (lambda: Laplace(jnp.zeros(2), jnp.ones(3)), r"scale has shape \(3,\): give them the same"),
        (lambda: RelaxedBernoulli(jnp.zeros(2), jnp.ones(2)), "pass one number for all variables"),
        (
            lambda: RelaxedCategorical(jnp.zeros(2), 1.0, event_ndims=0),
            "event_ndims is 0: the axis",
        ),
        (lambda: Categorical(jnp.zeros((2, 3)), event_ndims=2), "cannot have 3 event axes"),
        (
            lambda: MixtureOfDiscretizedLogistics(
                jnp.zeros(5), jnp.zeros((3, 5)), 1.0, jnp.zeros((2, 5)), event_ndims=1
            ),
            r"\(5,\), \(3, 5\) and \(2, 5\): they must be \[\*b, K\]",
        ),
        (
            lambda: MixtureOfDiscretizedLogistics(
                jnp.zeros(5), jnp.zeros((3, 5)), 1.0, jnp.zeros((3, 5))
            ),
            r"event_ndims is 3 of pixels of shape \(3,\)",
        ),
    ],
)
def test_parameters_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_byte_is_no_float():
    with pytest.raises(TypeError, match="DiscretizedLogistic has dtype float32: pass int"):
        DiscretizedLogistic(jnp.zeros(2), 1.0).log_prob(jnp.zeros(2))
