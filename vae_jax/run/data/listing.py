"""Which files of a folder are pictures, of which class and of which split."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_jax.run.data import beside, records
from vae_jax.run.data.dataset import natural
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
_OF_THE_SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}


class Listed(NamedTuple):
    """The pictures of one split.

    Attributes:
      folder: that they lie in.
      paths: of their files, or records, in natural order.
      labels: [N], the names of their classes, "" of one without; None where there are none.
      notes: lines for the user.
    """

    folder: Path
    paths: Sequence[Path | records.Record]
    labels: np.ndarray | None
    notes: tuple[str, ...]

    def places(self) -> np.ndarray:
        """[N], where each is in the folder."""
        return np.array([_place(path, self.folder) for path in self.paths])


def listed_parts(folder: Path, test: Path | None) -> dict[str, Listed]:
    """The pictures of a folder by the split that they are of.

    Args:
      folder: of pictures, or of ArrayRecord files.
      test: another folder, of the test set.

    Raises:
      DataError: there is no telling what is the test set.
      UsageError: both have splits.
    """
    if records.files_in(folder):
        if test is not None:
            raise UsageError(f"--test is {test} but {folder} is of ArrayRecord files: leave it out")
        return {part: Listed(folder, *of, ()) for part, of in records.listed(folder).items()}
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


def _place(path: Path | records.Record, folder: Path) -> str:
    return path.place if isinstance(path, records.Record) else path.relative_to(folder).as_posix()


def _is_part(path: Path) -> bool:
    return path.name.lower() in _PARTS


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _OF_THE_SYSTEM


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _hidden(p))


def _listed(folder: Path) -> Listed:
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
    return Listed(folder, paths, labels, tuple(notes))


def _deep(folder: Path, known: set[str]) -> Iterable[Path]:
    for inner in _folders(folder):
        yield from (p for p in inner.rglob("*") if p.suffix.lower() in known)
