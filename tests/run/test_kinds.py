"""Kinds of data that are no images: their options as JSON, and runs that a command cannot use."""

import dataclasses
import json
from pathlib import Path

import pytest

from vae_jax.run import folder, kinds
from vae_jax.run.commands import embed, evaluate, generate, impute, score, train
from vae_jax.run.errors import DataError, UsageError


@pytest.mark.parametrize("name", kinds.KINDS)
def test_options_are_json_and_back(name):
    kind = kinds.KINDS[name]
    options = kind.options(kind.options.__dataclass_fields__["data"].type("a.csv"))
    run = dataclasses.replace(options.run, output=Path("runs/a"), select="best")
    training = dataclasses.replace(options.training, init_from=Path("runs/b"))
    options = dataclasses.replace(options, run=run, training=training)
    stored = json.loads(json.dumps({"options": kinds.to_json(options)}))
    assert kind.stored_options(stored) == options
    kinds.check(options)
    kinds.check_resumed(options, options)
    last = dataclasses.replace(options, run=dataclasses.replace(run, select="last"))
    with pytest.raises(UsageError, match="--select is last but the run in runs/a has best"):
        kinds.check_resumed(last, options)
    for patience, select in (0, "last"), (7, "best"):  # before it could be chosen
        of_before = stored["options"]
        of_before["training"]["patience"] = patience
        del of_before["run"]["select"]
        assert kind.stored_options(stored).run.select == select
        of_before["run"]["select"] = select


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("songs", "is on songs, which this version does not know: pip install -U"),
        ("counts", r"holds no run on counts \(KeyError"),
        ("table", r"holds no run on a table \(KeyError"),
    ],
)
def test_a_folder_of_another_kind_or_of_none_is_one_line(kind, said, tmp_path):
    folder.write_json(tmp_path / "config.json", {**folder.stamp(), "kind": kind})
    with pytest.raises(UsageError, match=said):
        evaluate.main([str(tmp_path)], "vae-jax evaluate")
    with pytest.raises(UsageError, match=said):
        train.main([f"--output={tmp_path}", "--resume"], "vae-jax train")


def test_data_of_another_kind_than_the_runs_are_one_line():
    kinds.check_file(kinds.KINDS["counts"], "a.npz")
    kinds.check_file(None, "a.npz")
    kinds.check_file(None, "pictures")
    with pytest.raises(
        DataError, match=r"the run is on images and a.csv is a table: give pictures"
    ):
        kinds.check_file(None, "a.csv")
    with pytest.raises(
        DataError, match=r"run is on sequences and a.csv is a table: give .jsonl or"
    ):
        kinds.check_file(kinds.KINDS["sequences"], "a.csv")


@pytest.mark.parametrize("command", [embed, score, generate])
def test_help_without_a_run_says_where_the_other_options_are(command, capsys):
    name = command.__name__.rpartition(".")[2]
    with pytest.raises(SystemExit):
        command.main(["--help"], f"vae-jax {name}")
    said = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert f"table, counts or sequences has other options: {name} RUN --help" in said


def test_what_a_kind_cannot_do_is_one_line(tmp_path):
    folder.write_json(tmp_path / "config.json", {**folder.stamp(), "kind": "counts"})
    with pytest.raises(UsageError, match="holds a run on counts, and impute is for images, tab"):
        impute.main([str(tmp_path), "a.csv"], "vae-jax impute")
    with pytest.raises(UsageError, match=r"--output=a\.csv has no ending of counts: name it, say,"):
        generate.main([str(tmp_path), "--output=a.csv"], "vae-jax generate")
