"""Pictures in folders: all of one size, depth and range, decoded once, or when asked for."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from vae_jax.run.data import beside, records
from vae_jax.run.data.dataset import STREAM_BYTES, Found, content_hash
from vae_jax.run.data.listing import listed_parts
from vae_jax.run.data.picture import Reading, check, decode, is_cut
from vae_jax.run.errors import DataError


class Pictures:
    """The pictures of some files, decoded when they are asked for.

    Attributes:
      shape: [N, H, W, C].
      dtype: uint8; float32 where the files have more levels.
    """

    def __init__(
        self,
        paths: Sequence[Path | records.Record],
        reading: Reading,
        image_shape: tuple[int, ...],
        most: float,
    ) -> None:
        self._paths, self._reading, self._most = paths, reading, most
        self.shape = (len(paths), *image_shape)
        self.dtype = np.dtype(np.uint8 if most == 255 else np.float32)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        found = np.empty((rows.size, *self.shape[1:]), self.dtype)
        for i, row in enumerate(rows.flat):
            values = decode(self._paths[row], self._reading)
            found[i] = values if self._most == 255 else values / self._most
        return found.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))]

    def take(self, rows: np.ndarray) -> "Pictures":
        """Some of the pictures, not decoded."""
        paths = [self._paths[row] for row in rows]
        return Pictures(paths, self._reading, self.shape[1:], self._most)


def read_folder(
    folder: Path, reading: Reading, test: Path | None = None, told: Sequence[str] = ()
) -> dict[str, Found]:
    """The pictures of a folder and of its sub-folders, whose names are the labels.

    Or those of its ArrayRecord files, see `records.listed`. Sub-folders train, test and maybe
    validation are splits, each with its own sub-folders; or else another folder is the test set.

    Args:
      folder: of the pictures.
      reading: how they are read.
      test: another folder.
      told: columns of labels.csv that are wanted; see `beside.of_files`.

    Raises:
      DataError: they cannot be read, or do not go together.
      UsageError: both have splits.
    """
    check(reading)
    try:
        found = listed_parts(folder, test)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be looked into ({error.strerror})") from error
    everything = [path for part in found.values() for path in part.paths]
    for of in found.values():
        if not of.paths:
            passed_over = "".join(f"; {note}" for note in of.notes)
            raise DataError(
                f"{of.folder} holds no pictures, nor do its sub-folders{passed_over}: put them "
                "there, in any of Pillow's formats"
            )
    looked = _look(folder, everything, reading)
    result, start = {}, 0
    for part, of in found.items():
        rows = np.arange(start, start + len(of.paths))
        start += len(of.paths)
        images: Any = Pictures(of.paths, reading, looked.image_shape, looked.most)
        if looked.values is not None:
            images = looked.values[rows]
        notes = of.notes + (looked.notes if rows[0] == 0 else ())
        hashes, places = looked.hashes[rows], of.places()
        frame = beside.of_files(of.folder, folder, places, told) if told else None
        result[part] = Found(images, of.labels, hashes, looked.binary, notes, places, frame)
    return result


def read_file(path: Path, reading: Reading) -> np.ndarray:
    """A picture of its own, as a folder's are read, [1, H, W, C].

    Raises:
      DataError: it cannot be read.
    """
    check(reading)
    if not path.is_file():
        raise DataError(f"{path} does not exist: name a picture")
    images = _look(path, [path], reading).values
    assert images is not None  # but of more than a gigabyte
    return images


class _Looked(NamedTuple):
    values: np.ndarray | None
    image_shape: tuple[int, ...]
    most: float
    hashes: np.ndarray
    binary: bool
    notes: tuple[str, ...]


def _look(folder: Path, paths: Sequence[Path | records.Record], reading: Reading) -> _Looked:
    """Decodes every picture once: its size, kind, range and hash. All are kept if they are few."""
    kept: list[np.ndarray] | None = []
    hashes = np.empty(len(paths), np.uint64)
    sizes: dict[Any, Path] = {}
    kinds: dict[str, Path] = {}
    high, low, channels, total, two, greys = 0.0, 0.0, reading.channels, 0, True, 0
    for i, path in enumerate(tqdm(paths, "reading", unit="image", delay=1, disable=None)):
        values = decode(path, reading)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{path} has values that are no numbers, or infinite: leave it out")
        sizes.setdefault(values.shape[:2], path)
        kinds.setdefault("bytes" if values.dtype == np.uint8 else values.dtype.kind, path)
        hashes[i] = content_hash(values)
        two = two and bool(((values == 0) | (values == 255)).all())
        high, low = max(high, float(values.max())), min(low, float(values.min()))
        channels, total = max(channels, values.shape[2]), total + values.nbytes
        greys += values.shape[2] == 1
        if kept is not None:
            kept.append(values)
        if total > STREAM_BYTES:
            kept = None
    _check_alike(folder, sizes, kinds)
    most, notes = _range(folder, next(iter(kinds)), low, high)
    if cut := sum(map(is_cut, paths)):
        notes += (
            f"{folder}: {cut} colour pictures of 16 bits a channel are read with 8, Pillow's; "
            "a .npy array keeps all",
        )
    if greys and channels > 1:
        notes = (
            *notes,
            f"{folder}: {greys:,} of {len(paths):,} pictures are grey, read as colours",
        )
    image_shape = (*next(iter(sizes)), channels)
    images = None
    if kept is not None:
        images = np.empty((len(paths), *image_shape), np.uint8 if most == 255 else np.float32)
        for i, values in enumerate(kept):
            images[i] = values if most == 255 else values / most
    binary = kinds.keys() == {"bytes"} and (most == 1 or (two and high == 255))
    if binary and most == 255:
        notes = (*notes, f"{folder}: every pixel is black or white, so the images are binary")
    return _Looked(images, image_shape, most, hashes, binary, notes)


def _check_alike(folder: Path, sizes: dict[Any, Path], kinds: dict[str, Path]) -> None:
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise DataError(
            f"{folder} holds pictures of {len(sizes)} sizes, such as {first} of {a[1]}x{a[0]} and "
            f"{second} of {b[1]}x{b[0]}: give --image-size"
        )
    if len(kinds) > 1:
        (_, first), (_, second) = list(kinds.items())[:2]
        raise DataError(
            f"{folder} holds pictures of several depths, such as {first} and {second}: save them "
            "with one number of bits"
        )


def _range(folder: Path, kind: str, low: float, high: float) -> tuple[float, tuple[str, ...]]:
    """What stands for 1, by the values of all pictures, and what to say of it."""
    if kind == "bytes":
        if high <= 1:
            return 1, (f"{folder}: every value is 0 or 1, so the images are binary",)
        said = f"{folder}: values up to {high:.0f} are taken for bytes, of which 255 is white"
        return 255, (said,) if high < 128 else ()
    if low < 0 or (kind == "f" and high > 1) or high >= 2**16:
        raise DataError(
            f"{folder} has values from {low:g} to {high:g}: save floats in [0, 1], or whole "
            "numbers of 16 bits"
        )
    if kind == "f":
        return 1, (f"{folder}: floats, kept as they are",)
    bits = next(b for b in (8, 10, 12, 14, 16) if high < 2**b)
    most = math.ldexp(1, bits) - 1
    said = f"{folder}: values up to {high:.0f} are taken for {bits} bits"
    return most, (said,)
