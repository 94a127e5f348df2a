"""Faults of a kind, each with its right value: what a natural program gets must be true."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal

# Ranges and certainties


@pytest.mark.parametrize("value", [255.0, -1.0, 1.5])
def test_a_bernoulli_refuses_what_is_no_share(value):
    with pytest.raises(ValueError, match=r"scale pixels to \[0, 1\], or binarise them"):
        Bernoulli(jnp.zeros(3)).log_prob(jnp.full(3, value))


@pytest.mark.parametrize(("logit", "sure"), [(jnp.inf, 1.0), (-jnp.inf, 0.0)])
def test_an_infinite_logit_is_a_certainty(logit, sure):
    logits, value = jnp.full(3, logit), jnp.full(3, sure)
    assert Bernoulli(logits).log_prob(value) == 0
    assert Bernoulli(logits).log_prob(1 - value) < -1e38
    assert np.isfinite(jax.grad(lambda v: Bernoulli(logits).log_prob(v))(value)).all()


# Narrow numbers


def test_bfloat16_draws_have_their_frequency():
    """At logit 6 a zero comes 494.5 times in 200,000; sigmoid(6) in bfloat16 is 1."""
    drawn = vae_jax.sample(jax.random.key(0), Bernoulli(jnp.full(1, 6.0, jnp.bfloat16)), 200_000)
    zeros = int((drawn == 0).sum())
    assert stats.binomtest(zeros, 200_000, 1 / (1 + np.exp(6.0))).pvalue > 1e-3


@pytest.mark.parametrize(("dtype", "num"), [("uint8", 256), ("int8", 200)])
def test_uniform_classes_in_narrow_integers(dtype, num):
    values = jnp.arange(100).astype(dtype)
    np.testing.assert_allclose(Categorical(jnp.zeros((100, num))).log_prob(values), -np.log(num))


# Shapes


def test_parts_that_would_broadcast_by_luck():
    joint = Joint((Categorical(jnp.zeros((3, 4))), Categorical(jnp.zeros((3, 1, 4)))))
    with pytest.raises(ValueError, match=r"parts of a Joint have batches \(3,\) and \(3, 1\)"):
        joint.log_prob((jnp.zeros(3, int), jnp.zeros((3, 1), int)))


def test_scores_that_would_broadcast_by_luck():
    with pytest.raises(ValueError, match=r"value has shape \(3,\) but log_prob has shape \(3, 1\)"):
        vae_jax.score_function(jnp.zeros(3), jnp.zeros((3, 1)))


def test_numpy_integers_are_shapes():
    draws = vae_jax.sample(jax.random.key(0), Normal(jnp.zeros(2), 1.0), np.int64(3))
    assert draws.shape == (3, 2)
    draws = vae_jax.sample(jax.random.key(0), Normal(jnp.zeros(2), 1.0), (np.int32(3), 4))
    assert draws.shape == (3, 4, 2)


# Types


def test_a_subclass_has_the_divergence_of_its_family():
    class Mine(Normal):
        pass

    p, q = (jnp.array([0.5, -1.0]), jnp.array([0.3, 2.0])), (jnp.zeros(2), jnp.ones(2))
    expected = vae_jax.kl_divergence(Normal(*p), Normal(*q))
    assert vae_jax.kl_divergence(Mine(*p), Normal(*q)) == expected
    assert vae_jax.kl_divergence(Normal(*p), Mine(*q)) == expected


def test_distributions_can_be_compared():
    one, other = Normal(jnp.zeros(2), 1.0), Normal(jnp.zeros(2), 1.0)
    assert one == one
    assert (one == other) in (True, False)
    assert len({one, other}) == 2


# Memory and time


def test_one_factor_scores_many_values_without_copies():
    """15 MB of values; a factor for each would be 1 GB."""
    distribution = MultivariateNormal(jnp.zeros(64), jnp.eye(64))
    values = jnp.asarray(np.random.default_rng(0).normal(size=(60_000, 64)), jnp.float32)
    compiled = jax.jit(distribution.log_prob).lower(values).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * values.nbytes
    expected = stats.norm.logpdf(np.asarray(values, np.float64)).sum(axis=1)
    np.testing.assert_allclose(compiled(values), expected, rtol=1e-5)


def test_a_diagonal_prior_takes_no_solve():
    draws = np.random.default_rng(0).normal(size=(50, 8, 8))
    factor = jnp.asarray(np.tril(0.1 * draws) + np.eye(8), jnp.float32)
    posterior = MultivariateNormal(jnp.ones((50, 8)), factor)
    scale = jnp.linspace(0.5, 2.0, 8)
    prior = Normal(jnp.zeros(8), scale)
    program = jax.jit(vae_jax.kl_divergence).lower(posterior, prior).as_text()
    assert "triangular" not in program
    full = MultivariateNormal(jnp.zeros(8), jnp.diag(scale))
    np.testing.assert_allclose(
        vae_jax.kl_divergence(posterior, prior), vae_jax.kl_divergence(posterior, full), rtol=1e-5
    )


# A closed form that is not the KL: linear Gaussian hierarchies, whose joints are Gaussians


def gaussian(order, weights, scales):
    """Mean and covariance of (z1, z2, z3) where each is weight * the one before it + noise."""
    num = len(order)
    transform = np.zeros((num, num))
    for i, layer in enumerate(order):
        transform[layer, layer] = scales[i]
        if i:
            transform[layer] += weights[i] * transform[order[i - 1]]
    return transform @ transform.T


def exact_kl(q, p):
    num = len(q)
    trace = np.trace(np.linalg.solve(p, q))
    return 0.5 * (trace - num + np.linalg.slogdet(p)[1] - np.linalg.slogdet(q)[1])


def drawn(key, order, weights, scales, num):
    """Draws (z1, z2, ...) [num, 1] and the distribution that each was drawn from."""
    z, parts = {}, {}
    for i, layer in enumerate(order):
        mean = weights[i] * z[order[i - 1]] if i else jnp.zeros((num, 1))
        parts[layer] = Normal(mean, jnp.full((num, 1), scales[i]))
        z[layer] = vae_jax.sample(jax.random.fold_in(key, i), parts[layer])
    return z, parts


def at(z, order, weights, scales):
    """The same factors of another hierarchy, at given draws."""
    return {
        layer: Normal(
            weights[i] * z[order[i - 1]] if i else jnp.zeros_like(z[layer]),
            jnp.full(z[layer].shape, scales[i]),
        )
        for i, layer in enumerate(order)
    }


@pytest.mark.parametrize("num_layers", [2, 3])
@pytest.mark.parametrize("bottom_up", [True, False], ids=["bottom-up", "top-down, a ladder"])
def test_the_kl_of_a_hierarchy_is_the_truth_in_either_order(num_layers, bottom_up):
    layers = list(range(num_layers))
    q_order = layers if bottom_up else layers[::-1]
    q_of = ((0.0, 0.9, 0.7), (0.6, 0.5, 0.4))
    p_order, p_of = layers[::-1], ((0.0, 0.8, 0.6), (1.0, 0.7, 0.5))
    truth = exact_kl(gaussian(q_order, *q_of), gaussian(p_order, *p_of))
    num = 100_000
    z, q = drawn(jax.random.key(0), q_order, *q_of, num)
    p = at(z, p_order, *p_of)
    order = p_order  # as a program lists them: from the top
    ancestral = not bottom_up
    posterior, prior = (Joint(tuple(of[i] for i in order), ancestral=ancestral) for of in (q, p))
    x = jnp.zeros((num, 1))
    bound = vae_jax.elbo(x, tuple(z[i] for i in order), posterior, prior, Normal(x, 1.0))
    error = np.asarray(bound.kl).std() / np.sqrt(num)
    assert abs(float(bound.kl.mean()) - truth) < 5 * error
    if bottom_up:  # what the sum of closed forms would say
        wrong = Joint(posterior.parts, ancestral=True), Joint(prior.parts, ancestral=True)
        closed = vae_jax.elbo(x, tuple(z[i] for i in order), *wrong, Normal(x, 1.0)).kl
        assert abs(float(closed.mean()) - truth) > 20 * error
