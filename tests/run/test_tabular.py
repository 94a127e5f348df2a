"""A run on a table, by its commands: train, generate, impute, evaluate, resume."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from vae_jax.run import folder, load
from vae_jax.run.commands import evaluate, generate, impute, train
from vae_jax.run.errors import DataError, UsageError

SMALL = ("--hidden", "8", "--latent-dim=2", "--num-importance-samples=10", "--batch-size=100")


def people():
    """A number and a class that go together, with holes; and what a model has no use for."""
    rng = np.random.default_rng(0)
    h = rng.normal(size=300)
    table = pd.DataFrame(
        {
            "id": np.arange(300),
            "height": (170 + 10 * h).round(1),
            "sex": np.where(h + 0.3 * rng.normal(size=300) > 0, "male", "female"),
            "country": "CH",
        }
    )
    table["sex"] = table["sex"].astype(object)
    table.loc[rng.random(300) < 0.2, "height"] = np.nan
    table.loc[rng.random(300) < 0.2, "sex"] = None
    return table


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short run, and its table."""
    place = tmp_path_factory.mktemp("tabular")
    people().to_csv(place / "people.csv", index=False)
    patch = pytest.MonkeyPatch()
    # Strict promotion is for the library: optax mixes types, as in every run.
    with patch.context() as changed:
        changed.chdir(place)
        train.main(["people.csv", "--output=run", "--epochs=2", *SMALL], "vae-jax train")
        folder.unlock(Path("run"))
    return place


pytestmark = pytest.mark.long  # it compiles for half a minute; test_rows.py is in every run
relax = pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")


@relax
def test_a_run_leaves_numbers_pictures_and_rows(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    results = json.loads((trained / "run" / "results.json").read_text())
    assert results["columns"] == {
        "id": "left out",
        "height": "number",
        "sex": "category",
        "country": "constant",
    }
    assert results["num_train"] + results["num_validation"] + results["num_test"] == 300
    assert results["test_log_likelihood"] > results["test_elbo"] - 0.1
    for name in "marginals.png", "curves.png", "metrics.jsonl", "config.json":
        assert (trained / "run" / name).stat().st_size > 0

    generate.main(["run", "--output=rows.csv", "--num=150"], "vae-jax generate")
    assert "id: empty, as the run did not learn them" in capsys.readouterr().out
    real, rows = pd.read_csv("people.csv"), pd.read_csv("rows.csv")
    assert (list(rows.columns), len(rows)) == (list(real.columns), 150)
    assert rows["height"].between(real["height"].min(), real["height"].max()).all()
    assert set(rows["sex"]) == {"male", "female"}
    assert (rows["country"] == "CH").all()
    np.testing.assert_allclose(rows["height"], rows["height"].round(1))

    few = ("--num-samples=50", "--num-draws=2")
    impute.main(["run", "people.csv", "--output=full.csv", *few], "vae-jax impute")
    holes = int(real.isna().sum().sum())
    assert f"{holes} of {holes} missing values filled" in capsys.readouterr().out
    full, *draws = (pd.read_csv(f"full{end}.csv") for end in ("", "_1", "_2"))
    for filled in full, *draws:
        assert not filled.isna().any().any()
        pd.testing.assert_frame_equal(filled.where(real.notna()), real)
    assert not draws[0].equals(draws[1])
    with pytest.raises(DataError, match=r"nothing is missing in full.csv of what the run has"):
        impute.main(["run", "full.csv", "--output=other.csv"], "vae-jax impute")
    again = load("run").impute(real, num_samples=50)
    pd.testing.assert_frame_equal(again.filled, full)

    evaluate.main(["run", "--num-samples=10"], "vae-jax evaluate")
    again = json.loads((trained / "run" / "evaluation.json").read_text())
    assert again["parameters_sha256"] == results["parameters_sha256"]
    assert abs(again["test_elbo"] - results["test_elbo"]) < 0.5


@relax
def test_a_run_goes_on_with_its_own_table_alone(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    with pytest.raises(UsageError, match=r"--hidden is .* but the run in run has .*: leave it out"):
        train.main(["--output=run", "--resume", "--hidden", "9"], "vae-jax train")
    people().iloc[:200].to_csv("fewer.csv", index=False)
    with pytest.raises(
        DataError, match=r"fewer.csv are not those of the run: 200 where it saw 300"
    ):
        evaluate.main(["run", "--data=fewer.csv"], "vae-jax evaluate")
    people().drop(columns="sex").to_csv("other.csv", index=False)
    with pytest.raises(DataError, match="no column 'sex', which the model has learned"):
        impute.main(["run", "other.csv", "--output=o.csv"], "vae-jax impute")
    with pytest.raises(UsageError, match=r"--output=o.png has no ending of a table"):
        generate.main(["run", "--output=o.png"], "vae-jax generate")
    capsys.readouterr()
    train.main(["--output=run", "--resume", "--epochs=3"], "vae-jax train")
    rows = [json.loads(line) for line in (trained / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert re.search(r"height: number \(from \d", capsys.readouterr().out)


@relax
def test_rows_are_asked_for_by_what_the_run_is_told(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    train.main(["people.csv", "--condition=sex", "--output=told", "--epochs=2", *SMALL], "train")
    folder.unlock(Path("told"))
    results = json.loads(Path("told/results.json").read_text())
    assert (results["conditions"], results["conditional"]) == ({"sex": "category"}, True)
    said = capsys.readouterr().out
    assert "told sex: category (2 texts)" in said
    assert "log p(x|c)" in said
    generate.main(["told", "--output=m.csv", "--num=50", "--condition=sex=male"], "generate")
    made = pd.read_csv("m.csv")
    assert list(made.columns) == ["id", "height", "sex", "country"]
    assert (set(made["sex"]), made["height"].notna().all()) == ({"male"}, True)
    people().dropna(subset="sex").to_csv("told.csv", index=False)
    card = Path("told/README.md").read_text()
    assert "| given | sex, so that it is p(x\\|c) |" in card
    code = re.search(r"```py\n(.*?)```", card, re.DOTALL)[1]
    exec(code.replace("path/of/this/folder", "told"), {"rows": "told.csv"})
    impute.main(["told", "told.csv", "--output=full.csv", "--num-samples=20"], "impute")
    assert pd.read_csv("full.csv")["height"].notna().all()
    with pytest.raises(DataError, match=r"row \d+ of people.csv has no sex, which the run is told"):
        impute.main(["told", "people.csv", "--output=full.csv", "--num-samples=20"], "impute")
    with pytest.raises(UsageError, match="asks for sex but the run was trained without"):
        generate.main(["run", "--output=m.csv", "--condition=sex=male"], "generate")


@relax
def test_a_run_starts_from_anothers_parameters_or_says_why_not(trained, monkeypatch):
    monkeypatch.chdir(trained)
    train.main(["people.csv", "--output=first", "--epochs=2", *SMALL], "vae-jax train")
    folder.unlock(Path("first"))
    start = ("--init-from=first", "--learning-rate=1e-9", "--epochs=1", "--select=last")
    train.main(["people.csv", "--output=second", *SMALL, *start], "vae-jax train")
    first, second = (load(name) for name in ("first", "second"))
    assert repr(first).startswith("TrainedExamples(")
    assert ", a table, step " in repr(first)
    for one, other in zip(*map(jax.tree.leaves, (first.params, second.params)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert (first.results["select"], second.results["select"]) == ("best", "last")
    assert second.results["selected_epoch"] == second.results["last_epoch"] == 1
    rows = [json.loads(line) for line in Path("first/metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["validation_elbo"])
    assert first.results["selected_epoch"] == best["epoch"]
    with pytest.raises(UsageError, match=r"--init-from=first is of another model: .* has shape"):
        train.main(
            ["people.csv", "--output=third", *SMALL, *start, "--latent-dim=3"], "vae-jax train"
        )
    assert not Path("third/config.json").exists()  # nothing to go on with, without the parameters
    folder.unlock(Path("second"))
    over = ["people.csv", "--output=second", "--overwrite", *SMALL, *start, "--latent-dim=3"]
    with pytest.raises(UsageError, match=r"--init-from=first is of another model"):
        train.main(over, "vae-jax train")
    folder.unlock(Path("second"))
    assert load("second").results == second.results
    with pytest.raises(UsageError, match="nowhere holds no run"):
        train.main(["people.csv", "--output=first", "--overwrite", "--init-from=nowhere"], "train")
    assert load("first").results is not None
