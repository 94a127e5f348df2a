"""Sequences as pictures: time to the right, a row for each number of a step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_WIDEST = 3  # times as wide as high; a single number would be a line of one pixel


def scaled_by(x: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Sequences [N, T, D] -> pictures [N, H, T, 1] in [0, 1], each number by its range.

    Args:
      x: the sequences whose 1 % and 99 % quantiles are black and white, NaN where nothing is.
    """
    ends = np.nanquantile(x, [0.01, 0.99], axis=(0, 1), keepdims=True)
    low, high = ends.astype(np.float32)
    width = np.where(high > low, high - low, np.float32(1))
    _, steps, numbers = x.shape
    times = max(1, round(steps / (_WIDEST * numbers)))

    def pictures(x: jax.Array) -> jax.Array:
        scaled = jnp.clip((x - low) / width, 0.0, 1.0).swapaxes(1, 2)
        rows = jnp.broadcast_to(scaled[:, :, None], (len(x), numbers, times, steps))
        return rows.reshape(len(x), numbers * times, steps, 1)

    return pictures
