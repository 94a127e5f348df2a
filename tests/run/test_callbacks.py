"""What a run tells while it goes on: lines, a bar, trackers; and what may end it."""

import contextlib
import errno
import json
import math
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax import checkpoint, run
from vae_jax.run import callbacks, training
from vae_jax.run.plan import Progress

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
relaxed = pytest.mark.relax("numpy_dtype_promotion")


def loss(params, key, batch):
    value = jnp.square(batch - params[None]).sum(axis=-1)
    return value.mean(), {"error": value}


def trained(*found, epochs=3, params=None, validate=None, **plan):
    return run.fit(
        jax.random.key(0),
        loss,
        jnp.zeros(3) if params is None else params,
        optax.sgd(0.1),
        X,
        run.Plan(batch_size=10, epochs=epochs, **plan),
        validate=validate or (lambda params: {"score": params.sum()}),
        callbacks=found,
    )


# Divergence


@pytest.mark.parametrize(
    ("values", "diverges"),
    [
        ([-1800.0, -1318.0, -26_731_474.0], True),
        ([-1800.0, -1318.0, math.nan], True),
        ([math.nan, -1318.0, -1e6], True),
        ([-1800.0, -1318.0, -9000.0], False),
        ([3.0, 100.0, -900.0], False),  # an ELBO of densities has no sign
        ([-26_731_474.0], False),
        ([-26_731_474.0, -1318.0, -1e6], False),
    ],
)
def test_a_figure_that_falls_far_below_its_first_has_diverged(values, diverges):
    rows = [{"epoch": i, "validation_elbo": v} for i, v in enumerate(values, 1)]
    progress = run.Progress(num_steps=9, steps_per_epoch=1, batch_size=1, rows=rows)
    epoch = len(values)
    raises = pytest.raises(run.Diverged, match=f"{values[-1]:g}".replace("+", ".") + f".*{epoch}$")
    with raises if diverges else contextlib.nullcontext():
        run.Collapse("validation_elbo").epoch(progress, rows[-1])


@relaxed
def test_a_run_that_diverged_goes_on_from_before_with_a_smaller_step(tmp_path, monkeypatch):
    """Each step of 2.6 makes the distance to the mean 4.2 times as long."""
    monkeypatch.setattr(training, "_CALL_SECONDS", 0.0)  # a step a call, a checkpoint a call

    def train(rate, resume):
        plan = run.Plan(
            batch_size=10, epochs=9, folder=tmp_path, checkpoint_seconds=0.0, resume=resume
        )
        return run.fit(
            jax.random.key(0),
            loss,
            jnp.zeros(3),
            optax.sgd(rate),
            X,
            plan,
            validate=lambda params: {"score": -loss(params, None, X)[0]},
            callbacks=[run.Collapse("validation_score")],
        )

    with pytest.raises(
        run.Diverged, match=r"fell from .* in epoch 2; the checkpoints in .* before"
    ):
        train(2.6, resume=False)
    with checkpoint.manager(tmp_path / "checkpoints") as checkpoints:
        assert max(checkpoints.all_steps()) == 7  # of the 8 steps of two epochs
    fitted = train(0.5, resume=True)  # each step to its batch's mean
    np.testing.assert_allclose(fitted.params, X.mean(axis=0), atol=1.5)


# Early stopping


def ends(values, patience, least):
    """The epoch that ends training: the first that comes `patience` epochs after the last rise."""
    for epoch in range(1, len(values) + 1):
        best, rises = -math.inf, [0]
        for at, value in enumerate(values[:epoch], 1):
            if np.isfinite(value) and value > best + least:
                best = value
                rises.append(at)
        if epoch - rises[-1] >= patience:
            return epoch
    return len(values)


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("least", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_early_stopping_ends_when_the_figure_has_not_risen(patience, least, seed):
    rng = np.random.default_rng(seed)
    values = np.log1p(np.arange(60)) + rng.normal(size=60) / 2
    values[rng.random(60) < 0.1] = np.nan
    stopping = run.EarlyStopping("validation_score", patience=patience, least=least)
    progress = run.Progress(num_steps=60, steps_per_epoch=1, batch_size=1)
    for value in values:
        progress.rows.append({"step": len(progress.rows) + 1, "validation_score": value})
        if stopping.epoch(progress, progress.rows[-1]):
            break
    assert len(progress.rows) == ends(values, patience, least)
    assert stopping.start(progress) == (len(progress.rows) < 60)  # a resumed run ends at once


@pytest.mark.parametrize(("after", "length"), [(0, 3), (2, 4), (4, 6), (9, 9)])
def test_early_stopping_does_not_wait_in_a_warm_up(after, length):
    stopping = run.EarlyStopping("validation_elbo", patience=2, after=after)
    progress = run.Progress(num_steps=9, steps_per_epoch=1, batch_size=1)
    for value in [-5.0] + 8 * [-6.0]:
        progress.rows.append({"validation_elbo": value})
        if stopping.epoch(progress, progress.rows[-1]):
            break
    assert len(progress.rows) == length


@relaxed
def test_early_stopping_and_the_best_want_a_figure_that_is_there():
    stopping = run.EarlyStopping("validation_elbo", patience=1)
    with pytest.raises(ValueError, match=r"validation_score, .*, and no 'validation_elbo'"):
        trained(stopping)
    with pytest.raises(ValueError, match="keep_best is 'validation_elbo' but the rows have epoch"):
        trained(keep_best="validation_elbo")
    with pytest.raises(ValueError, match="patience is 0: it must be 1 epoch or more"):
        run.EarlyStopping("validation_elbo", patience=0)


@relaxed
def test_a_figure_that_is_not_finite_is_never_the_best_nor_after_a_resume(tmp_path):
    """The third of six epochs is the best of those that are finite."""
    scores = {1: math.nan, 2: -math.inf, 3: 5.0, 4: math.inf, 5: math.nan, 6: 4.0}

    def end(epochs, folder=None, **plan):
        stopping = run.EarlyStopping("validation_score", patience=9)
        recorder, done = [], []

        class Recorder:
            def start(self, progress):
                done.append(progress.epoch)

            def steps(self, progress, metrics):
                pass

            def epoch(self, progress, row):
                pass

        def validate(params):
            recorder.append(params)
            return {"score": scores[done[0] + len(recorder)]}

        fitted = trained(
            Recorder(),
            stopping,
            epochs=epochs,
            validate=validate,
            keep_best="validation_score",
            folder=folder,
            **plan,
        )
        return fitted, recorder

    whole, judged = end(6)
    np.testing.assert_array_equal(whole.params, judged[2])
    for at in (1, 2, 3, 4, 5):
        if at < 3:
            with pytest.warns(RuntimeWarning, match="validation_score was finite after no epoch"):
                end(at, tmp_path / str(at))
        else:
            end(at, tmp_path / str(at))
        rest, _ = end(6, tmp_path / str(at), resume=True)
        np.testing.assert_array_equal(rest.params, whole.params)


# Lines and bars


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(callbacks.time, "monotonic", lambda: self.now)


def shown(monkeypatch, capsys, *, num_epochs, call_seconds, calls=1, name=""):
    """The lines of a run whose epochs are of some calls of some seconds."""
    clock, bar = Clock(monkeypatch), run.ProgressBar(name)
    progress = run.Progress(num_epochs * calls, calls, batch_size=10)
    bar.start(progress)
    times = []
    for _ in range(num_epochs):
        for _ in range(calls):
            clock.now += call_seconds
            metrics = vae_jax.Metrics(np.array([float(progress.step)]), None)
            progress.add(metrics, call_seconds)
            bar.steps(progress, metrics)
            if progress.at_row:
                bar.epoch(progress, progress.end_epoch({"elbo": -progress.step / 7}))
            times += [clock.now] * capsys.readouterr().err.count("\n")
    bar.close()
    return times, capsys.readouterr().err


def test_lines_are_a_second_apart_and_the_last_epochs_is_said(monkeypatch, capsys):
    times, last = shown(monkeypatch, capsys, num_epochs=203, call_seconds=0.1, name="CVAE")
    assert 18 <= len(times) <= 21
    assert np.diff(times).min() >= 1
    assert last == "CVAE: epoch 203, step 203 of 203: validation elbo -29.00; 0.1 s\n"


def test_a_long_epoch_has_a_line_a_minute(monkeypatch, capsys):
    times, last = shown(monkeypatch, capsys, num_epochs=2, call_seconds=1.0, calls=1000)
    assert np.diff(times).max() <= 61
    assert 30 <= len(times) <= 36
    assert last == ""  # the last epoch's line has been said


def test_a_long_measurement_has_a_line_a_minute(monkeypatch, capsys):
    clock, batches = Clock(monkeypatch), [np.arange(i, i + 20) for i in range(0, 140, 20)]
    for _ in callbacks.counted(batches, 130, "log p(x)"):  # the last is filled up
        clock.now += 25
    assert capsys.readouterr().err.splitlines() == [
        "log p(x): 60 of 130 images",
        "log p(x): 120 of 130 images",
    ]


@relaxed
@pytest.mark.parametrize("disable", [False, True])
def test_a_progress_bar_of_ones_own_stands_for_the_usual_one(capsys, disable):
    trained(run.ProgressBar("mine", disable=disable))
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("mine: epoch 3, step 12 of 12: ") for line in said] == [True][disable:]
    trained()
    assert capsys.readouterr().err.startswith("epoch 3, step 12 of 12: validation score ")


_IN_A_TERMINAL = """
import jax, jax.numpy as jnp, numpy as np, optax
from vae_jax import run
x = np.zeros((40, 3), np.float32)
loss = lambda p, key, batch: (jnp.square(batch - p).mean(), None)
stop = run.EarlyStopping("train_loss", patience=3)  # which falls: it ends after epoch 4
run.fit(jax.random.key(0), loss, jnp.ones(3), optax.sgd(0.1), x,
        run.Plan(epochs=50, batch_size=10), callbacks=[stop])
print("after")
"""


def test_the_bar_in_a_terminal_ends_with_the_last_figures_and_a_new_line():
    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 100))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", _IN_A_TERMINAL], stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        said = b""
        try:
            while part := os.read(leader, 10_000):
                said += part
        except OSError:  # Linux's end of a terminal
            pass
    os.close(leader)
    assert process.returncode == 0, said.decode()
    *_, bar, after, _ = said.decode().replace("\r\n", "\n").split("\n")
    assert after == "after"
    assert bar.rpartition("\r")[2].startswith("epoch 5/50:   8%|")
    assert "train loss 0." in bar.rpartition("\r")[2]


# Trackers


class Expected:
    """The figures that a tracker is to have, by name: (step, value) of each row."""

    def __init__(self):
        self.figures = {}

    def start(self, progress):
        pass

    def steps(self, progress, metrics):
        pass

    def epoch(self, progress, row):
        for name, value in row.items():
            if name != "step":
                group, _, rest = name.partition("_")
                name = f"{group}/{rest}" if group in ("train", "validation") else name
                self.figures.setdefault(name, []).append((row["step"], value))


def tracked(reporter, expected):
    fitted = trained(reporter, expected)
    assert len(fitted.rows) == 3
    assert {"train/loss", "train/error", "validation/score", "seconds"} <= expected.figures.keys()


def assert_has(found, expected):
    assert found.keys() == expected.figures.keys()
    for name, rows in expected.figures.items():
        steps, values = zip(*rows, strict=True)
        assert [step for step, _ in found[name]] == list(steps)
        np.testing.assert_allclose([v for _, v in found[name]], values, rtol=1e-6)


@relaxed
def test_tensorboard_has_every_figure(tmp_path):
    pytest.importorskip("tensorboardX")
    expected = Expected()
    with run.tensorboard(tmp_path) as reporter:
        tracked(reporter, expected)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    found = {}
    for event in events(path):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert_has(found, expected)


def events(path):
    """The events of a file: records of a length, its checksum, an Event, its checksum."""
    from tensorboardX.proto import event_pb2

    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


@pytest.mark.parametrize("fails", ["open", "write", "close"])
def test_tensorboard_on_a_disk_that_fails_is_a_warning_and_goes_on(tmp_path, monkeypatch, fails):
    module = pytest.importorskip("tensorboardX.record_writer")
    opened = module.open_file

    class Failing:
        def __init__(self, path):
            if fails == "open":
                raise OSError(errno.EMFILE, "Too many open files")
            self._file = opened(path)

        def write(self, content):
            if fails == "write":
                raise OSError(errno.ENOSPC, "No space left on device")
            self._file.write(content)

        def flush(self):
            self._file.flush()

        def close(self):
            self._file.close()
            if fails == "close":
                raise OSError(errno.EIO, "Input/output error")

    progress = Progress(num_steps=9, steps_per_epoch=3, batch_size=1)
    with run.tensorboard(tmp_path / "new") as reporter:
        monkeypatch.setattr(module, "open_file", Failing)
        if fails == "close":
            reporter.epoch(progress, {"epoch": 1, "step": 3, "train_loss": 1.0})
        else:
            with pytest.warns(
                RuntimeWarning, match=r"new cannot be written .*of step 3 are missing"
            ):
                reporter.epoch(progress, {"epoch": 1, "step": 3, "train_loss": 1.0})
            monkeypatch.undo()
        reporter.epoch(progress, {"epoch": 2, "step": 6, "train_loss": 0.5})
    found = [
        (event.step, value.tag, value.simple_value)
        for path in (tmp_path / "new").iterdir()
        for event in events(path)
        for value in event.summary.value
    ]
    first = [(3, "epoch", 1.0), (3, "train/loss", 1.0)] if fails == "close" else []
    assert found == [*first, (6, "epoch", 2.0), (6, "train/loss", 0.5)]


def records_of_leveldb(content):
    """The records of a LevelDB log: in blocks of 32 KiB, each a checksum, a length, a type."""
    whole, at = b"", 0
    while at + 7 <= len(content):
        if 32768 - (at + 7) % 32768 < 7:  # the rest of a block is empty; the 7 are before the log
            at += 32768 - (at + 7) % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.relax
@pytest.mark.filterwarnings("ignore")  # of other packages, while they are imported
def test_wandb_has_every_figure(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    expected = Expected()
    monkeypatch.setenv("WANDB_SILENT", "true")
    with run.wandb(mode="offline", dir=tmp_path, project="test") as reporter:
        tracked(reporter, expected)
    wandb.teardown()  # its other process has written all when it has ended
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = {}
    for data in records_of_leveldb(path.read_bytes()[7:]):  # 7 bytes say that it is theirs
        record = wandb_internal_pb2.Record.FromString(data)
        items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        for name, value in items.items():
            if not name.startswith("_"):
                step = json.loads(items["_step"])
                found.setdefault(name, []).append((step, json.loads(value)))
    assert_has(found, expected)


@pytest.mark.relax
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_every_figure(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    expected, before = Expected(), mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder: all the client alone knows
    mlflow.set_tracking_uri(f"file:{tmp_path}/runs")
    try:
        with run.mlflow(run_name="digits") as reporter:
            tracked(reporter, expected)
        client = mlflow.MlflowClient()
        (one,) = client.search_runs(["0"])
        assert one.info.run_name == "digits"
        assert one.info.status == "FINISHED"
        found = {
            name: [(m.step, m.value) for m in client.get_metric_history(one.info.run_id, name)]
            for name in one.data.metrics
        }
    finally:
        mlflow.set_tracking_uri(before)
    assert_has(found, expected)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_missing_is_named_with_what_installs_it(monkeypatch, name):
    module = {"tensorboard": "tensorboardX"}.get(name, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    make = getattr(run, name)
    arguments = {"directory": "x"} if name == "tensorboard" else {}
    with (
        pytest.raises(run.RunError, match=rf'{module} is not installed: .*"vae_jax\[{name}\]"'),
        make(**arguments),
    ):
        pass
