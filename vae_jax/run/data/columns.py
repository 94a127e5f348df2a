"""A table's column: what is known of it, and its values as numbers and back."""

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

_THOUSANDS = re.compile(r"\s*[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?\s*")
CODE = r"[-+]?(0\d+|\d{16,})"
"""Digits that a number would not keep: after a zero, or more than it has room for."""
_SIGNED = re.compile(
    r"[-+]?[$\u20ac\u00a3\u00a5]\s*\d.*|[-+]?\d[\d.,]*\s*[%$\u20ac\u00a3\u00a5]|[-+]?\d+(\.\d{3})*,\d+"
)
_MOST = 1e150
_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")
_TIME = re.compile(r"\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{2}[\d:.]*(Z|[+-]\d{2}:?\d{2})?")
_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/\d{4}")
_DOTS = re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}")
_MONTHS = re.compile(r"\d{1,2}-[A-Z][a-z]{2}-\d{4}")


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
        plain = [plain_value(v) for v in series.to_numpy(dtype=object)]
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


def plain_value(value: Any) -> Any:
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
            brief = str(error).partition("\n")[0].partition(". You might")[0]
            raise DataError(
                f"column {series.name!r} holds what is no date ({brief}): write 2020-12-31, "
                "31.12.2020, 12/31/2020 or 31-Dec-2020"
            ) from error
        if dates.dt.tz is not None:
            dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
        seconds = dates.astype("datetime64[us]").astype("int64").to_numpy() / 1e6
        return np.where(dates.isna(), np.nan, seconds)
    if pd.api.types.is_numeric_dtype(series.dtype):
        return _finite(series, series.to_numpy(dtype=np.float64, na_value=np.nan))
    texts = series.astype(object).where(series.notna(), None)
    plain = texts.map(lambda v: v.replace(",", "") if is_thousands(v) else v)
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
    if all(map(_DOTS.fullmatch, plain)):
        return "%d.%m.%Y"
    if all(map(_MONTHS.fullmatch, plain)):
        return "%d-%b-%Y"
    found = [_SLASHES.fullmatch(v) for v in plain]
    if not all(found):
        return ""
    first, second = (max(int(m[i]) for m in found if m) for i in (1, 2))
    if first > 12 and second > 12:
        return ""
    return "%d/%m/%Y" if first > 12 else "%m/%d/%Y"


def is_signed(value: str) -> bool:
    """Whether a text is a number with a sign of money or a share, or with a decimal comma."""
    return _SIGNED.fullmatch(value.strip()) is not None and not is_thousands(value)


def is_thousands(value: Any) -> bool:
    return isinstance(value, str) and _THOUSANDS.fullmatch(value) is not None
