"""A mixture of components that know of no dependence: what a VAE is to code data better than."""

from collections.abc import Callable
from typing import Any

import numpy as np

# Few enough to be the least that is asked of a VAE: of the 8 x 8 digits four have -22.7 nats, which
# a decoder of one hidden layer passes with two latents and does not with one.
NUM_COMPONENTS, _STEPS = 4, 25


def of_bits(train: Any, test: Any) -> np.ndarray:
    """log p(x) [N] of zeros and ones under a mixture of Bernoullis, fitted to others by EM.

    Args:
      train: [M, *event], zeros and ones.
      test: [N, *event].
    """
    x, y = _flat(train), _flat(test)
    centre = 0.99 * x.mean(axis=0, keepdims=True) + 0.01 * x.mean()

    def fit(share: np.ndarray) -> np.ndarray:
        mean: np.ndarray = (share.T @ x + centre) / (share.sum(axis=0)[:, None] + 1)
        return mean

    def score(a: np.ndarray, mean: np.ndarray) -> np.ndarray:
        p = np.clip(mean, 1e-6, 1 - 1e-6)
        found: np.ndarray = a @ np.log(p / (1 - p)).T + np.log1p(-p).sum(axis=1)
        return found

    return _fitted(x, y, fit, score)


def of_numbers(train: Any, test: Any) -> np.ndarray:
    """log p(x) [N] of numbers under a mixture of Gaussians, all of one scale; see `of_bits`."""
    x, y = _flat(train), _flat(test)
    least = 1e-3 * x.var() + 1e-12

    def fit(share: np.ndarray) -> tuple[np.ndarray, float]:
        mean = (share.T @ x + x.mean(axis=0)) / (share.sum(axis=0)[:, None] + 1)
        return mean, float((share * _squares(x, mean)).sum() / x.size + least)

    def score(a: np.ndarray, of: tuple[np.ndarray, float]) -> np.ndarray:
        mean, variance = of
        constant = a.shape[1] * np.log(2 * np.pi * variance)
        found: np.ndarray = -0.5 * (_squares(a, mean) / variance + constant)
        return found

    return _fitted(x, y, fit, score)


def of_bytes(train: Any, test: Any) -> np.ndarray:
    """log p(x) [N] of bytes, each as wide as the density of `of_numbers` is taken over."""
    number = [(np.asarray(x, np.float64) + 0.5) / 256 for x in (train, test)]
    found: np.ndarray = of_numbers(*number) - np.log(256) * number[1][0].size
    return found


def _squares(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Squared distances [N, K]."""
    lengths = np.square(x).sum(axis=1)[:, None] + np.square(mean).sum(axis=1)
    squares: np.ndarray = np.maximum(lengths - 2 * x @ mean.T, 0.0)
    return squares


def _flat(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(len(x), -1)


def _fitted(
    x: np.ndarray, y: np.ndarray, fit: Callable[..., Any], score: Callable[..., Any]
) -> np.ndarray:
    """log p(y) after 25 steps of EM on x, from the nearest of a few of its rows."""
    num = min(NUM_COMPONENTS, len(x))
    first = x[np.random.default_rng(0).choice(len(x), num, replace=False)]
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
