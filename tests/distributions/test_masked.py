"""What is behind a mask changes nothing: no value, no gradient, of one distribution or a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vae_jax
from vae_jax import (
    Bernoulli,
    Categorical,
    Columns,
    Joint,
    Masked,
    Mixture,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    OrderedLogistic,
    Poisson,
    ZeroInflated,
)

OBSERVED = np.array([[True, False, True], [False, False, True]])
X = np.where(OBSERVED, [[0.3, 0.0, -2.0], [1.0, 2.0, 0.5]], np.nan).astype(np.float32)


def test_nan_behind_a_mask_reaches_no_gradient():
    mean = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32)

    def total(x, mean, scale):
        draws = jnp.stack([mean, 2 * mean])  # an axis that the mask does not have
        found = Masked(Normal(draws, jnp.broadcast_to(scale, draws.shape)), OBSERVED).log_prob(x)
        return found.sum(), found

    gradients, found = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(X, mean, np.float32(0.5))
    density = np.where(OBSERVED, scipy.stats.norm.logpdf(X, [mean, 2 * mean], 0.5), 0)
    np.testing.assert_allclose(found, density.sum(-1), rtol=1e-5)
    residual = np.where(OBSERVED, (X - [mean, 2 * mean]) / 0.25, 0)
    np.testing.assert_allclose(gradients[0], -residual.sum(0), rtol=1e-5)
    np.testing.assert_allclose(gradients[1], residual[0] + 2 * residual[1], rtol=1e-4)
    of_scale = np.where(OBSERVED, residual**2 * 0.5 - 1 / 0.5, 0).sum()
    np.testing.assert_allclose(gradients[2], of_scale, rtol=1e-4)


def test_nan_says_itself_what_was_not_observed():
    normal = Normal(jnp.zeros((2, 3)), 1.0)
    found = Masked(normal).log_prob(X)
    np.testing.assert_array_equal(found, Masked(normal, OBSERVED).log_prob(X))


def test_a_joint_of_masked_parts_in_a_bound():
    posterior = prior = Normal(jnp.zeros((2, 1)), 1.0)
    parts = (
        Masked(Normal(jnp.zeros((2, 3)), 1.0), OBSERVED),
        Masked(Bernoulli(jnp.zeros((2, 2))), jnp.array([True, False])),
    )
    x = X, jnp.array([[1.0, jnp.nan], [0.0, jnp.nan]])
    bound = vae_jax.elbo(x, jnp.zeros((2, 1)), posterior, prior, Joint(parts))
    normal = np.where(OBSERVED, scipy.stats.norm.logpdf(X), 0).sum(-1)
    np.testing.assert_allclose(bound.value, normal - np.log(2), rtol=1e-5)


def test_a_row_without_some_of_its_columns():
    """Each part's own density of those that are there; a draw has all columns, in their order."""
    row = Columns(
        (
            Normal(jnp.zeros(1), 2.0),
            OrderedLogistic(jnp.zeros(1), jnp.array([-1.0, 1.0])),
            ZeroInflated(NegativeBinomial(jnp.full(1, 5.0), 2.0), jnp.zeros(1)),
            Categorical(jnp.array([[0.0, 1.0]]), event_ndims=1),
            Bernoulli(jnp.full(1, 30.0)),
        )
    )
    drawn = np.asarray(vae_jax.sample(jax.random.key(0), row, 200))
    assert drawn.dtype == np.float32
    assert set(drawn[:, 1]) == {0, 1, 2}
    assert drawn[:, 2].max() > 5
    assert set(drawn[:, 3]) == {0, 1}
    assert drawn[:, 4].min() == 1
    each = [np.where(np.arange(5) == i, drawn[0], np.nan) for i in range(5)]
    whole, *alone = row.log_prob(jnp.asarray(np.stack([drawn[0], *each], dtype=np.float32)))
    np.testing.assert_allclose(whole, sum(alone), rtol=1e-5)
    assert row.log_prob(jnp.full(5, jnp.nan)) == 0
    # What is no class has no probability, and is not rounded to one.
    assert row.log_prob(jnp.array([0.0, 0.5, 0.0, 0.0, 0.0])) == -np.inf


def test_a_mixture_without_event_axes_is_masked_entry_by_entry():
    mixture = Mixture(jnp.zeros((3, 2)), Normal(jnp.zeros((3, 2)), 1.0, event_ndims=0))
    found = Masked(mixture, OBSERVED[0]).log_prob(X[0])
    np.testing.assert_allclose(found, np.where(OBSERVED[0], scipy.stats.norm.logpdf(X[0]), 0), 1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: Masked(n, jnp.ones(3)), "observed has dtype float32: pass bool"),
        (lambda n: Masked(n, jnp.ones(2, bool)), r"observed has shape \(2,\) but Normal has shape"),
        (
            lambda n: Masked(MultivariateNormal(jnp.zeros(3), jnp.eye(3)), jnp.ones(3, bool)),
            "MultivariateNormal has no density of an entry alone",
        ),
        (lambda n: Columns(()), "there is no part"),
        (lambda n: Columns((n, Normal(jnp.zeros((2, 3)), 1.0))), r"shape \(2, 3\) with 1 event"),
        (lambda n: Columns((n,)).log_prob(jnp.zeros(3, int)), "has dtype int32: pass floats"),
        (lambda n: Poisson(jnp.ones(1)).log_prob(jnp.array([0.5])), "a Poisson is 0.5: pass count"),
        (lambda n: Poisson(jnp.zeros(1)), "rate has a least value of 0.0"),
        (lambda n: ZeroInflated(n, jnp.zeros(3)), "counts is a Normal"),
        (lambda n: OrderedLogistic(jnp.zeros(1), jnp.zeros(2)), "a step of 0.0: they must"),
    ],
)
def test_what_cannot_be_right_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(Normal(jnp.zeros(3), 1.0))


def test_what_is_no_count_has_no_probability_under_jit():
    log_prob = jax.jit(Poisson(jnp.ones(4), event_ndims=0).log_prob)
    found = log_prob(jnp.array([2.0, 0.5, -1.0, jnp.nan]))
    np.testing.assert_allclose(found, [scipy.stats.poisson.logpmf(2, 1), *[-np.inf] * 3], rtol=1e-6)
