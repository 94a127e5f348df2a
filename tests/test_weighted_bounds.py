"""Bounds of several draws against SciPy, float64, and against what they tend to with many draws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import Normal

# p(z) = N(0, 1), p(x|z) = N(z, 0.5^2): x is N(0, 1.25), and z given x is N(0.8 x, 0.2).
X = np.array([[-0.4], [0.9], [1.5]], np.float32)
LOG_PX = stats.norm(0, math.sqrt(1.25)).logpdf(X[:, 0])
PRIOR = Normal(jnp.zeros(1), 1.0)
POSTERIOR = Normal(jnp.array([[0.1], [0.5], [0.9]]), 0.5)
MIWAE = functools.partial(vae_jax.miwae, num_groups=3)
CIWAE = functools.partial(vae_jax.ciwae, beta=0.05)
RENYI = functools.partial(vae_jax.renyi, alpha=0.5)
TVO = functools.partial(vae_jax.tvo, betas=(0.0, 0.1, 0.4))


def bound_of(bound, z):
    return bound(X, z, POSTERIOR, PRIOR, Normal(z, 0.5))


def log_weights(z):
    z = np.asarray(z, np.float64)
    log_q = stats.norm(np.asarray(POSTERIOR.mean, np.float64), 0.5).logpdf(z)
    return (stats.norm(z, 0.5).logpdf(X) + stats.norm.logpdf(z) - log_q)[..., 0]


def log_mean_exp(weights):
    return special.logsumexp(weights, axis=0) - math.log(len(weights))


def renyi(weights, alpha):
    return log_mean_exp((1 - alpha) * weights) / (1 - alpha)


def tvo(weights):
    means = [(special.softmax(beta * weights, 0) * weights).sum(0) for beta in (0, 0.1, 0.4)]
    return 0.1 * means[0] + 0.3 * means[1] + 0.6 * means[2]


EXPECTED = {
    "miwae": (MIWAE, lambda w: np.mean([log_mean_exp(g) for g in np.split(w, 3)], axis=0)),
    "ciwae": (CIWAE, lambda w: 0.05 * w.mean(0) + 0.95 * log_mean_exp(w)),
    "tvo": (TVO, tvo),
    **{
        f"renyi {a}": (functools.partial(vae_jax.renyi, alpha=a), functools.partial(renyi, alpha=a))
        for a in (-1.0, 0.0, 0.5, 0.9999, 1.0001, 2.0)
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_value_and_terms_are_scipys(name):
    bound, expected = EXPECTED[name]
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, 12)
    got = jax.jit(functools.partial(bound_of, bound))(z)
    weights = log_weights(z)
    np.testing.assert_allclose(got.value, expected(weights), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.log_likelihood - got.kl, weights.mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.few(3)
@pytest.mark.parametrize("name", EXPECTED)
def test_gradient_is_that_of_differences(name):
    """Of the expected value in float64, along a direction of z."""
    bound, expected = EXPECTED[name]
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, 12)
    gradient = jax.grad(lambda z: bound_of(bound, z).value.sum())(z)
    z, direction = np.asarray(z, np.float64), np.random.default_rng(0).normal(size=z.shape)
    ahead, behind = (expected(log_weights(z + h * direction)).sum() for h in (1e-5, -1e-5))
    np.testing.assert_allclose((gradient * direction).sum(), (ahead - behind) / 2e-5, rtol=2e-4)


def test_ends_of_a_family_are_the_elbo_and_the_iwae():
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, 12)
    elbo = bound_of(functools.partial(vae_jax.elbo, analytic_kl=False), z).value.mean(axis=0)
    iwae = bound_of(vae_jax.iwae, z).value
    for value, want in (
        (bound_of(functools.partial(vae_jax.miwae, num_groups=12), z).value, elbo),
        (bound_of(functools.partial(vae_jax.miwae, num_groups=1), z).value, iwae),
        (bound_of(functools.partial(vae_jax.ciwae, beta=1.0), z).value, elbo),
        (bound_of(functools.partial(vae_jax.ciwae, beta=0.0), z).value, iwae),
        (bound_of(functools.partial(vae_jax.renyi, alpha=1), z).value, elbo),
        (bound_of(functools.partial(vae_jax.renyi, alpha=0), z).value, iwae),
        (bound_of(functools.partial(vae_jax.tvo, betas=(0.0,)), z).value, elbo),
    ):
        np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-6)


def test_piwae_is_a_bound_for_each_network():
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, 12)
    of_decoder, of_encoder = bound_of(functools.partial(vae_jax.piwae, num_groups=3), z)
    jax.tree.map(np.testing.assert_array_equal, of_decoder, bound_of(vae_jax.iwae, z))
    jax.tree.map(np.testing.assert_array_equal, of_encoder, bound_of(MIWAE, z))


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 2.0])
def test_renyi_tends_to_log_px_less_the_divergence(alpha):
    """D_alpha between Gaussians: Gil et al. 2013, table 2."""
    num = 200_000
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, num)
    value = bound_of(functools.partial(vae_jax.renyi, alpha=alpha), z).value
    q, p, shift = 0.25, 0.2, np.asarray(POSTERIOR.mean, np.float64) - 0.8 * X
    mixed = alpha * p + (1 - alpha) * q
    divergence = alpha * shift[:, 0] ** 2 / (2 * mixed) + math.log(p / q) / 2
    divergence += math.log(p / mixed) / (2 * (alpha - 1))
    powers = np.exp((1 - alpha) * log_weights(z))
    error = powers.std(axis=0) / powers.mean(axis=0) / math.sqrt(num) / abs(1 - alpha)
    assert (np.abs(value - (LOG_PX - divergence)) <= 5 * error + 1e-5).all()


def test_tvo_rises_to_log_px_with_its_points():
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, 20_000)
    points = [tuple(float(b) for b in np.arange(n) / n) for n in (1, 2, 4, 64)]
    of = jax.jit(
        lambda betas: bound_of(functools.partial(vae_jax.tvo, betas=betas), z).value,
        static_argnums=0,
    )
    values = np.stack([of(betas) for betas in points])
    assert (np.diff(values, axis=0) > 0).all()
    assert (values <= LOG_PX + 1e-2).all()
    # The error of a left sum is half a step times the rise of the integrand, which is finite here.
    np.testing.assert_allclose(values[-1], LOG_PX, rtol=0, atol=0.06)


@pytest.mark.parametrize("bound", [MIWAE, CIWAE, RENYI, TVO])
def test_impossible_draws_are_left_out_or_known(bound):
    """Draws far out, whose weights underflow, give neither NaN nor a gradient of NaN."""
    z = jnp.concatenate([vae_jax.sample(jax.random.key(0), POSTERIOR, 9), jnp.full((3, 3, 1), 1e3)])
    value, gradient = jax.value_and_grad(lambda z: bound_of(bound, z).value.sum())(z)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("bound", [MIWAE, CIWAE, RENYI, TVO, vae_jax.iwae])
def test_narrow_dtypes_and_an_axis_of_draws(bound):
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, (12, 4))
    value = bound_of(bound, z).value
    assert value.shape == (4, 3)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (z, POSTERIOR, Normal(z, 0.5)))
    z, posterior, likelihood = half
    assert bound(X, z, posterior, PRIOR, likelihood).value.dtype == jnp.float32
    with pytest.raises(
        ValueError, match=r"no axis of draws to reduce: draw it with .*posterior, S"
    ):
        bound(X, POSTERIOR.mean, POSTERIOR, PRIOR, Normal(POSTERIOR.mean, 0.5))


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (functools.partial(vae_jax.miwae, num_groups=5), "num_groups is 5 but z has 12 draws"),
        (functools.partial(vae_jax.miwae, num_groups=0), "num_groups is 0 but z has 12 draws"),
        (functools.partial(vae_jax.piwae, num_groups=13), "num_groups is 13 but z has 12"),
        (functools.partial(vae_jax.ciwae, beta=1.5), r"beta is 1.5: .*from 0 to 1"),
        (functools.partial(vae_jax.ciwae, beta=math.nan), "beta is nan"),
        (functools.partial(vae_jax.renyi, alpha=math.inf), "alpha is inf: give a finite order"),
        (functools.partial(vae_jax.tvo, betas=()), r"betas is \(\)"),
        (functools.partial(vae_jax.tvo, betas=(0.1, 0.5)), r"betas is \(0.1, 0.5\): let it rise"),
        (functools.partial(vae_jax.tvo, betas=(0.0, 1.0)), r"betas is \(0.0, 1.0\)"),
        (functools.partial(vae_jax.tvo, betas=(0.0, math.nan)), r"betas is \(0.0, nan\)"),
    ],
)
def test_parameters_that_cannot_be(bound, message):
    with pytest.raises(ValueError, match=message):
        bound_of(bound, jnp.zeros((12, 3, 1)))
