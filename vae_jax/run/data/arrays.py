"""Images in .npy and .npz files, of bytes, truth values, 16-bit numbers or floats."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from vae_jax.run.data import beside
from vae_jax.run.data.dataset import Found, content_hash
from vae_jax.run.data.ranges import BYTES, Scale, Seen
from vae_jax.run.errors import DataError

_CHUNK_BYTES = 2**26


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
        in_turn = len(rows) > 1 and bool((np.diff(rows) == 1).all())
        if in_turn:
            place = file.offset + int(rows[0]) * size
            in_turn = os.preadv(descriptor, [content], place) == len(content)
        for i in [] if in_turn else np.argsort(rows).tolist():  # disks like rows in turn
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


class Looked(NamedTuple):
    """An array that was looked at from its first image to its last.

    Attributes:
      file: [N, H, W] or [N, H, W, C].
      labels: as in `Found`.
      hashes: as in `Found`.
      seen: of its values.
      notes: as in `Found`.
      told: as in `Found`.
      observed: whether each value is known, of the file's shape; None where all are.
    """

    file: np.ndarray
    labels: np.ndarray | None
    hashes: np.ndarray
    seen: Seen
    notes: tuple[str, ...] = ()
    told: Any = None
    observed: np.ndarray | None = None


def look(
    file: np.ndarray, what: str, labels: np.ndarray | None, observed: np.ndarray | None = None
) -> Looked:
    """Looks at an array's images, at what is observed of them.

    Raises:
      DataError: they are no images; one line that says why.
    """
    seen = Seen(what, file.dtype)
    _check_shape(file.shape, what)
    hashes = np.empty(len(file), np.uint64)
    step = max(1, _CHUNK_BYTES // max(1, file[:1].nbytes))
    with tqdm(total=len(file), desc="reading", unit="image", delay=2, disable=None) as bar:
        for start in range(0, len(file), step):
            rows = np.arange(start, min(start + step, len(file)))
            values = read_rows(file, rows, what)
            if observed is not None:
                values = np.where(observed[rows], values, values.dtype.type(0))
            seen.add(values)
            if values.dtype.itemsize > 8:  # of what is behind 80 bits nobody knows
                values = values.astype(np.float64)
            if observed is None:
                hashes[rows] = [content_hash(item) for item in values]
            else:
                both = zip(values, observed[rows], strict=True)
                hashes[rows] = [content_hash(np.stack([x, x.dtype.type(1) * o])) for x, o in both]
            bar.update(len(rows))
    return Looked(file, labels, hashes, seen, observed=observed)


def _with_holes(of: Looked, scale: Scale) -> np.ndarray:
    """Images [N, H, W, C] as floats in [0, 1], NaN where they are not observed."""
    file = of.file
    if of.observed is not None:  # what stands there may be no number
        file = np.where(of.observed, file, file.dtype.type(0))
    values = np.asarray(Rows(file, of.seen.what, scale))
    found = values / np.float32(255) if values.dtype == np.uint8 else values
    if of.observed is not None:
        found = np.where(of.observed.reshape(found.shape), found, np.float32(np.nan))
    return found


def scaled(parts: dict[str, Looked]) -> dict[str, Found]:
    """The images of arrays that belong together: one range holds for all.

    Raises:
      DataError: they are no images, or not of one shape and range.
    """
    (name, first), *others = parts.items()
    whole = first.seen
    for _, part in others:
        if part.file.shape[1:] != first.file.shape[1:]:
            raise DataError(
                f"{first.seen.what} has images of {first.file.shape[1:]} and {part.seen.what} of "
                f"{part.file.shape[1:]}: give them one shape"
            )
        whole = whole.merge(part.seen)
    own = [part.seen.scale()[0] for part in parts.values()]
    types = {part.seen.dtype for part in parts.values()}
    floats = [part.seen.dtype.kind == "f" for part in parts.values()]
    for part, of_part, is_float in zip(parts.values(), own, floats, strict=True):
        seen = part.seen
        if any(floats) != all(floats):
            alike = is_float == floats[0]
        else:  # of one type all are read by the range of all; but 0 and 1 are not two of 256 levels
            alike = (len(types) == 1 and not seen.two) or of_part == whole.scale()[0]
        if not alike:
            raise DataError(
                f"{seen.what} has {seen.dtype} from {seen.low:g} to {seen.high:g}, and the other "
                f"splits {whole.dtype}, together from {whole.low:g} to {whole.high:g}: give them "
                "one type and range"
            )
    scale, binary, notes = whole.scale()
    holes = {part: of.observed for part, of in parts.items() if of.observed is not None}
    if holes:
        shares = ", ".join(f"{1 - of.mean():.1%} of {part}" for part, of in holes.items())
        notes = (*notes, f"missing: {shares}; what is there is read as floats")
    return {
        part: Found(
            _with_holes(of, scale) if holes else Rows(of.file, of.seen.what, scale),
            of.labels,
            of.hashes,
            binary,
            of.notes + notes * (part == name),
            told=of.told,
            missing=bool(holes),
        )
        for part, of in parts.items()
    }


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


def read_npy(path: Path, labels: Path | None) -> dict[str, Looked]:
    """The images of a .npy file, and the labels of another.

    Raises:
      DataError: they cannot be read, or do not go together.
    """
    file = _load(path, np.ndarray, mmap_mode="r")
    if not file.flags.c_contiguous:
        raise DataError(f"{path} is in Fortran's order: save np.ascontiguousarray of it")
    _check_shape(file.shape, str(path))
    of_images = None
    if labels is not None:
        of_images = _checked_labels(_load(labels, np.ndarray), len(file), str(labels))
    return {"all": look(file, str(path), of_images)}


def _load(path: Path, kind: type[Any], **how: Any) -> Any:
    """An array, or the arrays of a .npz file, whichever kind is asked for."""
    try:
        found = np.load(path, **how)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: name a .npy file") from error
    except Exception as error:  # NumPy's and zipfile's, of every type
        raise DataError(f"{path} cannot be read ({brief(error)}): save it anew") from error
    if not isinstance(found, kind):
        has, wants = (".npy", ".npz") if isinstance(found, np.ndarray) else (".npz", ".npy")
        raise DataError(f"{path} is a {has} file: rename it, or name a {wants} file")
    return found


def brief(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def read_npz(
    path: Path, images_key: str | None, labels_key: str | None, told: Sequence[str] = ()
) -> dict[str, Looked]:
    """The images and labels of a .npz file: one pair of arrays, or one for each split.

    Args:
      path: of the file.
      images_key: name of the array of images, where there is one.
      labels_key: likewise.
      told: further arrays that are wanted; of x_train and the like by NAME_train.

    Raises:
      DataError: an array cannot be read, or is not there.
    """
    with _load(path, np.lib.npyio.NpzFile) as file:
        if not file.files:
            raise DataError(f"{path} holds no array: save the images in it")
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
        elif labels_key is not None:
            raise DataError(
                f"{path} has splits of its own, {' and '.join(x for x, _ in parts.values())}, and "
                f"--labels-key is {labels_key}: give --images-key too, or neither"
            )
        masks = {
            part: beside.key_of("observed", part, file.files) if images_key != "observed" else None
            for part in parts
        }
        looked = {part: _of_keys(path, file, *of, masks[part]) for part, of in parts.items()}
        read: set[str | None] = {key for keys in parts.values() for key in keys}
        read |= {*masks.values()}
        for part, of in looked.items() if told else ():
            columns, keys = beside.of_arrays(path, file, told, part, len(of.hashes))
            looked[part] = of._replace(told=columns)
            read |= keys
        if unread := [key for key in file.files if key not in read]:
            (part, first), *_ = looked.items()
            note = f"{path}: not read: {', '.join(unread)}; --images-key and --labels-key choose"
            looked[part] = first._replace(notes=(note,))
        return looked


def _first(names: tuple[str, ...], files: list[str]) -> str | None:
    return next((name for name in names if name in files), None)


def _one_pair(
    path: Path, files: list[str], images_key: str | None, labels_key: str | None
) -> tuple[str, str | None]:
    # Of a training set alone, all.
    known, named = (*_IMAGES, *_PARTS["train"][0]), (*_LABELS, *_PARTS["train"][1])
    images = images_key or (files[0] if len(files) == 1 else _first(known, files))
    if images is None:
        raise DataError(
            f"{path} has the arrays {', '.join(files)}: choose the images with --images-key, and "
            "the labels, if there are any, with --labels-key"
        )
    return images, labels_key or _first(named, files)


def _of_keys(
    path: Path, file: Any, images: str, labels: str | None, observed: str | None
) -> Looked:
    arrays = []
    for key in (images, labels, observed):
        try:
            arrays.append(None if key is None else file[key])
        except Exception as error:
            raise DataError(
                f"{path}, {key!r}, cannot be read ({brief(error)}): save it anew"
            ) from error
    x, y, mask = arrays
    assert x is not None
    what = f"{path}, {images!r}"
    _check_shape(x.shape, what)
    if y is not None:
        y = _checked_labels(y, len(x), f"{path}, {labels!r}")
    if mask is not None:
        if mask.shape == (*x.shape[:3],) and x.ndim == 4:
            mask = np.broadcast_to(mask[..., None], x.shape)
        if mask.dtype != np.bool_ or mask.shape != x.shape:
            raise DataError(
                f"{path}, {observed!r}, is {mask.dtype} of shape {mask.shape}: give bool of the "
                f"images' shape, {x.shape}, True where a value is known"
            )
        if not mask.any():
            raise DataError(f"{path}, {observed!r}, has no True: nothing is known of the images")
    return look(x, what, y, mask)


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
        # Beyond 2^53 not every whole number is a float.
        labels.dtype.kind == "f"
        and (labels == np.floor(labels)).all()
        and (np.abs(labels) <= 2**53).all()
    )
    if labels.ndim != 1 or not whole:
        raise DataError(
            f"{what} is {labels.dtype} of shape {labels.shape}: labels are one whole number or "
            "text for each image (-1 for none), or one-hot rows"
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    return labels.astype(np.int64) if labels.dtype.kind == "f" else labels
