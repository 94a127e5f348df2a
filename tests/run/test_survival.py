"""A run that is killed at any moment goes on to the parameters of the unbroken one."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def torture(output, num_kills, num_epochs):
    """Kills a run and resumes it, again and again; returns the hash of its last parameters."""
    arguments = ["--dataset=digits", f"--epochs={num_epochs}", "--checkpoint-seconds=0"]
    arguments += ["--hidden=16", "--latent-dim=2", "--num-importance-samples=2"]
    chance = random.Random(num_kills)

    def start():
        again = ["--resume"] if (output / "config.json").exists() else arguments
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.mnist", f"--output={output}", *again],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def newest():
        steps = (output / "checkpoints").glob("[0-9]*")
        return max((int(p.name) for p in steps if p.name.isdigit()), default=0)

    kills, reached = 0, []
    while kills < num_kills:
        before, process = newest(), start()
        if chance.random() < 0.25:  # at any moment, most often of the start
            time.sleep(chance.uniform(0, 6))
        else:  # at any moment of training and saving
            while newest() == before and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.3))
        if process.poll() is None:
            process.kill()
            kills += 1
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        reached.append(newest())
        assert reached[-1] >= before, "a checkpoint was lost"
    print(f"{kills} kills, at steps {reached}")
    process = start()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    names = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert all(name.isdigit() for name in names), names
    return json.loads((output / "results.json").read_text())


def unkilled(output, num_epochs):
    return torture(output, 0, num_epochs)


@pytest.mark.long
@pytest.mark.parametrize(("num_kills", "num_epochs"), [(2, 60), (50, 400)])
def test_killed_at_random_a_run_ends_with_the_unbroken_runs_parameters(
    tmp_path, num_kills, num_epochs
):
    killed = torture(tmp_path / "killed", num_kills, num_epochs)
    whole = unkilled(tmp_path / "whole", num_epochs)
    assert killed["parameters_sha256"] == whole["parameters_sha256"]
    assert killed["test_log_likelihood"] == whole["test_log_likelihood"]
    one, other = (
        [
            {k: v for k, v in json.loads(line).items() if "second" not in k}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("killed", "whole")
    )
    assert one == other
    assert len(one) == num_epochs
