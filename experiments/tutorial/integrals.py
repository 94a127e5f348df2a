"""What the derivations compute with: integrals by sums over a grid, in float64."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LINE: Array = np.linspace(-12.0, 12.0, 4801)
"""Wide enough for every density of the derivations, fine enough for nine digits."""


def integral(f: Callable[[Array], Array]) -> float:
    """Of a function of one dimension, by the trapezoidal rule."""
    return float(np.trapezoid(f(LINE), LINE))


def expectation(mean: float, scale: float, f: Callable[[Array], Array]) -> float:
    """E[f(z)] for z ~ N(mean, scale^2), as an integral over z."""
    return integral(lambda z: density(z, mean, scale) * f(z))


def density(z: Array | float, mean: Array | float, scale: Array | float) -> Array:
    """N(z; mean, scale^2)."""
    return np.exp(-0.5 * ((z - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))


def log_density(z: Array | float, mean: Array | float, scale: Array | float) -> Array:
    """log N(z; mean, scale^2)."""
    return -0.5 * ((z - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def gradient(f: Callable[[float], float], at: float, step: float = 1e-5) -> float:
    """Of a function of one number, by central differences."""
    return (f(at + step) - f(at - step)) / (2 * step)
