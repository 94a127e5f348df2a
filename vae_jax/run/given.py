"""What a caller gives a trained run in Python, checked before anything is compiled."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vae_jax.run import extras
from vae_jax.run.data import conditions
from vae_jax.run.data.columns import Column
from vae_jax.run.errors import DataError
from vae_jax.run.model import num_levels


def checked(
    images: Any, image_shape: tuple[int, ...], likelihood: str, *, missing: bool = False
) -> Any:
    """Images [N, H, W, C], bytes or floats in [0, 1]; of one channel [N, H, W] too.

    Args:
      images: an array, or what is read like one.
      image_shape: of the run.
      likelihood: its name.
      missing: whether NaN stands for what is not observed.

    Raises:
      TypeError: they are of another type than the run's.
      ValueError: another shape, or values outside [0, 1].
    """
    if not hasattr(images, "shape"):
        images = np.asarray(images)
    if len(images.shape) == 3 and image_shape[-1] == 1:
        images = np.asarray(images)[..., None]
    if len(images.shape) != 4 or tuple(images.shape[1:]) != image_shape or not len(images):
        sizes = ", ".join(map(str, image_shape))
        raise ValueError(f"images have shape {tuple(images.shape)}: give [N, {sizes}]")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"images have dtype {images.dtype}: give bytes, uint8, or floats in [0, 1]")
    if num_levels(likelihood) == 256:
        raise TypeError(
            f"images have dtype {images.dtype} but the run's likelihood, {likelihood}, is of "
            "bytes: give uint8"
        )
    for piece in _pieces(images):
        inside = (piece >= 0) & (piece <= 1)  # no NaN
        if not (inside | (np.isnan(piece) & missing)).all():
            raise ValueError(
                f"images have values from {piece.min()} to {piece.max()}: give floats in [0, 1], "
                "or bytes"
            )
    return images


def _pieces(images: Any) -> Iterator[np.ndarray]:
    for start in range(0, len(images), 1000):
        yield np.asarray(images[np.arange(start, min(start + 1000, len(images)))])


def told(label: Any, num: int, columns: Sequence[Column]) -> np.ndarray:
    """Conditions float32 [num, C], of a mapping or a frame of names and values, or as they are.

    Raises:
      TypeError: there are none.
      ValueError: they are not as many as `num`, or one has no such value.
    """
    names = ", ".join(column.name for column in columns)
    if label is None or isinstance(label, str):
        raise TypeError(f"the run is conditional on {names}: give a mapping of names and values")
    if isinstance(label, np.ndarray):
        return np.broadcast_to(np.asarray(label, np.float32), (num, len(columns)))
    pd = extras.require("pandas")
    try:
        frame = pd.DataFrame({c.name: np.broadcast_to(label[c.name], num) for c in columns})
        return conditions.given(frame, columns, "what was given")
    except (KeyError, DataError) as error:
        raise ValueError(f"{error}: the run is conditional on {names}") from None


def numbered(label: Any, num: int, classes: Sequence[str]) -> np.ndarray:
    """The numbers of classes, int32 [num], of names or numbers, one for all or one for each.

    Raises:
      TypeError: there is none.
      ValueError: one is no class, or there are others than `num`.
    """
    names = f"one of {', '.join(classes[:20])}{', ...' * (len(classes) > 20)}"
    if label is None:
        raise TypeError(f"the run is conditional: give a label, {names}")
    each = [label] if isinstance(label, str) or np.ndim(label) == 0 else list(label)
    number_of = {name: number for number, name in enumerate(classes)}
    numbers = [number_of.get(one, one) if isinstance(one, str) else one for one in each]
    for one in numbers:
        if not isinstance(one, int | np.integer) or not 0 <= one < len(classes):
            raise ValueError(f"label {one!r} is no class of the run: give {names}")
    if len(numbers) not in (1, num):
        raise ValueError(f"{len(numbers)} labels of {num}: give one for all, or one for each")
    return np.broadcast_to(np.asarray(numbers, np.int32), num)
