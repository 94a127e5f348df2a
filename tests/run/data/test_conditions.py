"""Columns that a model is told: what is asked for in words, what is found, and what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vae_jax.run import data, options
from vae_jax.run.data import conditions, tables
from vae_jax.run.errors import DataError, UsageError

N = 400
RNG = np.random.default_rng(0)
SEX = RNG.choice(["f", "m"], N).astype(object)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(17, 91, N),
        "sex": SEX,
        "site": RNG.integers(1, 4, N),
        # Women's doses are low and men's high.
        "dose": np.exp(RNG.normal(size=N) + 3 * (SEX == "m")),
        "day": pd.to_datetime("2020-01-01") + pd.to_timedelta(RNG.integers(0, 99, N), unit="D"),
        "name": [f"n{i}" for i in range(N)],
        "x": RNG.normal(size=N),
    }
)
EVERY = np.arange(N)


def told(text, frame=FRAME):
    return conditions.columns_of(frame, conditions.names(text), EVERY, "here")


def config_of(columns, frame=FRAME):
    return json.loads(json.dumps(conditions.stored(columns, conditions.encode(frame, columns))))


def test_a_condition_is_read_from_the_command_line():
    assert conditions.names(None) == {}
    assert conditions.names('age, site=category,"a, b"') == {
        "age": None,
        "site": "category",
        "a, b": None,
    }
    assert conditions.values("age=40,sex=a=b") == {"age": "40", "sex": "a=b"}
    assert conditions.values(None) == {}
    for text in "", "age,,sex":
        with pytest.raises(UsageError, match="give the names of columns"):
            conditions.names(text)
    with pytest.raises(UsageError, match="has age=count: give NAME or NAME=KIND, of the kinds"):
        conditions.names("age=count")
    with pytest.raises(UsageError, match="has 'age': give NAME=VALUE, as age=40"):
        conditions.values("age,sex=f")


def test_numbers_are_standardised_and_classes_numbered():
    columns = told("age,sex,site,dose,day")
    assert [c.kind for c in columns] == ["number", "category", "category", "positive", "date"]
    assert conditions.num_classes(columns) == (0, 2, 3, 0, 0)
    found = conditions.encode(FRAME, columns)
    for i, values in (0, FRAME["age"]), (3, np.log(FRAME["dose"])):
        np.testing.assert_allclose(found[:, i], (values - values.mean()) / values.std(ddof=0), 1e-4)
    levels = np.array(columns[1].levels, object)
    np.testing.assert_array_equal(levels[found[:, 1].astype(int)], FRAME["sex"])
    back = conditions.frame_of(found, columns)
    pd.testing.assert_frame_equal(back.drop(columns="dose"), FRAME[back.columns.drop("dose")])
    np.testing.assert_allclose(back["dose"], FRAME["dose"], rtol=1e-5)
    assert told("site=number")[0].kind == "number"


def test_what_is_no_condition_is_one_line():
    with pytest.raises(DataError, match="here has no column 'agee' to condition on but age, sex"):
        conditions.present(FRAME, {"agee": None}, "here")
    with pytest.raises(DataError, match="'name' of here is no condition: left out, an identifier"):
        told("name")
    many = FRAME.assign(name=[f"n{i % 300}" for i in range(N)])
    with pytest.raises(DataError, match="has 300 classes: a condition has 255 at most"):
        told("name=category", many)
    with pytest.raises(DataError, match=r"holds numbers.* and 10 texts.*--condition age=category"):
        told("age", FRAME.assign(age=FRAME["age"].astype(object).where(EVERY > 9, "x y")))


def test_rows_that_a_run_cannot_be_told_are_one_line():
    columns = told("age,sex")
    assert conditions.given(FRAME, columns, "here").shape == (N, 2)
    with pytest.raises(DataError, match="has no column 'sex' to condition on"):
        conditions.given(FRAME[["age"]], columns, "here")
    with pytest.raises(DataError, match=r"row 3 of here has no age, .* leave the row out \(2 such"):
        conditions.given(
            FRAME.assign(age=FRAME["age"].astype(float).mask((EVERY == 2) | (EVERY == 5))),
            columns,
            "here",
        )
    with pytest.raises(
        DataError, match=r"has the sex d, which .* not know: give one of [fm], [fm]"
    ):
        conditions.given(FRAME.assign(sex="d"), columns, "here")


def test_new_conditions_are_what_is_asked_and_the_rest_as_it_was():
    columns = told("age,sex,dose,day,site")
    config = config_of(columns)
    found, notes = conditions.drawn(config, 2_000, {"age": "40", "sex": "f"}, 0)
    frame = conditions.frame_of(found, columns)
    assert (set(frame["age"]), set(frame["sex"]), notes) == ({40}, {"f"}, [])
    women = FRAME["sex"] == "f"
    np.testing.assert_allclose(
        np.log(frame["dose"]).mean(), np.log(FRAME["dose"][women]).mean(), atol=0.15
    )
    assert set(frame["dose"].round(3)) <= set(FRAME["dose"][women].round(3))
    again = conditions.drawn(config, 2_000, {"age": 40, "sex": "f"}, 0)[0]
    np.testing.assert_array_equal(again, found)
    free, _ = conditions.drawn(config, 2_000, {}, 1)
    share = (conditions.frame_of(free, columns)["sex"] == "f").mean()
    assert abs(share - women.mean()) < 0.05
    dated, _ = conditions.drawn(config, 1, {"day": "2020-02-03", "site": "2"}, 0)
    frame = conditions.frame_of(dated, columns)
    assert (frame["day"][0], frame["site"][0]) == (pd.Timestamp("2020-02-03"), 2)
    assert conditions.drawn({}, 3, {}, 0) == (None, [])
    spaced = FRAME.assign(sex=" " + FRAME["sex"], site=FRAME["site"].astype(float))
    config = config_of(told("sex,site", spaced), spaced)
    for name, value in ("sex", "f"), ("sex", " f"), ("site", "2"), ("site", 2.0):
        column = ("sex", "site").index(name)
        found, _ = conditions.drawn(config, 1, {name: value}, 0)
        levels = conditions.of_run(config)[column].levels
        assert levels[int(found[0, column])] == (" f" if name == "sex" else 2)


def test_a_value_that_was_never_seen_is_refused_and_a_number_outside_said():
    config = config_of(told("age,sex,dose"))
    with pytest.raises(UsageError, match=r"has sex=d: give one of [fm], [fm]"):
        conditions.drawn(config, 1, {"sex": "d"}, 0)
    with pytest.raises(UsageError, match="has size but the run is conditional on age, sex, dose"):
        conditions.drawn(config, 1, {"size": "d"}, 0)
    for name, value in ("age", "old"), ("age", "nan"), ("dose", "-1"):
        with pytest.raises(UsageError, match=f"has {name}={value}, which is no ") as refused:
            conditions.drawn(config, 1, {name: value}, 0)
        assert not re.search("--columns|row", str(refused.value))
    with pytest.raises(UsageError, match=r"is no number: give one such as the run saw, 17 to 90$"):
        conditions.drawn(config, 1, {"age": "old"}, 0)
    dates = config_of(told("day"))
    with pytest.raises(UsageError, match=r"is no date: .* saw, 2020-01-01 to 2020-04-08$"):
        conditions.drawn(dates, 1, {"day": "soon"}, 0)
    columns = conditions.of_run(config)
    for name, value in ("age", "old"), ("dose", -1.0):
        with pytest.raises(DataError, match=r"give what the run can be told$") as refused:
            conditions.given(FRAME.assign(**{name: value}), columns, "here")
        assert "--columns" not in str(refused.value)
    found, notes = conditions.drawn(config, 1, {"age": "100"}, 0)
    assert "age=100 is outside of what the run saw, 17 to 90" in notes[0]
    assert conditions.frame_of(found, told("age,sex,dose"))["age"][0] == 100


def test_a_table_is_told_its_conditions_and_learns_the_rest():
    frame = FRAME.assign(sex=FRAME["sex"].where(EVERY % 10 > 0, None))
    plain = tables.split(frame, "t", "here", {})
    table = tables.split(frame, "t", "here", {}, conditions.names("sex,age"))
    kinds = {column.name: (column.kind, column.reason) for column in table.columns}
    assert kinds["sex"] == kinds["age"] == ("left out", "told, by --condition")
    assert [c.name for c in tables.learned(table.columns)] == ["x", "dose", "day", "site"]
    assert table.digest == plain.digest
    assert any("40 of 400 rows lack sex or age" in note for note in table.notes)
    assert sum(map(len, table.places.values())) == 360
    for part, label in table.told.items():
        of = frame.iloc[table.places[part]]
        back = conditions.frame_of(label, table.conditions)
        assert (back["sex"].to_numpy() == of["sex"].to_numpy()).all()
        assert (back["age"].to_numpy() == of["age"].to_numpy()).all()


def test_rows_of_a_class_that_training_does_not_have_are_left_out():
    splits = [np.arange(40), np.arange(40, 80), np.arange(80, N)]
    frame = FRAME.assign(sex=np.where(EVERY < 3, "d", FRAME["sex"]))
    columns = conditions.columns_of(frame, {"sex": None}, splits[2], "here")
    labels, rows, lines = conditions.encode_known(frame, columns, splits, "here")
    assert lines == ["3 of a class that no training example has: they are left out"]
    assert [of.tolist() for of in rows] == [list(range(3, 40)), *(of.tolist() for of in splits[1:])]
    assert [len(of) for of in labels] == [37, 40, 320]
    with pytest.raises(DataError, match="too few rows with a sex that training rows have too"):
        conditions.encode_known(frame, columns, [splits[0][:3], *splits[1:]], "here")
    assert conditions.encode_known(frame, (), splits, "here")[0] == [None, None, None]


# Of images

IMAGES = RNG.integers(256, size=(60, 4, 4), dtype=np.uint8)
AGES = RNG.integers(20, 90, 60)
SITES = RNG.choice(["a", "b"], 60)


def load(dataset, condition, **more):
    return data.load(options.OwnData(str(dataset), condition=condition, **more))


def check_told(found, ages=AGES, sites=SITES):
    """Each image has its own age and site."""
    of_image = {image.tobytes(): (a, s) for image, a, s in zip(IMAGES, ages, sites, strict=True)}
    for part, told in found.told.items():
        images = np.asarray(getattr(found, part).images)
        frame = conditions.frame_of(told, found.conditions)
        assert len(images) == len(frame) > 0
        for image, age, site in zip(images, frame["age"], frame["site"], strict=True):
            assert of_image[image.tobytes()] == (age, site)


def test_arrays_of_a_npz_file_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, age=AGES, site=SITES, other=AGES)
    found = load(tmp_path / "a.npz", "age,site")
    check_told(found)
    assert [(c.name, c.kind) for c in found.conditions] == [("age", "number"), ("site", "category")]
    assert any("not read: other" in note for note in found.notes)
    np.savez(tmp_path / "b.npz", images=IMAGES, age=AGES + 1, site=SITES)
    assert load(tmp_path / "b.npz", "age,site").digest != found.digest
    assert load(tmp_path / "b.npz", None).digest == load(tmp_path / "a.npz", None).digest
    ages = AGES.astype(float)
    ages[::6] = np.nan
    np.savez(tmp_path / "holes.npz", images=IMAGES, age=ages, site=SITES)
    found = load(tmp_path / "holes.npz", "age,site")
    check_told(found)
    assert any("10 of 60 images lack age or site: left out" in note for note in found.notes)
    of_splits = {"x_train": IMAGES[:40], "x_test": IMAGES[40:]}
    columns = {"age_train": AGES[:40], "test_age": AGES[40:]}
    sites = {"site_train": SITES[:40], "site_test": SITES[40:]}
    np.savez(tmp_path / "splits.npz", **of_splits, **columns, **sites)
    check_told(load(tmp_path / "splits.npz", "age,site"))
    with pytest.raises(DataError, match=r"no array 'size_train' to condition on but x_train, x_te"):
        load(tmp_path / "splits.npz", "size")
    np.savez(tmp_path / "few.npz", images=IMAGES, age=AGES[:9])
    with pytest.raises(
        DataError, match=r"'age', has shape \(9,\): give one value for each of the 60"
    ):
        load(tmp_path / "few.npz", "age")
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(UsageError, match=r"the model is told age and .* is a .npy file, which has"):
        load(tmp_path / "a.npy", "age")


def test_columns_beside_a_folder_are_told(tmp_path):
    frame = pd.DataFrame({"file": [f"{i}.png" for i in range(60)], "age": AGES, "site": SITES})
    for name, image in zip(frame["file"], IMAGES, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    with pytest.raises(DataError, match=r"has no labels.csv: write one, whose first column has th"):
        load(tmp_path, "age,site")
    frame[["age", "file"]].to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match=r"labels.csv, 'age', has '.*', which is no picture there"):
        load(tmp_path, "age")
    frame.loc[7, "site"] = None
    frame[::-1].drop(index=9).to_csv(tmp_path / "labels.csv", index=False)
    found = load(tmp_path, "age,site")
    check_told(found)
    assert sum(map(len, found.told.values())) == 58
    assert any("2 of 60 images lack age or site: left out" in note for note in found.notes)
    assert not any("passed over" in note for note in found.notes)
    frame.loc[[0, 0, *range(60)]].to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match=r"labels.csv has 0.png twice: leave one line"):
        load(tmp_path, "age")


def test_splits_of_a_folder_share_one_table_or_have_their_own(tmp_path):
    names = [f"{'train' if i < 40 else 'test'}/{i}.png" for i in range(60)]
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    for name, image in zip(names, IMAGES, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    frame = pd.DataFrame({"file": names, "age": AGES, "site": SITES})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    whole = load(tmp_path, "age,site")
    check_told(whole)
    (tmp_path / "labels.csv").unlink()
    for part in "train", "test":
        own = frame[frame["file"].str.startswith(part)]
        own = own.assign(file=own["file"].str.removeprefix(f"{part}/"))
        own.to_csv(tmp_path / part / "labels.csv", index=False)
    of_parts = load(tmp_path, "age,site")
    check_told(of_parts)
    assert of_parts.digest == whole.digest


def test_a_truth_value_is_asked_for_in_any_spelling():
    frame = FRAME.assign(smokes=RNG.random(N) < 0.5)
    config = config_of(told("smokes", frame), frame)
    for value, number in ("true", 1), ("True", 1), (True, 1), ("false", 0), (False, 0):
        assert (conditions.drawn(config, 3, {"smokes": value}, 0)[0] == number).all()
    with pytest.raises(UsageError, match="has smokes=yes: give one of False, True"):
        conditions.drawn(config, 3, {"smokes": "yes"}, 0)


def test_what_no_row_has_is_named_and_no_option_of_tables_is_advised():
    half = FRAME.assign(
        none=None,
        age=FRAME["age"].where(EVERY < 9),
        dose=FRAME["dose"].where(EVERY > 9),
        mixed=np.where(EVERY % 2, "x", EVERY.astype(str)),
    )
    with pytest.raises(DataError, match="nothing in here has a value of 'none': leave it out of"):
        conditions.present(half, conditions.names("sex,none"), "here")
    with pytest.raises(DataError, match="nothing in here has values of all of age, dose: leave"):
        conditions.present(half, conditions.names("age,dose"), "here")
    assert conditions.present(half, conditions.names("age"), "here").sum() == 9
    with pytest.raises(DataError, match="'x' in row 2: give --condition mixed=category"):
        told("mixed", half)
