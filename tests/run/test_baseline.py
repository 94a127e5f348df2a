"""The mixture that a VAE is to be better than: densities by SciPy, and what it finds."""

import itertools

import numpy as np
import pytest
import scipy.stats

from vae_jax.run import baseline

RNG = np.random.default_rng(0)
CENTRES = RNG.random((4, 12)) > 0.5
ROWS = CENTRES[np.arange(800) % 4] ^ (RNG.random((800, 12)) < 0.1)


def test_of_one_component_it_is_the_independent_one(monkeypatch):
    monkeypatch.setattr(baseline, "NUM_COMPONENTS", 1)
    x = ROWS.astype(np.float32)
    found = baseline.of_bits(x[:600], x[600:])
    expected = scipy.stats.bernoulli(x[:600].mean(0)).logpmf(x[600:]).sum(1)
    np.testing.assert_allclose(found, expected, atol=0.02)  # but for the smoothing
    y = RNG.normal(3, 2, (800, 5))
    found = baseline.of_numbers(y[:600], y[600:])
    scale = np.sqrt(np.square(y[:600] - y[:600].mean(0)).mean())
    expected = scipy.stats.norm(y[:600].mean(0), scale).logpdf(y[600:]).sum(1)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_probabilities_of_all_bits_sum_to_one():
    every = np.array(list(itertools.product([0, 1], repeat=8)))
    found = baseline.of_bits(RNG.random((50, 8)) > 0.3, every)
    np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-9)


def test_the_density_integrates_to_one_and_that_of_bytes_sums():
    x = RNG.normal(0.5, 0.1, (60, 1))
    line = np.linspace(-2, 3, 20_001)[:, None]
    density = np.exp(baseline.of_numbers(x, line))
    np.testing.assert_allclose(np.trapezoid(density, line[:, 0]), 1, rtol=1e-6)
    found = baseline.of_bytes((256 * x).astype(np.uint8), np.arange(256, dtype=np.uint8)[:, None])
    np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bits", "numbers"])
def test_it_finds_components_and_nears_the_truth(kind):
    if kind == "bits":
        x, fit = ROWS.astype(np.float64), baseline.of_bits
        noisy = [scipy.stats.bernoulli(np.where(c, 0.9, 0.1)).logpmf for c in CENTRES]
    else:
        x, fit = CENTRES[np.arange(800) % 4] + RNG.normal(0, 0.2, (800, 12)), baseline.of_numbers
        noisy = [scipy.stats.norm(c, 0.2).logpdf for c in CENTRES.astype(float)]
    true = scipy.special.logsumexp([of(x[600:]).sum(1) - np.log(4) for of in noisy], axis=0)
    assert true.mean() - 0.6 < fit(x[:600], x[600:]).mean() < true.mean() + 0.1


@pytest.mark.parametrize("fit", [baseline.of_bits, baseline.of_numbers, baseline.of_bytes])
def test_what_is_missing_is_marginalised(monkeypatch, fit):
    """Of one component: what each entry's own rows say, summed over the entries that are there."""
    monkeypatch.setattr(baseline, "NUM_COMPONENTS", 1)
    holes = RNG.random(ROWS.shape) < 0.3
    holes[:, -1], holes[[0, 200]] = True, True  # an entry of no row, rows of no entry
    whole = ROWS if fit is baseline.of_bits else RNG.normal(9, 2, ROWS.shape)
    x = np.where(holes, np.nan, whole)
    found = fit(x[200:], x[:200])
    mean = np.append(np.nanmean(x[200:, :-1], axis=0), np.nan)
    if fit is baseline.of_bits:
        each = np.where(x[:200] == 1, np.log(mean), np.log1p(-mean))
    else:  # a byte's width is 1
        scale = np.sqrt(np.nanmean(np.square(x[200:] - mean)))
        each = scipy.stats.norm(mean, scale).logpdf(x[:200])
    np.testing.assert_allclose(found, np.where(holes[:200], 0, each).sum(axis=1), atol=0.05)


@pytest.mark.parametrize("fit", [baseline.of_bits, baseline.of_numbers])
def test_holes_do_not_hide_the_components(fit):
    """With a third of the entries gone the mixture still beats independent entries."""
    x = np.where(RNG.random(ROWS.shape) < 0.3, np.nan, ROWS)
    mean = np.nanmean(x[:600], axis=0)
    each = np.where(x[600:] == 1, np.log(mean), np.log1p(-mean))
    if fit is baseline.of_numbers:
        each = scipy.stats.norm(mean, np.nanstd(x[:600])).logpdf(x[600:])
    assert fit(x[:600], x[600:]).mean() > np.nansum(each, axis=1).mean() + 1
