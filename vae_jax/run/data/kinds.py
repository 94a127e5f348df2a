"""The kind of a table's column, found from its values, with the reason."""

import dataclasses
import re
from typing import Any

import numpy as np

from vae_jax.run.data.columns import (
    CODE,
    ORDER,
    Column,
    as_numbers,
    format_of,
    is_signed,
    is_thousands,
    plain_value,
)
from vae_jax.run.errors import DataError

KINDS = (*ORDER, "drop")
"""What may be asked for."""

MOST_LEVELS = 255
_REPEATS = 20
_SAME_AS_TRUE = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
_SECONDS_A_DAY = 86_400


def column_of(series: Any, asked: str | None, rows: np.ndarray) -> Column:
    """The column: its kind, as asked or found, and what the rows to learn from say of it.

    Raises:
      DataError: it cannot be used; the line names it.
    """
    import pandas as pd

    name, dtype = str(series.name), str(series.dtype)
    if asked == "drop":
        return Column(name, "left out", "as asked", dtype)
    present = series.dropna()
    if not len(present):
        return Column(name, "left out", "every value is missing", dtype)
    try:
        distinct = present.nunique()
    except TypeError as error:  # lists and the like
        raise DataError(
            f"column {name!r} holds a {type(present.iloc[0]).__name__}, which is no value of a "
            f"table: --columns {name}=drop"
        ) from error
    if pd.api.types.is_complex_dtype(present.dtype):
        raise DataError(f"column {name!r} holds complex numbers: make two columns of it")
    if distinct == 1:
        return Column(
            name,
            "constant",
            f"every value is {plain_value(present.iloc[0])!r}",
            dtype,
            (plain_value(present.iloc[0]),),
        )
    kind, reason = (asked, "as asked") if asked is not None else _found(present, distinct, name)
    if kind == "left out":
        return Column(name, kind, f"{reason}; --columns {name}=KIND keeps it", dtype)
    learned = series.iloc[rows].dropna()
    if not len(learned) or learned.nunique() == 1:
        return Column(name, "left out", "the training rows have one value of it at most", dtype)
    if kind in ("category", "ordered", "boolean", "discrete"):
        return _of_levels(learned, present, name, kind, reason, dtype)
    texts = not pd.api.types.is_datetime64_any_dtype(present.dtype)
    date_format = format_of(present) if kind == "date" and texts else ""
    every = as_numbers(present, kind, date_format)
    if kind == "date" and not texts and not (every % _SECONDS_A_DAY).any():
        date_format = "%Y-%m-%d"
    values = as_numbers(learned, kind, date_format)
    whole = bool((every == np.round(every)).all())
    decimals = 0 if whole else _decimals(every)
    thousands = any(map(is_thousands, present))
    column = Column(
        name,
        kind,
        reason,
        dtype,
        low=float(values.min()),
        high=float(values.max()),
        decimals=decimals,
        thousands=thousands and kind != "date",
        date_format=date_format,
    )
    encoded, _ = column.encode(learned)
    if kind == "count":
        return dataclasses.replace(column, centre=float(max(encoded.mean(), 1e-3)))
    return dataclasses.replace(
        column, centre=float(encoded.mean()), spread=float(encoded.std()) or 1.0
    )


def _decimals(values: np.ndarray) -> int | None:
    """How many decimals are enough for all of the values; None for more than six."""
    for digits in range(1, 7):
        if np.allclose(values, np.round(values, digits), rtol=1e-12, atol=1e-12):
            return digits
    return None


def _of_levels(learned: Any, present: Any, name: str, kind: str, reason: str, dtype: str) -> Column:
    """A column of classes: those of an order by it, others by how often they are there."""
    if kind == "discrete":
        levels = np.unique(as_numbers(learned, kind)).tolist()
        if all(v == int(v) for v in levels):
            levels = [int(v) for v in levels]
        return Column(name, kind, reason, dtype, tuple(levels), low=levels[0], high=levels[-1])
    counts = learned.map(plain_value).value_counts(sort=True)
    names, times = counts.index.tolist(), counts.to_numpy().tolist()
    if kind == "ordered":
        order = getattr(present.dtype, "categories", None)
        if order is not None:
            names = [plain_value(v) for v in order if plain_value(v) in set(names)]
        else:
            try:
                names = sorted(names)
            except TypeError as error:
                raise DataError(
                    f"column {name!r} holds values that have no order, such as {names[0]!r}: "
                    f"--columns {name}=category"
                ) from error
    if kind == "boolean":
        if len(names) != 2:
            raise DataError(f"column {name!r} has {len(names)} values, not a true and a false")
        names = sorted(names, key=lambda v: str(v).casefold() not in ("false", "no", "f", "n", "0"))
    if kind == "ordered" and len(names) > MOST_LEVELS:
        raise DataError(
            f"column {name!r} has {len(names):,} levels: {MOST_LEVELS} are the most of an order; "
            f"--columns {name}=number"
        )
    if len(names) <= MOST_LEVELS:
        return Column(name, kind, reason, dtype, tuple(names))
    reason += f"; the {MOST_LEVELS} most frequent of {len(names):,} are told apart"
    return Column(
        name,
        kind,
        reason,
        dtype,
        tuple(names[:MOST_LEVELS]),
        tuple(names[MOST_LEVELS:]),
        tuple(times[MOST_LEVELS:]),
    )


def _found(present: Any, distinct: int, name: str) -> tuple[str, str]:
    """A kind, and the reason for it."""
    import pandas as pd

    dtype = present.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        kind = "ordered" if dtype.ordered else "category"
        return kind, f"the frame says so, {distinct:,} levels"
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean", "true and false"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date", "dates"
    if pd.api.types.is_numeric_dtype(dtype):
        return _of_numbers(present, distinct, name)
    return _of_texts(present, distinct, name)


def _of_numbers(present: Any, distinct: int, name: str) -> tuple[str, str]:
    values, num = as_numbers(present, "number"), len(present)
    if set(np.unique(values)[:3].tolist()) == {0.0, 1.0}:
        return "boolean", "0 and 1"
    whole = bool((values == np.round(values)).all())
    one_by_one = whole and distinct == num and values.max() - values.min() == num - 1
    named = re.fullmatch(r"(?i)(.*[_ ])?(id|key|uuid|index)|unnamed: \d+", name) is not None
    if whole and distinct == num and num >= _REPEATS and (one_by_one or named):
        return "left out", f"an identifier: each of its {num:,} values is another"
    if distinct <= MOST_LEVELS and num >= _REPEATS * distinct:
        return "discrete", f"{distinct} numbers, each {num // distinct:,} times on average"
    if whole and values.min() in (0, 1) and values.max() < 2**24:
        return "count", f"whole numbers from {values.min():g} to {values.max():g}"
    if values.min() > 0:
        logs = np.log(values)
        if abs(_skewness(logs)) < abs(_skewness(values)):
            return "positive", f"from {values.min():g} to {values.max():g}, even as logarithms"
    return "number", f"from {values.min():g} to {values.max():g}"


def _of_texts(present: Any, distinct: int, name: str) -> tuple[str, str]:
    import pandas as pd

    num = len(present)
    texts = present.map(str)
    if any({v.strip().casefold() for v in texts.unique()[:3]} == both for both in _SAME_AS_TRUE):
        return "boolean", " and ".join(sorted(texts.unique()))
    signed = texts.map(is_signed)
    if signed.any() and (signed | texts.map(is_thousands)).all():
        raise DataError(
            f"column {name!r} holds numbers with a sign or a comma, such as "
            f"{texts[signed].iloc[0]!r}: write them as 1234.5, or give --columns {name}=drop"
        )
    plain = texts.map(lambda v: v.replace(",", "") if is_thousands(v) else v)
    codes = texts.str.strip().str.fullmatch(CODE).any()
    numbers = pd.to_numeric(plain, errors="coerce")
    share = 0.0 if codes else float(numbers.notna().mean())
    if share == 1:
        kind, reason = _of_numbers(numbers, numbers.nunique(), name)
        return kind, f"numbers as texts, {reason}" if kind in ORDER else reason
    if share >= 0.5:
        odd = texts[numbers.isna()]
        raise DataError(
            f"column {name!r} holds numbers, such as {texts[numbers.notna()].iloc[0]}, and "
            f"{len(odd):,} texts, such as {odd.iloc[0]!r} in row {odd.index[0] + 1}: give "
            f"--missing {odd.iloc[0].strip()!r} if that is no value, or --columns {name}=category"
        )
    if how := format_of(texts):
        order = {"%d": ", the day first", "%m": ", the month first"}.get(how[:2], "")
        return "date", f"dates as texts, such as {texts.iloc[0]}{order}"
    if distinct == num and num >= _REPEATS:
        what = "text" if texts.map(len).mean() > 40 else "an identifier"
        return "left out", f"{what}: each of its {num:,} values is another"
    if distinct > num / 2 and num >= _REPEATS:
        return "left out", f"text: {distinct:,} of its {num:,} values are different"
    return "category", f"{distinct:,} {'codes' if codes else 'texts'}"


def _skewness(values: np.ndarray) -> float:
    centred = values - values.mean()
    deviation = centred.std()
    return float((centred**3).mean() / deviation**3) if deviation > 0 else 0.0
