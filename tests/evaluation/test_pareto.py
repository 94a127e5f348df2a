"""The shape of a tail against draws of SciPy's generalised Pareto and Zhang & Stephens' formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.evaluation import pareto

SHAPES = [-0.3, 0.0, 0.3, 0.7, 1.5]


def zhang_and_stephens(excess):
    """The quick estimate of their section 3, in float64, and the prior of Vehtari et al."""
    num = len(excess)
    points = np.arange(1, 31 + int(np.sqrt(num)))
    theta = 1 / excess[-1] + (1 - np.sqrt(len(points) / (points - 0.5))) / (
        3 * excess[int(num / 4 + 0.5) - 1]
    )
    k = np.array([np.log1p(-t * excess).mean() for t in theta])
    log_likelihood = num * (np.log(-theta / k) - k - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    theta = (theta * weights).sum() / weights.sum()
    return (num * np.log1p(-theta * excess).mean() + 5) / (num + 10)


@pytest.mark.parametrize("num_samples", [500, 20_000])
@pytest.mark.parametrize("k", SHAPES)
def test_shape_of_draws_whose_shape_is_known(k, num_samples):
    rng, num_sets = np.random.default_rng(0), 50
    weights = 1 + stats.genpareto(k).rvs((num_samples, num_sets), random_state=rng)
    size = pareto.tail_size(num_samples)
    log_weights = np.sort(np.log(weights), axis=0)[-(size + 1) :]
    found = np.asarray(pareto.shape(jnp.asarray(log_weights - 90, jnp.float32)), np.float64)
    shares = np.exp(log_weights - log_weights[-1])
    expected = [zhang_and_stephens(column[1:] - column[0]) for column in shares.T]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    # Drawn to 0.5 by a prior worth 10 draws. Its own standard error is (1 + k) / sqrt(M).
    truth = (size * k + 5) / (size + 10)
    assert abs(found.mean() - truth) < 4 * found.std() / np.sqrt(num_sets) + 0.15 / np.sqrt(size)


def test_the_largest_are_kept():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)).astype(np.float32)
    values[50:60] = -np.inf
    values[60:70] = values[70:80]
    kept = jnp.full((11, 3), -jnp.inf)
    for value in values:
        kept = jax.jit(pareto.insert)(kept, value)
    np.testing.assert_array_equal(kept, np.sort(values, axis=0)[-11:])


def test_the_tail_grows_slowly_and_is_bounded():
    sizes = [pareto.tail_size(n) for n in (2, 25, 500, 5000, 10**6)]
    assert sizes == [0, 5, 68, 213, 512]


def test_no_tail():
    same = jnp.full((20, 2), -90.0)
    np.testing.assert_array_equal(pareto.shape(same), -np.inf)
    rounding = jnp.asarray(np.sort(np.random.default_rng(0).normal(size=(20, 2)), axis=0) * 1e-4)
    np.testing.assert_array_equal(pareto.shape(same + rounding.astype(jnp.float32)), -np.inf)
    assert np.isnan(pareto.shape(jnp.arange(5.0)[:, None])).all()  # of 4 above the least
    assert np.isfinite(pareto.shape(jnp.arange(6.0)[:, None])).all()


def test_one_weight_that_carries_all():
    """The others' excesses are below float32's least number."""
    log_weights = np.sort(np.random.default_rng(0).normal(size=(69, 4)) * 300, axis=0)
    k = pareto.shape(jnp.asarray(log_weights, jnp.float32))
    assert np.isfinite(k).all()
    assert (k > 1).all()  # more than any threshold
