"""Whatever ends a run, it goes on from its checkpoints to the numbers of the unbroken one."""

import json
import os
import pickle
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax import checkpoint
from vae_jax.run import training
from vae_jax.run.errors import Diverged, Interrupted, UsageError
from vae_jax.run.plan import Plan

IMAGES = np.random.default_rng(0).integers(256, size=(40, 3), dtype=np.uint8)
STEPS = 10  # of an epoch
OPTIMIZER = optax.sgd(0.1)
relaxed = pytest.mark.relax("numpy_dtype_promotion")


def loss(params, key, batch):
    """The likelihood of noisy data under a learned mean: each step draws."""
    x = vae_jax.binarize(key, batch.image)
    value = vae_jax.Normal(params["mean"], 1.0, event_ndims=1).log_prob(x)
    return -value.mean(), vae_jax.Bound(value, value, jnp.zeros_like(value))


class OnEpoch:
    """A callback of one function."""

    def __init__(self, epoch):
        self._epoch = epoch

    def start(self, progress):
        pass

    def steps(self, progress, metrics):
        pass

    def epoch(self, progress, row):
        self._epoch(row)


def run(output, *, loss=loss, mean=0.0, optimizer=OPTIMIZER, on_epoch=lambda row: None, **options):
    """Trains a model of three parameters; returns what `training.train` does."""
    state = vae_jax.init_state(jax.random.key(0), {"mean": jnp.full(3, mean)}, optimizer)
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    sharding = vae_jax.state_sharding(state, mesh)
    output.mkdir(exist_ok=True)
    setup = training.Setup(
        loss=loss,
        optimizer=optimizer,
        data=vae_jax.Batch(IMAGES),
        sharding=sharding,
        plan=Plan(
            batch_size=4,
            folder=output,
            **{"epochs": 3, "checkpoint_seconds": 1e9, **options},
        ),
        validate=lambda params: {"elbo": params["mean"].sum()},
        config={"model": "three parameters"},
        continued_by="continue",
        start=time.perf_counter(),
    )
    return training.train(setup, jax.device_put(state, sharding), [OnEpoch(on_epoch)])


def steps_saved(output):
    with checkpoint.manager(output / "checkpoints", keep=99) as checkpoints:
        return sorted(checkpoints.all_steps())


def rows(output):
    lines = (output / "metrics.jsonl").read_text().splitlines()
    times = ("seconds", "examples_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


def assert_same_end(output, trained, unbroken):
    expected, folder = unbroken
    assert int(trained.state.step) == int(expected.state.step)
    np.testing.assert_array_equal(trained.state.params["mean"], expected.state.params["mean"])
    assert rows(output) == rows(folder)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken")
    return run(output), output


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


@pytest.mark.few(4)
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
    with pytest.raises(
        UsageError, match="the run has made 3 epochs, 30 steps, and is asked for 20"
    ):
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
    names = sorted(p.name for p in (tmp_path / "checkpoints" / "20").rglob("*"))
    with pytest.warns(RuntimeWarning, match="step 20 in .* is damaged .*: going back to the one"):
        trained = run(tmp_path, resume=True)
    assert_same_end(tmp_path, trained, unbroken)
    with checkpoint.manager(tmp_path / "checkpoints") as checkpoints:  # the step is sound again
        checkpoint.restore(checkpoints, trained.state)
    (aside,) = (tmp_path / "damaged").iterdir()  # renamed, not deleted
    assert aside.name.startswith("20-")
    assert sorted(p.name for p in aside.rglob("*")) == names


def test_what_a_killed_process_left_half_written_is_removed(tmp_path, unbroken):
    run(tmp_path, epochs=1)
    checkpoints = tmp_path / "checkpoints"
    half = checkpoints / "20.orbax-checkpoint-tmp-7"
    shutil.copytree(checkpoints / "10", half)
    assert_same_end(tmp_path, run(tmp_path, resume=True), unbroken)
    assert not half.exists()


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(tmp_path, one_step_a_call):
    """Steps of 1 from -5 to 0, where the loss is finite and its gradient is not a number."""

    def distance(params, key, batch):
        return jnp.sqrt(jnp.square(params["mean"])).sum(), None

    with pytest.raises(Diverged, match="the parameters after step 6 are not finite; the check"):
        run(tmp_path, loss=distance, mean=-5.0, optimizer=optax.sgd(1.0), checkpoint_seconds=0.0)
    assert steps_saved(tmp_path) == [3, 4, 5]


# Nothing is executed


def test_loading_uses_no_pickle(tmp_path, monkeypatch):
    run(tmp_path, epochs=1)

    def refuse(*_, **__):
        raise AssertionError("pickle was used to load")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    trained = run(tmp_path, epochs=2, resume=True)
    assert trained.state.step == 20
