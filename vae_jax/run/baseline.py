"""A mixture of components that know of no dependence: what a VAE is to code data better than."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Few enough to be the least that is asked of a VAE: of the 8 x 8 digits four have -22.7 nats, which
# a decoder of one hidden layer passes with two latents and does not with one.
NUM_COMPONENTS, _STEPS = 4, 25


def of_bits(train: Any, test: Any) -> np.ndarray:
    """log p(x) [N] of zeros and ones under a mixture of Bernoullis, fitted to others by EM.

    What is missing, NaN, is marginalised: it is no part of a fit, nor of a score.

    Args:
      train: [M, *event], zeros and ones.
      test: [N, *event].
    """
    x, y = _seen(train), _seen(test)
    centre = 0.99 * _centre(x) + 0.01 * x.value.sum() / x.there.sum()

    def fit(share: np.ndarray) -> np.ndarray:
        mean: np.ndarray = (share.T @ x.value + centre) / (share.T @ x.there + 1)
        return mean

    def score(of: _Seen, mean: np.ndarray) -> np.ndarray:
        p = np.clip(mean, 1e-6, 1 - 1e-6)
        found: np.ndarray = of.value @ np.log(p / (1 - p)).T + of.there @ np.log1p(-p).T
        return found

    return _fitted(x, y, fit, score)


def of_numbers(train: Any, test: Any) -> np.ndarray:
    """log p(x) [N] of numbers under a mixture of Gaussians, all of one scale; see `of_bits`."""
    x, y = _seen(train), _seen(test)
    least = 1e-3 * x.value[x.there > 0].var() + 1e-12

    def fit(share: np.ndarray) -> tuple[np.ndarray, float]:
        mean = (share.T @ x.value + _centre(x)) / (share.T @ x.there + 1)
        return mean, float((share * _squares(x, mean)).sum() / x.there.sum() + least)

    def score(of: _Seen, fitted: tuple[np.ndarray, float]) -> np.ndarray:
        mean, variance = fitted
        constant = of.there.sum(axis=1, keepdims=True) * np.log(2 * np.pi * variance)
        found: np.ndarray = -0.5 * (_squares(of, mean) / variance + constant)
        return found

    return _fitted(x, y, fit, score)


def of_bytes(train: Any, test: Any) -> np.ndarray:
    """log p(x) [N] of bytes, each as wide as the density of `of_numbers` is taken over."""
    number = [(np.asarray(x, np.float64) + 0.5) / 256 for x in (train, test)]
    found: np.ndarray = of_numbers(*number) - np.log(256) * _seen(test).there.sum(axis=1)
    return found


class _Seen(NamedTuple):
    """Rows as numbers [N, D], 0 where one is missing, and 1 where it is there, else 0."""

    value: np.ndarray
    there: np.ndarray


def _seen(x: Any) -> _Seen:
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    missing = np.isnan(flat)
    return _Seen(np.where(missing, 0, flat), (~missing).astype(np.float64))


def _centre(x: _Seen) -> np.ndarray:
    """Means [D], that of all where an entry is missing from every row."""
    num = x.there.sum(axis=0)
    whole = x.value.sum() / num.sum()
    centre: np.ndarray = np.where(num > 0, x.value.sum(axis=0) / np.maximum(num, 1), whole)
    return centre


def _squares(x: _Seen, mean: np.ndarray) -> np.ndarray:
    """Squared distances [N, K], over what is there."""
    lengths = np.square(x.value).sum(axis=1)[:, None] + x.there @ np.square(mean).T
    squares: np.ndarray = np.maximum(lengths - 2 * x.value @ mean.T, 0.0)
    return squares


def _fitted(x: _Seen, y: _Seen, fit: Callable[..., Any], score: Callable[..., Any]) -> np.ndarray:
    """log p(y) after 25 steps of EM on x, from the nearest of a few of its rows."""
    num = min(NUM_COMPONENTS, len(x.value))
    rows = np.random.default_rng(0).choice(len(x.value), num, replace=False)
    first = np.where(x.there[rows] > 0, x.value[rows], _centre(x))
    nearest = _squares(x, first).argmin(axis=1)
    share = np.eye(num)[nearest]
    for _ in range(_STEPS):
        parameters, weight = fit(share), np.log(share.mean(axis=0) + 1e-12)
        joint = score(x, parameters) + weight
        share = np.exp(joint - _log_sum(joint)[:, None])
    return _log_sum(score(y, parameters) + weight)


def _log_sum(a: np.ndarray) -> np.ndarray:
    most = a.max(axis=1)
    found: np.ndarray = most + np.log(np.exp(a - most[:, None]).sum(axis=1))
    return found
