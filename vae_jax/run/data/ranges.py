"""What range the values of an array have, and how they become what the model sees."""

from typing import NamedTuple

import numpy as np

from vae_jax.run.errors import DataError


class Scale(NamedTuple):
    """How the values of a file become bytes, or floats in [0, 1].

    Attributes:
      factor: what they are multiplied by.
      dtype: uint8 or float32.
    """

    factor: float
    dtype: np.dtype

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self.dtype == np.uint8:
            if self.factor == 1:
                return values.astype(np.uint8, copy=False)
            return np.round(values * np.float32(self.factor)).astype(np.uint8)
        return (values * np.float64(self.factor)).astype(np.float32)


BYTES = Scale(1.0, np.dtype(np.uint8))


class Seen:
    """What has been seen of a file's values, chunk by chunk.

    Attributes:
      what: the file, for messages.
      dtype: of its values.
      low: the least value.
      high: the largest.
      steps: whether all are multiples of 1/255, as bytes that were divided are.
      two: whether all are 0 or 1.
    """

    def __init__(self, what: str, dtype: np.dtype) -> None:
        self.what, self.dtype = what, dtype
        self.low, self.high, self.steps, self.two = np.inf, -np.inf, True, True
        self._rows = 0
        if dtype.kind not in "biuf":
            raise DataError(f"{what} holds {dtype}: images are bytes, or numbers in [0, 1]")

    def add(self, values: np.ndarray) -> None:
        """Looks at more of the images.

        Raises:
          DataError: one of them holds NaN or an infinity.
        """
        if self.dtype.kind == "f":
            wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if wrong.any():
                kind = "NaN" if np.isnan(values[wrong.argmax()]).any() else "an infinity"
                raise DataError(
                    f"{self.what} has {kind} in {wrong.sum()} of its images from number "
                    f"{self._rows + int(wrong.argmax())} on: leave them out"
                    + ", or save a .npz with an array `observed` beside them, if they are missing"
                    * (kind == "NaN")
                )
        self._rows += len(values)
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        self.two = self.two and self.low >= 0 and self.high <= 1
        if self.two and self.dtype.kind == "f":
            self.two = bool(((values == 0) | (values == 1)).all())
        if self.dtype.kind == "f" and self.steps:
            self.steps = self.high <= 1 and _are_steps(values)

    def merge(self, other: "Seen") -> "Seen":
        """What has been seen of both."""
        both = Seen(self.what, self.dtype)
        both.low, both.high = min(self.low, other.low), max(self.high, other.high)
        both.steps, both.two = self.steps and other.steps, self.two and other.two
        return both

    def scale(self) -> tuple[Scale, bool, tuple[str, ...]]:
        """How they become what the model sees, whether all are 0 or 1, and what to say of it.

        Raises:
          DataError: values that are no image's.
        """
        low, high, floats = self.low, self.high, self.dtype.kind == "f"
        if self.two:
            said = f"{self.what}: every value is 0 or 1, so the images are binary"
            return Scale(255.0, np.dtype(np.uint8)), True, (said,)
        if not floats and low >= 0 and high <= 255:
            said = (
                f"{self.what}: values up to {high:.0f} are taken for bytes, of which 255 is white"
            )
            return BYTES, False, (said,) if high < 128 else ()
        if not floats and low >= 0 and high < 2**16:
            bits = next(b for b in (10, 12, 14, 16) if high < 2**b)
            said = f"{self.what}: values up to {high:.0f} are taken for {bits} bits"
            return Scale(1 / (2**bits - 1), np.dtype(np.float32)), False, (said,)
        if floats and low >= 0 and high <= 1:
            if self.steps:
                return Scale(255.0, np.dtype(np.uint8)), False, ()
            said = f"{self.what}: more than 256 levels, kept as floats"
            return Scale(1.0, np.dtype(np.float32)), False, (said,)
        most = 1 if floats else 255
        raise DataError(
            f"{self.what} has values from {low:.9g} to {high:.9g}: scale them to [0, {most}], the "
            f"range of {self.dtype} images"
        )


def _are_steps(values: np.ndarray) -> bool:
    """Whether values in [0, 1] are multiples of 1/255, to the rounding of their type."""
    levels = values.astype(np.float32) * np.float32(255)
    tolerance = max(1e-3, 255 / 3 * float(np.finfo(values.dtype).eps))
    return bool((np.abs(levels - np.round(levels)) < tolerance).all())
