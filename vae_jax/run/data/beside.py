"""What is known of images, or of cells, beside: columns of labels.csv, or arrays of a .npz file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.run import extras
from vae_jax.run.data import tables
from vae_jax.run.errors import DataError

LABELS = "labels.csv"


def of_files(folder: Path, whole: Path, places: np.ndarray, told: Sequence[str]) -> Any:
    """Columns of the labels.csv of a folder, or of the whole that it is in, in the pictures' order.

    Its first column has the names of the pictures' files, below the folder that it lies in. A
    picture that it does not have is without values.

    Raises:
      DataError: it is not there, cannot be read, or names no picture.
    """
    of = [folder, *([whole] if folder.is_relative_to(whole) else [])]
    path = next((p / LABELS for p in of if (p / LABELS).is_file()), None)
    if path is None:
        raise DataError(
            f"{folder} has no {LABELS}: write one, whose first column has the names of the files "
            f"and others {', '.join(told)}, or leave --condition out"
        )
    frame = tables.read(path)
    names = frame.iloc[:, 0].astype(str)
    wanted = [(folder / place).relative_to(path.parent).as_posix() for place in places.tolist()]
    if not names.isin(wanted).any():
        raise DataError(
            f"the first column of {path}, {frame.columns[0]!r}, has {names.iloc[0]!r}, which is no "
            f"picture there: give names such as {wanted[0]!r}"
        )
    if (twice := names[names.duplicated()]).size:
        raise DataError(f"{path} has {twice.iloc[0]} twice: leave one line")
    # Whole numbers stay whole beside a picture that has none.
    integers = dict.fromkeys(frame.select_dtypes("int64"), "Int64")
    return frame.astype(integers).set_index(names).reindex(wanted).reset_index(drop=True)


def key_of(name: str, part: str, files: Sequence[str]) -> str | None:
    """What an array beside the images of a part is called, NAME or of a split NAME_train."""
    words = {"all": (), "validation": ("val", "valid", "validation")}.get(part, (part,))
    asked = [of for w in words for of in (f"{name}_{w}", f"{w}_{name}")] or [name]
    return next((key for key in asked if key in files), None)


def of_arrays(
    path: Path, file: Any, told: Sequence[str], part: str, num: int
) -> tuple[Any, set[str]]:
    """Columns of arrays [num] of a .npz file, NAME or of a part NAME_train and the like.

    Args:
      path: of the file.
      file: opened.
      told: names of the columns.
      part: of the images, `all` or a split.
      num: of images, or of cells.

    Returns:
      A frame, and the names of the arrays.

    Raises:
      DataError: one is not there, or is no column of as many values as there are images.
    """
    pd, columns, keys = extras.require("pandas"), {}, set()
    for name in told:
        key = key_of(name, part, file.files)
        if key is None:
            asked, has = name if part == "all" else f"{name}_{part}", ", ".join(file.files)
            raise DataError(f"{path} has no array {asked!r} to condition on but {has}")
        try:
            values = file[key]
        except Exception as error:  # NumPy's and zipfile's, of every type
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise DataError(
                f"{path}, {key!r}, cannot be read ({why}): save numbers or texts, no objects"
            ) from error
        if values.shape not in ((num,), (num, 1)):
            raise DataError(
                f"{path}, {key!r}, has shape {values.shape}: give one value for each of the {num:,}"
            )
        values = values.reshape(-1)
        columns[name] = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        keys.add(key)
    return pd.DataFrame(columns), keys
