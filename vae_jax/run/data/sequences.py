"""Sequences of unequal length: a .jsonl file, or arrays, and what they are padded to.

One may have fields beside it: a mapping of their names, in which the sequence is an array.
"""

import gzip
import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.run import extras
from vae_jax.run.errors import DataError, RunError

_MOST_BYTES = 4 * 10**9

FIELD = "sequence"
"""What a sequence is called among the fields of a line, unless another alone is a list."""


def read(path: Path) -> list[Any]:
    """The sequences of a file, a line each, [T_i, D] with NaN for what is missing.

    A line that is an object is one of the same fields, the sequence's as an array.

    Raises:
      DataError: it cannot be read; one line that says why, and names the line.
    """
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): name a .jsonl file in UTF-8") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(_item(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"line {number} of {path} is no sequence ({error}): write a list of steps, each a "
                "list of as many numbers, such as [[0.5, 1], [0.25, null]]; or an object that has "
                f'it as "{FIELD}" beside other fields'
            ) from None
    return checked(found, str(path))


def _item(value: Any) -> Any:
    """A line as `read` gives it."""
    if not isinstance(value, dict):
        return _steps(value)
    name = _field(value)
    return {**value, name: _steps(value[name])}


def _field(of: Mapping[str, Any]) -> str:
    """Which field of a line is its sequence.

    Raises:
      TypeError: none is, or one of several may be.
    """
    if FIELD in of:
        return FIELD
    lists = [name for name, value in of.items() if isinstance(value, list | tuple | np.ndarray)]
    if len(lists) != 1:
        which = f"{' and '.join(lists[:3])} are lists" if lists else "none is a list"
        raise TypeError(f"of its fields none is called {FIELD}, and {which}")
    return lists[0]


def steps_of(items: Sequence[Any]) -> list[Any]:
    """The sequences, without the fields beside them."""
    return [one[_field(one)] if isinstance(one, Mapping) else one for one in items]


def with_steps(items: Sequence[Any], steps: Sequence[np.ndarray]) -> list[Any]:
    """The same items, with other sequences in place of theirs."""
    both = zip(items, steps, strict=True)
    return [{**one, _field(one): of} if isinstance(one, Mapping) else of for one, of in both]


def fields_of(items: Sequence[Any]) -> list[str]:
    """The names of the fields beside the sequences."""
    mappings = [one for one in items if isinstance(one, Mapping)]
    return list(dict.fromkeys(name for one in mappings for name in one if name != _field(one)))


def beside(items: Sequence[Any], told: Collection[str], source: str) -> Any:
    """The fields beside the sequences, as a frame; None where one is missing.

    Raises:
      DataError: one that is to be told is a list or an object.
    """
    pd = extras.require("pandas")
    rows = [one if isinstance(one, Mapping) else {} for one in items]
    for number, row in enumerate(rows, start=1):
        for name in told:
            if isinstance(row.get(name), list | tuple | Mapping | np.ndarray):
                what = "an object" if isinstance(row[name], Mapping) else "a list"
                raise DataError(
                    f"sequence {number} of {source} has {what} as {name!r}: a condition is a "
                    "number, a text, or true or false"
                )
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in fields_of(items)})


def _steps(values: Any) -> np.ndarray:
    """[T, D] of a list of steps.

    Raises:
      ValueError, TypeError: it is none.
    """
    if not isinstance(values, list):
        raise TypeError(f"a {type(values).__name__}")
    steps = [step if isinstance(step, list) else [step] for step in values]
    widths = {len(step) for step in steps}
    if len(widths) > 1:
        raise ValueError(f"steps of {min(widths)} and of {max(widths)} numbers")
    for value in (value for step in steps for value in step):
        if value is not None and not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
    return np.array([[np.nan if v is None else v for v in step] for step in steps], np.float64)


def checked(sequences: Sequence[Any], source: str) -> list[Any]:
    """Sequences of any kind of numbers as float64 [T_i, D], as a float32 has no day in seconds.

    Raises:
      DataError: one is none, or they differ in what a step is.
    """
    try:
        arrays = [np.asarray(sequence) for sequence in steps_of(sequences)]
    except (TypeError, ValueError) as error:  # of steps that differ in size too
        raise DataError(f"{source}: no sequences ({error}); give a list of arrays [T, D]") from None
    found = [a[:, None] if a.ndim == 1 else a for a in arrays]
    for row, sequence in enumerate(found, start=1):
        if sequence.ndim != 2 or not sequence.size or sequence.dtype.kind not in "biuf":
            raise DataError(
                f"sequence {row} of {source} has shape {sequence.shape} and dtype "
                f"{sequence.dtype}: give [T, D], of numbers, of a step or more"
            )
        if sequence.shape[1] != found[0].shape[1]:
            raise DataError(
                f"sequence {row} of {source} has steps of {sequence.shape[1]} numbers and the "
                f"first has of {found[0].shape[1]}: let all have as many"
            )
        if np.isinf(sequence).any():
            raise DataError(f"sequence {row} of {source} holds an infinity: write null for it")
        if (large := sequence[np.abs(sequence) > np.finfo(np.float32).max]).size:
            raise DataError(
                f"sequence {row} of {source} holds {large[0]:g}, more than a float32 does: write "
                "it in another unit"
            )
    if not found:
        raise DataError(f"{source} has no sequences: write one a line")
    return with_steps(sequences, [sequence.astype(np.float64) for sequence in found])


def pad(sequences: Sequence[np.ndarray], length: int) -> np.ndarray:
    """[T_i, D] -> [N, T, D], NaN after the end of each.

    Raises:
      DataError: they would not fit into memory.

    >>> pad([np.ones((1, 2)), np.ones((3, 2))], 3)[:, :, 0]
    array([[ 1., nan, nan],
           [ 1.,  1.,  1.]], dtype=float32)
    """
    shape = len(sequences), length, sequences[0].shape[1]
    if 4 * np.prod(shape, dtype=np.float64) > _MOST_BYTES:
        raise DataError(
            f"{shape[0]:,} sequences padded to the {length:,} steps of the longest do not fit into "
            "memory: cut the long ones into pieces"
        )
    x = np.full(shape, np.nan, np.float32)
    for row, sequence in enumerate(sequences):
        x[row, : len(sequence)] = sequence
    return x


def write(sequences: Sequence[Any], path: Path) -> None:
    """Writes sequences [T_i, D], a line each, whole or not at all; of one number a step, numbers.

    Of a mapping the line is an object of its fields.

    Raises:
      RunError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        packed = path.name.lower().endswith(".gz")
        with gzip.open(partial, "wt") if packed else partial.open("w") as file:  # JSON is ASCII
            for one, steps in zip(sequences, steps_of(sequences), strict=True):
                rows = [[_number(value) for value in step] for step in steps]
                line: Any = [row[0] for row in rows] if steps.shape[1] == 1 else rows
                if isinstance(one, Mapping):
                    line = {name: _value(of) for name, of in one.items()} | {_field(one): line}
                file.write(json.dumps(line, allow_nan=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; name another place") from error


def _value(of: Any) -> Any:
    """What a field is in JSON, which has no word for what is no number."""
    if isinstance(of, np.ndarray):
        return None  # the sequence, which is put in its place
    return None if isinstance(of, float) and not np.isfinite(of) else of


def _number(value: Any) -> float | int | None:
    """The fewest digits that are this number, or this float32; whole ones without a point."""
    if not np.isfinite(value):
        return None
    if abs(value) < 2**53 and value == round(float(value)):
        return int(value)
    return float(str(np.float32(value))) if value == np.float32(value) else float(value)
