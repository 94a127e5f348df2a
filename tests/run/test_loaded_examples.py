"""A run on a table in Python and from a shell: frames in, frames and files out."""

import contextlib
import csv
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vae_jax.checkpoint import CheckpointError
from vae_jax.run import comparison, examples, folder, kinds, loaded_examples, rows, table_options
from vae_jax.run.commands import embed, score
from vae_jax.run.data import tables
from vae_jax.run.data.columns import from_json, to_json
from vae_jax.run.errors import DataError
from vae_jax.run.explorer import contents

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A table of a number and a class, with holes."""
    rng = np.random.default_rng(0)
    height = rng.normal(170, 10, 200).round(1)
    frame = pd.DataFrame({"height": height, "sex": np.where(height > 170, "m", "f")})
    frame["sex"] = frame["sex"].astype(object)
    frame.loc[rng.random(200) < 0.2, "sex"] = None
    path = tmp_path_factory.mktemp("people") / "people.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def trained(people):
    """A run on it that has not learned anything, in a folder without a checkpoint."""
    table = tables.load(people, {})
    model = rows.make_model(table.columns, 2, (8,))
    params = model.init(jax.random.key(0), jnp.asarray(table.train[:1]))
    of = table_options.Options(data=table_options.Data(str(people)))
    config = {
        **folder.stamp(),
        "kind": "table",
        "options": kinds.to_json(of),
        "dataset": "people",
        "num_rows": 200,
        "columns": to_json(table.columns),
        "digest": table.digest,
    }
    run = people.parent / "run"
    run.mkdir()
    folder.write_json(run / "config.json", config)
    return loaded_examples.TrainedExamples(
        examples.Trained(kinds.KINDS["table"], model, params, 3, of, config), None
    )


@pytest.fixture(scope="module")
def frame(trained, people):
    """The rows of its test set."""
    batch, places = trained.data("test")
    found = pd.read_csv(people).iloc[places]
    np.testing.assert_array_equal(batch.image, tables.encode(found, columns(trained))[0])
    return found


def columns(trained):
    return from_json(trained.config["columns"])


def test_what_is_missing_is_no_part_of_a_code(trained, frame):
    codes = trained.encode(frame, num_draws=2)
    assert codes.mean.shape == codes.scale.shape == (len(frame), 2)
    assert codes.draws.shape == (len(frame), 2, 2)
    # An order of columns, a type of frame and the rows beside it change nothing.
    turned = frame[["sex", "height"]].iloc[::-1]
    np.testing.assert_allclose(trained.encode(turned).mean[::-1], codes.mean, rtol=1e-5)
    hole = frame.assign(height=np.nan, sex=None)
    alike = trained.encode(hole).mean
    np.testing.assert_allclose(alike, np.tile(alike[:1], (len(frame), 1)), rtol=1e-6)
    with pytest.raises(DataError, match="there is no column 'sex'"):
        trained.encode(frame[["height"]])
    with pytest.raises(DataError, match="there are no rows"):
        trained.encode(frame.iloc[:0])


def test_of_nothing_log_p_is_zero(trained, frame):
    """log p of a row whose values are all missing is log 1; of one value it is less."""
    frame = frame.iloc[:4]
    scores = trained.score(frame.assign(height=np.nan, sex=None), num_samples=100)
    np.testing.assert_allclose(scores.log_likelihood, 0, atol=0.3)
    # A class's probabilities over its levels are one.
    both = [
        trained.score(frame.assign(height=np.nan, sex=level), num_samples=4000).log_likelihood
        for level in ("f", "m")
    ]
    np.testing.assert_allclose(np.exp(both).sum(0), 1, atol=0.05)


def test_rows_come_back_as_rows(trained, frame):
    made = trained.reconstruct(frame)
    assert list(made.columns) == ["height", "sex"]
    assert len(made) == len(frame)
    assert set(made["sex"]) <= {"f", "m"}
    assert made["height"].notna().all()
    drawn = trained.generate(30)
    assert list(drawn.columns) == ["height", "sex"]
    pd.testing.assert_frame_equal(drawn, trained.generate(30))
    with pytest.raises(ValueError, match="num is 0: give 1 or more"):
        trained.generate(0)


def test_files_of_codes_and_scores(trained, frame, people, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded_examples, "load_examples", lambda _: trained)
    run = people.parent / "run"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        embed.main([str(run), f"--output={tmp_path / 'codes.csv'}"], "embed")
        how = ("--num-samples=100", f"--output={tmp_path / 'scores.csv'}")
        score.main([str(run), *how], "score")
    found = pd.read_csv(tmp_path / "codes.csv")
    assert found["name"].tolist() == frame.index.tolist()
    columns = found[["mean_0", "mean_1"]].to_numpy(np.float32)
    np.testing.assert_array_equal(columns, trained.encode(frame).mean)
    with (tmp_path / "scores.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    value = trained.score(frame, num_samples=100).log_likelihood
    assert [np.float32(row["log_likelihood"]) for row in written] == value.tolist()
    assert all(0 < float(row["p_value"]) <= 1 for row in written)
    assert "rows of the validation set" in said.getvalue()
    # Rows of another file.
    frame.iloc[:3].to_parquet(tmp_path / "three.parquet")
    with contextlib.redirect_stdout(io.StringIO()):
        embed.main(
            [str(run), str(tmp_path / "three.parquet"), f"--output={tmp_path / 'a.npy'}"], "e"
        )
    np.testing.assert_allclose(
        np.load(tmp_path / "a.npy"), trained.encode(frame.iloc[:3]).mean, rtol=1e-6
    )


def test_a_table_that_has_changed_is_refused(trained, people, tmp_path):
    frame = pd.read_csv(people)
    frame.iloc[1:].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(DataError, match=r"are not those of the run: 199 where it saw 200"):
        trained.data("test", tmp_path / "other.csv")


@pytest.mark.usefixtures("trained")
def test_a_run_on_a_table_without_a_checkpoint_is_one_line(people):
    with pytest.raises(CheckpointError) as raised:
        loaded_examples.load(people.parent / "run")
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("trained")
def test_the_errors_of_rows_are_compared(people, tmp_path):
    """Of a run on what is no image they have another name."""
    config = (people.parent / "run" / "config.json").read_text()
    for name, error in ("a", 0.5), ("b", 0.25):
        (tmp_path / name).mkdir()
        stored = {**json.loads(config), "dataset": "people"}
        folder.write_json(tmp_path / name / "config.json", stored)
        numbers = {"test_elbo": -3.0, "test_elbo_standard_error_over_examples": error}
        folder.write_json(tmp_path / name / "results.json", numbers)
    found = comparison.compare([tmp_path / "a", tmp_path / "b"])
    assert found.numbers["elbo_error"] == [0.5, 0.25]


def test_rows_on_a_page(trained, frame):
    """What is decoded is the likelihood's medians and probabilities; holes are empty."""
    batch, _ = trained.data("test")
    explored = contents.of_table(trained, batch, "the test set", 1000)
    told = explored.contents
    assert explored.cannot is None
    assert [of["name"] for of in told["columns"]] == ["height", "sex"]
    expected = frame.astype(object).where(frame.notna(), "").astype(str)
    assert [list(row) for row in told["rows"]] == expected.to_numpy().tolist()
    colours = {of["name"]: of for of in told["colours"]}
    assert colours["sex"]["names"] == ["f", "m"]
    assert [["f", "m", ""][i] for i in colours["sex"]["of"]] == expected["sex"].tolist()
    order = np.argsort(colours["height"]["ranks"], kind="stable")
    assert (np.diff(frame["height"].to_numpy()[order]) >= 0).all()
    z = np.array([[0.5, -1.0], [0.0, 2.0]], np.float32)
    likelihood = trained.model.decode(trained.params, jnp.asarray(z))
    values = explored.decode(z, None)
    height, sex = (next(c for c in told["columns"] if c["name"] == n) for n in ("height", "sex"))
    np.testing.assert_allclose(
        values[:, height["start"]], likelihood.parts[0].mean[:, 0], rtol=1e-5
    )
    assert sex["levels"] == [str(level) for level in columns(trained)[1].levels]
    logits = np.asarray(likelihood.parts[1].logits)[:, 0]
    start = sex["start"]
    np.testing.assert_allclose(values[:, start : start + 2], special.softmax(logits, 1), rtol=1e-5)
    json.dumps(told, allow_nan=False)
