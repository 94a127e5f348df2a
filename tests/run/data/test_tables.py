"""Columns of every kind, found, made numbers and back; what cannot be is one line with its name."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pytest

from vae_jax.run import tabular
from vae_jax.run.data import tables
from vae_jax.run.data.columns import from_json, to_json
from vae_jax.run.errors import DataError, RunError, UsageError

N = 600
RNG = np.random.default_rng(0)


def frame(**columns):
    return pd.DataFrame(columns)


def column(values, asked=None, name="c"):
    (found,) = tables.columns_of(frame(**{name: values}), {} if asked is None else {name: asked})
    return found


def back(values, asked=None):
    """What a column is after it has been numbers."""
    table = frame(c=values)
    columns = tables.columns_of(table, {} if asked is None else {"c": asked})
    rows, notes = tables.encode(table, columns)
    assert not notes
    return tables.decode(rows, columns)["c"]


LOGS = np.exp(RNG.normal(size=N))
DAYS = pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), unit="D")
KINDS = {
    "number": (RNG.normal(20, 5, N).round(1), "number", r"from -?\d"),
    "positive": (LOGS, "positive", "even as logarithms"),
    "count": (RNG.poisson(50, N) - 20, "number", "from"),
    "count from zero": (np.r_[0, RNG.poisson(300, N - 1)], "count", "whole numbers from 0 to"),
    "few numbers": (RNG.choice([0, 10, 10_000], N), "discrete", "3 numbers, each 200 times"),
    "0 and 1": (RNG.choice([0, 1], N), "boolean", "0 and 1"),
    "bools": (RNG.random(N) < 0.5, "boolean", "true and false"),
    "yes and no": (RNG.choice(["yes", "no"], N), "boolean", "no and yes"),
    "texts": (RNG.choice(["a", "b", "c d"], N), "category", "3 texts"),
    "ordered": (
        pd.Categorical(RNG.choice(["S", "M", "L"], N), ["S", "M", "L"], ordered=True),
        "ordered",
        "the frame says so",
    ),
    "dates": (DAYS, "date", "dates"),
    "dates as texts": (DAYS.strftime("%Y-%m-%d"), "date", "dates as texts, such as 202"),
    "days first": (DAYS.strftime("%d/%m/%Y"), "date", "the day first"),
    "months first": (DAYS.strftime("%m/%d/%Y"), "date", "the month first"),
    "times": (DAYS + pd.Timedelta("1h"), "date", "dates"),
    "times of a place": ((DAYS + pd.Timedelta("1h")).tz_localize("Asia/Tokyo"), "date", "dates"),
    "thousands": ([f"{1000 * v:,.2f}" for v in LOGS], "positive", "numbers as texts"),
    "numbers as texts": (RNG.normal(size=N).round(2).astype(str), "number", "numbers as texts"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_found_with_its_reason_and_its_values_come_back(name):
    values, kind, reason = KINDS[name]
    found = column(values)
    assert (found.kind, bool(pd.Series([found.reason]).str.contains(reason)[0])) == (kind, True)
    given, again = pd.Series(values), back(values)
    assert again.dtype == given.dtype
    if given.dtype.kind == "f" or name == "thousands":
        numbers = [s.astype(str).str.replace(",", "").astype(float) for s in (given, again)]
        np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-5, atol=0.02)
    elif name == "numbers as texts":
        np.testing.assert_allclose(again.astype(float), given.astype(float), atol=1e-6)
    elif name.startswith("times"):  # a float32 has seconds of three years
        assert (abs(again - given) < pd.Timedelta("10s")).all()
    else:
        assert (again == given).all()


@pytest.mark.parametrize("name", KINDS)
def test_what_is_missing_stays_missing_and_no_other(name):
    values = pd.Series(KINDS[name][0], dtype=object)
    values[::7] = None
    table = frame(c=values)
    columns = tables.columns_of(table, {"c": KINDS[name][1]})
    rows, _ = tables.encode(table, columns)
    np.testing.assert_array_equal(np.isnan(rows[:, 0]), values.isna())
    again = tables.decode(rows, columns)["c"]
    np.testing.assert_array_equal(again.isna(), values.isna())


LEFT_OUT = {
    "constant": (["x"] * N, "constant (every value is 'x')"),
    "all missing": ([None] * N, "left out (every value is missing)"),
    "identifier": (np.arange(7, N + 7), "left out (an identifier: each of its 600 values is anoth"),
    "identifier of text": ([f"u{i}" for i in range(N)], "left out (an identifier: each of its 600"),
    "text": (["word " * 9 + str(i) for i in range(N)], "left out (text: each of its 600 values is"),
    "half a text": ([f"t{i // 1.5}" for i in range(N)], "left out (text: 400 of its 600 values"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_said_with_the_columns_name(name):
    values, said = LEFT_OUT[name]
    table = frame(c=values, kept=LOGS)
    columns = tables.columns_of(table, {})
    assert str(columns[0]).startswith(f"c: {said}")
    rows, _ = tables.encode(table, columns)
    assert rows.shape == (N, 1)
    again = tables.decode(rows, columns)
    assert list(again.columns) == ["c", "kept"]
    if name == "constant":
        assert (again["c"] == "x").all()
    else:
        assert again["c"].isna().all()


def test_of_ten_thousand_categories_the_frequent_ones_are_told_apart():
    values = np.concatenate([np.arange(10_000).repeat(2), RNG.integers(0, 200, 20_000)])
    texts = [f"z{v}" for v in values]
    found = column(texts)
    assert found.kind == "category"
    assert "the 255 most frequent of 10,000 are told apart" in found.reason
    assert found.num_classes == 256
    again = back(texts).to_numpy()
    frequent = values < 200
    assert (again[frequent] == np.array(texts)[frequent]).all()
    assert set(again) <= set(texts)  # the rare ones are drawn, of those that there are
    assert len(set(again)) > 5_000


REFUSED = {
    "mixed": (["1", "2.5", "?"] * 20, None, "column 'c' holds numbers, such as 1, and 20 texts, "
              "such as '?' in row 3: give --missing '?' if that is no value, or --columns c=cat"),
    "infinity": ([1.0, 2.5, np.inf] * 20, None, "column 'c' holds inf: make it missing"),
    "complex": ([1j, 2j] * 30, None, "column 'c' holds complex numbers"),
    "lists": ([[1], [2]] * 20, None, "column 'c' holds a list, which is no value of a table"),
    "no number": (["a", "b"] * 20, "number", "column 'c' holds 'a' in row 1, which is no number"),
    "no date": (["a", "b"] * 20, "date", "column 'c' holds what is no date"),
    "not positive": (np.arange(60) - 3, "positive", "column 'c' holds -3, which is not positive"),
    "no count": (np.arange(60) / 2, "count", "column 'c' holds 0.5, which is no count"),
    "no truth": (["a", "b", "c"] * 20, "boolean", "column 'c' has 3 values, not a true and a fal"),
    "long order": (np.arange(600), "ordered", "column 'c' has 600 levels: 255 are the most of an"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_line_with_the_columns_name(name):
    values, asked, said = REFUSED[name]
    with pytest.raises(DataError) as error:
        column(values, asked)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_levels_that_training_rows_do_not_have_are_taken_as_missing_and_said():
    columns = tables.columns_of(frame(c=["a", "b"] * 30), {})
    rows, notes = tables.encode(frame(c=["a", "new", None]), columns)
    np.testing.assert_array_equal(rows[:, 0], [0, np.nan, np.nan])
    assert notes == [
        "c: 1 values are of no level that training rows have, such as 'new': taken as missing"
    ]
    with pytest.raises(DataError, match="there is no column 'c', which the model has learned"):
        tables.encode(frame(d=["a"]), columns)


def test_columns_are_json_and_back():
    table = frame(**{name: values for name, (values, *_) in KINDS.items()})
    columns = tables.columns_of(table, {"texts": "drop"})
    assert from_json(json.loads(json.dumps(to_json(columns)))) == columns
    assert "texts: left out (as asked)" in map(str, columns)


def test_the_files_and_the_frames_give_the_same_splits(tmp_path):
    table = frame(a=LOGS, b=RNG.choice(["x", "y"], N))
    places = [tmp_path / f"t{suffix}" for suffix in (".csv", ".parquet", ".feather")]
    for place in places:
        tables.write(table, place)
    loaded = [tables.load(place, {}) for place in places]
    loaded.append(tables.split(polars.from_dict(table.to_dict("list")), "t", "a frame", {}))
    first = loaded[0]
    assert len(first.train) + len(first.validation) + len(first.test) == N
    assert 30 < len(first.test) < 100
    for other in loaded[1:]:
        assert other.digest == first.digest
        np.testing.assert_allclose(other.test, first.test, rtol=1e-6)
    # By content: rows that are added move none from the test set to the training set.
    more = tables.split(pd.concat([table[::-1], frame(a=[9.0], b=["x"])]), "t", "", {})
    scaled = [np.exp(s.test[:, 0] * c.spread + c.centre) for s in (first, more)
              for c in tables.learned(s.columns)[:1]]  # fmt: skip
    assert set(np.round(scaled[0], 4)) <= set(np.round(scaled[1], 4))


def test_files_that_cannot_be_used_are_one_line(tmp_path):
    empty, torn = tmp_path / "empty.csv", tmp_path / "torn.parquet"
    empty.write_text("")
    torn.write_bytes(b"PAR1 no more")
    short = tmp_path / "short.csv"
    short.write_text("a,b\n1,2\n")
    parted = tmp_path / "parted.csv"
    parted.write_text("a;b\n1;2\n")
    for place, said in [
        (tmp_path / "no.csv", "does not exist: name a .csv, .parquet or .feather file"),
        (empty, r"cannot be read \(EmptyDataError"),
        (torn, r"cannot be read \(Arrow"),
        (short, "has 1 rows: 20 are the least"),
        (parted, "has one column, 'a;b': save it with commas in place of ';'"),
    ]:
        with pytest.raises(DataError, match=said):
            tables.load(place, {})
    with pytest.raises(DataError, match="there is no column 'z': the columns are a, b"):
        tables.columns_of(frame(a=[1], b=[2]), {"z": "number"})
    with pytest.raises(DataError, match="no column can be learned: a: constant"):
        tables.columns_of(frame(a=["x"] * 30), {})
    with pytest.raises(UsageError, match="--columns has age=old: give NAME=KIND, of the kinds num"):
        tables.asked_kinds(["age=old"])
    with pytest.raises(DataError, match="a list is no table"):
        tables.as_frame([1])
    with pytest.raises(DataError, match="column 'a' is there twice"):
        tables.as_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_words_for_what_is_missing(tmp_path):
    place = tmp_path / "t.csv"
    place.write_text("a\n" + "1.5\n?\n2.5\n3.25\n" * 10)
    assert tables.read(place, ["?"])["a"].isna().sum() == 10
    with pytest.raises(DataError, match="--missing '\\?'"):
        tables.columns_of(tables.read(place), {})


def test_whole_numbers_with_holes_come_back_whole(tmp_path):
    place, again = tmp_path / "t.csv", tmp_path / "again.csv"
    place.write_text("a,b\n" + "4,1.5\n,2.5\n7,3.5\n11,4.5\n" * 10)
    columns = tables.columns_of(tables.read(place), {})
    rows, _ = tables.encode(tables.read(place), columns)
    tables.write(tables.decode(rows, columns), again)
    assert again.read_text() == place.read_text()


def test_without_pandas_what_installs_it_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r'pandas is not installed: pip install "vae_jax\[tables\]"'):
        tables.read(Path("t.csv"))


def odd(place, *rows):
    header = "zip,big,name,flag,count\n"
    place.write_text(header + "".join(f"{','.join(row)}\n" for row in rows))
    return place


ODD = [
    ("08097", "12345678901234567890", "NA", "TRUE", "4"),
    ("10115", "12345678901234567891", " ?", "FALSE", ""),
    ("00501", "", "Bob", "TRUE", "NA"),
]


def test_no_cell_of_a_file_is_another_than_its_text(tmp_path):
    frame, notes = tables.read_noted(odd(tmp_path / "odd.csv", *ODD), ["?"])
    tables.write(frame, tmp_path / "again.csv")
    again = [line.split(",") for line in (tmp_path / "again.csv").read_text().splitlines()[1:]]
    missing = {"NA", " ?"}
    assert again == [["" if cell in missing else cell for cell in row] for row in ODD]
    assert notes == ["name: NA is taken as missing, 1 times; --literal takes it as a word"]


def test_a_missing_number_is_missing_however_it_is_written(tmp_path):
    place = tmp_path / "a.csv"
    place.write_text("a,b\n1,0.1\n-999,-999.0\n2,3\n")
    frame, notes = tables.read_noted(place, ["-999"])
    assert frame.isna().to_numpy().tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert notes == []


def test_rows_of_more_fields_than_names_are_refused(tmp_path):
    place = tmp_path / "a.csv"
    place.write_text("a,b\n1,2,\n3,4,\n")
    with pytest.raises(DataError, match="rows of more fields than its 2 columns' names"):
        tables.read(place)


def test_words_of_doubt_are_said_and_may_be_values(tmp_path):
    place = odd(tmp_path / "odd.csv", *ODD)
    frame, notes = tables.read_noted(place, ["none"], literal=True)
    assert frame["name"].tolist() == ["NA", " ?", "Bob"]
    assert notes == [
        "name: ? is a value, 1 times; --missing '?' if it is none",
        "--missing 'none': no cell of odd.csv holds it",
    ]


def test_codes_are_no_numbers_unless_they_are_asked_for():
    codes = pd.DataFrame({"zip": [f"{i % 7:05d}" for i in range(140)]})
    (column,) = tables.columns_of(codes, {})
    assert (column.kind, column.reason) == ("category", "7 codes")
    rows, _ = tables.encode(codes, (column,))
    assert tables.decode(rows, (column,))["zip"].tolist() == codes["zip"].tolist()
    (column,) = tables.columns_of(codes, {"zip": "number"})
    assert column.high == 6


def test_a_number_outside_of_the_levels_is_said():
    (column,) = tables.columns_of(pd.DataFrame({"age": [20, 30, 40] * 50}), {})
    assert column.kind == "discrete"
    rows, notes = tables.encode(pd.DataFrame({"age": [20, 200, 40]}), (column,))
    assert rows[:, 0].tolist() == [0, 2, 2]
    assert notes == [
        "age: 1 values lie outside of 20 to 40, such as 200: taken as the nearest of these"
    ]


@pytest.mark.parametrize(
    "written", ["$3279.85", "-$2", "3279,25", "1.234,52", "0,112", "62%", "12 \N{EURO SIGN}"]
)
def test_numbers_with_signs_are_refused_by_name(written):
    with pytest.raises(DataError, match="'money' holds numbers with a sign or a comma, such as"):
        tables.columns_of(pd.DataFrame({"money": [written, written.replace("2", "4")]}), {})


@pytest.mark.parametrize("written", ["31.12.2020", "31-Dec-2020", "12/31/2020", "2020-12-31"])
def test_dates_come_back_as_they_were(written):
    days = pd.DataFrame({"day": [written, written.replace("31", "30", 1).replace("2020", "2019")]})
    (column,) = tables.columns_of(days, {})
    assert column.kind == "date"
    rows, _ = tables.encode(days, (column,))
    assert tables.decode(rows, (column,))["day"].tolist() == days["day"].tolist()


def test_words_that_are_missing_are_said_of_other_files_too(tmp_path):
    columns = tables.columns_of(pd.DataFrame({"name": ["a", "b", "c"] * 20}), {})
    config = {"columns": to_json(columns), "options": {"data": {"missing": []}}}
    (tmp_path / "new.csv").write_text("name\na\nNA\n")
    batch, notes = tabular.given(tmp_path / "new.csv", config)
    assert np.isnan(batch.image[:, 0]).tolist() == [False, True]
    assert notes == ["name: NA is taken as missing, 1 times; --literal takes it as a word"]
