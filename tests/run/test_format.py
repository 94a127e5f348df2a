"""A folder of an older version is read; one of a later version is refused in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vae_jax.run import folder
from vae_jax.run.errors import UsageError

ROOT = Path(__file__).parents[2]
# What version 0.1 trained with where nothing else was asked for.
OPTIONS = ("--dataset=digits", "--clip-norm=inf", "--hidden=16", "--latent-dim=2", "--epochs=40")
OPTIONS += (
    "--optimizer=adam",
    "--num-importance-samples=2",
    "--checkpoint-seconds=0",
    "--accelerator=cpu",
)


def results(output):
    return json.loads((output / "results.json").read_text())


def as_version_0_1(config):
    """Config.json, or a checkpoint's, without what that version did not write."""
    for name in ("format", "vae_jax", "pixels"):
        del config[name]
    for name in "patience", "optimizer":
        del config["options"]["training"][name]
    for name in "select", "max_minutes":
        del config["options"]["run"][name]
    del config["options"]["objective"]
    if "progress" in config:
        config["progress"]["sums"].pop("loss", None)


def make_older(output):
    """Turns a run's folder into one of format 1."""
    path = output / "config.json"
    config = json.loads(path.read_text())
    assert config["format"] == folder.FORMAT == 2
    as_version_0_1(config)
    path.write_text(json.dumps(config))
    checkpoints = list((output / "checkpoints").glob("[0-9]*"))
    assert checkpoints
    for checkpoint in checkpoints:
        path = checkpoint / "config" / "metadata"
        stored = json.loads(path.read_text())
        as_version_0_1(stored["config"])
        path.write_text(json.dumps(stored))
    path = output / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["train_loss"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken") / "run"
    process = command("mnist", *OPTIONS, f"--output={output}")
    assert process.returncode == 0, process.stderr
    return output


@pytest.fixture
def older(tmp_path):
    """A run of format 1 that was stopped within its epochs."""
    output = tmp_path / "older"
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.mnist", *OPTIONS, f"--output={output}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = output / "metrics.jsonl"
    while process.poll() is None and not (
        metrics.exists() and len(metrics.read_text().splitlines()) > 2
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    make_older(output)
    return output


@pytest.mark.long
def test_a_run_of_an_older_version_goes_on_to_the_unbroken_runs_parameters(
    command, older, unbroken
):
    process = command("mnist", f"--output={older}", "--resume")
    assert process.returncode == 0, process.stderr
    assert results(older)["parameters_sha256"] == results(unbroken)["parameters_sha256"]
    assert results(older)["test_log_likelihood"] == results(unbroken)["test_log_likelihood"]


def test_a_run_of_an_older_version_is_drawn_from_and_measured(command, unbroken, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(unbroken, output)
    make_older(output)
    process = command("generate", output, "--num=4", f"--output={tmp_path / 'grid.png'}")
    assert process.returncode == 0, process.stderr
    newer = command("generate", unbroken, "--num=4", f"--output={tmp_path / 'newer.png'}")
    assert newer.returncode == 0, newer.stderr
    assert (tmp_path / "grid.png").read_bytes() == (tmp_path / "newer.png").read_bytes()
    process = command("evaluate", output, "--num-samples=4", "--num-generated=0")
    assert process.returncode == 0, process.stderr
    evaluation = json.loads((output / "evaluation.json").read_text())
    assert evaluation["parameters_sha256"] == results(unbroken)["parameters_sha256"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("mnist", ("--resume",)), ("generate", ()), ("evaluate", ())],
)
def test_a_later_format_is_refused_with_the_version_that_reads_it(
    command, unbroken, tmp_path, name, arguments
):
    later = json.loads((unbroken / "config.json").read_text()) | {"format": 99, "vae_jax": "7.1"}
    (tmp_path / "config.json").write_text(json.dumps(later))
    where = f"--output={tmp_path}" if name == "mnist" else tmp_path
    process = command(name, where, *arguments)
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert f"{tmp_path} is of format 99, written by vae_jax 7.1" in line
    with pytest.raises(UsageError, match=r"reads up to 2; pip install -U vae_jax"):
        folder.read_stamped(tmp_path)
