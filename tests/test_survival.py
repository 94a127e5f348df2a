"""Whatever ends a run, it goes on from its checkpoints to the numbers of the unbroken one."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from experiments.command import Interrupted, RunError
from experiments.options import Training, UsageError

import vae_jax
from experiments import folder, training
from vae_jax import checkpoint

ROOT = Path(__file__).parents[1]
IMAGES = np.random.default_rng(0).integers(256, size=(40, 3), dtype=np.uint8)
STEPS = 10  # of an epoch
OPTIMIZER = optax.sgd(0.1)

relaxed = pytest.mark.relax("numpy_dtype_promotion")


def loss(params, key, batch):
    """The likelihood of noisy data under a learned mean: each step draws."""
    x = vae_jax.binarize(key, batch.image)
    value = vae_jax.Normal(params["mean"], 1.0, event_ndims=1).log_prob(x)
    return -value.mean(), vae_jax.Bound(value, value, jnp.zeros_like(value))


def run(output, *, epochs=3, resume=False, stream=False, on_epoch=lambda row: None, **options):
    """Trains a model of three parameters; returns what `training.train` does."""
    state = vae_jax.init_state(jax.random.key(0), {"mean": jnp.zeros(3)}, OPTIMIZER)
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    sharding = vae_jax.state_sharding(state, mesh)
    output.mkdir(exist_ok=True)
    return training.train(
        jax.device_put(state, sharding),
        sharding,
        loss,
        OPTIMIZER,
        IMAGES,
        None,
        lambda params: vae_jax.Bound(params["mean"].sum(), jnp.zeros(()), jnp.zeros(())),
        Training(epochs=epochs, batch_size=4),
        {"model": "three parameters"},
        output,
        start=time.perf_counter(),
        stream=stream,
        resume=resume,
        continue_command="continue",
        on_epoch=on_epoch,
        **{"keep": 3, "checkpoint_seconds": 1e9, **options},
    )


def steps_saved(output):
    with checkpoint.manager(output / "checkpoints", keep=99) as checkpoints:
        return sorted(checkpoints.all_steps())


def rows(output):
    lines = (output / "metrics.jsonl").read_text().splitlines()
    times = ("seconds", "examples_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


def assert_same_end(output, trained, unbroken):
    assert int(trained.state.step) == int(unbroken.state.step)
    np.testing.assert_array_equal(trained.state.params["mean"], unbroken.state.params["mean"])
    assert rows(output) == rows(unbroken.folder)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken")
    trained = run(output)
    trained.__dict__["folder"] = output
    return trained


@pytest.fixture
def one_step_a_call(monkeypatch):
    monkeypatch.setattr(training, "_CALL_SECONDS", 0.0)


def stop_after(monkeypatch, num_calls, signum):
    """Sends this process a signal after so many calls of the compiled loop."""
    agreed, calls = training._agreed, []

    def count(*values):
        calls.append(values)
        if len(calls) == num_calls:
            os.kill(os.getpid(), signum)
        return agreed(*values)

    monkeypatch.setattr(training, "_agreed", count)


# Stops


@pytest.mark.parametrize("stream", [False, True])
def test_how_an_epoch_is_cut_changes_nothing(tmp_path, unbroken, one_step_a_call, stream):
    trained = run(tmp_path, stream=stream)
    assert_same_end(tmp_path, trained, unbroken)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", [1, 13, 20])
def test_a_stop_saves_at_the_next_step(
    tmp_path, unbroken, monkeypatch, one_step_a_call, at, signum, stream
):
    with monkeypatch.context() as patch:
        stop_after(patch, at, signum)
        with pytest.raises(Interrupted, match=f"saved at step {at + 1}; go on with") as stopped:
            run(tmp_path, stream=stream)
    assert stopped.value.signum == signum
    assert steps_saved(tmp_path) == [at + 1]
    assert_same_end(tmp_path, run(tmp_path, stream=stream, resume=True), unbroken)


def test_a_stop_in_the_last_epoch_is_not_ignored(tmp_path, unbroken):
    def stop(row):
        if row["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved at step 30"):
        run(tmp_path, on_epoch=stop)
    assert_same_end(tmp_path, run(tmp_path, resume=True), unbroken)


def test_checkpoints_come_within_an_epoch(tmp_path, one_step_a_call):
    run(tmp_path, epochs=1, checkpoint_seconds=0.0, keep=99)
    assert steps_saved(tmp_path) == list(range(1, 11))


def test_times_are_of_all_processes(tmp_path, monkeypatch, one_step_a_call):
    with monkeypatch.context() as patch:
        stop_after(patch, 12, signal.SIGTERM)
        with pytest.raises(Interrupted):
            run(tmp_path)
    with checkpoint.manager(tmp_path / "checkpoints") as checkpoints:
        first = checkpoint.restore_config(checkpoints)["progress"]
    assert 0 < first["compile_seconds"] < first["total_seconds"]
    trained = run(tmp_path, resume=True)
    assert trained.seconds_before == first["total_seconds"]
    assert trained.compile_seconds > first["compile_seconds"]
    # The epoch that was cut in two took what both parts took.
    second = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])
    assert second["seconds"] > first["epoch_seconds"]


def test_fewer_epochs_than_were_made(tmp_path):
    run(tmp_path)
    with pytest.raises(UsageError, match="--epochs is 2 but the run has made 3"):
        run(tmp_path, epochs=2, resume=True)


# Damage


def damage(output, step, how):
    """Changes, cuts or deletes the largest file of a checkpoint, where its values are."""
    files = [p for p in (output / "checkpoints" / str(step)).rglob("*") if p.is_file()]
    path = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content if how == "change" else content[: len(content) // 2])


@pytest.mark.parametrize("how", ["change", "cut", "delete"])
def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, unbroken, one_step_a_call, how):
    run(tmp_path, epochs=2, checkpoint_seconds=0.0)
    assert steps_saved(tmp_path) == [18, 19, 20]
    damage(tmp_path, 20, how)
    with pytest.warns(RuntimeWarning, match="step 20 in .* is damaged .*: going back to the one"):
        trained = run(tmp_path, resume=True)
    assert_same_end(tmp_path, trained, unbroken)
    with checkpoint.manager(tmp_path / "checkpoints") as checkpoints:  # the step is sound again
        checkpoint.restore(checkpoints, trained.state)


def test_any_byte_that_changes_on_disk_is_noticed(tmp_path):
    """The values of the file that holds them, wherever it is hit."""
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    state = vae_jax.init_state(jax.random.key(0), params, OPTIMIZER)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state, {})
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    path = max(files, key=lambda p: p.stat().st_size)
    content = path.read_bytes()
    assert len(content) > 3000
    for place in range(100, len(content), 500):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with (
            checkpoint.manager(tmp_path, read_only=True) as checkpoints,
            pytest.warns(RuntimeWarning, match="damaged"),
            pytest.raises(checkpoint.CheckpointError, match="can be read"),
        ):
            checkpoint.restore(checkpoints, state)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path, unbroken):
    run(tmp_path, epochs=1)
    checkpoints = tmp_path / "checkpoints"
    half = checkpoints / "20.orbax-checkpoint-tmp-7"
    shutil.copytree(checkpoints / "10", half)
    assert_same_end(tmp_path, run(tmp_path, resume=True), unbroken)
    assert not half.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_those_before_it(tmp_path, one_step_a_call):
    """A limit on the size of files stands for a full disk: writing fails half-way."""
    program = f"""
import resource, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import jax, jax.numpy as jnp, numpy as np, optax, vae_jax
from vae_jax import checkpoint
params = {{"w": jnp.asarray(np.random.default_rng(0).normal(size=10**5), jnp.float32)}}
state = vae_jax.init_state(jax.random.key(0), params, optax.sgd(0.1))
with checkpoint.manager({str(tmp_path)!r}) as checkpoints:
    checkpoint.save(checkpoints, state, {{"number": 1}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, resource.RLIM_INFINITY))
    try:
        checkpoint.save(checkpoints, state._replace(step=jnp.int32(1)), {{}})
    except checkpoint.CheckpointError as error:
        print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert "the checkpoint of step 1 cannot be written in" in process.stdout, process.stderr
    with checkpoint.manager(tmp_path) as checkpoints:
        assert checkpoint.restore_config(checkpoints) == {"number": 1}


# The folder


def test_a_folder_is_of_one_process(tmp_path):
    folder.create(tmp_path / "run", "", overwrite=False)
    program = f"""
from pathlib import Path
from experiments import command, folder
for use in folder.lock, lambda path: folder.create(path, "", overwrite=True):
    try:
        use(Path({str(tmp_path / "run")!r}))
    except command.RunError as error:
        print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    said = process.stdout.splitlines()
    assert len(said) == 2, process.stderr
    for line in said:
        assert f"run is being written by process {os.getpid()} on {os.uname().nodename}" in line


def test_a_lock_ends_with_its_process(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from experiments import folder
folder.create(Path({str(tmp_path / "run")!r}), "", overwrite=False)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)
    assert process.returncode == -signal.SIGKILL
    # Nothing but hidden files is there, so a new run may begin.
    assert folder.create(tmp_path / "run", "", overwrite=False) == tmp_path / "run"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(RunError, match=r"cannot write .*run: Is a directory; name another"):
        folder.lock(tmp_path / "run")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '"options"',
        "{}",
        '{"options": []}',
        '{"options": {"data": {}}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_config_is_one_line(tmp_path, content):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"holds no run of this program \(\w+Error: "):
        folder.read_config(tmp_path)


# Nothing is executed


def test_loading_uses_no_pickle(tmp_path, monkeypatch):
    run(tmp_path, epochs=1)

    def refuse(*_, **__):
        raise AssertionError("pickle was used to load")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    trained = run(tmp_path, epochs=2, resume=True)
    assert trained.state.step == 20


# Kills


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


@pytest.mark.parametrize(
    ("num_kills", "num_epochs"), [(2, 60), pytest.param(50, 400, marks=pytest.mark.long)]
)
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
