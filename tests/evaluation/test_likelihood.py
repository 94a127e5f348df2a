"""Importance sampling against the linear-Gaussian VAE, whose log p(x) is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import Categorical, MultivariateNormal, Normal

RNG = np.random.default_rng(0)
WEIGHT, BIAS, NOISE_SCALE = RNG.normal(size=(5, 2)), RNG.normal(size=5), 0.7
X = RNG.normal(size=(3, 5)).astype(np.float32)
MARGINAL_COVARIANCE = WEIGHT @ WEIGHT.T + NOISE_SCALE**2 * np.eye(5)
LOG_PX = stats.multivariate_normal(BIAS, MARGINAL_COVARIANCE).logpdf(X)

COVARIANCE = np.linalg.inv(np.eye(2) + WEIGHT.T @ WEIGHT / NOISE_SCALE**2)
MEAN = (X - BIAS) @ WEIGHT @ COVARIANCE / NOISE_SCALE**2
PRIOR = Normal(jnp.zeros(2), 1.0)


def posterior(spread):
    """The exact posterior, its standard deviations multiplied by `spread`."""
    factor = spread * np.linalg.cholesky(np.stack([COVARIANCE] * len(X)))
    return MultivariateNormal(jnp.asarray(MEAN, jnp.float32), jnp.asarray(factor, jnp.float32))


def decode(z):
    mean = jnp.vectorize(
        lambda z: jnp.asarray(WEIGHT, z.dtype) @ z + jnp.asarray(BIAS, z.dtype),
        signature="(z)->(x)",
    )(z)
    return Normal(mean, NOISE_SCALE)


def estimate(key, posterior, num_samples, chunk_size=1):
    return vae_jax.log_likelihood(
        key, X, posterior, PRIOR, decode, num_samples=num_samples, chunk_size=chunk_size
    )


estimate = jax.jit(estimate, static_argnums=(2, 3))


# log p(x)


def test_proposal_that_is_exact_has_no_error():
    value, error, effective, pareto_k = estimate(jax.random.key(0), posterior(1.0), 100)
    np.testing.assert_allclose(value, LOG_PX, rtol=0, atol=1e-4)
    np.testing.assert_allclose(error, 0, atol=1e-3)
    np.testing.assert_allclose(effective, 100, rtol=1e-5)
    assert (pareto_k < 0.5).all()


@pytest.fixture(scope="module")
def repeated():
    """1000 independent estimates of 500 draws."""
    keys = jax.random.split(jax.random.key(0), 1000)
    return jax.tree.map(
        np.asarray, jax.jit(jax.vmap(lambda key: estimate(key, posterior(1.5), 500, 500)))(keys)
    )


def test_truth_is_within_two_standard_errors_as_often_as_it_should_be(repeated):
    covered = np.abs(repeated.value - LOG_PX) <= 2 * repeated.standard_error
    nominal = 2 * stats.norm.cdf(2) - 1
    error = np.sqrt(nominal * (1 - nominal) / len(covered))
    assert (np.abs(covered.mean(axis=0) - nominal) <= 4 * error).all()


def test_standard_error_is_the_spread_of_the_estimates(repeated):
    spread = repeated.value.std(axis=0, ddof=1)
    # A standard deviation of n values is known to 1 / sqrt(2 n).
    relative_error = 1 / np.sqrt(2 * len(repeated.value))
    ratio = repeated.standard_error.mean(axis=0) / spread
    np.testing.assert_allclose(ratio, 1, atol=4 * relative_error)


def test_estimate_is_low_by_half_the_squared_standard_error(repeated):
    error = repeated.value.std(axis=0, ddof=1) / np.sqrt(len(repeated.value))
    bias = repeated.value.mean(axis=0) - LOG_PX
    assert (np.abs(bias + 0.5 * np.square(repeated.standard_error).mean(axis=0)) <= 4 * error).all()


def test_chunk_size_changes_rounding_only():
    key = jax.random.key(0)
    results = [estimate(key, posterior(1.5), 60, chunk_size) for chunk_size in (1, 12, 60)]
    for result in results[1:]:
        np.testing.assert_allclose(result.value, results[0].value, rtol=1e-5)
        for name in ("standard_error", "effective_sample_size", "pareto_k"):
            expected = getattr(results[0], name)
            np.testing.assert_allclose(getattr(result, name), expected, rtol=1e-3)


def test_estimate_and_error_are_those_of_the_weights():
    key, num_samples = jax.random.key(0), 60
    value, error, effective, _ = estimate(key, posterior(1.5), num_samples, 20)
    keys = [jax.random.fold_in(key, i) for i in range(num_samples)]
    z = np.stack([vae_jax.sample(k, posterior(1.5)) for k in keys]).astype(np.float64)
    log_weights = (
        stats.norm(z @ WEIGHT.T + BIAS, NOISE_SCALE).logpdf(X).sum(-1)
        + stats.norm.logpdf(z).sum(-1)
        - stats.multivariate_normal(np.zeros(2), 1.5**2 * COVARIANCE).logpdf(z - MEAN)
    )
    expected = special.logsumexp(log_weights, axis=0) - np.log(num_samples)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    weights = np.exp(log_weights - log_weights.max(axis=0))
    expected = weights.std(axis=0, ddof=1) / weights.mean(axis=0) / np.sqrt(num_samples)
    np.testing.assert_allclose(error, expected, rtol=1e-3)
    expected = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    np.testing.assert_allclose(effective, expected, rtol=1e-4)


def test_conditional_prior_gives_log_px_given_the_label():
    mean = RNG.normal(size=(3, 2)).astype(np.float32)
    prior = Normal(jnp.asarray(mean), 1.0)
    expected = [
        stats.multivariate_normal(WEIGHT @ m + BIAS, MARGINAL_COVARIANCE).logpdf(x)
        for m, x in zip(mean, X, strict=True)
    ]
    shifted = MEAN + mean @ COVARIANCE  # the exact posterior under this prior
    factor = np.linalg.cholesky(np.stack([COVARIANCE] * 3))
    exact = MultivariateNormal(jnp.asarray(shifted, jnp.float32), jnp.asarray(factor, jnp.float32))
    value, *_ = vae_jax.log_likelihood(
        jax.random.key(0), X, exact, prior, decode, num_samples=4, chunk_size=2
    )
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-4)


def test_weights_of_zero_are_minus_infinity_and_not_nan():
    # x cannot be of class 1 where z < 0.
    def decode(z):
        impossible = jnp.where(z[..., 0] < 0, -jnp.inf, 0.0)
        return Categorical(jnp.stack([jnp.zeros_like(impossible), impossible], axis=-1))

    proposal = Normal(jnp.array([[-100.0], [100.0], [0.0]]), 1.0)
    x = jnp.array([1, 1, 1])
    value, error, effective, pareto_k = vae_jax.log_likelihood(
        jax.random.key(0), x, proposal, proposal, decode, num_samples=2000, chunk_size=500
    )
    np.testing.assert_allclose(value[:2], [-np.inf, np.log(0.5)], rtol=1e-5)
    assert error[0] == pareto_k[0] == np.inf
    assert effective[0] == 0
    np.testing.assert_allclose(effective[1], 2000, rtol=1e-5)
    np.testing.assert_allclose(error[1], 0, atol=1e-3)
    assert np.abs(value[2] - np.log(0.25)) <= 4 * error[2]


def test_a_proposal_that_fails_says_so():
    """1.5 times too wide in 200 dimensions: 15 nats off, with a standard error of 0.06."""
    prior = Normal(jnp.zeros(200), 1.0)
    proposal = Normal(jnp.zeros(200), 1.5)
    result = jax.jit(
        lambda key: vae_jax.log_likelihood(
            key,
            jnp.zeros(1),
            proposal,
            prior,
            lambda z: Normal(jnp.zeros((*z.shape[:-1], 1)), 1.0),
            num_samples=500,
        )
    )(jax.random.key(0))
    assert stats.norm.logpdf(0) - result.value > 5
    assert result.standard_error < 1  # which it cannot exceed
    assert result.effective_sample_size < 10
    assert result.pareto_k > 0.7


def test_a_million_draws_are_summed_as_in_float64():
    """Summed in float32 alone, the value drifts by many of its standard errors."""
    num_samples, scale = 10**6, np.float32(1.2)
    x = RNG.normal(size=(2, 1)).astype(np.float32)
    proposal = Normal(jnp.zeros((2, 1)), scale)
    key = jax.random.key(0)
    result = jax.jit(
        lambda key: vae_jax.log_likelihood(
            key,
            x,
            proposal,
            Normal(jnp.zeros(1), 1.0),
            lambda z: Normal(z, 1.0),
            num_samples=num_samples,
            chunk_size=5,
        )
    )(key)

    def draw(index):
        return vae_jax.sample(jax.random.fold_in(key, index), proposal)

    z = np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(num_samples)), np.float64)
    log_weights = stats.norm.logpdf(x, z) + stats.norm.logpdf(z) - stats.norm.logpdf(z, 0, scale)
    log_weights = log_weights.sum(-1)
    weights = np.exp(log_weights - log_weights.max(axis=0))
    expected = special.logsumexp(log_weights, axis=0) - np.log(num_samples)
    np.testing.assert_allclose(result.value, expected, rtol=0, atol=2e-6)
    expected = weights.std(axis=0) / weights.mean(axis=0) / np.sqrt(num_samples)
    np.testing.assert_allclose(result.standard_error, expected, rtol=1e-4)
    expected = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    np.testing.assert_allclose(result.effective_sample_size, expected, rtol=1e-5)


def test_far_out_weights_do_not_underflow():
    far = Normal(jnp.full(2, 40.0), 1.0)  # log-weights of about -1600, whose exp is 0
    estimate = vae_jax.log_likelihood(
        jax.random.key(0),
        jnp.zeros(1),
        far,
        PRIOR,
        lambda z: Normal(z[..., :1], 1.0),
        num_samples=8,
    )
    assert jnp.isfinite(estimate.value)
    assert jnp.isfinite(estimate.standard_error)


def test_memory_does_not_grow_with_the_draws():
    def temporary_bytes(num_samples):
        compiled = estimate.lower(jax.random.key(0), posterior(1.5), num_samples, 10).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one_hundred_thousand_draws = 100_000 * 3 * 2 * 4
    assert temporary_bytes(100_000) - temporary_bytes(100) < 0.5 * one_hundred_thousand_draws


@pytest.mark.parametrize(
    ("num_samples", "chunk_size", "message"),
    [
        (1, 1, "num_samples is 1: a standard error takes 2 at least"),
        (0, 1, "num_samples is 0"),
        (10, 3, "chunk_size is 3: it must divide num_samples, 10"),
        (10, 0, "chunk_size is 0: it must divide"),
        (10, -5, "chunk_size is -5: it must divide"),
        (10, 20, "chunk_size is 20: it must divide"),
    ],
)
def test_numbers_of_draws_that_cannot_be(num_samples, chunk_size, message):
    with pytest.raises(ValueError, match=message):
        estimate(jax.random.key(0), posterior(1.5), num_samples, chunk_size)


def test_shapes_that_do_not_match():
    # As many draws in a chunk as examples: nothing may pair a draw with an example.
    one = jax.tree.map(lambda a: a[0], posterior(1.0))
    with pytest.raises(ValueError, match=r"likelihood has shape \(3, 5\) but x of shape \(3, 5\)"):
        vae_jax.log_likelihood(
            jax.random.key(0), X, one, PRIOR, decode, num_samples=6, chunk_size=3
        )
