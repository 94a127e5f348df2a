"""MIG, SAP and DCI of factors whose scores are known by hand."""

import importlib
import itertools
import math
import sys

import numpy as np
import pytest
from scipy import stats

import vae_jax

# Every pair of a factor of four values and one of two, many times over.
GRID = np.array([*itertools.product(range(4), range(2))] * 40)
FOUR, TWO = GRID.T


def codes(*columns):
    return np.stack(columns, axis=1).astype(np.float32)


def test_one_latent_a_factor_is_perfect():
    z = codes(-3.0 * FOUR, 0.1 * TWO + 7)
    np.testing.assert_allclose(vae_jax.mutual_information_gap(z, GRID), [1, 1])
    # The other latent guesses: one of four, or one of two.
    np.testing.assert_allclose(
        vae_jax.separated_attribute_predictability(z, GRID), [1 - 1 / 4, 1 - 1 / 2]
    )
    scores = vae_jax.dci(z, GRID)
    np.testing.assert_allclose(scores[:3], [1, 1, 1], atol=0.05)
    np.testing.assert_allclose(scores.importance, np.eye(2), atol=0.02)


def test_the_same_in_two_latents_has_no_gap():
    z = codes(FOUR, -FOUR, TWO)
    np.testing.assert_allclose(vae_jax.mutual_information_gap(z, GRID), [0, 1], atol=1e-12)
    sap = vae_jax.separated_attribute_predictability(z, GRID)
    np.testing.assert_allclose(sap, [0, 0.5], atol=1e-12)
    scores = vae_jax.dci(z, GRID)
    # Each latent is of one factor, but the first factor is in two latents: H = log 2 of log 3.
    np.testing.assert_allclose(scores.disentanglement, 1, atol=0.05)
    np.testing.assert_allclose(
        scores.completeness, (1 - math.log(2) / math.log(3) + 1) / 2, atol=0.05
    )


def test_half_of_a_factor():
    """log 4 in one latent, log 2 of it in the next: a gap of half; thresholds tell 4 and 2 of 4."""
    z = codes(FOUR, FOUR // 2)
    of = GRID[:, :1]
    np.testing.assert_allclose(vae_jax.mutual_information_gap(z, of), [0.5])
    np.testing.assert_allclose(vae_jax.separated_attribute_predictability(z, of), [0.5])


def test_a_class_between_two_others_is_told_by_thresholds():
    middle = (FOUR == 1).astype(int) + 2 * (FOUR > 1)  # three values in a row
    z = codes(middle, TWO)
    sap = vae_jax.separated_attribute_predictability(z, middle[:, None])
    np.testing.assert_allclose(sap, [1 - 1 / 3])


def test_accuracy_is_balanced():
    """Nine of ten are of one class: what knows nothing scores a half, not nine tenths."""
    rare = np.arange(100) % 10 == 0
    z = codes(rare, np.zeros(100))
    sap = vae_jax.separated_attribute_predictability(z, rare.astype(int)[:, None])
    np.testing.assert_allclose(sap, [0.5])


def test_quantities_by_their_squared_correlation():
    v = np.tile([-1.0, 1.0, -1.0, 1.0], 50)
    u = np.tile([-1.0, -1.0, 1.0, 1.0], 50)  # uncorrelated with v, of its variance
    z = codes(2 * v, v + u, np.zeros(200))
    of = np.stack([v, u], axis=1)
    expected = [1 - 0.5, 0.5 - 0]
    np.testing.assert_allclose(
        vae_jax.separated_attribute_predictability(z, of), expected, rtol=1e-6
    )
    scores = vae_jax.dci(codes(v, u), of)
    np.testing.assert_allclose(scores[:3], [1, 1, 1], atol=0.01)


def test_what_is_not_in_the_latents_is_not_predicted():
    rng = np.random.default_rng(0)
    scores = vae_jax.dci(rng.normal(size=(400, 3)), rng.integers(4, size=(400, 2)))
    assert abs(scores.informativeness - 1 / 4) < 0.08  # out of bag: no forest has seen its points
    assert scores.disentanglement < 0.05
    assert scores.completeness < 0.05


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        (np.eye(3), (1, 1)),
        (np.full((2, 2), 0.5), (0, 0)),
        (np.array([[1.0, 0], [0, 1], [0, 0]]), (1, 1)),  # a latent that is not used has no weight
        (np.array([[1.0, 1], [0, 0]]), (0, 1)),
    ],
)
def test_disentanglement_of_importances(importance, expected):
    module = importlib.import_module("vae_jax.evaluation.disentanglement")
    np.testing.assert_allclose(module._disentanglement(importance), expected, atol=1e-12)


def test_disentanglement_by_scipys_entropy():
    module = importlib.import_module("vae_jax.evaluation.disentanglement")
    importance = np.random.default_rng(0).gamma(0.5, size=(5, 3))
    alone = 1 - stats.entropy(importance, axis=1, base=3)
    together = 1 - stats.entropy(importance, axis=0, base=5)
    expected = np.average(alone, weights=importance.sum(1)), together.mean()
    np.testing.assert_allclose(module._disentanglement(importance), expected)


def test_what_cannot_be_scored():
    z = codes(FOUR, TWO)
    for score in (
        vae_jax.mutual_information_gap,
        vae_jax.separated_attribute_predictability,
        vae_jax.dci,
    ):
        with pytest.raises(ValueError, match="factor 1 is 5 throughout: leave it out"):
            score(z, codes(FOUR, np.full(320, 5)).astype(int))
        with pytest.raises(ValueError, match=r"codes has shape \(320, 1\) and factors \(320, 2\)"):
            score(z[:, :1], GRID)
    with pytest.raises(TypeError, match="factors has dtype float64: give integers"):
        vae_jax.mutual_information_gap(z, GRID + 0.0)
    with pytest.raises(ValueError, match="there is one factor"):
        vae_jax.dci(z, GRID[:, :1])


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.metrics", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "vae_jax\[metrics\]"'):
        vae_jax.mutual_information_gap(codes(FOUR, TWO), GRID)
