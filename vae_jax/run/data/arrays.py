"""Images in .npy and .npz files, of bytes, truth values, 16-bit numbers or floats."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from vae_jax.run.data.dataset import Found, content_hash
from vae_jax.run.errors import DataError

_CHUNK_BYTES = 2**26


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
                return values.astype(np.uint8)
            return np.round(values * np.float32(self.factor)).astype(np.uint8)
        return (values * np.float64(self.factor)).astype(np.float32)


BYTES = Scale(1.0, np.dtype(np.uint8))


class Seen:
    """What has been seen of a file's values, chunk by chunk.

    Attributes:
      low: the least value.
      high: the largest.
      steps: whether all are multiples of 1/255, as bytes that were divided are.
      two: whether all are 0 or 1.
    """

    def __init__(self, what: str, dtype: np.dtype) -> None:
        self._what, self._dtype = what, dtype
        self.low, self.high, self.steps, self.two = np.inf, -np.inf, True, True
        self._rows = 0
        if dtype.kind not in "biuf":
            raise DataError(f"{what} holds {dtype}: images are bytes, or numbers in [0, 1]")

    def add(self, values: np.ndarray) -> None:
        """Looks at more of the images.

        Raises:
          DataError: one of them holds NaN.
        """
        if self._dtype.kind == "f":
            wrong = np.isnan(values).reshape(len(values), -1).any(axis=1)
            if wrong.any():
                raise DataError(
                    f"{self._what} has NaN in {wrong.sum()} of its images from number "
                    f"{self._rows + int(wrong.argmax())} on: leave them out"
                )
            if self.steps:
                levels = values.astype(np.float32) * np.float32(255)
                self.steps = bool((np.abs(levels - np.round(levels)) < 1e-3).all())
        self.two = self.two and bool(((values == 0) | (values == 1)).all())
        self._rows += len(values)
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def scale(self) -> tuple[Scale, bool, tuple[str, ...]]:
        """How they become what the model sees, whether all are 0 or 1, and what to say of it.

        Raises:
          DataError: values that are no image's.
        """
        low, high, floats = self.low, self.high, self._dtype.kind == "f"
        if self.two:
            said = f"{self._what}: every value is 0 or 1, so the images are binary"
            return Scale(255.0, np.dtype(np.uint8)), True, (said,)
        if not floats and low >= 0 and high <= 255:
            return BYTES, False, ()
        if not floats and low >= 0 and high < 2**16:
            bits = next(b for b in (10, 12, 14, 16) if high < 2**b)
            said = f"{self._what}: values up to {high:.0f} are taken for {bits} bits"
            return Scale(1 / (2**bits - 1), np.dtype(np.float32)), False, (said,)
        if floats and low >= 0 and high <= 1:
            if self.steps:
                return Scale(255.0, np.dtype(np.uint8)), False, ()
            said = f"{self._what}: more than 256 levels, kept as floats"
            return Scale(1.0, np.dtype(np.float32)), False, (said,)
        most = 1 if floats else 255
        raise DataError(
            f"{self._what} has values from {low:g} to {high:g}: scale them to [0, {most}], the "
            f"range of {self._dtype} images"
        )


class Rows:
    """Rows of an array, in memory or on disk, as images; read when they are asked for.

    Attributes:
      shape: [N, H, W, C].
      dtype: uint8 or float32, whatever the file's.
    """

    def __init__(
        self, file: np.ndarray, what: str, scale: Scale = BYTES, rows: np.ndarray | None = None
    ) -> None:
        self._file, self._what, self._scale = file, what, scale
        self._rows = np.arange(len(file)) if rows is None else rows
        channels = () if file.ndim == 4 else (1,)
        self.shape = (len(self._rows), *file.shape[1:], *channels)
        self.dtype = scale.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        values = self._scale(read_rows(self._file, rows.reshape(-1), self._what))
        return values.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = np.empty(self.shape, self.dtype)
        step = max(1, _CHUNK_BYTES // max(1, self._file[:1].nbytes))
        for start in range(0, len(self), step):
            found[start : start + step] = self[np.arange(start, min(start + step, len(self)))]
        return found

    def __reduce__(self) -> Any:  # a mapped file would be pickled whole
        file, rest = self._file, (self._what, self._scale, self._rows)
        if not isinstance(file, np.memmap):
            return Rows, (file, *rest)
        return _reopened, (file.filename, file.dtype, file.offset, file.shape, *rest)

    def take(self, rows: np.ndarray) -> "Rows":
        """Some of the rows, unread."""
        return Rows(self._file, self._what, self._scale, self._rows[rows])


def _reopened(name: str, dtype: Any, offset: int, shape: tuple[int, ...], *rest: Any) -> Rows:
    return Rows(np.memmap(name, dtype, "r", offset, shape), *rest)


def read_rows(file: np.ndarray, rows: np.ndarray, what: str) -> np.ndarray:
    """Rows of an array; of a file read, not mapped: mapped pages count as this process's memory.

    Raises:
      DataError: the file ends before them.
    """
    found: np.ndarray
    if not isinstance(file, np.memmap):
        found = file[rows]
        return found
    found = np.empty((rows.size, *file.shape[1:]), file.dtype)
    content: Any = found.reshape(-1).view(np.uint8)
    content, size = memoryview(content), found[:1].nbytes
    assert file.filename is not None
    descriptor = os.open(file.filename, os.O_RDONLY)
    try:
        for i in np.argsort(rows).tolist():  # disks like rows in turn
            place = file.offset + int(rows[i]) * size
            if os.preadv(descriptor, [content[i * size : (i + 1) * size]], place) != size:
                raise DataError(f"{what} ends before its image {rows[i]}")
    finally:
        os.close(descriptor)
    return found


def _check_shape(shape: tuple[int, ...], what: str) -> None:
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise DataError(
            f"{what} has shape {shape}: images are [N, H, W], or [N, H, W, C] with 1 or 3 channels"
        )
    if 0 in shape:
        raise DataError(f"{what} is empty: its shape is {shape}")


def found_in(file: np.ndarray, what: str, labels: np.ndarray | None) -> Found:
    """An array's images, looked at once from its first to its last.

    Raises:
      DataError: they are no images; one line that says why.
    """
    _check_shape(file.shape, what)
    seen, hashes = Seen(what, file.dtype), np.empty(len(file), np.uint64)
    step = max(1, _CHUNK_BYTES // max(1, file[:1].nbytes))
    with tqdm(total=len(file), desc="reading", unit="image", delay=2, disable=None) as bar:
        for start in range(0, len(file), step):
            rows = np.arange(start, min(start + step, len(file)))
            values = read_rows(file, rows, what)
            seen.add(values)
            hashes[rows] = [content_hash(item) for item in values]
            bar.update(len(rows))
    scale, binary, notes = seen.scale()
    return Found(Rows(file, what, scale), labels, hashes, binary, notes)


# What the arrays of a .npz file are called: alone, and by those who split them.
_IMAGES = ("images", "image", "x", "X", "data", "arr_0")
_LABELS = ("labels", "label", "y", "Y", "targets", "target")
_PARTS = {
    "train": (("x_train", "train_images", "X_train"), ("y_train", "train_labels", "Y_train")),
    "validation": (
        ("x_val", "val_images", "x_valid", "x_validation", "X_val"),
        ("y_val", "val_labels", "y_valid", "y_validation", "Y_val"),
    ),
    "test": (("x_test", "test_images", "X_test"), ("y_test", "test_labels", "Y_test")),
}


def read_npy(path: Path, labels: Path | None) -> dict[str, Found]:
    """The images of a .npy file, and the labels of another.

    Raises:
      DataError: they cannot be read, or do not go together.
    """
    file = _load(path, mmap_mode="r")
    if not file.flags.c_contiguous:
        raise DataError(f"{path} is in Fortran's order: save np.ascontiguousarray of it")
    _check_shape(file.shape, str(path))
    of_images = None if labels is None else _checked_labels(_load(labels), len(file), str(labels))
    return {"all": found_in(file, str(path), of_images)}


def _load(path: Path, **how: Any) -> Any:
    try:
        found = np.load(path, **how)
    except Exception as error:  # NumPy's and zipfile's, of every type
        raise DataError(f"{path} cannot be read ({brief(error)})") from error
    return found


def brief(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def read_npz(path: Path, images_key: str | None, labels_key: str | None) -> dict[str, Found]:
    """The images and labels of a .npz file: one pair of arrays, or one for each split.

    Raises:
      DataError: an array cannot be read, or is not there.
    """
    with _load(path) as file:
        for key in (images_key, labels_key):
            if key is not None and key not in file.files:
                raise DataError(f"{path} has no array {key!r} but {', '.join(file.files)}")
        parts = {}
        if images_key is None:
            for part, (x, y) in _PARTS.items():
                found = _first(x, file.files)
                if found is not None:
                    parts[part] = (found, _first(y, file.files))
        if not {"train", "test"} <= parts.keys():
            parts = {"all": _one_pair(path, file.files, images_key, labels_key)}
        return {part: _of_keys(path, file, *keys) for part, keys in parts.items()}


def _first(names: tuple[str, ...], files: list[str]) -> str | None:
    return next((name for name in names if name in files), None)


def _one_pair(
    path: Path, files: list[str], images_key: str | None, labels_key: str | None
) -> tuple[str, str | None]:
    images = images_key or (files[0] if len(files) == 1 else _first(_IMAGES, files))
    if images is None:
        raise DataError(
            f"{path} has the arrays {', '.join(files)}: choose the images with --images-key, and "
            "the labels, if there are any, with --labels-key"
        )
    return images, labels_key or _first(_LABELS, files)


def _of_keys(path: Path, file: Any, images: str, labels: str | None) -> Found:
    arrays = []
    for key in (images, labels):
        try:
            arrays.append(None if key is None else file[key])
        except Exception as error:
            raise DataError(f"{path}, {key!r}, cannot be read ({brief(error)})") from error
    x, y = arrays
    assert x is not None
    what = f"{path}, {images!r},"
    _check_shape(x.shape, what)
    if y is not None:
        y = _checked_labels(y, len(x), f"{path}, {labels!r},")
    return found_in(x, what, y)


def _checked_labels(labels: np.ndarray, num: int, what: str) -> np.ndarray:
    """Labels [N] of any values: of a column, of texts, of truth values, of one-hot rows.

    Raises:
      DataError: they are none, or not as many as the images.
    """
    if labels.shape[:1] != (num,):
        raise DataError(
            f"{what} has labels of shape {labels.shape} for {num} images: give one for each"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all():
        labels = labels.argmax(axis=1)
    whole = labels.dtype.kind in "biuUS" or (
        labels.dtype.kind == "f" and (labels == np.floor(labels)).all()
    )
    if labels.ndim != 1 or not whole:
        raise DataError(
            f"{what} is {labels.dtype} of shape {labels.shape}: labels are one whole number or "
            "text for each image (-1 for none), or one-hot rows"
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    return labels.astype(np.int64) if labels.dtype.kind == "f" else labels
