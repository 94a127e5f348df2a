"""Small pictures with known factors, drawn: shape, size, angle and place.

The factors are those of dSprites (Matthey et al. 2017), in half its resolution: 3 shapes, 6 scales,
40 angles and 32 x 32 places, 737,280 pictures in all.
"""

from typing import NamedTuple

import numpy as np

SHAPES = ("square", "ellipse", "heart")
SIZE = 32
SUBPIXELS = 4


class Factors(NamedTuple):
    """What a picture shows; arrays [N] or numbers, broadcast against each other.

    Attributes:
      shape: 0, 1 or 2, an index into `SHAPES`.
      scale: 0 to 5, from half to the full size.
      angle: 0 to 39, from 0 to 351 degrees, counterclockwise.
      x: 0 to 31, from left to right.
      y: 0 to 31, from the bottom up.
    """

    shape: np.ndarray | int
    scale: np.ndarray | int
    angle: np.ndarray | int
    x: np.ndarray | int
    y: np.ndarray | int


SIZES = Factors(3, 6, 40, 32, 32)
"""How many values each factor has."""


def sample_factors(generator: np.random.Generator, num: int) -> Factors:
    """`num` pictures' factors, each uniform and independent of the others."""
    return Factors(*(generator.integers(size, size=num) for size in SIZES))


def draw(factors: Factors) -> np.ndarray:
    """The pictures [N, 32, 32, 1] of factors [N], float32: how much of a pixel is covered.

    >>> draw(Factors(shape=0, scale=5, angle=0, x=[0, 31], y=16)).shape
    (2, 32, 32, 1)

    Raises:
      ValueError: a factor is out of its range.
    """
    for name, values, size in zip(Factors._fields, factors, SIZES, strict=True):
        values = np.asarray(values)
        if (
            not np.issubdtype(values.dtype, np.integer)
            or (values < 0).any()
            or (values >= size).any()
        ):
            raise ValueError(f"{name} is {values}: pass integers from 0 to {size - 1}")
    columns = np.stack(np.broadcast_arrays(*map(np.atleast_1d, factors)))
    # Every picture is drawn at four times its resolution: all at once would not fit in memory.
    parts = [_draw(columns[:, i : i + 256]) for i in range(0, columns.shape[1], 256)]
    return np.concatenate([np.zeros((0, SIZE, SIZE, 1), np.float32), *parts])


def _draw(factors: np.ndarray) -> np.ndarray:
    shape, scale, angle, x, y = factors.astype(np.float32)[:, :, None, None]
    line = (np.arange(SIZE * SUBPIXELS, dtype=np.float32) + 0.5) / (SIZE * SUBPIXELS)
    # No sprite reaches further than 0.2 from its centre, so that it is whole wherever it stands.
    right, up = line - (0.2 + 0.6 * x / 31), line[::-1, None] - (0.2 + 0.6 * y / 31)
    turn, size = 2 * np.pi / 40 * angle, 0.1 + 0.02 * scale
    u = (np.cos(turn) * right + np.sin(turn) * up) / size
    v = (np.cos(turn) * up - np.sin(turn) * right) / size
    square = np.maximum(abs(u), abs(v)) < 0.7
    ellipse = u**2 + (2 * v) ** 2 < 1
    # A square on its corner, and a disc on each of its upper sides.
    side = 0.35
    discs = (abs(u) - side) ** 2 + (v - side) ** 2 < 2 * side**2
    heart = discs | (abs(u) + abs(v) < 2 * side)
    inside = np.where(shape == 0, square, np.where(shape == 1, ellipse, heart))
    blocks = inside.reshape(-1, SIZE, SUBPIXELS, SIZE, SUBPIXELS)
    return blocks.mean(axis=(2, 4), dtype=np.float32)[..., None]
