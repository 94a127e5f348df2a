"""`fit` trains any loss over any data, and a run that was ended goes on to the same numbers."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax import run

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
relaxed = pytest.mark.relax("numpy_dtype_promotion")
# A line search looks at one loss in many places, under one key, as it must.
searching = pytest.mark.relax("numpy_dtype_promotion", "debug_key_reuse")


def squared_error(params, key, batch):
    error = jnp.square(batch - params["mean"][None]).sum(axis=-1)
    noise = jax.random.normal(key, ())
    return error.mean() + 0.1 * noise * params["mean"].sum(), {"error": error}


def trained(output=None, *, optimizer=None, callbacks=(), data=X, **plan):
    plan = run.Plan(**{"batch_size": 10, "epochs": 4, "folder": output, **plan})
    return run.fit(
        jax.random.key(0),
        squared_error,
        {"mean": jnp.zeros(3)},
        optimizer or optax.adam(0.1),
        data,
        plan,
        validate=lambda params: {"score": -jnp.abs(params["mean"] - 0.05).sum()},
        callbacks=callbacks,
    )


class Recorder:
    """Keeps what a callback is told."""

    def __init__(self):
        self.steps_seen, self.rows, self.started_at = [], [], []

    def start(self, progress):
        self.started_at.append(progress.step)

    def steps(self, progress, metrics):
        self.steps_seen += metrics.loss.tolist()

    def epoch(self, progress, row):
        self.rows.append(row)


@relaxed
def test_rows_have_the_means_of_what_the_loss_reports_and_the_validation():
    recorder = Recorder()
    fitted = trained(callbacks=[recorder])
    assert [row["step"] for row in fitted.rows] == [5, 10, 15, 20]
    assert recorder.rows == fitted.rows
    assert len(recorder.steps_seen) == 20
    for i, row in enumerate(fitted.rows):
        np.testing.assert_allclose(
            row["train_loss"], np.mean(recorder.steps_seen[5 * i : 5 * i + 5]), rtol=1e-6
        )
        assert {"train_error", "validation_score", "examples_per_second"} <= row.keys()


@relaxed
def test_a_run_of_steps_ends_within_an_epoch():
    fitted = trained(epochs=None, steps=7)
    assert int(fitted.state.step) == 7
    assert [row["step"] for row in fitted.rows] == [5, 7]
    longer = trained(epochs=None, steps=10)
    assert fitted.rows[0]["train_loss"] == longer.rows[0]["train_loss"]


@relaxed
def test_a_run_that_ended_within_an_epoch_goes_on_to_more_steps(tmp_path):
    recorder = Recorder()
    trained(tmp_path / "run", epochs=None, steps=7, callbacks=[recorder])
    rest = trained(tmp_path / "run", epochs=None, steps=13, resume=True, callbacks=[recorder])
    whole = trained(epochs=None, steps=13)
    np.testing.assert_array_equal(rest.params["mean"], whole.params["mean"])
    assert [row["step"] for row in rest.rows] == [5, 7, 10, 13]
    for begin, row in zip([0, 5, 7, 10], rest.rows, strict=True):  # means over their own steps
        own = recorder.steps_seen[begin : row["step"]]
        np.testing.assert_allclose(row["train_loss"], np.mean(own), rtol=1e-6)


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray


class Rows:
    """What is read like an array, row by row."""

    shape, dtype = X.shape, X.dtype

    def __len__(self):
        return len(X)

    def __getitem__(self, rows):
        return X[rows]

    def __array__(self, dtype=None, copy=None):
        return X.copy()


@pytest.mark.few(4)
@relaxed
@pytest.mark.parametrize("stream", [False, True], ids=["resident", "streamed"])
@pytest.mark.parametrize(
    ("data", "take"),
    [
        (X, lambda batch: batch),
        (jnp.asarray(X), lambda batch: batch),
        ({"a": X, "b": np.arange(50)}, lambda batch: batch["a"]),
        (Pair(X, X[:, 0]), lambda batch: batch.left),
        (Rows(), lambda batch: batch),
    ],
    ids=["numpy", "jax", "dict", "named tuple", "source"],
)
def test_data_may_be_any_pytree_of_arrays(data, take, stream):
    fitted = run.fit(
        jax.random.key(0),
        lambda params, key, batch: squared_error(params, key, take(batch)),
        {"mean": jnp.zeros(3)},
        optax.adam(0.1),
        data,
        run.Plan(batch_size=10, epochs=4, stream=stream),
    )
    np.testing.assert_array_equal(fitted.params["mean"], trained().params["mean"])


@relaxed
def test_on_several_devices_the_numbers_are_those_of_one():
    mesh = jax.make_mesh((5,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:5])
    np.testing.assert_allclose(
        trained(mesh=mesh).params["mean"], trained().params["mean"], rtol=1e-4, atol=1e-6
    )


@relaxed
def test_a_plain_mesh_and_parameters_of_another_run_will_do():
    mesh = jax.make_mesh((5,), ("data",), devices=jax.devices()[:5])  # of whatever axes
    first = trained(epochs=1).params  # committed to one device, that of its run
    elsewhere = jax.device_put(first, jax.devices()[7])
    ends = [
        run.fit(
            jax.random.key(0),
            squared_error,
            params,
            optax.adam(0.1),
            X,
            run.Plan(batch_size=10, epochs=2, mesh=mesh),
        ).params["mean"]
        for params in (first, elsewhere, jax.device_get(first))
    ]
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


@searching
@pytest.mark.parametrize("name", ["lbfgs", "polyak_sgd", "reduce_on_plateau"])
def test_optimizers_that_want_the_value_or_the_function(name):
    optimizer = {
        "lbfgs": optax.lbfgs(),
        "polyak_sgd": optax.polyak_sgd(max_learning_rate=0.1),
        "reduce_on_plateau": optax.chain(optax.adam(0.05), optax.contrib.reduce_on_plateau()),
    }[name]
    fitted = trained(optimizer=optimizer, epochs=30)
    np.testing.assert_allclose(fitted.params["mean"], X.mean(axis=0), atol=0.3)
    assert fitted.rows[-1]["train_error"] < fitted.rows[0]["train_error"] + 1e-3


# Early ends


def without_times(rows):
    times = ("seconds", "examples_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


@relaxed
def test_the_best_epochs_parameters_are_the_result():
    class Best:
        def __init__(self):
            self.values = []

        def start(self, progress):
            pass

        def steps(self, progress, metrics):
            pass

        def epoch(self, progress, row):
            self.values.append(row["validation_score"])

    best = Best()
    fitted = trained(epochs=12, keep_best="validation_score", callbacks=[best])
    assert fitted.row == fitted.rows[int(np.argmax(best.values))]
    score = -np.abs(np.asarray(fitted.params["mean"]) - 0.05).sum()
    np.testing.assert_allclose(score, max(best.values), rtol=1e-5)
    assert max(best.values) > best.values[-1]  # or the last would do


@relaxed
def test_early_stopping_ends_a_run_and_a_resumed_one_at_the_same_epoch(tmp_path):
    def stopping():
        return run.EarlyStopping("validation_score", patience=2)

    whole = trained(epochs=40, callbacks=[stopping()])
    assert len(whole.rows) < 40
    assert whole.ended_by == "EarlyStopping"
    first = trained(tmp_path / "run", epochs=2)
    assert len(first.rows) == 2
    rest = trained(tmp_path / "run", epochs=40, resume=True, callbacks=[stopping()])
    assert (len(rest.rows), rest.ended_by) == (len(whole.rows), "EarlyStopping")
    np.testing.assert_array_equal(rest.params["mean"], whole.params["mean"])
    again = trained(tmp_path / "run", epochs=40, resume=True, callbacks=[stopping()])
    assert int(again.state.step) == int(whole.state.step)
    assert again.ended_by == "EarlyStopping"


@relaxed
@pytest.mark.parametrize("keep_best", [None, "validation_score"])
def test_a_run_that_its_time_ended_has_a_row_and_goes_on_with_more_time(tmp_path, keep_best):
    plan = {"folder": tmp_path / "run", "keep_best": keep_best}
    first = trained(max_minutes=1e-6, **plan)  # one step takes longer
    assert (int(first.state.step), first.ended_by) == (1, "max_minutes")
    assert without_times(first.rows) == without_times([first.row])
    assert first.row["step"] == 1
    again = trained(max_minutes=1e-6, resume=True, **plan)  # whose first process took it all
    assert (int(again.state.step), again.ended_by) == (1, "max_minutes")
    assert without_times([again.row]) == without_times([first.row])
    np.testing.assert_array_equal(again.params["mean"], first.params["mean"])
    rest, whole = trained(resume=True, **plan), trained(keep_best=keep_best)
    np.testing.assert_array_equal(rest.state.params["mean"], whole.state.params["mean"])
    assert [row["step"] for row in rest.rows] == [1, 5, 10, 15, 20]
    assert rest.ended_by == "plan"
    if keep_best:  # which may be the row within the epoch
        assert rest.row == max(rest.rows, key=lambda row: row[keep_best])


@relaxed
def test_time_that_is_not_up_changes_nothing():
    fitted = trained(max_minutes=60.0)
    np.testing.assert_array_equal(fitted.params["mean"], trained().params["mean"])
    with pytest.raises(ValueError, match="max_minutes is 0: it must be above 0"):
        run.Plan(epochs=1, batch_size=1, max_minutes=0)


@relaxed
@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"average_decay": 0.9},
        {"accumulate": 2},
        {"keep_best": "validation_score"},
        {"stream": True},
    ],
    ids=str,
)
def test_a_resumed_run_equals_the_unbroken_one(tmp_path, plan):
    class Stop:
        """Asks the run to stop within its third epoch, as Ctrl-C does."""

        def start(self, progress):
            pass

        def steps(self, progress, metrics):
            if progress.step >= 11:
                os.kill(os.getpid(), signal.SIGINT)

        def epoch(self, progress, row):
            pass

    whole = trained(tmp_path / "whole", epochs=6, **plan)
    with pytest.raises(run.Interrupted, match="go on with"):
        trained(tmp_path / "run", epochs=6, callbacks=[Stop()], **plan)
    rest = trained(tmp_path / "run", epochs=6, resume=True, **plan)
    for a, b in zip(*map(jax.tree.leaves, (rest.params, whole.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [*rest.rows, rest.row], [*whole.rows, whole.row]
    assert without_times(rows[0]) == without_times(rows[1])
    assert rest.ended_by == whole.ended_by == "plan"


@relaxed
def test_rows_from_before_the_first_checkpoint_are_not_kept_twice(tmp_path):
    class Killed(Recorder):
        def epoch(self, progress, row):
            if row["epoch"] == 3:
                raise RuntimeError("killed")

    whole = trained(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        trained(tmp_path / "run", callbacks=[Killed()])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    rest = trained(tmp_path / "run", resume=True)
    np.testing.assert_array_equal(rest.params["mean"], whole.params["mean"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 15, 20]


# States


@pytest.mark.few(1)
@searching
@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.add_noise(0.01, 0.5, jax.random.key(3)), optax.adam(0.1)),
        optax.lbfgs(),
        optax.MultiSteps(optax.adam(0.1), every_k_schedule=2),
        optax.contrib.schedule_free_adamw(0.1),
    ],
    ids=["a typed key in it", "lbfgs", "multi steps", "schedule-free"],
)
def test_any_state_of_an_optimizer_is_saved_and_restored(tmp_path, optimizer):
    whole = trained(optimizer=optimizer, epochs=4)
    trained(tmp_path / "run", optimizer=optimizer, epochs=2)
    rest = trained(tmp_path / "run", optimizer=optimizer, epochs=4, resume=True)
    np.testing.assert_array_equal(rest.params["mean"], whole.params["mean"])


# Refusals


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"epochs": None}, "epochs is None and steps is None: give one of them"),
        ({"epochs": 2, "steps": 3}, "epochs is 2 and steps is 3: give one of them"),
        ({"batch_size": 0}, "batch_size is 0: it must be a whole number, 1 or more"),
        ({"accumulate": 3}, "batch_size is 10: it must be a multiple of accumulate, 3, times"),
        ({"average_decay": 1.0}, r"average_decay is 1.0: it must be in \[0, 1\)"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds is nan: it must be 0 or more"),
        ({"resume": True}, "resume needs a folder"),
        ({"epochs": 2.5}, "epochs is 2.5: it must be a whole number, 1 or more"),
    ],
)
def test_a_plan_that_cannot_be_is_named(plan, message):
    with pytest.raises(ValueError, match=message):
        run.Plan(**{"batch_size": 10, "epochs": 1, **plan})


def test_data_of_several_lengths_are_refused():
    with pytest.raises(ValueError, match=r"have shapes .49, 3., .50, 3.: give arrays"):
        trained(data=(X, X[1:]))
    with pytest.raises(ValueError, match="batch_size is 51 but there are 50 examples"):
        trained(batch_size=51)


@relaxed
def test_a_folder_of_another_run_is_refused_and_left_as_it_was(tmp_path):
    trained(tmp_path / "run", epochs=1)
    before = sorted(p.name for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(run.RunError, match=r"holds a run: go on with it by Plan\(resume=True\)"):
        trained(tmp_path / "run")
    with pytest.raises(run.RunError, match=r"batch_size is 5 but the run in .* has 10"):
        trained(tmp_path / "run", batch_size=5, resume=True)
    with pytest.raises(run.RunError, match=r"data is .* but the run in .* has"):
        trained(tmp_path / "run", data=X[:40], resume=True)
    with pytest.raises(run.RunError, match=r"data is .* but the run in .* has"):
        trained(tmp_path / "run", data=X[::-1], resume=True)
    assert sorted(p.name for p in (tmp_path / "run").rglob("*")) == before


@relaxed
def test_what_would_be_another_run_is_refused(tmp_path):
    def go(folder=None, *, seed=0, key=None, **plan):
        return run.fit(
            jax.random.key(seed) if key is None else key,
            squared_error,
            {"mean": jnp.zeros(3)},
            optax.adam(0.1),
            X,
            run.Plan(**{"batch_size": np.int64(10), "epochs": 1, "folder": folder, **plan}),
        )

    go(tmp_path / "run", keep_best="train_loss")
    with pytest.raises(run.RunError, match=r"key is \[0, 1\] but the run in .* has \[0, 0\]"):
        go(tmp_path / "run", keep_best="train_loss", seed=1, resume=True)
    with pytest.raises(run.RunError, match=r"keep_best is None but the run in .* has train_loss"):
        go(tmp_path / "run", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"format": 2, "options": {}}')
    with pytest.raises(run.RunError, match="holds a run of another program"):
        go(tmp_path / "other", resume=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "thesis.tex").touch()
    with pytest.raises(run.UsageError, match="holds files that are no run"):
        go(tmp_path / "files")
    with pytest.raises(ValueError, match="keep_best is 'validation_x' but there is no validate"):
        go(keep_best="validation_x")
    with pytest.raises(TypeError, match=r"not a typed key: make it with jax.random.key\(seed\)"):
        go(key=np.zeros(2, np.uint32))
    devices = jax.devices()[:4]
    mesh = jax.make_mesh((4,), ("data",), devices=devices)
    with pytest.raises(ValueError, match=r"batch_size is 10: .* times the mesh's devices, 4"):
        run.Plan(batch_size=10, epochs=1, mesh=mesh)
    with pytest.raises(ValueError, match="mesh has the axes x: name one of them data"):
        run.Plan(batch_size=8, epochs=1, mesh=jax.make_mesh((4,), ("x",), devices=devices))
    with pytest.raises(ValueError, match=r"have shapes \(\): give arrays"):
        trained(data=[1.0, 2.0])


# A program with a network of its own


_EQUINOX = """
import sys
import equinox as eqx
import jax
import numpy as np
import optax
import vae_jax
from vae_jax import run

folder, resume = sys.argv[1], sys.argv[2] == "resume"


class VAE(eqx.Module):
    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP

    def bound(self, key, x):
        def encode(x):
            mean, log_scale = jax.numpy.split(self.encoder(x), 2)
            return vae_jax.Normal(mean, jax.numpy.exp(log_scale))

        def decode(z):
            return vae_jax.Bernoulli(self.decoder(z))

        prior = vae_jax.Normal(jax.numpy.zeros(2), 1.0)
        return vae_jax.autoencode(key, x, encode, prior, decode)


one, two = jax.random.split(jax.random.key(0))
model = VAE(eqx.nn.MLP(8, 4, 16, 1, key=one), eqx.nn.MLP(2, 8, 16, 1, key=two))
params, static = eqx.partition(model, eqx.is_array)


def loss(params, key, x):
    bound = jax.vmap(eqx.combine(params, static).bound)(jax.random.split(key, len(x)), x)
    return -bound.value.mean(), bound


x = (np.random.default_rng(0).random((200, 8)) > 0.5).astype(np.float32)
plan = run.Plan(
    epochs=60, batch_size=20, folder=folder, resume=resume, checkpoint_seconds=0.0
)
fitted = run.fit(jax.random.key(1), loss, params, optax.adam(1e-3), x, plan)
np.savez(folder + ".npz", *jax.tree.leaves(fitted.params))
"""


def equinox(folder, resume):
    return subprocess.Popen(
        [sys.executable, "-c", _EQUINOX, str(folder), "resume" if resume else "anew"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
@pytest.mark.parametrize("num_kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_a_network_in_equinox_killed_at_random_ends_with_the_same_parameters(tmp_path, num_kills):
    pytest.importorskip("equinox")
    whole = equinox(tmp_path / "whole", resume=False)
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    chance, checkpoints = random.Random(num_kills), tmp_path / "run" / "checkpoints"

    def newest():
        names = [p.name for p in checkpoints.glob("[0-9]*")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    for _ in range(num_kills):
        before = newest()
        process = equinox(tmp_path / "run", resume=True)
        while newest() <= before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        assert newest() > before
    rest = equinox(tmp_path / "run", resume=True)
    _, errors = rest.communicate(timeout=300)
    assert rest.returncode == 0, errors
    with np.load(tmp_path / "run.npz") as one, np.load(tmp_path / "whole.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
