"""Columns that a model is told and does not learn: as numbers, as they are asked for, as drawn."""

import csv
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vae_jax.run import extras
from vae_jax.run.data import kinds
from vae_jax.run.data.columns import Column, from_json, to_json
from vae_jax.run.data.dataset import Dataset, Found, Split, spread, take
from vae_jax.run.errors import DataError, UsageError

KINDS = ("number", "positive", "date", "category", "ordered", "boolean")
_CLASSES = ("category", "ordered", "boolean")
_FEW = 20
"""Whole numbers of no more different values are classes, unless asked otherwise."""
_KEPT = 1_000
"""Rows of the training set that new examples' conditions are drawn from, at most."""


def names(text: str | None) -> dict[str, str | None]:
    """The columns of --condition=NAME[=KIND],..., each with its kind, None to find it.

    Raises:
      UsageError: it cannot be read.

    >>> names("age,site=category")
    {'age': None, 'site': 'category'}
    """
    found: dict[str, str | None] = {}
    for item in _items(text):
        name, equals, kind = item.rpartition("=")
        if equals and kind not in KINDS:
            raise UsageError(
                f"--condition has {item}: give NAME or NAME=KIND, of the kinds {', '.join(KINDS)}"
            )
        found[name if equals else item] = kind if equals else None
    if text is not None and (not found or "" in found):
        raise UsageError(f"--condition is {text!r}: give the names of columns, NAME,NAME")
    return found


def _items(text: str | None) -> list[str]:
    """What stands between commas, in double quotes where it has one."""
    rows = list(csv.reader([text or ""], skipinitialspace=True))
    return rows[0] if rows else []


def values(text: str | None) -> dict[str, str]:
    """What --condition=NAME=VALUE,... asks of new examples.

    Raises:
      UsageError: it cannot be read.
    """
    found = {}
    for item in _items(text):
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--condition has {item!r}: give NAME=VALUE, as age=40,sex=female")
        found[name] = value
    return found


def present(frame: Any, asked: Mapping[str, Any], source: str) -> np.ndarray:
    """Whether a row [N] of a frame has all that is asked.

    Raises:
      DataError: a column is not there, or no row has all.
    """
    _check_there(frame, asked, source)
    there: np.ndarray = frame[list(asked)].notna().to_numpy().all(axis=1)
    if asked and not there.any():
        each = [name for name in asked if frame[name].isna().all()]
        what = f"a value of {each[0]!r}" if each else f"values of all of {', '.join(asked)}"
        raise DataError(f"nothing in {source} has {what}: leave it out of --condition")
    return there


def _check_there(frame: Any, asked: Mapping[str, Any], source: str) -> None:
    """Raises DataError for a column that is not there."""
    for name in asked:
        if name not in frame.columns:
            has = ", ".join(map(str, frame.columns[:20])) or "nothing beside"
            more = ", ..." * (len(frame.columns) > 20)
            raise DataError(f"{source} has no column {name!r} to condition on but {has}{more}")


def columns_of(
    frame: Any, asked: Mapping[str, str | None], rows: np.ndarray, source: str
) -> tuple[Column, ...]:
    """The columns that a model is told, by what the rows to learn from have of them.

    Raises:
      DataError: one is none to condition on; the line names it.
    """
    return tuple(_column(frame[name], kind, rows, source) for name, kind in asked.items())


def _column(series: Any, asked: str | None, rows: np.ndarray, source: str) -> Column:
    name, distinct = series.name, series.nunique()
    try:
        column = kinds.column_of(series, asked, rows)
        if column.kind in ("count", "discrete"):  # what is told has no distribution
            kind = "category" if distinct <= _FEW else "number"
            column = kinds.column_of(series, kind, rows)
            reason = f"from {column.low:g} to {column.high:g}"
            if kind == "category":
                reason = f"{distinct:,} numbers; --condition {name}=number takes them as such"
            column = dataclasses.replace(column, reason=reason)
    except DataError as error:
        said = re.sub(r"--missing .*? if that is no value, or ", "", str(error))
        raise DataError(said.replace("--columns", "--condition")) from None
    if column.kind not in KINDS:
        why = column.reason.replace("--columns", "--condition")
        raise DataError(f"column {name!r} of {source} is no condition: {column.kind}, {why}")
    if column.rest:
        raise DataError(
            f"column {name!r} of {source} has {len(column.levels) + len(column.rest):,} classes: "
            f"a condition has {kinds.MOST_LEVELS} at most; --condition {name}=number, if they are "
            "numbers, or another"
        )
    return column


def num_classes(columns: Sequence[Column]) -> tuple[int, ...]:
    """Of each column; 0 of one of numbers."""
    return tuple(c.num_classes if c.kind in _CLASSES else 0 for c in columns)


def encode(frame: Any, columns: Sequence[Column]) -> np.ndarray:
    """A frame's rows [N, C] as numbers, standardised, and classes' numbers, from 0.

    NaN is what is missing, and a class that training rows do not have.

    Raises:
      DataError: a column holds what it cannot.
    """
    each = [column.encode(frame[column.name])[0] for column in columns]
    return np.stack(each, axis=1).astype(np.float32)


def encode_known(
    frame: Any, columns: Sequence[Column], splits: Sequence[np.ndarray], source: str
) -> tuple[list[np.ndarray | None], list[np.ndarray], list[str]]:
    """Those of a data set's splits: rows that the model cannot be told are left out, and said.

    Args:
      frame: all rows.
      columns: of `columns_of`; there may be none.
      splits: rows of the frame.
      source: where they are from.

    Returns:
      Of each split `encode`, or None, and its rows; and lines for the user.

    Raises:
      DataError: nothing is left of a split.
    """
    if not columns:
        return [None] * len(splits), list(splits), []
    found = encode(frame, columns)
    known = ~np.isnan(found).any(axis=1)
    kept = [rows[known[rows]] for rows in splits]
    if not all(map(len, kept)):
        told = ", ".join(column.name for column in columns)
        raise DataError(f"{source} has too few rows with a {told} that training rows have too")
    lines = []
    if unseen := sum(map(len, splits)) - sum(map(len, kept)):
        lines.append(f"{unseen:,} of a class that no training example has: they are left out")
    return [found[rows] for rows in kept], kept, lines


def complete(part: Found, asked: Mapping[str, Any], source: str) -> Found:
    """What was found, without images that lack what the model is to be told.

    Raises:
      DataError: a column is not there.
    """
    if part.told is None:
        return part
    rows = np.flatnonzero(present(part.told, asked, source))
    if missing := len(part.told) - len(rows):
        note = f"{missing:,} of {len(part.told):,} images lack {' or '.join(asked)}: left out"
        part = part._replace(notes=(*part.notes, note))
    return part._replace(
        images=take(part.images, rows),
        labels=None if part.labels is None else part.labels[rows],
        hashes=part.hashes[rows],
        places=rows if part.places is None else part.places[rows],
        told=part.told[list(asked)].iloc[rows],
    )


def numbered(dataset: Dataset, asked: Mapping[str, str | None]) -> Dataset:
    """The data set with `told` as numbers, float32 [N, C] of each split, and its columns.

    Raises:
      DataError: as `columns_of`.
    """
    pd, parts = extras.require("pandas"), ("test", "validation", "train")
    frame = pd.concat([dataset.told[part] for part in parts], ignore_index=True)
    ends = np.cumsum([0, *(len(dataset.told[part]) for part in parts)])
    splits = [np.arange(*ends[i : i + 2]) for i in range(3)]
    columns = columns_of(frame, asked, splits[2], dataset.source)
    labels, kept, lines = encode_known(frame, columns, splits, dataset.source)
    changed: dict[str, Any] = {}
    places = dict(dataset.places)
    for part, rows, start in zip(parts, kept, ends, strict=False):
        images, classes = getattr(dataset, part)
        changed[part] = Split(take(images, rows - start), classes[rows - start])
        places[part] = places[part][rows - start]
    return dataset._replace(
        **changed,
        places=places,
        told=dict(zip(parts, labels, strict=True)),
        conditions=columns,
        notes=(*dataset.notes, *(f"told {column}" for column in columns), *lines),
    )


def given(frame: Any, columns: Sequence[Column], source: str) -> np.ndarray:
    """Those of rows that a trained model is told, [N, C].

    Raises:
      DataError: a column is not there, a cell is missing, or a class is unknown.
    """
    _check_there(frame, {column.name: None for column in columns}, source)
    try:
        found = encode(frame, columns)
    except DataError as error:  # that of training has a remedy which is none here
        what = str(error).partition(": --columns")[0]
        raise DataError(f"{what}: give what the run can be told") from None
    if lost := np.argwhere(np.isnan(found)).tolist():
        row, i = lost[0]
        name, value = columns[i].name, frame[columns[i].name].iloc[row]
        what = f"has no {name}, which the run is told: give it, or leave the row out"
        if frame[name].notna().iloc[row]:
            what = f"has the {name} {value}, which the run does not know: give {_shown(columns[i])}"
        num = len({row for row, _ in lost})
        raise DataError(f"row {row + 1} of {source} {what} ({num:,} such rows)")
    return found


def stored(columns: Sequence[Column], train: np.ndarray | None) -> dict[str, Any]:
    """What config.json says of them: the columns, and rows of the training set [N, C]."""
    if train is None:
        return {}
    rows = train[spread(len(train), _KEPT)]
    return {
        "conditions": to_json(columns),
        "condition_rows": rows.tolist(),
    }


def of_run(config: Mapping[str, Any]) -> tuple[Column, ...]:
    """Those of a run by its config.json; empty of one that is told nothing."""
    return from_json(config.get("conditions", []))


def example_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What one training row had, by the columns' names: texts, numbers and truth values."""
    columns = of_run(config)
    if not columns:
        return {}
    row = frame_of(np.array(config["condition_rows"][:1], np.float32), columns)
    return {column.name: literal(row[column.name].iloc[0]) for column in columns}


def literal(value: Any) -> Any:
    """As a program would write it: a float32 has six digits that are its own."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    # Of whole days a date has no time.
    return value if isinstance(value, bool | int | str) else str(value).removesuffix(" 00:00:00")


def drawn(
    config: Mapping[str, Any], num: int, asked: Mapping[str, Any], seed: int
) -> tuple[np.ndarray | None, list[str]]:
    """Conditions [num, C] of new examples: what is asked, the rest as training rows had it.

    The rest is drawn among the rows whose classes are those asked for, if there are any.

    Args:
      config: of the run, its config.json.
      num: how many.
      asked: values by the columns' names, as texts or as they are.
      seed: of the draws.

    Returns:
      The conditions, None of a run that is told nothing, and notes.

    Raises:
      UsageError: there is no such column, or it has no such value.
    """
    columns = of_run(config)
    if not columns:
        return None, []
    by_name = {column.name: i for i, column in enumerate(columns)}
    rows = np.array(config["condition_rows"], np.float32)
    fixed, notes = {}, []
    for name, value in asked.items():
        if name not in by_name:
            raise UsageError(
                f"--condition has {name} but the run is conditional on {', '.join(by_name)}"
            )
        fixed[by_name[name]] = number = _number(columns[by_name[name]], value)
        notes += _outside(columns[by_name[name]], value, number)
    alike = np.ones(len(rows), bool)
    for i, number in fixed.items():
        if columns[i].kind in _CLASSES:
            alike &= rows[:, i] == number
    rows = rows[alike] if alike.any() else rows
    found = rows[np.random.default_rng(seed).integers(len(rows), size=num)]
    for i, number in fixed.items():
        found[:, i] = number
    return found, notes


def _number(column: Column, value: Any) -> float:
    """What the model is told of a value that was asked for.

    Raises:
      UsageError: it is none of the column's.
    """
    if column.kind in _CLASSES:
        text = str(value)
        for name_of in (str, lambda level: str(level).strip(), _short, _truth):
            names = [name_of(level) for level in column.levels]
            if text in names:
                return float(names.index(text))
        raise UsageError(f"--condition has {column.name}={value}: give {_shown(column)}")
    pd = extras.require("pandas")
    series = pd.Series([value], name=column.name)
    if isinstance(value, str) and column.kind == "date" and column.dtype.startswith("datetime"):
        series = pd.to_datetime(series, errors="coerce")
    try:
        number = float(column.encode(series)[0][0])
    except DataError:  # its words are of a table, which is not there
        number = math.nan
    if not math.isfinite(number):
        what = {"positive": "positive number"}.get(column.kind, column.kind)
        low, high = _range(column)
        raise UsageError(
            f"--condition has {column.name}={value}, which is no {what}: give one such as the run "
            f"saw, {low} to {high}"
        )
    return number


def _short(level: Any) -> str:
    """1 for 1.0."""
    return f"{level:g}" if isinstance(level, float) else ""


def _truth(level: Any) -> str:
    """true for True, as JSON has it."""
    return str(level).lower() if isinstance(level, bool | np.bool_) else ""


def _outside(column: Column, value: Any, number: float) -> list[str]:
    """What is to be said of a number that is not between those of the training rows."""
    if column.kind in _CLASSES:
        return []
    low, high = _ends(column)
    if low - 1e-5 <= number <= high + 1e-5:
        return []
    least, most = _range(column)
    return [
        f"{column.name}={value} is outside of what the run saw, {least} to {most}: what it makes "
        "of it is a guess"
    ]


def _ends(column: Column) -> np.ndarray:
    """The least and the largest of the training rows' numbers, standardised."""
    ends = np.array([column.low, column.high])
    ends = np.log(ends) if column.kind == "positive" else ends
    found: np.ndarray = (ends - column.centre) / column.spread
    return found


def _range(column: Column) -> list[Any]:
    """The same two as the column has them."""
    return [literal(end) for end in frame_of(_ends(column)[:, None], [column])[column.name]]


def _shown(column: Column) -> str:
    levels = [str(level).strip() for level in column.levels]
    return f"one of {', '.join(levels[:20])}{', ...' * (len(levels) > 20)}"


def frame_of(values: np.ndarray, columns: Sequence[Column]) -> Any:
    """Conditions [N, C] as a frame of their columns."""
    pd = extras.require("pandas")
    rng = np.random.default_rng(0)  # of classes that are too rare to be told apart: none
    # A number that was asked for may lie outside of those of the training rows.
    free = [dataclasses.replace(c, low=-math.inf, high=math.inf) for c in columns]
    return pd.DataFrame({c.name: c.decode(values[:, i], rng) for i, c in enumerate(free)})
