"""Annealed importance sampling against the linear-Gaussian VAE, and against quadrature."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import Bernoulli, Categorical, Joint, Normal

RNG = np.random.default_rng(0)
NUM, NUM_PIXELS, LATENT_DIM, NOISE_SCALE = 60, 5, 3, 0.7
WEIGHT, BIAS = RNG.normal(size=(NUM_PIXELS, LATENT_DIM)), RNG.normal(size=NUM_PIXELS)
Z = RNG.normal(size=(NUM, LATENT_DIM)).astype(np.float32)
NOISE = NOISE_SCALE * RNG.normal(size=(NUM, NUM_PIXELS))
X = (Z @ WEIGHT.T + BIAS + NOISE).astype(np.float32)
LOG_PX = stats.multivariate_normal(
    BIAS, WEIGHT @ WEIGHT.T + NOISE_SCALE**2 * np.eye(NUM_PIXELS)
).logpdf(X)

PRIOR = Normal(jnp.zeros(LATENT_DIM), 1.0)
AT_PRIOR = Normal(jnp.zeros((NUM, LATENT_DIM)), 1.0)
COVARIANCE = np.linalg.inv(np.eye(LATENT_DIM) + WEIGHT.T @ WEIGHT / NOISE_SCALE**2)
POSTERIOR = Normal(  # the best that a diagonal one can be, and too wide
    ((X - BIAS) @ WEIGHT @ COVARIANCE / NOISE_SCALE**2).astype(np.float32),
    jnp.broadcast_to(1.2 * jnp.sqrt(jnp.diag(jnp.asarray(COVARIANCE, jnp.float32))), Z.shape),
)


def decode(z):
    mean = jnp.einsum("ij,...j->...i", jnp.asarray(WEIGHT, z.dtype), z)
    return Normal(mean + jnp.broadcast_to(jnp.asarray(BIAS, z.dtype), mean.shape), NOISE_SCALE)


def one(proposal, row=0):
    return Normal(proposal.mean[row], proposal.scale[row])


@functools.partial(jax.jit, static_argnames=("num_chains", "num_temperatures"))
def bidirectional(key, x, z, proposal, **of):
    return vae_jax.bidirectional(key, x, z, proposal, PRIOR, decode, **of)


@functools.partial(jax.jit, static_argnames=("num_chains", "num_temperatures"))
def forward(key, x, proposal, **of):
    return vae_jax.annealed_log_likelihood(key, x, proposal, PRIOR, decode, **of)


def error_of_mean(estimate):
    return float(np.sqrt(np.square(estimate.standard_error).sum()) / len(estimate.value))


@pytest.mark.long
@pytest.mark.parametrize("proposal", [AT_PRIOR, POSTERIOR], ids=["prior", "posterior"])
def test_the_sandwich_is_narrow_with_the_truth_and_the_iwae_estimate_inside(proposal):
    lower, upper = bidirectional(
        jax.random.key(0), X, Z, proposal, num_chains=16, num_temperatures=1000
    )
    below, above = float(lower.value.mean()), float(upper.value.mean())
    slack = [4 * error_of_mean(estimate) for estimate in (lower, upper)]
    assert max(slack) < 0.05
    assert above - below <= 0.05
    assert below - slack[0] < LOG_PX.mean() < above + slack[1]
    iwae = jax.jit(
        lambda key: vae_jax.log_likelihood(key, X, POSTERIOR, PRIOR, decode, num_samples=5000)
    )(jax.random.key(1))
    assert below - slack[0] < iwae.value.mean() < above + slack[1]
    assert lower.effective_sample_size.mean() > 12
    np.testing.assert_allclose(lower.value, LOG_PX, atol=0.6)
    np.testing.assert_allclose(upper.value, LOG_PX, atol=0.6)


def test_with_few_temperatures_each_is_on_its_side():
    lower, upper = bidirectional(
        jax.random.key(0), X, Z, AT_PRIOR, num_chains=2, num_temperatures=10
    )
    for below, above in ((lower.value, LOG_PX), (LOG_PX, upper.value)):
        difference = np.asarray(above - below, np.float64)
        assert difference.mean() > 4 * difference.std() / math.sqrt(NUM)


@pytest.mark.few(1)
@pytest.mark.parametrize("num_temperatures", [1, 2, 8])
def test_weights_are_unbiased_for_any_path(num_temperatures):
    """E[w] = p(x) of chains there; each weight, not only their limit."""
    estimate = forward(
        jax.random.key(2),
        X[0],
        Normal(one(POSTERIOR).mean + 0.3, 0.8),
        num_chains=50_000,
        num_temperatures=num_temperatures,
    )
    ratio = math.exp(float(estimate.value) - LOG_PX[0])
    assert abs(ratio - 1) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.02


def test_weights_of_the_way_back_are_unbiased():
    """E[w] = 1 / p(x), over the exact draw too: with x held, z is drawn from p(z|x) anew."""
    mean = (X[0] - BIAS) @ WEIGHT @ COVARIANCE / NOISE_SCALE**2
    z = RNG.multivariate_normal(mean, COVARIANCE, size=20_000).astype(np.float32)
    x = np.broadcast_to(X[0], (len(z), NUM_PIXELS))
    # Narrower than the posterior everywhere: a wide one has weights without a variance.
    scale = 0.9 / np.sqrt(np.diag(np.linalg.inv(COVARIANCE)))
    proposal = Normal(*(np.broadcast_to(a, z.shape).astype(np.float32) for a in (mean, scale)))
    _, upper = bidirectional(jax.random.key(3), x, z, proposal, num_chains=2, num_temperatures=6)
    ratio = np.exp(LOG_PX[0] - np.asarray(upper.value, np.float64))
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(z)) < 0.1


def test_of_a_decoder_that_bends_by_quadrature():
    """p(x) of one latent and ten pixels by Gauss-Hermite, and two far modes to find."""
    x = jnp.array([1.0, 0, 1, 1, 0, 1, 0, 0, 1, 1])
    slope = jnp.linspace(-2, 3, 10)

    def decode(z):
        return Bernoulli(jnp.sin(2 * z) * jnp.broadcast_to(slope, (*z.shape[:-1], 10)) + z**2 / 2)

    nodes, weights = special.roots_hermitenorm(120)
    log_px = np.asarray(decode(jnp.asarray(nodes, jnp.float32)[:, None]).log_prob(x), np.float64)
    expected = special.logsumexp(log_px, b=weights / weights.sum())
    normal = Normal(jnp.zeros(1), 1.0)
    estimate = jax.jit(
        lambda key: vae_jax.annealed_log_likelihood(
            key, x, normal, normal, decode, num_chains=1000, num_temperatures=100
        )
    )(jax.random.key(0))
    assert abs(estimate.value - expected) < 4 * estimate.standard_error < 0.05
    assert np.isfinite(estimate.pareto_k)


def test_estimate_is_that_of_its_weights():
    """One temperature is importance sampling: the figures are those of the same draws."""
    x, proposal = X[0], one(POSTERIOR)
    estimate = forward(jax.random.key(4), x, proposal, num_chains=40, num_temperatures=1)
    assert estimate.value.shape == ()
    assert 1 <= estimate.effective_sample_size <= 40
    ratio = 40 / float(estimate.effective_sample_size) - 1  # the squared coefficient of variation
    np.testing.assert_allclose(estimate.standard_error, math.sqrt(ratio / 39), rtol=1e-3)


@pytest.mark.long
@pytest.mark.relax("numpy_rank_promotion")
def test_distributions_of_another_library():
    of = {"num_chains": 4, "num_temperatures": 20}
    ours = vae_jax.annealed_log_likelihood(jax.random.key(0), X, POSTERIOR, PRIOR, decode, **of)
    proposal = dist.Normal(POSTERIOR.mean, POSTERIOR.scale)
    prior = dist.Normal(jnp.zeros(LATENT_DIM), jnp.ones(LATENT_DIM))
    theirs = vae_jax.annealed_log_likelihood(jax.random.key(0), X, proposal, prior, decode, **of)
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_annealed():
    annealed = functools.partial(vae_jax.annealed_log_likelihood, jax.random.key(0))
    with pytest.raises(ValueError, match="num_chains is 1 and num_temperatures 500: give 2 chains"):
        annealed(X, AT_PRIOR, PRIOR, decode, num_chains=1)
    with pytest.raises(TypeError, match="proposal is a Joint, whose parts cannot move together"):
        annealed(X, Joint((AT_PRIOR,)), Joint((PRIOR,)), decode)
    classes = Categorical(jnp.zeros((NUM, 4)))
    with pytest.raises(TypeError, match="z has dtype int32: what is discrete has no gradient"):
        annealed(X, classes, classes, lambda z: decode(jnp.zeros((*z.shape, LATENT_DIM))))
    with pytest.raises(ValueError, match=r"z has shape \(3,\) but the proposal draws \(60, 3\)"):
        vae_jax.bidirectional(jax.random.key(0), X, Z[0], AT_PRIOR, PRIOR, decode)
