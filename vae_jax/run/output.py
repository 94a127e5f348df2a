"""What a command leaves: columns of numbers and pictures, each file whole or not at all."""

import contextlib
import csv
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.run import extras, folder
from vae_jax.run.errors import UsageError

_savez: Any = np.savez  # whose type has no room for names
ARRAYS = (".npz", ".npy")
COLUMNS = (".npz", ".csv", ".parquet")


def check(path: Path, endings: tuple[str, ...]) -> None:
    """Raises UsageError for a file whose kind its name does not say, RunError for no folder."""
    suffix = path.suffix.lower()
    if suffix not in endings:
        raise UsageError(f"--output={path} has none of the endings {', '.join(endings)}: give one")
    if suffix == ".parquet":
        extras.check("pyarrow")
    if path.is_dir():
        raise UsageError(f"--output={path} is a folder: name a file")
    folder.check_place(path)


def check_pictures(path: Path) -> None:
    """Raises UsageError for a place that is no picture, array or new folder."""
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        check(path, ARRAYS)
    elif suffix:
        folder.check_picture(path)
    else:
        empty = path.name and (not path.exists() or (path.is_dir() and not any(path.iterdir())))
        if not empty:
            raise UsageError(
                f"--output={path} is there and not empty: name a new folder, or a file with an "
                "ending, such as grid.png or images.npz"
            )
        folder.check_place(path)


def check_picture_or_npz(path: Path) -> None:
    """Raises UsageError for a place that is neither."""
    if path.suffix.lower() == ".npz":
        check(path, (".npz",))
    else:
        folder.check_picture(path)


def is_picture(path: Path) -> bool:
    """Whether what `check_pictures` has let pass is one picture."""
    return path.suffix.lower() not in ("", *ARRAYS)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file or folder beside `path`, which becomes it once the block has ended well.

    Raises:
      RunError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        with folder.writing(path):
            if partial.is_dir():  # of one that was killed
                shutil.rmtree(partial)
            yield partial
            if partial.is_dir() and path.is_dir():
                path.rmdir()  # which is empty
            os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # the first failure is the one to tell of
                partial.unlink()


def write_columns(
    beside: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], path: Path
) -> None:
    """Writes numbers and texts [N, ...], and what each is of beside, as the name's ending says.

    A .npz file has the arrays as they are, a .npy file the first. In .csv and .parquet an array
    [N, Z] is Z columns, NAME_0 and so on, [N, S, Z] is NAME_0_0, and the column `row` is first.

    Raises:
      RunError: it cannot be written.
    """
    columns = {**beside, **columns}
    with replacing(path) as partial:
        match path.suffix.lower():
            case ".npz":
                _savez(partial, **columns)
            case ".npy":
                np.save(partial, next(iter(columns.values())), allow_pickle=False)
            case ".csv":
                _write_csv(_flat(columns), partial)
            case ".parquet":
                extras.require("pyarrow.parquet").write_table(
                    extras.require("pyarrow").table(_flat(columns)), partial
                )


def _flat(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {"row": np.arange(len(next(iter(columns.values()))))}
    for name, values in columns.items():
        for index in itertools.product(*map(range, values.shape[1:])):
            every: Any = (slice(None), *index)
            found["_".join((name, *map(str, index)))] = values[every]
    return found


def _write_csv(columns: Mapping[str, np.ndarray], path: Path) -> None:
    """By as many digits as each type needs to be read back as it is."""
    size = 1000
    digits: dict[Any, Any] = {np.dtype(np.float32): "{:.9g}".format, np.dtype(np.float64): repr}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for start in range(0, len(next(iter(columns.values()))), size):
            part = [values[start : start + size] for values in columns.values()]
            texts = (
                list(map(digits[of.dtype], of.tolist())) if of.dtype in digits else of.tolist()
                for of in part
            )
            writer.writerows(zip(*texts, strict=True))


class _Folder:
    """Pictures that are written as they come, `out[rows] = images`, as PNG."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path, self._names = path, names

    def __setitem__(self, rows: slice, images: np.ndarray) -> None:
        from PIL import Image

        for name, image in zip(self._names[rows], as_bytes(images), strict=True):
            path = self._path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


class _Bytes:
    """An array of bytes that takes images in [0, 1]."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __setitem__(self, rows: slice, images: np.ndarray) -> None:
        self._array[rows] = as_bytes(images)


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as bytes."""
    rounded: np.ndarray = np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)
    return rounded


@contextlib.contextmanager
def pictures(
    path: Path,
    shape: tuple[int, ...],
    places: np.ndarray | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Any]:
    """What takes images in [0, 1] by `out[rows] = images`, and holds few of them.

    A folder has a PNG file for each, 00000.png and so on, or of the name of its place. A .npy file
    has bytes [N, H, W, C], and so has a .npz file, as `images`, beside the columns.

    Args:
      path: of the folder or the file, from `check_pictures`.
      shape: of all, (N, H, W, C).
      places: of the folder's files, where they have names.
      columns: beside them in a .npz file.

    Raises:
      RunError: it cannot be written.
    """
    with replacing(path) as partial:
        match path.suffix.lower():
            case ".npz":
                images = np.empty(shape, np.uint8)
                yield _Bytes(images)
                _savez(partial, images=images, **(columns or {}))
            case ".npy":
                mapped = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
                yield _Bytes(mapped)
                mapped.flush()
            case _:
                partial.mkdir()
                yield _Folder(partial, _file_names(shape[0], places))


def _file_names(num: int, places: np.ndarray | None) -> list[str]:
    """Of PNG files: numbers, or the places with their ending replaced where none are alike then."""
    if places is None or places.dtype.kind != "U":
        return [f"{i:05d}.png" for i in range(num)]
    names = [Path(place).with_suffix(".png").as_posix() for place in places.tolist()]
    return names if len(set(names)) == num else [f"{place}.png" for place in places.tolist()]


def write_rows(columns: Mapping[str, list[Any]], path: Path) -> None:
    """Writes values of any kind as .csv; None is empty.

    Raises:
      RunError: it cannot be written.
    """
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
