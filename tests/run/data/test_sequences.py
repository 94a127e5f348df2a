"""Files of sequences: what is read is what was written, and what cannot be used is one line."""

import gzip
import json

import numpy as np
import pytest

from vae_jax.run import data, kinds, options
from vae_jax.run.data import sequences
from vae_jax.run.errors import DataError


def written(tmp_path, *lines):
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_steps_of_numbers_and_single_numbers_are_read_with_holes(tmp_path):
    two = sequences.read(written(tmp_path, "[[1, 2.5], [null, -3e2]]", "", "[[true, false]]"))
    np.testing.assert_array_equal(two[0], np.float32([[1, 2.5], [np.nan, -300]]))
    np.testing.assert_array_equal(two[1], np.float32([[1, 0]]))
    (one,) = sequences.read(written(tmp_path, "[0.1, NaN, 7]"))
    np.testing.assert_array_equal(one, [[0.1], [np.nan], [7]])


def test_what_is_written_is_read_by_json_alone(tmp_path):
    path, rng = tmp_path / "out.jsonl", np.random.default_rng(0)
    given = [rng.normal(size=(length, 3)).astype(np.float32) for length in (4, 1)]
    given[0][1, 2] = np.nan
    sequences.write([*given, np.float32([[1, 0, 1]])], path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0][1][2] is None
    assert str(lines[2]) == "[[1, 0, 1]]"
    for back, one in zip(sequences.read(path), given, strict=False):
        np.testing.assert_array_equal(back.astype(np.float32), one)  # to the last bit
    sequences.write([np.float32([[np.inf], [2]])], path)
    assert json.loads(path.read_text()) == [None, 2]
    sequences.write([np.float32([[0.5], [2]])], path)
    assert json.loads(path.read_text()) == [0.5, 2]


def test_fields_beside_a_sequence_are_kept(tmp_path):
    lines = ('{"id": "a", "walk": [1, null], "age": 4.5}', "[3]", '{"age": null, "walk": [[5]]}')
    path, out = written(tmp_path, *lines), tmp_path / "out.jsonl"
    items = sequences.read(path)
    assert [len(one) for one in sequences.steps_of(items)] == [2, 1, 1]
    sequences.write(items, out)
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "a", "walk": [1, None], "age": 4.5},
        [3],
        {"age": None, "walk": [5]},
    ]
    fields = sequences.beside(items, (), "here")
    assert list(fields) == sequences.fields_of(items) == ["id", "age"]
    assert fields["age"].isna().tolist() == [False, True, True]
    wrong = sequences.read(written(tmp_path, '{"sequence": [1], "age": [2]}'))
    with pytest.raises(DataError, match="sequence 1 of here has a list as 'age': a condition is a"):
        sequences.beside(wrong, ["age"], "here")
    assert sequences.beside(wrong, ["id"], "here")["age"].tolist() == [[2]]  # nobody asked for it
    ragged = [{"sequence": [[1], [2, 3]]}]
    with pytest.raises(DataError, match=r"given: no sequences .*; give a list of arrays"):
        sequences.checked(ragged, "given")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[[1], [2]]", "{]"], "line 2 of .* is no sequence"),
        (['"a"'], "line 1 of .* is no sequence .a str.: write a list of steps.*; or an object"),
        (['{"x": 1}'], "line 1 of .* its fields none is called sequence, and none is a list"),
        (['{"x": [1], "y": [2]}'], "line 1 of .* none is called sequence, and x and y are lists"),
        (['{"sequence": 7}'], "line 1 of .* is no sequence .a int."),
        (["[" * 100_000], "line 1 of .* is no sequence"),
        (["[[1, 2], [3]]"], "steps of 1 and of 2 numbers"),
        (['[["a"]]'], "'a' is no number"),
        (["[[[1]]]"], r"\[1\] is no number"),
        (["[[1, 2]]", "[[1]]"], "sequence 2 of .* has steps of 1 numbers and the first has of 2"),
        (["[]"], r"sequence 1 of .* has shape \(0, 1\)"),
        (["[[], []]"], r"sequence 1 of .* has shape \(2, 0\)"),
        (["[Infinity]"], "sequence 1 of .* holds an infinity: write null"),
        ([""], "has no sequences"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, lines, message):
    with pytest.raises(DataError, match=message) as raised:
        sequences.read(written(tmp_path, *lines))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.jsonl cannot be read"):
        sequences.read(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"bytes.jsonl cannot be read"):
        sequences.read(tmp_path / "bytes.jsonl")


def test_packed_lines_are_read_and_written(tmp_path):
    path = written(tmp_path, "[[1, 2], [3, null]]", "[[5, 6]]")
    sequences.write(sequences.read(path), tmp_path / "out.jsonl.gz")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == path.read_bytes()
    np.testing.assert_array_equal(sequences.read(tmp_path / "out.jsonl.gz")[1], [[5, 6]])
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes((tmp_path / "out.jsonl.gz").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"torn.jsonl.gz cannot be read"):
        sequences.read(torn)
    assert kinds.of_file("a.jsonl.gz") is kinds.KINDS["sequences"]
    (tmp_path / "a.csv.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"a.csv.gz is no .* folder: unpack it"):
        data.load(options.OwnData(str(tmp_path / "a.csv.gz")))


def test_what_would_not_fit_is_refused():
    one = np.zeros((1, 1000), np.float32)
    with pytest.raises(DataError, match="3 sequences padded to the 1,000,000 steps of the longest"):
        sequences.pad([one] * 3, 1_000_000)


def test_a_mark_at_the_start_is_no_part_of_a_sequence_and_large_numbers_are_refused(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"\xef\xbb\xbf[1, 2]\r\n[3]\r\n")
    np.testing.assert_array_equal(sequences.read(path)[0], [[1], [2]])
    with pytest.raises(DataError, match=r"sequence 2 of .* holds 1e\+300, more than a float32"):
        sequences.read(written(tmp_path, "[1, null]", "[2, 1e300]"))


def test_numbers_that_no_float32_is_are_written_as_they_were(tmp_path):
    path = written(tmp_path, "[[1700000001, 123456789.25], [0.1, null], [3e+30, 2]]")
    sequences.write(sequences.read(path), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == path.read_text()
