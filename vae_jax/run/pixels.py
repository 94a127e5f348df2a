"""What a run's model takes from its training images before it learns."""

import math
from typing import Any, NamedTuple

import numpy as np


class Pixels(NamedTuple):
    """What the model takes from the training set, x in [0, 1].

    Attributes:
      mean: [H, W, C], where the output bias starts.
      residual: root mean square of x less the mean; where the scale of a Normal likelihood starts.
      centre: of all values.
      spread: standard deviation of all values; both standardise what the encoder of greys sees.
      missing: whether some are not observed, NaN, which these numbers leave out.
    """

    mean: np.ndarray
    residual: float
    centre: float
    spread: float
    missing: bool = False


_MEAN_ROWS, _PART = 2**16, 2**22


def measure_pixels(images: Any, binarization: str, *, missing: bool = False) -> Pixels:
    """Of a training set, or of the start of a large one, a few million pixels at a time.

    Args:
      images: [N, H, W, C], bytes or floats in [0, 1], or what is read like them.
      binarization: of the run.
      missing: whether some are NaN.
    """
    if missing:
        return _measure_observed(np.asarray(images), binarization)
    num, shape = min(len(images), _MEAN_ROWS), tuple(images.shape[1:])
    rows = max(1, _PART // math.prod(shape))
    first, second = np.zeros(shape), 0.0
    most = 255 if images.dtype == np.uint8 else 1
    for start in range(0, num, rows):
        part = np.asarray(images[np.arange(start, min(start + rows, num))])
        if binarization in ("static", "threshold"):
            part = np.where(part > most / 2, part.dtype.type(most), part.dtype.type(0))
        first += part.sum(axis=0, dtype=np.float64)
        if binarization == "none":  # of the others no scale is wanted
            second += float(np.square(part, dtype=np.float64).mean(axis=(1, 2, 3)).sum())
    mean, square = first / num / most, second / num / most**2
    least = 1 / 256  # of images that are all alike
    return Pixels(
        mean.astype(np.float32),
        max(least, math.sqrt(max(0.0, square - np.square(mean).mean()))),
        float(mean.mean()),
        max(least, math.sqrt(max(0.0, square - mean.mean() ** 2))),
    )


def _measure_observed(images: np.ndarray, binarization: str) -> Pixels:
    """As `measure_pixels`, of floats with NaN for what is missing."""
    x = images[:_MEAN_ROWS]
    there = ~np.isnan(x)
    if binarization in ("static", "threshold"):
        x = np.where(there, (x > 0.5).astype(np.float32), x)
    values = x[there].astype(np.float64)
    centre, num = values.mean(), there.sum(axis=0)
    total = np.nansum(x, axis=0, dtype=np.float64)
    mean = np.where(
        num > 0, total / np.maximum(num, 1), centre
    )  # of a pixel never seen the whole's
    least = 1 / 256
    residual = math.sqrt(np.square((x - mean)[there]).mean())
    return Pixels(
        mean.astype(np.float32),
        max(least, residual),
        float(centre),
        max(least, float(values.std())),
        missing=True,
    )
