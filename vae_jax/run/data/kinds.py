"""The kind of a table's column, found from its values with the reason, and its numbers."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_jax.run.errors import DataError

ORDER = ("number", "positive", "date", "count", "boolean", "ordered", "category", "discrete")
"""The kinds that are learned, in the order of a row's numbers."""
LEFT_OUT = ("left out", "constant")
KINDS = (*ORDER, "drop")
"""What may be asked for."""

MOST_LEVELS = 255
_REPEATS = 20
_SAME_AS_TRUE = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
_THOUSANDS = re.compile(r"\s*[-+]?\d{1,3}(,\d{3})+(\.\d*)?\s*")
_MOST = 1e150
_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")
_TIME = re.compile(r"\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{2}[\d:.]*(Z|[+-]\d{2}:?\d{2})?")
_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/\d{4}")
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Column:
    """A column of a table, as JSON values.

    Attributes:
      name: of it.
      kind: one of `ORDER` or `LEFT_OUT`.
      reason: why it is that.
      dtype: of pandas, in which it is given back.
      levels: of classes, values in the order of their numbers; of a constant, it.
      rest: of classes, values that are too rare to be levels; the last level stands for them.
      rest_counts: how often each is there.
      centre: of numbers, transformed, the mean.
      spread: their standard deviation.
      low: the least value.
      high: the largest.
      decimals: of numbers, how many they are rounded to; None for as they come.
      thousands: whether numbers are written as 1,234.
      date_format: of dates that are texts, or whole days; ISO8601 of texts with a time.
    """

    name: str
    kind: str
    reason: str
    dtype: str
    levels: tuple[Any, ...] = ()
    rest: tuple[Any, ...] = ()
    rest_counts: tuple[int, ...] = ()
    centre: float = 0.0
    spread: float = 1.0
    low: float = 0.0
    high: float = 0.0
    decimals: int | None = None
    thousands: bool = False
    date_format: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.kind} ({self.reason})"

    @property
    def num_classes(self) -> int:
        return len(self.levels) + bool(self.rest)

    def encode(self, series: Any) -> tuple[np.ndarray, list[Any]]:
        """A column of a frame as float64 numbers, NaN where it is missing; levels never seen."""
        if self.kind in ("ordered", "category", "discrete", "boolean"):
            return self._numbered(series)
        values = as_numbers(series, self.kind, self.date_format)
        if self.kind == "count":
            wrong = values[(values < 0) | (values != np.round(values)) & ~np.isnan(values)]
            if wrong.size:
                raise DataError(f"column {self.name!r} holds {wrong[0]:g}, which is no count")
            return values, []
        if self.kind == "positive":
            wrong = values[values <= 0]
            if wrong.size:
                raise DataError(
                    f"column {self.name!r} holds {wrong[0]:g}, which is not positive: "
                    f"--columns {self.name}=number"
                )
            values = np.log(values)
        # Far outside of what was learned a float32 has no room.
        return np.clip((values - self.centre) / self.spread, -1e30, 1e30), []

    def _numbered(self, series: Any) -> tuple[np.ndarray, list[Any]]:
        if self.kind == "discrete":  # of numbers the nearest level is meant, and none is unseen
            values, levels = as_numbers(series, self.kind), np.array(self.levels, np.float64)
            middles = (levels[1:] + levels[:-1]) / 2
            codes = np.searchsorted(middles, values).astype(np.float64)
            return np.where(np.isnan(values), np.nan, codes), []
        number = {level: i for i, level in enumerate(self.levels)}
        rest = dict.fromkeys(self.rest, len(self.levels))
        missing = series.isna().to_numpy()
        plain = [_plain(v) for v in series.to_numpy(dtype=object)]
        found = [number.get(v, rest.get(v, np.nan)) for v in plain]
        codes = np.where(missing, np.nan, np.array(found, np.float64))
        lost = np.isnan(codes) & ~missing
        unseen = [plain[row] for row in np.flatnonzero(lost)]
        return codes, unseen

    def decode(self, values: np.ndarray, rng: np.random.Generator) -> Any:
        """Numbers of `encode` as a column of the frame."""
        import pandas as pd

        values = np.asarray(values, np.float64)
        missing = np.isnan(values)
        if self.kind == "constant":
            return _typed(pd.Series([self.levels[0]] * len(values), dtype=object), self.dtype)
        if self.kind == "left out":
            return pd.Series([None] * len(values), dtype=object)
        if self.kind in ("ordered", "category", "discrete", "boolean"):
            codes = np.where(missing, 0, values).astype(int).clip(0, self.num_classes - 1)
            found = np.array([*self.levels, None], dtype=object)[codes]
            rare = codes >= len(self.levels)
            if rare.any():
                share = np.array(self.rest_counts, np.float64)
                drawn = rng.choice(len(self.rest), rare.sum(), p=share / share.sum())
                found[rare] = np.array([*self.rest, None], dtype=object)[drawn]
        else:
            found = values if self.kind == "count" else values * self.spread + self.centre
            found = np.exp(found) if self.kind == "positive" else found
            found = np.clip(found, self.low, self.high)
            if self.decimals is not None:
                found = np.round(found, self.decimals)
            if self.kind == "date":
                return self._dates(found, missing)
            if self.thousands:
                digits = self.decimals or 0
                found = np.array([f"{v:,.{digits}f}" for v in np.where(missing, 0, found)], object)
            found = found.astype(object)
        found = pd.Series(found, dtype=object)
        found[missing] = None
        if self.dtype == "category":
            levels = pd.CategoricalDtype([*self.levels, *self.rest], self.kind == "ordered")
            return found.astype(levels)
        return _typed(found, self.dtype)

    def _dates(self, seconds: np.ndarray, missing: np.ndarray) -> Any:
        import pandas as pd

        dates = pd.Series(pd.to_datetime(np.where(missing, 0, seconds), unit="s"))
        if self.date_format.startswith("%"):  # whole days
            dates = dates.dt.round("D")
        if not self.dtype.startswith("datetime"):
            iso = self.date_format in ("", "ISO8601")
            texts = dates.dt.strftime("%Y-%m-%d %H:%M:%S" if iso else self.date_format)
            return _typed(texts.astype(object).where(~missing, None), self.dtype)
        dates = dates.where(~missing, pd.NaT)
        return (dates.dt.tz_localize("UTC") if "," in self.dtype else dates).astype(self.dtype)


def to_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(column) for column in columns]


def from_json(stored: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    def one(of: Mapping[str, Any]) -> Column:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in of.items()}
        return Column(**plain)

    return tuple(map(one, stored))


def _plain(value: Any) -> Any:
    """A level as JSON has it."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)


def _typed(series: Any, dtype: str) -> Any:
    """In the column's own type; in what holds missing values too where that does not."""
    try:
        return series.astype(dtype)
    except (TypeError, ValueError):
        return series.infer_objects()


def as_numbers(series: Any, kind: str, date_format: str = "") -> np.ndarray:
    """float64, NaN where it is missing; dates as seconds since 1970.

    Raises:
      DataError: it holds what is no number; the line names the column and the value.
    """
    import pandas as pd

    if kind == "date":
        texts = not pd.api.types.is_datetime64_any_dtype(series.dtype)
        how = (date_format or format_of(series.dropna()) or "ISO8601") if texts else None
        try:
            dates = pd.to_datetime(series, format=how, utc=how == "ISO8601")
        except (ValueError, TypeError) as error:
            brief = str(error).partition("\n")[0]
            raise DataError(f"column {series.name!r} holds what is no date ({brief})") from error
        if dates.dt.tz is not None:
            dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
        seconds = dates.astype("datetime64[us]").astype("int64").to_numpy() / 1e6
        return np.where(dates.isna(), np.nan, seconds)
    if pd.api.types.is_numeric_dtype(series.dtype):
        return _finite(series, series.to_numpy(dtype=np.float64, na_value=np.nan))
    texts = series.astype(object).where(series.notna(), None)
    plain = texts.map(lambda v: v.replace(",", "") if _is_thousands(v) else v)
    numbers = pd.to_numeric(plain, errors="coerce")
    wrong = texts[numbers.isna() & texts.notna()]
    if len(wrong):
        raise DataError(
            f"column {series.name!r} holds {wrong.iloc[0]!r} in row {wrong.index[0] + 1}, which is "
            f"no number: --columns {series.name}=category"
        )
    return _finite(series, numbers.to_numpy(dtype=np.float64))


def _finite(series: Any, values: np.ndarray) -> np.ndarray:
    if (wrong := values[np.abs(values) > _MOST]).size:
        raise DataError(
            f"column {series.name!r} holds {wrong[0]:g}: make it missing, or a number below {_MOST}"
        )
    return values


def format_of(texts: Any) -> str:
    """The one format of dates that are texts; empty where they have none, or not one.

    Of 3/4/2020 the days are first where a number above 12 says so.
    """
    plain = [str(v).strip() for v in texts]
    if all(map(_DAY.fullmatch, plain)):
        return "%Y-%m-%d"
    if all(_DAY.fullmatch(v) or _TIME.fullmatch(v) for v in plain):
        return "ISO8601"
    found = [_SLASHES.fullmatch(v) for v in plain]
    if not all(found):
        return ""
    first, second = (max(int(m[i]) for m in found if m) for i in (1, 2))
    if first > 12 and second > 12:
        return ""
    return "%d/%m/%Y" if first > 12 else "%m/%d/%Y"


def _is_thousands(value: Any) -> bool:
    return isinstance(value, str) and _THOUSANDS.fullmatch(value) is not None


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
            f"every value is {_plain(present.iloc[0])!r}",
            dtype,
            (_plain(present.iloc[0]),),
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
    thousands = any(map(_is_thousands, present))
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
    counts = learned.map(_plain).value_counts(sort=True)
    names, times = counts.index.tolist(), counts.to_numpy().tolist()
    if kind == "ordered":
        order = getattr(present.dtype, "categories", None)
        if order is not None:
            names = [_plain(v) for v in order if _plain(v) in set(names)]
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
    plain = texts.map(lambda v: v.replace(",", "") if _is_thousands(v) else v)
    numbers = pd.to_numeric(plain, errors="coerce")
    share = float(numbers.notna().mean())
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
    return "category", f"{distinct:,} texts"


def _skewness(values: np.ndarray) -> float:
    centred = values - values.mean()
    deviation = centred.std()
    return float((centred**3).mean() / deviation**3) if deviation > 0 else 0.0
