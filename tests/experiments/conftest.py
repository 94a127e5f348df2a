"""The tutorial, run once on digits for all files of tests."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from vae_jax.run.data import named

ROOT = Path(__file__).parents[2]


def run(*arguments, **settings):
    return subprocess.run(
        # A later --dataset overrides this one.
        [sys.executable, "-m", "experiments.tutorial", "--dataset=digits", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=1200,
        **settings,
    )


@pytest.fixture(scope="session")
def tutorial():
    """Runs the tutorial as a process."""
    return run


@pytest.fixture(scope="session")
def output(tmp_path_factory):
    """The folder of a run with the default settings, one for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    folder = base / "tutorial"
    with (base / "tutorial.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            process = run(f"--output={folder}")
            assert process.returncode == 0, process.stdout + process.stderr
    return folder


@pytest.fixture(scope="session")
def numbers(output):
    return json.loads((output / "tutorial.json").read_text())


@pytest.fixture(scope="session")
def text(output):
    return (output / "tutorial.html").read_text()


@pytest.fixture(scope="session")
def counted():
    """The table of both: rows for the pixel off and on, a column for each class."""
    train = named.load("digits").train
    on = (train.images[:, 4, 4, 0] / 255 > 0.5).astype(int)
    return stats.contingency.crosstab(on, train.labels).count
