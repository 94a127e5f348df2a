"""What every source of images becomes."""

import math
from typing import NamedTuple

import numpy as np

STREAM_BYTES = 10**9
"""A larger training set is read while it trains."""


class Split(NamedTuple):
    """Images uint8 [N, H, W, C] in 0..255 and labels int32 [N], -1 where there are none."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """Three splits, and what every result must say about them.

    `num_classes` is 0 where there are no labels, `source` says where the examples came from, and
    `notice` is empty or what the user must not miss.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    source: str
    notice: str = ""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return tuple(self.train.images.shape[1:])

    @property
    def large(self) -> bool:
        """Whether the training set is read while it trains, unless asked otherwise."""
        return math.prod(self.train.images.shape) > STREAM_BYTES
