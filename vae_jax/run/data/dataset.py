"""What every source of images becomes: three splits, whose members follow from their content."""

import functools
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run.errors import DataError

STREAM_BYTES = 10**9
"""A larger training set is read while it trains."""

_BOUNDS = (0.1, 0.2)
LEAST = 20
"""Examples to train and test on."""
_MAX_TEST, _MAX_VALIDATION = 10_000, 5_000
_SMALL = 1_000
"""Of fewer images each class has its tenths: by chance alone one could have none."""


class Split(NamedTuple):
    """Images [N, H, W, C], uint8 in 0..255 or float32 in [0, 1], and labels int32 [N].

    A label is a number of `Dataset.names`, -1 where there is none.
    """

    images: Any
    labels: np.ndarray


class Dataset(NamedTuple):
    """Three splits, and what every result must say about them.

    Attributes:
      name: of the set.
      train: the images to train on; what is large is read when it is asked for.
      validation: to choose by.
      test: to measure on, once.
      num_classes: 0 where there are no labels.
      source: where the examples came from.
      notice: empty, or what the user must not miss.
      names: of the classes, in the order of their numbers.
      digest: of all that was found, images and labels, in their order.
      num_images: of all that was found.
      binary: whether every value is 0 or 255.
      notes: lines for the user: what was read how, what was left out.
      places: of each split, where its images are from: files' paths in their folder, or rows of
        their array; empty where that is not known.
      told: of each split, what the model is told, see `conditions.numbered`; empty without.
      conditions: the columns of that.
      missing: as in `Found`.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    source: str
    notice: str = ""
    names: tuple[str, ...] = ()
    digest: str = ""
    num_images: int = 0
    binary: bool = False
    notes: tuple[str, ...] = ()
    places: Mapping[str, np.ndarray] = MappingProxyType({})
    told: Mapping[str, Any] = MappingProxyType({})
    conditions: tuple[Any, ...] = ()
    missing: bool = False

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return tuple(self.train.images.shape[1:])

    @property
    def large(self) -> bool:
        """Whether the training set is read while it trains, unless asked otherwise."""
        images = self.train.images
        size: int = math.prod(images.shape) * np.dtype(images.dtype).itemsize
        return size > STREAM_BYTES


class Found(NamedTuple):
    """What a reader has found in one place, or in one part of it.

    Attributes:
      images: [N, H, W, C], or what is read like them and has `take`.
      labels: [N], of any values; None where there are none.
      hashes: uint64 [N], of each image's content.
      binary: as in `Dataset`.
      notes: as in `Dataset`.
      places: [N], the files' paths in their folder; None of an array's rows.
      told: a frame of the columns [N] that the model is to be told; None without.
      missing: whether images, floats then, may have NaN for what is not observed.
    """

    images: Any
    labels: np.ndarray | None
    hashes: np.ndarray
    binary: bool = False
    notes: tuple[str, ...] = ()
    places: np.ndarray | None = None
    told: Any = None
    missing: bool = False


def content_hash(item: np.ndarray) -> int:
    """64 bits of an image's shape, type and values."""
    content = _keyed(item.shape, item.dtype).copy()
    content.update(item.tobytes())
    return int.from_bytes(content.digest(), "big")


@functools.lru_cache
def _keyed(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    header = f"{shape}{dtype.str}".encode()
    return hashlib.blake2b(digest_size=8, key=header[:64])


def digest_of(*arrays: np.ndarray) -> str:
    """A name for the content of arrays, the same wherever they lie."""
    content = hashlib.blake2b(digest_size=16)
    for array in arrays:
        content.update(f"{array.shape}{array.dtype.str}".encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def spread(num: int, most: int) -> np.ndarray:
    """Rows of a set of `num` to show, `most` at most, evenly spaced: folders lie class by class."""
    return np.arange(min(num, most)) * num // min(num, most)


def take(images: Any, rows: np.ndarray) -> Any:
    """Some of the images, unread where they are read when they are asked for."""
    return images.take(rows) if not isinstance(images, np.ndarray) else images[rows]


def natural(text: str) -> tuple[list[Any], str]:
    """A key that sorts 2 before 10, and tells 2 from 02, and a from A."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], text


def classes_of(parts: Iterable[Found]) -> tuple[tuple[str, ...], Callable[[Any], np.ndarray]]:
    """The names of the classes that occur, in natural order, and what numbers labels by them."""
    values: set[Any] = set()
    for part in parts:
        if part.labels is not None:
            values |= set(np.unique(part.labels).tolist())
    values -= {-1, ""}  # no label
    names = sorted(map(str, values), key=natural)
    number = {name: i for i, name in enumerate(names)}

    def numbered(labels: Any) -> np.ndarray:
        found, inverse = np.unique(labels, return_inverse=True)
        numbers = [number.get(str(value), -1) for value in found.tolist()]
        return np.array(numbers, np.int32)[inverse].reshape(np.shape(labels))

    return tuple(names), numbered


def assemble(
    name: str, source: str, parts: dict[str, Found], *, by_position: bool = False
) -> Dataset:
    """The data set of what was found: one part, `all`, or `train`, `test` and maybe `validation`.

    An image is of the test set where its hash, as a fraction, is below 0.1, and of the validation
    set where it is below 0.2. So exact copies are on one side, and data that grow never move an
    image from the test set to the training set. Of more than 10,000 for the test the first by hash
    are measured and the rest sit out; of more than 5,000 for validation the rest are trained on.

    Of fewer than 1,000 images each class of five or more has a tenth of them at least in each of
    the two: what it lacks are its images with the next hashes, as one that is empty has. Where data
    grow, a hash below 0.1 still never leaves the test set, and none below 0.2 is ever trained on;
    what filled the test set up may go to validation, or to training where it is not below 0.2.

    Args:
      name: of the set.
      source: where it is.
      parts: what was found.
      by_position: split as version 0.1 did, for its runs.

    Raises:
      DataError: there are too few images.
    """
    names, numbered = classes_of(parts.values())

    def of_each(part: Found) -> np.ndarray:
        labels = np.full(len(part.hashes), -1) if part.labels is None else numbered(part.labels)
        return labels.astype(np.int32)

    def split(part: Found, rows: np.ndarray) -> Split:
        return Split(take(part.images, rows), of_each(part)[rows])

    notes = [note for part in parts.values() for note in part.notes]
    if "all" in parts:
        whole = parts["all"]
        if by_position:
            test, validation, train = rows_by_position(len(whole.hashes), source)
        else:
            _check_enough(len(whole.hashes), source, whole.notes)
            test, validation, train = _in_splits(whole.hashes, of_each(whole))
        chosen = {"train": (whole, train), "validation": (whole, validation), "test": (whole, test)}
        if sat_out := len(whole.hashes) - len(test) - len(validation) - len(train):
            notes.append(f"{sat_out:,} images of the test set's tenth sit out")
    else:
        every = {part: np.arange(len(found.hashes)) for part, found in parts.items()}
        if "validation" not in parts:
            of_train = parts["train"]
            if by_position:
                unused, validation, train = rows_by_position(len(of_train.hashes), source)
                every |= {"train": np.concatenate([train, unused]), "validation": validation}
            else:
                validation, train = _by_content(of_train.hashes, of_each(of_train), tenths=1)
                every["train"] = np.sort(np.concatenate([train, validation[_MAX_VALIDATION:]]))
                every["validation"] = np.sort(validation[:_MAX_VALIDATION])
        chosen = {part: (parts.get(part, parts["train"]), rows) for part, rows in every.items()}
        notes += _leaks(chosen)
    splits = {part: split(*of) for part, of in chosen.items()}
    for part, of in splits.items():
        if not len(of.labels):
            hashes = np.concatenate([part.hashes for part in parts.values()])
            raise DataError(
                f"{source} has no image for the {part} set, as of its {len(hashes):,} images "
                f"{len(np.unique(hashes)):,} are different: give more, or splits of your own"
            )
        missing = sorted(set(range(len(names))) - set(of.labels.tolist()))
        if missing and (of.labels >= 0).any():
            absent = ", ".join(names[i] for i in missing[:5])
            notes.append(f"the {part} set has no image of {absent}{' ...' * (len(missing) > 5)}")
    labels = [part.labels for part in parts.values() if part.labels is not None]
    return Dataset(
        name,
        splits["train"],
        splits["validation"],
        splits["test"],
        num_classes=len(names),
        source=source,
        names=names,
        digest=digest_of(
            *(part.hashes for part in parts.values()),
            *(numbered(of) for of in labels),
            *(_content(part.told) for part in parts.values() if part.told is not None),
        ),
        num_images=sum(len(part.hashes) for part in parts.values()),
        binary=all(part.binary for part in parts.values()),
        notes=tuple(notes),
        places={
            part: rows if found.places is None else found.places[rows]
            for part, (found, rows) in chosen.items()
        },
        told={
            part: found.told.iloc[rows]
            for part, (found, rows) in chosen.items()
            if found.told is not None
        },
        missing=any(part.missing for part in parts.values()),
    )


def _content(frame: Any) -> np.ndarray:
    """Bytes that a frame's values decide."""
    texts = [name + "\x1e" + "\x1f".join(map(str, frame[name].tolist())) for name in frame]
    return np.frombuffer("\x1e".join(texts).encode(), np.uint8)


def splits_of(hashes: np.ndarray, source: str, noun: str) -> list[np.ndarray]:
    """The examples to test, to validate and to train on, by their content as images are.

    Args:
      hashes: uint64 [N], of each.
      source: where they are.
      noun: what they are called, "rows".

    Raises:
      DataError: there are too few of them.
    """
    if len(hashes) < LEAST:
        raise DataError(
            f"{source} has {len(hashes)} {noun}: {LEAST} are the least to train and test on"
        )
    parts = _in_splits(hashes, np.full(len(hashes), -1))
    if not all(map(len, parts)):
        raise DataError(
            f"{source} has {len(np.unique(hashes))} different {noun} of {len(hashes)}: give more"
        )
    return parts


def _in_splits(hashes: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """The rows to test, to validate and to train on, each in their order."""
    test, validation, train = _by_content(hashes, labels, tenths=2)
    train = np.concatenate([train, validation[_MAX_VALIDATION:]])
    return [np.sort(rows) for rows in (test[:_MAX_TEST], validation[:_MAX_VALIDATION], train)]


def _by_content(hashes: np.ndarray, labels: np.ndarray, *, tenths: int) -> list[np.ndarray]:
    """The rows of some tenths and those of the rest, each in the order of their hashes."""
    distinct, inverse = np.unique(hashes, return_inverse=True)
    place = distinct.astype(np.float64) / 2.0**64
    part = np.digitize(place, _BOUNDS[:tenths])
    label_of = np.full(len(distinct), -1)
    np.maximum.at(label_of, inverse, labels)  # of copies, which may have several, the last
    wanted = [(np.arange(len(part)), min(1, len(part) // (tenths + 1)))]
    if len(hashes) < _SMALL:
        classes = [np.flatnonzero(label_of == label) for label in set(label_of.tolist()) - {-1}]
        wanted = [*((rows, (len(rows) + 5) // 10) for rows in classes), *wanted]
    for tenth in range(tenths):
        for rows, least in wanted:
            missing = max(0, least - int((part[rows] == tenth).sum()))
            part[rows[part[rows] > tenth][:missing]] = tenth
    order = np.argsort(hashes.astype(np.float64), kind="stable")
    return [order[part[inverse][order] == i] for i in range(tenths + 1)]


def rows_by_position(num: int, source: str) -> list[np.ndarray]:
    """The rows to test, to validate and to train on, by a permutation of their number."""
    _check_enough(num, source)
    num_test, num_validation = min(num // 10, _MAX_TEST), min(num // 10, _MAX_VALIDATION)
    order = np.random.RandomState(0).permutation(num)  # RandomState's stream is frozen
    return np.split(order, [num_test, num_test + num_validation])


def _check_enough(num: int, source: str, notes: tuple[str, ...] = ()) -> None:
    if num < LEAST:
        what = "; ".join((f"{source} has {num} images", *notes))
        raise DataError(f"{what}: {LEAST} are the least to train and test on")


def _leaks(chosen: dict[str, tuple[Found, np.ndarray]]) -> list[str]:
    """A line for each pair of the user's own splits that share images."""
    hashes = {part: found.hashes[rows] for part, (found, rows) in chosen.items()}
    notes = []
    for part in ("validation", "test"):
        shared = int(np.isin(hashes[part], hashes["train"]).sum())
        if shared:
            notes.append(
                f"{shared} of the {len(hashes[part])} {part} images are in the training set too"
            )
    return notes
