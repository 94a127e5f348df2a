"""The scripts for clusters that the site shows: read here, and run with processes on localhost."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from vae_jax.run import folder, options
from vae_jax.run.commands import mnist

SCRIPTS = Path(__file__).parents[2] / "docs" / "pages" / "scripts"
IMAGES = np.random.default_rng(0).integers(0, 256, (90, 5, 4), np.uint8)
SMALL = ("--hidden=16", "--latent-dim=2", "--num-importance-samples=5", "--batch-size=16")


def jobset(replaced):
    """The command of a process of the JobSet, some words replaced."""
    written = yaml.safe_load((SCRIPTS / "train-jobset.yaml").read_text())
    (workers,) = written["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["parallelism"] == job["completions"]  # all processes at once
    # The name of the first process's host: JobSet, replicated job, its number, and pod, of a
    # service that has the JobSet's name.
    name = written["metadata"]["name"]
    host = f"{name}-{workers['name']}-0-0.{name}"
    (port,) = [p["containerPort"] for p in container["ports"]]
    assert f"--coordinator={host}:{port}" in container["args"]
    assert f"--num-processes={job['completions']}" in container["args"]
    command = [*container["command"], *container["args"]]
    for old, new in replaced.items():
        command = [word.replace(old, new) for word in command]
    return command


def read(arguments):
    """The options of `vae-jax train`, checked."""
    return mnist.read(arguments, "vae-jax train", options.OwnOptions)[0]


def test_what_the_scripts_start_is_a_command(tmp_path):
    chosen = read([w for w in jobset({"$(JOB_COMPLETION_INDEX)": "1"})[2:] if w != "--restartable"])
    assert (chosen.devices.num_processes, chosen.devices.process_id) == (2, 1)
    text = (SCRIPTS / "train.sbatch").read_text()
    subprocess.run(["bash", "-n", SCRIPTS / "train.sbatch"], check=True)
    directives = re.findall(r"^#SBATCH (--[\w-]+)(?:=\S+)?(?: +#.*)?$", text, re.MULTILINE)
    assert len(directives) == text.count("#SBATCH")
    (line,) = re.findall(r"^srun vae-jax train (.*)$", text, re.MULTILINE)
    words = [w for w in line.replace('"', "").split() if w not in ("--restartable", "$@")]
    assert read(words).devices.coordinator == "auto"
    page = (SCRIPTS.parent / "scale.md").read_text()
    (pod,) = re.findall(r"^RUN='vae-jax train (.*)'$", page, re.MULTILINE)
    assert read([w for w in pod.split() if w != "--restartable"]).devices.coordinator == "auto"


def executable(path, text):
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path):
    """PATH with vae-jax, and what of SLURM the script calls: two processes on this machine."""
    executable(
        tmp_path / "vae-jax",
        f'exec {sys.executable} -c "from vae_jax.run.main import main; main()" "$@"',
    )
    executable(
        tmp_path / "srun",
        f"""export SLURM_NTASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1
pids=()
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids+=($!); done
echo "${{pids[@]}}" > {tmp_path}/pids
status=0
for pid in "${{pids[@]}}"; do wait $pid || status=$?; done
exit $status""",
    )
    executable(tmp_path / "scontrol", f'echo "$@" >> {tmp_path}/asked')
    np.save(tmp_path / "images.npy", IMAGES)
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(SCRIPTS.parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "DATA": str(tmp_path / "images.npy"),
    }


def sha(run):
    return re.search(r'"parameters_sha256": "(\w+)"', (run / "results.json").read_text())[1]


@pytest.mark.long
def test_a_slurm_job_that_ends_is_requeued_and_goes_on_to_the_unbroken_ones_numbers(
    cluster, tmp_path
):
    def submit(run):
        job = {"SLURM_JOB_ID": str(random.randrange(10**6)), "RUN": str(run)}
        more = ("--epochs=60", "--checkpoint-seconds=0", *SMALL)
        return subprocess.Popen(["bash", SCRIPTS / "train.sbatch", *more], env=cluster | job), job

    unbroken, _ = submit(tmp_path / "unbroken")
    assert unbroken.wait(timeout=300) == 0
    broken = tmp_path / "broken"
    first, job = submit(broken)
    while not list((broken / "checkpoints").glob("[1-9]*[0-9]")):
        assert first.poll() is None
        time.sleep(0.01)
    for pid in (tmp_path / "pids").read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    assert first.wait(timeout=120) == 143
    assert (tmp_path / "asked").read_text() == f"requeue {job['SLURM_JOB_ID']}\n"
    assert not (broken / "results.json").exists()
    second, _ = submit(broken)
    assert second.wait(timeout=300) == 0
    assert sha(broken) == sha(tmp_path / "unbroken")


@pytest.mark.long
def test_a_jobset_begins_and_goes_on_with_one_command(cluster, tmp_path):
    for epochs in 2, 4:
        where = {
            "/shared/pictures": cluster["DATA"],
            "/shared/runs": str(tmp_path),
            "vae-worker-0-0.vae:3456": f"localhost:{random.randrange(30000, 60000)}",
        }
        processes = [
            subprocess.Popen(
                [
                    *jobset({**where, "$(JOB_COMPLETION_INDEX)": str(i)}),
                    f"--epochs={epochs}",
                    *SMALL,
                ],
                env=cluster,
            )
            for i in "01"
        ]
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert len(folder.read_metrics(tmp_path / "vae", 10**6)) == 4
