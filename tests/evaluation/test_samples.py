"""What generated examples are worth: against SciPy, closed forms and all distances by hand."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.neighbors import NearestNeighbors

import vae_jax

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("num", "others", "dim"), [(400, 300, 12), (30, 20, 12), (12, 40, 12)])
def test_the_distance_is_that_by_a_root_of_a_matrix(num, others, dim):
    """Also of fewer examples than features, of whose product's root SciPy knows less."""
    mix = RNG.normal(size=(dim, dim))
    real, made = RNG.normal(size=(num, dim)) @ mix, RNG.normal(0.3, 2, (others, dim))
    a, b = np.cov(real.T), np.cov(made.T)
    root = np.real(scipy.linalg.sqrtm(a @ b))
    means = np.square(real.mean(axis=0) - made.mean(axis=0)).sum()
    expected = means + np.trace(a + b - 2 * root)
    np.testing.assert_allclose(vae_jax.frechet_distance(real, made), expected, rtol=1e-6)
    assert vae_jax.frechet_distance(real, real) < 1e-9


def test_of_many_draws_of_gaussians_the_distance_is_theirs():
    """Of diagonal ones: |m - n|^2 + sum (s - t)^2."""
    mean, scale, other = np.array([1.0, -2.0, 0.0]), np.array([1.0, 3.0, 0.5]), np.ones(3)
    real, made = RNG.normal(mean, scale, (200_000, 3)), RNG.normal(0, other, (200_000, 3))
    expected = np.square(mean).sum() + np.square(scale - other).sum()
    np.testing.assert_allclose(vae_jax.frechet_distance(real, made), expected, rtol=0.02)


def share_by_hand(points, others, num_neighbors):
    between = np.linalg.norm(others[:, None] - others, axis=-1)
    radius = np.sort(between, axis=1)[:, num_neighbors]  # the nearest of all is the point itself
    return (np.linalg.norm(points[:, None] - others, axis=-1) <= radius).any(axis=1).mean()


def test_precision_and_recall_are_those_of_all_distances():
    real, made = RNG.normal(size=(200, 6)), RNG.normal(0.7, 0.6, (150, 6))
    found = vae_jax.precision_and_recall(real, made, num_neighbors=4)
    assert found.precision == share_by_hand(made, real, 4)
    assert found.recall == share_by_hand(real, made, 4)
    assert found.precision > found.recall + 0.2  # the generated are narrower than the real


def test_in_parts_and_far_from_the_origin_they_are_those_of_scikit_learn():
    real, made = RNG.normal(1e4, 1, (1500, 3)), RNG.normal(1e4 + 0.5, 1, (1200, 3))
    found = vae_jax.precision_and_recall(real, made)
    for points, others, share in (made, real, found.precision), (real, made, found.recall):
        tree = NearestNeighbors(n_neighbors=3, algorithm="kd_tree").fit(others)
        radius = tree.kneighbors()[0][:, -1]
        distances, indices = tree.radius_neighbors(points, radius.max())
        near = [(d <= radius[i]).any() for d, i in zip(distances, indices, strict=True)]
        assert share == np.mean(near)


def test_precision_tells_garbage_and_recall_what_is_missing():
    left, right = RNG.normal(size=(200, 2)), RNG.normal([50, 0], size=(200, 2))
    both, more = np.concatenate([left, right]), RNG.normal(size=(400, 2))
    half = vae_jax.precision_and_recall(both, more)
    assert half.precision > 0.9
    assert 0.4 < half.recall < 0.5  # nothing on the right
    assert vae_jax.precision_and_recall(both, more + np.array([0, 100])) == (0, 0)


def test_twins_lie_where_they_are():
    """Of four alike the third neighbor is at no distance, and rounding must not make it one."""
    real = np.repeat(RNG.normal(size=(50, 64)), 4, axis=0)
    assert vae_jax.precision_and_recall(real, real[::4], num_neighbors=3).precision == 1
    assert vae_jax.precision_and_recall(real, real[::4] + 1e-3).precision == 0


@pytest.mark.parametrize("of", [vae_jax.frechet_distance, vae_jax.precision_and_recall])
@pytest.mark.parametrize(
    ("real", "made", "message"),
    [
        (np.ones((9, 2)), np.ones((9, 3)), r"generated has shape \(9, 3\) and real \(9, 2\)"),
        (np.ones((9, 2, 2)), np.ones((9, 2, 2)), r"real has shape \(9, 2, 2\).*give features"),
        (np.ones((9, 2)), np.ones((1, 2)), r"there are 1 generated examples: give . or more"),
        (np.ones((9, 2)), np.full((9, 2), np.nan), "generated has a value that is not finite"),
    ],
)
def test_what_has_no_distance(of, real, made, message):
    with pytest.raises(ValueError, match=message):
        of(real, made)
    with pytest.raises(ValueError, match="num_neighbors is 0: give 1 or more"):
        vae_jax.precision_and_recall(np.ones((9, 2)), np.ones((9, 2)), 0)
