"""Sequences of unequal length: a .jsonl file, or arrays, and what they are padded to."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.run.errors import DataError, RunError

_MOST_BYTES = 4 * 10**9


def read(path: Path) -> list[np.ndarray]:
    """The sequences of a file, a line each, [T_i, D] with NaN for what is missing.

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
            found.append(_steps(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"line {number} of {path} is no sequence ({error}): write a list of steps, each a "
                "list of as many numbers, such as [[0.5, 1], [0.25, null]]"
            ) from None
    return checked(found, str(path))


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


def checked(sequences: Sequence[Any], source: str) -> list[np.ndarray]:
    """Sequences of any kind of numbers as float64 [T_i, D], as a float32 has no day in seconds.

    Raises:
      DataError: one is none, or they differ in what a step is.
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
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
    return [sequence.astype(np.float64) for sequence in found]


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


def write(sequences: Sequence[np.ndarray], path: Path) -> None:
    """Writes sequences [T_i, D], a line each, whole or not at all; of one number a step, numbers.

    Raises:
      RunError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        packed = path.name.lower().endswith(".gz")
        with gzip.open(partial, "wt") if packed else partial.open("w") as file:  # JSON is ASCII
            for sequence in sequences:
                steps = [[_number(value) for value in step] for step in sequence]
                line = [step[0] for step in steps] if sequence.shape[1] == 1 else steps
                file.write(json.dumps(line, allow_nan=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; name another place") from error


def _number(value: Any) -> float | int | None:
    """The fewest digits that are this number, or this float32; whole ones without a point."""
    if not np.isfinite(value):
        return None
    if abs(value) < 2**53 and value == round(float(value)):
        return int(value)
    return float(str(np.float32(value))) if value == np.float32(value) else float(value)
