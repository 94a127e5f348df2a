"""Kinds of data that are no images: their options as JSON, and runs that a command cannot use."""

import dataclasses
import json
from pathlib import Path

import pytest

from vae_jax.run import folder, kinds
from vae_jax.run.commands import evaluate, generate, impute, train
from vae_jax.run.errors import UsageError


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


def test_what_a_kind_cannot_do_is_one_line(tmp_path):
    folder.write_json(tmp_path / "config.json", {**folder.stamp(), "kind": "counts"})
    with pytest.raises(UsageError, match="holds a run on counts, and impute is for tables"):
        impute.main([str(tmp_path), "a.csv"], "vae-jax impute")
    with pytest.raises(UsageError, match=r"--output=a\.csv has no ending of counts: name it, say,"):
        generate.main([str(tmp_path), "--output=a.csv"], "vae-jax generate")
    folder.write_json(tmp_path / "config.json", folder.stamp())
    with pytest.raises(UsageError, match="holds a run on images, and impute is for tables"):
        impute.main([str(tmp_path), "a.csv"], "vae-jax impute")
