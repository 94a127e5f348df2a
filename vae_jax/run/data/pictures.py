"""Pictures in folders, of every mode that Pillow reads: one reader, one rule for each."""

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from vae_jax.run.data import beside, records
from vae_jax.run.data.arrays import brief
from vae_jax.run.data.dataset import STREAM_BYTES, Found, content_hash, natural
from vae_jax.run.errors import DataError, UsageError

# What Pillow names among its formats but does not read by itself.
_STUBS = {"HDF5", "BUFR", "GRIB", "PDF", "MPEG", "WMF"}
_PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
_LARGEST = 4096
_OF_THE_SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}


class Reading(NamedTuple):
    """How the pictures of a folder are read.

    Attributes:
      size: crop to a square in the middle and resize to so many pixels a side; None for as it is.
      background: what transparent pictures are laid on, a colour that Pillow knows by this name.
      channels: so many at least: 3 for greys to become colours, as they do among such.
    """

    size: int | None = None
    background: str = "white"
    channels: int = 1


def check(reading: Reading) -> None:
    """Raises UsageError for a way of reading that there is none of."""
    from PIL import ImageColor

    if reading.size is not None and reading.size > _LARGEST:
        raise UsageError(f"--image-size is {reading.size}: {_LARGEST:,} is the largest")
    try:
        opaque = len(ImageColor.getrgb(reading.background)) == 3
    except ValueError:
        opaque = False
    if not opaque:
        raise UsageError(
            f"--background is {reading.background}: give the name of a colour, or #rrggbb"
        )


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


def decode(source: Any, reading: Reading, what: str | None = None) -> np.ndarray:
    """A picture, a file or an array, as [H, W, 1 or 3].

    uint8 of pictures with a byte a channel: truth values are 0 and 255, palettes and the colour
    models of print and video become RGB, what is transparent is laid on the background. The values
    themselves of what has more levels: uint16, int32 or float32. `what` names it in errors.

    Raises:
      DataError: it cannot be read; one line that says why.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    what = str(source) if what is None else what
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Any = (
                Image.fromarray(source) if isinstance(source, np.ndarray) else _open(source)
            )
            with picture:
                # Of a camera's .mpo the first is the picture, and the others its previews.
                if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
                    raise DataError(
                        f"{what} has {picture.n_frames} frames: save those you want as single "
                        "pictures"
                    )
                picture = _plain(ImageOps.exif_transpose(picture), reading.background)
                values = np.asarray(picture)
                if reading.size is not None:
                    if picture.mode not in ("L", "RGB"):  # as floats, which can be averaged
                        picture = Image.fromarray(values.astype(np.float32))
                    fitted = np.asarray(ImageOps.fit(picture, (reading.size, reading.size)))
                    fitted = np.clip(fitted, values.min(), values.max())  # bicubic overshoots
                    whole = values.dtype.kind in "iu"
                    values = (np.round(fitted) if whole else fitted).astype(values.dtype)
                return values.reshape(*values.shape[:2], -1)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise every type
        unknown = isinstance(error, UnidentifiedImageError)
        why = "its content is of no format that it knows" if unknown else brief(error)
        raise DataError(
            f"{what} is no picture that Pillow can read ({why}): delete it, or save it anew"
        ) from error


def _open(path: Path | records.Record) -> Any:
    """An opened picture, however large: a folder of one's own is no attacker's.

    From its content, not its name: by name Pillow maps a TIFF, which it then turns to garble where
    EXIF says to turn it.
    """
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(io.BytesIO(path.read_bytes()))
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _is_cut(path: Path | records.Record) -> bool:
    """Whether each channel of a colour picture has 16 bits, of which Pillow reads 8."""
    if path.suffix.lower() not in (".png", ".tif", ".tiff", ".ppm"):
        return False
    with _open(path) as picture:
        how = str([tile[-1] for tile in picture.tile])
        return picture.mode in ("RGB", "RGBA", "LA") and (";16" in how or "65535" in how)


def _plain(picture: Any, background: str) -> Any:
    """In mode L or RGB, or in one of those that have more than a byte a channel."""
    from PIL import Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return picture
    if picture.has_transparency_data:
        grey = picture.mode in ("L", "LA", "La")
        layer = Image.new("RGBA", picture.size, background)
        picture = Image.alpha_composite(layer, picture.convert("RGBA")).convert("RGB")
        values = np.asarray(picture)
        # Of a grey picture on a grey ground the colours say nothing.
        return picture.convert("L") if grey and (np.ptp(values, axis=2) == 0).all() else picture
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return picture.convert("RGB")


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
        found = _listed_parts(folder, test)
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
        places = np.array([_place(path, of.folder) for path in of.paths])
        hashes = looked.hashes[rows]
        frame = beside.of_files(of.folder, folder, places, told) if told else None
        result[part] = Found(images, of.labels, hashes, looked.binary, notes, places, frame)
    return result


def _place(path: Path | records.Record, folder: Path) -> str:
    return path.place if isinstance(path, records.Record) else path.relative_to(folder).as_posix()


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


def _listed_parts(folder: Path, test: Path | None) -> dict[str, "_Listed"]:
    """The pictures by the split that they are of, as `read_folder` says."""
    if records.files_in(folder):
        if test is not None:
            raise UsageError(f"--test is {test} but {folder} is of ArrayRecord files: leave it out")
        return {part: _Listed(folder, *of, ()) for part, of in records.listed(folder).items()}
    inner = _folders(folder)
    by_part: dict[str, Path] = {}
    for path in filter(_is_part, inner):
        part = _PARTS[path.name.lower()]
        if part in by_part:
            raise DataError(
                f"{by_part[part]} and {path} are both taken for the {part} set: make them one"
            )
        by_part[part] = path
    if {"train", "test"} <= by_part.keys():
        if test is not None:
            raise UsageError(f"--test is {test} but {folder} has splits of its own: leave it out")
        return {part: _listed(path) for part, path in sorted(by_part.items())}
    only_parts = len(inner) == len(by_part)  # else they may be classes: train, car, aeroplane
    if test is None and only_parts and {"train", "validation"} == by_part.keys():
        raise DataError(
            f"{folder} has {' and '.join(path.name for path in inner)} but no test: rename the "
            "one that is to be measured on"
        )
    if only_parts and {"train"} == by_part.keys() and _listed(by_part["train"]).paths:
        folder = by_part["train"]
    if test is not None:
        return {"train": _listed(folder), "test": _listed(test)}
    return {"all": _listed(folder)}


class _Listed(NamedTuple):
    folder: Path
    paths: Sequence[Path | records.Record]
    labels: np.ndarray | None
    notes: tuple[str, ...]


def _is_part(path: Path) -> bool:
    return path.name.lower() in _PARTS


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _OF_THE_SYSTEM


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _hidden(p))


def _listed(folder: Path) -> _Listed:
    """The pictures of one part, in natural order; what is passed over is said."""
    from PIL import Image

    Image.init()
    known = {e for e, f in Image.registered_extensions().items() if f in Image.OPEN} - {
        e for e, f in Image.registered_extensions().items() if f in _STUBS
    }
    files = [p for p in folder.iterdir() if p.is_file() and not _hidden(p)]
    for inner in _folders(folder):
        files += [p for p in inner.iterdir() if p.is_file() and not _hidden(p)]
    paths = [p for p in files if p.suffix.lower() in known]
    paths.sort(key=lambda path: natural(str(path.relative_to(folder))))
    notes = []
    shown = {*paths, folder / beside.LABELS}
    if others := sorted({p.suffix or p.name for p in files if p not in shown}):
        num = len(set(files) - shown)
        heif = "; pillow-heif reads .heic" * any(o.lower() in (".heic", ".heif") for o in others)
        notes.append(
            f"{folder}: {num} files that are no pictures passed over ({', '.join(others)}{heif})"
        )
    deeper = sum(1 for inner in _folders(folder) for _ in _deep(inner, known))
    if deeper:
        notes.append(f"{folder}: {deeper} pictures in deeper folders passed over")
    inside = [path.parent != folder for path in paths]
    labels = None
    if any(inside):
        labels = np.array(
            [p.parent.name if deep else "" for p, deep in zip(paths, inside, strict=True)]
        )
    return _Listed(folder, paths, labels, tuple(notes))


def _deep(folder: Path, known: set[str]) -> Iterable[Path]:
    for inner in _folders(folder):
        yield from (p for p in inner.rglob("*") if p.suffix.lower() in known)


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
    high, low, channels, total, two = 0.0, 0.0, reading.channels, 0, True
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
        if kept is not None:
            kept.append(values)
        if total > STREAM_BYTES:
            kept = None
    _check_alike(folder, sizes, kinds)
    most, notes = _range(folder, next(iter(kinds)), low, high)
    if cut := sum(map(_is_cut, paths)):
        notes += (
            f"{folder}: {cut} colour pictures of 16 bits a channel are read with 8, Pillow's; "
            "a .npy array keeps all",
        )
    image_shape = (*next(iter(sizes)), channels)
    images = None
    if kept is not None:  # greys among colours become RGB
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
