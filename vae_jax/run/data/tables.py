"""Tables: rows of .csv, .parquet and .feather files, or of a frame, as numbers, and back."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run import extras
from vae_jax.run.data import conditions, kinds
from vae_jax.run.data.columns import CODE, LEFT_OUT, ORDER, Column, as_numbers
from vae_jax.run.data.dataset import content_hash, digest_of, splits_of
from vae_jax.run.errors import DataError, RunError, UsageError


class Table(NamedTuple):
    """Rows as numbers, in three splits by their content, and what makes rows of numbers again.

    Attributes:
      name: of the file.
      columns: of the file, in its order, with what training rows say of them.
      train: [N, D] float32, see `encode`.
      validation: likewise.
      test: likewise.
      source: where the rows came from.
      digest: of all rows, in their order.
      num_rows: of all.
      notes: lines for the user.
      places: of each split, its rows' numbers in the file.
      conditions: those of the columns that the model is told.
      told: of each split, `conditions.encode`; None where there are none.
    """

    name: str
    columns: tuple[Column, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    source: str
    digest: str
    num_rows: int
    notes: tuple[str, ...]
    places: Mapping[str, np.ndarray]
    conditions: tuple[Column, ...]
    told: Mapping[str, np.ndarray | None]


def read(path: Path, missing: Sequence[str] = (), *, literal: bool = False) -> Any:
    """The rows of a file, as a frame of pandas; see `read_noted`."""
    return read_noted(path, missing, literal=literal)[0]


def read_noted(
    path: Path, missing: Sequence[str] = (), *, literal: bool = False
) -> tuple[Any, list[str]]:
    """The rows of a file, as a frame of pandas; notes of the words that are taken as missing.

    Args:
      path: .csv, .parquet or .feather.
      missing: words that stand for a missing value, beside an empty cell and, in a .csv, NA, NaN,
        null and the like.
      literal: these are words like others.

    Raises:
      DataError: it cannot be read; one line that says why.
      RunError: pandas, or what it reads with, is not installed.
    """
    suffix, notes = path.suffix.lower(), list[str]()
    extras.check("pandas", *(["pyarrow"] if suffix != ".csv" else []))
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path} does not exist: name a .csv, .parquet or .feather file")
    try:
        if suffix == ".csv":
            frame, notes = _from_csv(path, missing, literal)
        else:
            frame = (pd.read_parquet if suffix == ".parquet" else pd.read_feather)(path)
    except DataError:
        raise
    except Exception as error:  # pandas' and pyarrow's, of every type
        brief = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(
            f"{path} cannot be read ({brief}): save it anew, a .csv in UTF-8"
        ) from error
    first = str(frame.columns[0]) if len(frame.columns) == 1 else ""
    for sign in ";\t|":
        if sign in first:
            raise DataError(
                f"{path} has one column, {first!r}: save it with commas in place of {sign!r}"
            )
    if missing and suffix != ".csv":
        frame = frame.replace(list(missing), np.nan)
    return as_frame(frame), notes


def _from_csv(path: Path, missing: Sequence[str], literal: bool) -> tuple[Any, list[str]]:
    """A file's rows, whose values are what their texts say; and notes.

    Codes such as 08097 and truth values that Python writes in another way stay texts; whole numbers
    with a hole among them stay whole.
    """
    import pandas as pd

    texts = pd.read_csv(path, dtype=str, keep_default_na=False, low_memory=False).fillna("")
    if not isinstance(texts.index, pd.RangeIndex):
        raise DataError(
            f"{path} has rows of more fields than its {len(texts.columns)} columns' names: name "
            "all columns, and quote what has a comma in it"
        )
    asked = {word.strip() for word in missing}
    figures = {word: number for word in asked if (number := _number(word)) is not None}
    words = asked | (set() if literal else _MISSING)
    holes: dict[str, list[str]] = {}
    kept: dict[str, type[str]] = {}
    whole: dict[str, Any] = {}
    notes: list[str] = []
    met: set[str] = set()
    for name in texts:
        plain = texts[name].str.strip()
        numbers = pd.to_numeric(plain, errors="coerce") if figures else plain
        hole = (plain == "") | plain.isin(words) | numbers.isin(list(figures.values()))
        holes[name] = texts[name][hole].unique().tolist()
        present, said = plain[~hole], plain[hole & (plain != "")]
        met |= {*said, *(word for word, number in figures.items() if (numbers == number).any())}
        if not len(present):
            continue
        if present.str.fullmatch(CODE).any() or (
            {*present} - {"True", "False"} and {*present.str.lower()} <= {"true", "false"}
        ):
            kept[name] = str
        elif hole.any() and present.str.fullmatch(r"[-+]?\d+").all():
            whole[name] = plain.where(~hole).map(int, na_action="ignore").astype("Int64")
        elif pd.to_numeric(present, errors="coerce").isna().all():
            notes += _of_words(name, said[~said.isin(asked)], present)
    notes += [
        f"--missing {word!r}: no cell of {path.name} holds it" for word in sorted(asked - met)
    ]
    frame = pd.read_csv(path, low_memory=False, keep_default_na=False, na_values=holes, dtype=kept)
    for name, values in whole.items():
        frame[name] = values.set_axis(frame.index)
    return frame, notes


def _number(word: str) -> float | None:
    """A word as a number, which -999 and -999.0 are alike; None where it is none."""
    try:
        return float(word)
    except ValueError:
        return None


def _of_words(name: str, missing: Any, present: Any) -> Iterator[str]:
    """Notes of the words of a column of texts that may not be what they are taken for."""
    for word, times in missing.value_counts().items():
        yield f"{name}: {word} is taken as missing, {times:,} times; --literal takes it as a word"
    signs = present[~present.str.contains(r"\w")]
    for sign, times in signs.value_counts().items():
        yield f"{name}: {sign} is a value, {times:,} times; --missing {sign!r} if it is none"


_MISSING = {
    *("NA", "N/A", "n/a", "<NA>", "#NA", "#N/A", "#N/A N/A", "NaN", "nan", "-NaN", "-nan"),
    *("NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}


def as_frame(table: Any) -> Any:
    """A frame of pandas or polars as one of pandas, with texts for the names of its columns."""
    pd = extras.require("pandas")
    if not isinstance(table, pd.DataFrame):
        if not hasattr(table, "to_dict") or not hasattr(table, "columns"):
            raise DataError(
                f"a {type(table).__name__} is no table: pass a frame of pandas or polars"
            )
        table = pd.DataFrame(table.to_dict(as_series=False))
    table = table.reset_index(drop=True)
    table.columns = [str(name) for name in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f"column {twice[0]!r} is there twice: rename one of them")
    return table


def write(frame: Any, path: Path) -> None:
    """Writes a frame, as the ending of the name says.

    Raises:
      RunError: it cannot be written.
    """
    writer = {".csv": "to_csv", ".parquet": "to_parquet", ".feather": "to_feather"}
    how = {"index": False} if path.suffix.lower() != ".feather" else {}
    try:
        getattr(frame, writer[path.suffix.lower()])(path, **how)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; name another place") from error


def asked_kinds(asked: Sequence[str]) -> dict[str, str]:
    """The kinds of --columns, NAME=KIND, by the names.

    Raises:
      UsageError: one cannot be read.
    """
    found = {}
    for item in asked:
        name, equals, kind = item.rpartition("=")
        if not equals or kind not in kinds.KINDS:
            raise UsageError(
                f"--columns has {item}: give NAME=KIND, of the kinds {', '.join(kinds.KINDS)}"
            )
        found[name] = kind
    return found


def load(
    path: Path,
    asked: Mapping[str, str],
    missing: Sequence[str] = (),
    condition: Mapping[str, str | None] = MappingProxyType({}),
    *,
    literal: bool = False,
) -> Table:
    """A file's rows in splits; see `split`.

    Raises:
      DataError: it cannot be used; one line that says why, and names the column.
    """
    frame, notes = read_noted(path, missing, literal=literal)
    table = split(frame, path.stem, str(path), asked, condition)
    return table._replace(notes=(*notes, *table.notes))


def split(
    table: Any,
    name: str,
    source: str,
    asked: Mapping[str, str],
    condition: Mapping[str, str | None] = MappingProxyType({}),
) -> Table:
    """A frame's rows as three splits, which follow from their content as pictures' do.

    Args:
      table: of pandas or polars.
      name: of it.
      source: where it is from.
      asked: kinds of columns, by their names, in place of those that are found.
      condition: columns that the model is told, each with its kind, None to find it. Rows without
        a value of one are left out, and so are those of a class that training rows do not have.

    Raises:
      DataError: it cannot be used.
    """
    frame = as_frame(table)
    hashes = np.array([content_hash(row) for row in _as_bytes(frame)], np.uint64)
    there = np.flatnonzero(conditions.present(frame, condition, source))
    splits = [there[rows] for rows in splits_of(hashes[there], source, "rows")]
    told = conditions.columns_of(frame, condition, splits[2], source)
    columns = columns_of(frame, asked, splits[2], condition)
    rows, notes = encode(frame, columns)
    if missing := len(frame) - len(there):
        notes.append(
            f"{missing:,} of {len(frame):,} rows lack {' or '.join(condition)}, which the model is "
            "told: they are left out"
        )
    labels, known, lines = conditions.encode_known(frame, told, splits, source)
    test, validation, train = known
    return Table(
        name=name,
        columns=columns,
        train=rows[train],
        validation=rows[validation],
        test=rows[test],
        source=source,
        digest=digest_of(hashes),
        num_rows=len(frame),
        notes=(*notes, *lines),
        places={"train": train, "validation": validation, "test": test},
        conditions=told,
        told=dict(zip(("test", "validation", "train"), labels, strict=True)),
    )


def columns_of(
    table: Any, asked: Mapping[str, str], rows: Any = None, condition: Collection[str] = ()
) -> tuple[Column, ...]:
    """The columns of a frame: their kinds, by all rows, and their levels and scales, by some.

    Args:
      table: of pandas or polars.
      asked: kinds, by the columns' names.
      rows: those to learn from; all when not given.
      condition: names of columns that are told, not learned: they are left out.

    Raises:
      DataError: one cannot be used, or none can.
    """
    frame = as_frame(table)
    unknown = [name for name in asked if name not in frame.columns]
    if unknown:
        raise DataError(
            f"there is no column {unknown[0]!r}: the columns are "
            f"{', '.join(map(str, frame.columns[:20]))}{', ...' * (len(frame.columns) > 20)}"
        )
    rows = np.arange(len(frame)) if rows is None else rows
    columns = tuple(
        Column(n, "left out", _TOLD, str(frame[n].dtype))
        if n in condition
        else kinds.column_of(frame[n], asked.get(n), rows)
        for n in frame.columns
    )
    if not any(column.kind not in LEFT_OUT for column in columns):
        raise DataError(f"no column can be learned: {'; '.join(map(str, columns[:5]))}")
    return columns


_TOLD = "told, by --condition"


def learned(columns: Sequence[Column]) -> list[Column]:
    """Those that a model sees, in the order of its numbers: the kinds one after the other."""
    order = {kind: i for i, kind in enumerate(ORDER)}
    return sorted((c for c in columns if c.kind in order), key=lambda c: order[c.kind])


def encode(table: Any, columns: Sequence[Column]) -> tuple[np.ndarray, list[str]]:
    """A frame's rows as numbers [N, D], those of `learned` columns; and notes of what was lost.

    Numbers are transformed to a mean of 0 and a deviation of 1, counts and truth values are
    themselves, classes the number of their level. NaN is what is missing, or a level that the
    training rows do not have.

    Raises:
      DataError: a column is not there, or holds what it cannot.
    """
    frame = as_frame(table)
    notes, found = [], []
    for column in learned(columns):
        if column.name not in frame.columns:
            raise DataError(f"there is no column {column.name!r}, which the model has learned")
        values, unseen = column.encode(frame[column.name])
        found.append(values)
        if len(unseen):
            notes.append(
                f"{column.name}: {len(unseen):,} values are of no level that training rows have, "
                f"such as {unseen[0]!r}: taken as missing"
            )
        if column.kind == "discrete":
            numbers = as_numbers(frame[column.name], column.kind)
            outside = numbers[(numbers < column.low) | (numbers > column.high)]
            if len(outside):
                notes.append(
                    f"{column.name}: {len(outside):,} values lie outside of {column.low:g} to "
                    f"{column.high:g}, such as {outside[0]:g}: taken as the nearest of these"
                )
    return np.stack(found, axis=1).astype(np.float32), notes


def decode(rows: np.ndarray, columns: Sequence[Column], seed: int = 0) -> Any:
    """Numbers [N, D] as a frame: the columns' names, order, types and ranges; NaN is missing.

    A column that was left out has its one value, or none. A value that was too rare to be a level
    is drawn, by how often each was there.
    """
    pd = extras.require("pandas")
    of_column = {c.name: rows[:, i] for i, c in enumerate(learned(columns))}
    rng = np.random.default_rng(seed)
    found = {
        c.name: c.decode(of_column.get(c.name, np.full(len(rows), np.nan)), rng) for c in columns
    }
    return pd.DataFrame(found)


def _as_bytes(frame: Any) -> Iterator[np.ndarray]:
    """Each row's content, whatever its columns' types."""
    texts = [[str(value) for value in frame[name].tolist()] for name in frame.columns]
    for row in zip(*texts, strict=True):
        yield np.frombuffer("\x1f".join(row).encode(), np.uint8)
