"""Two processes train as one does; where one is killed the other says so, and the run goes on."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import chex
import numpy as np
import pytest

from vae_jax.run import restore

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
OPTIONS = ["--dataset=digits", "--epochs=10", "--hidden=16", "--latent-dim=2", "--stream"]
OPTIONS += ["--num-importance-samples=2"]


def start(output, *arguments, num_devices=2):
    """The command with some virtual devices; its words go to files, as a pipe would fill."""
    again = ["--resume"] if (output / "config.json").exists() else OPTIONS
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    log = output.with_name(f"{output.name}-{len(list(output.parent.iterdir()))}.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.mnist", f"--output={output}", *again, *arguments],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    process.log = log
    return process


def start_two(output, *arguments):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        start(
            output,
            f"--coordinator=localhost:{port}",
            "--num-processes=2",
            f"--process-id={i}",
            *arguments,
        )
        for i in range(2)
    ]


def finish(*processes):
    for process in processes:
        try:
            assert process.wait(timeout=120) == 0, process.log.read_text()
        finally:
            process.kill()


def killed(output, victim):
    """Starts a run of two processes and kills one; the other must say so and end."""
    processes = start_two(output, "--checkpoint-seconds=0")
    while not list((output / "checkpoints").glob("[1-9]*[0-9]")):  # of ten steps or more
        assert {p.poll() for p in processes} == {None}, processes[0].log.read_text()
        time.sleep(0.01)
    time.sleep(random.uniform(0, 1))
    processes[victim].kill()
    survivor = processes[1 - victim]
    start_of_end = time.monotonic()
    try:
        assert survivor.wait(timeout=90) == 1
    finally:
        survivor.kill()
    print(f"the survivor of {victim} ended after {time.monotonic() - start_of_end:.1f} s")
    assert processes[victim].wait() == -signal.SIGKILL
    said = survivor.log.read_text()
    assert said.count("error: ") == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"error: process {1 - victim} cannot go on without the others (")
    assert last.endswith("with --resume, on as many processes as there are")
    assert not (output / "results.json").exists()


def end(output):
    """The numbers that a run ends with, and its parameters."""
    results = json.loads((output / "results.json").read_text())
    numbers = {k: results[k] for k in ("test_elbo", "test_kl", "test_log_likelihood")}
    for line in (output / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        numbers |= {f"{k} {row['epoch']}": v for k, v in row.items() if "second" not in k}
    assert results["epochs"] == row["epoch"] == 10
    return numbers, restore.restore(output).params, results["parameters_sha256"]


def assert_near(output, other):
    (numbers, params, _), (expected, expected_params, _) = end(output), end(other)
    assert numbers.keys() == expected.keys()
    np.testing.assert_allclose(list(numbers.values()), list(expected.values()), rtol=1e-4)
    chex.assert_trees_all_close(params, expected_params, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    """The unbroken run of one process with four devices."""
    output = tmp_path_factory.mktemp("one") / "run"
    finish(start(output, num_devices=4))
    return output


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """The unbroken run of two processes with two devices each."""
    output = tmp_path_factory.mktemp("two") / "run"
    finish(*start_two(output))
    return output


def test_two_processes_train_as_one_does(of_one, of_two):
    assert_near(of_two, of_one)
    results = json.loads((of_two / "results.json").read_text())
    assert (results["num_processes"], results["num_devices"]) == (2, 4)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_is_killed_and_the_run_goes_on(tmp_path, of_one, of_two, victim):
    killed(tmp_path / "run", victim)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    finish(start(tmp_path / "run", "--checkpoint-seconds=1000"))
    assert_near(tmp_path / "run", of_one)
    # On the devices there were, bit for bit; what two processes sum, one sums in another order.
    finish(*start_two(tmp_path / "again", "--checkpoint-seconds=1000"))
    (numbers, _, sha256), (expected, _, expected_sha256) = end(tmp_path / "again"), end(of_two)
    assert numbers == expected
    assert sha256 == expected_sha256
