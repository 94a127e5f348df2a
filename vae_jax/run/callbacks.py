"""What is told of a training run while it goes on, and may end it.

A callback has three methods; each is given the run's `Progress`. What has to be closed is a context
manager, for whoever opened it: `with tensorboard("logs") as reporter`.
"""

import contextlib
import math
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

import vae_jax
from vae_jax.run import extras
from vae_jax.run.errors import Diverged
from vae_jax.run.plan import Progress, Row


class Callback(Protocol):
    """What `fit` calls.

    start: before the first step of this process. A resumed run has `progress.rows` already: what a
      callback knows must follow from them, or the run would not end as the unbroken one does. True
      ends the training before it begins.
    steps: after each call of about a second, with its steps' metrics, arrays [steps].
    epoch: after each epoch, with its row. True ends the training; all is saved first.
    """

    def start(self, progress: Progress) -> bool | None: ...

    def steps(self, progress: Progress, metrics: vae_jax.Metrics) -> None: ...

    def epoch(self, progress: Progress, row: Row) -> bool | None: ...


class ProgressBar:
    """A bar in a terminal; elsewhere a line for each epoch of a second or more, and one a minute.

    Args:
      name: of what is trained, put before all.
      disable: show nothing.
    """

    _LINE_SECONDS = 1.0, 60.0  # least between two lines, and most

    def __init__(self, name: str = "", *, disable: bool = False) -> None:
        self._prefix = f"{name}: " if name else ""
        self._disable, self._in_lines = disable, not sys.stderr.isatty()
        self._bar, self._unsaid = tqdm(disable=True), ""

    def start(self, progress: Progress) -> None:
        self._said_at = time.monotonic()
        self._bar = tqdm(
            total=progress.num_steps * progress.batch_size,
            initial=progress.step * progress.batch_size,
            desc=self._epoch(progress),
            unit="example",
            unit_scale=True,
            disable=self._disable or self._in_lines or progress.finished,
        )

    def steps(self, progress: Progress, metrics: vae_jax.Metrics) -> None:
        self._bar.update(len(metrics.loss) * progress.batch_size)
        if time.monotonic() - self._said_at >= self._LINE_SECONDS[1]:
            self._say(f"{self._at(progress)}: loss {_brief(float(metrics.loss[-1]))}")

    def epoch(self, progress: Progress, row: Row) -> None:
        group = "validation" if any(n.startswith("validation_") for n in row) else "train"
        figures = [
            f"{n.removeprefix(group)[1:].replace('_', ' ')} {_brief(v)}"
            for n, v in row.items()
            if n.startswith(f"{group}_")
        ]
        said = f"{group} {', '.join(figures)}"
        # Shown with the next steps, or by close: an epoch may be shorter than it takes to draw.
        self._bar.set_postfix_str(said, refresh=False)
        self._bar.set_description(self._epoch(progress), refresh=False)
        self._unsaid = f"{self._at(progress)}: {said}; {row['seconds']:.1f} s"
        if time.monotonic() - self._said_at >= self._LINE_SECONDS[0]:
            self._say(self._unsaid)

    def close(self) -> None:
        """Ends the bar, or says the last epoch's line."""
        self._bar.close()
        if self._unsaid:
            self._say(self._unsaid)

    def _epoch(self, progress: Progress) -> str:
        num_epochs = -(-progress.num_steps // progress.steps_per_epoch)
        return f"{self._prefix}epoch {min(progress.epoch + 1, num_epochs)}/{num_epochs}"

    def _at(self, progress: Progress) -> str:
        of = f"step {progress.step:,} of {progress.num_steps:,}"
        return f"{self._prefix}epoch {progress.epoch}, {of}"

    def _say(self, line: str) -> None:
        self._said_at, self._unsaid = time.monotonic(), ""
        if self._in_lines and not self._disable:
            print(line, file=sys.stderr, flush=True)


def counted(
    batches: Iterable[np.ndarray], total: int, name: str, unit: str = "image"
) -> Iterator[np.ndarray]:
    """Batches of rows, with a bar in a terminal and elsewhere a line a minute.

    Args:
      batches: the rows of each.
      total: rows of all; the last batch may be filled up beyond it.
      name: what is done with them, put before all.
      unit: what a row is.
    """
    said_at, done = time.monotonic(), 0
    with tqdm(total=total, unit=unit, desc=name, disable=None) as bar:
        for rows in batches:
            if bar.disable and time.monotonic() - said_at >= ProgressBar._LINE_SECONDS[1]:
                print(f"{name}: {done:,} of {total:,} {unit}s", file=sys.stderr, flush=True)
                said_at = time.monotonic()
            yield rows
            bar.update(min(len(rows), total - done))
            done += len(rows)


def _brief(figure: float) -> str:
    return f"{figure:.2f}" if abs(figure) >= 10 else f"{figure:#.3g}"


class EarlyStopping:
    """Ends the training when a figure of the rows has not risen for some epochs.

    Args:
      figure: its name in the rows, such as validation_elbo; higher is better.
      patience: epochs without a rise.
      least: what counts as a rise.
      after: epochs at the start that are not counted as waiting, such as those of a warm-up.

    >>> stopping = EarlyStopping("validation_elbo", patience=2)
    >>> rows = [{"validation_elbo": v} for v in (-9.0, -8.0, -8.5, -8.1)]
    >>> progress = Progress(num_steps=9, steps_per_epoch=1, batch_size=1, rows=rows)
    >>> stopping.epoch(progress, rows[-1])
    True
    """

    def __init__(self, figure: str, *, patience: int, least: float = 0.0, after: int = 0) -> None:
        if patience < 1:
            raise ValueError(f"patience is {patience}: it must be 1 epoch or more")
        self._figure, self._patience, self._least, self._after = figure, patience, least, after

    def start(self, progress: Progress) -> bool:
        return self._waited(progress.rows)

    def steps(self, progress: Progress, metrics: vae_jax.Metrics) -> None:
        pass

    def epoch(self, progress: Progress, row: Row) -> bool:
        return self._waited(progress.rows)

    def _waited(self, rows: list[Row]) -> bool:
        # From all rows each time, so that a resumed run ends where the unbroken one does.
        best, since = float("-inf"), 0
        for epoch, row in enumerate(rows, start=1):
            if self._figure not in row:
                raise ValueError(f"the rows have {', '.join(row)}, and no {self._figure!r}")
            # What is not finite is no rise; on disk it is one with what is no number.
            if math.isfinite(row[self._figure]) and row[self._figure] > best + self._least:
                best, since = row[self._figure], 0
            elif epoch > self._after:
                since += 1
        return since >= self._patience


class Collapse:
    """Ends the run as diverged when a figure falls far below where it began, finite or not.

    Far is ten times as far as it had come, and ten times its own size, after the first epoch: no
    unit, and nothing that noise does.

    Args:
      figure: its name in the rows, such as validation_elbo; higher is better.

    Raises:
      Diverged: by `epoch`, before the fallen state is saved.

    >>> rows = [{"epoch": i, "validation_elbo": v} for i, v in enumerate([-1800.0, -1318.0, -2e7])]
    >>> progress = Progress(num_steps=9, steps_per_epoch=1, batch_size=1, rows=rows)
    >>> Collapse("validation_elbo").epoch(progress, rows[-1])
    Traceback (most recent call last):
        ...
    vae_jax.run.errors.Diverged: validation_elbo fell from -1318 to -2e+07 in epoch 2
    """

    def __init__(self, figure: str) -> None:
        self._figure = figure

    def start(self, progress: Progress) -> None:
        pass

    def steps(self, progress: Progress, metrics: vae_jax.Metrics) -> None:
        pass

    def epoch(self, progress: Progress, row: Row) -> None:
        *before, now = (float(r[self._figure]) for r in progress.rows)
        known = [value for value in before if math.isfinite(value)]
        if not known:
            return
        first, best = known[0], max(known)
        least = first - 10 * (abs(first) + best - first)
        if not now >= least:  # NaN neither
            raise Diverged(
                f"{self._figure} fell from {before[-1]:g} to {now:g} in epoch {row['epoch']}"
            )


class AtStart:
    """Calls a function with the progress before the first step, once all that can fail has not."""

    def __init__(self, function: Callable[[Progress], None]) -> None:
        self._function = function

    def start(self, progress: Progress) -> None:
        self._function(progress)

    def steps(self, progress: Progress, metrics: vae_jax.Metrics) -> None:
        pass

    def epoch(self, progress: Progress, row: Row) -> None:
        pass


class Reporter:
    """Gives each row to a function, as figures and their step: how a tracker is told of a run.

    Args:
      log: (figures, step) -> None. A / stands after train and validation, by which trackers group
        their charts.

    >>> reporter = Reporter(lambda figures, step: print(step, figures))
    >>> progress = Progress(num_steps=9, steps_per_epoch=3, batch_size=1, step=3)
    >>> reporter.epoch(progress, {"epoch": 1, "step": 3, "validation_elbo": -9.0})
    3 {'epoch': 1, 'validation/elbo': -9.0}
    """

    def __init__(self, log: Callable[[dict[str, float], int], None]) -> None:
        self._log = log

    def start(self, progress: Progress) -> None:
        pass

    def steps(self, progress: Progress, metrics: vae_jax.Metrics) -> None:
        pass

    def epoch(self, progress: Progress, row: Row) -> None:
        figures = {
            n.replace("_", "/", 1) if n.startswith(("train_", "validation_")) else n: value
            for n, value in row.items()
            if n != "step"
        }
        self._log(figures, row["step"])


@contextlib.contextmanager
def tensorboard(directory: str | Path) -> Iterator[Reporter]:
    """A reporter that writes TensorBoard's event files in a folder, from the first epoch on.

    Where they cannot be written it says so in a warning, and tries again at the next epoch.

    Raises:
      RunError: tensorboardX is not installed.
    """
    module = extras.require("tensorboardX")
    event, scalar = module.proto.event_pb2.Event, module.summary.scalar
    # Not its SummaryWriter, which writes from a thread: nobody hears of a disk that fails there.
    file: Any = None

    def log(figures: dict[str, float], step: int) -> None:
        nonlocal file
        try:
            if file is None:  # not before there is a row: a resumed run may be refused yet
                Path(directory).mkdir(parents=True, exist_ok=True)
                name = f"events.out.tfevents.{int(time.time())}.{platform.node()}.{step}"
                file = module.record_writer.RecordWriter(str(Path(directory) / name))
                start = event(wall_time=time.time(), file_version="brain.Event:2")
                file.write(start.SerializeToString())
            for name, value in figures.items():
                of_figure = event(wall_time=time.time(), step=step, summary=scalar(name, value))
                file.write(of_figure.SerializeToString())
            file.flush()
        except OSError as error:
            close()  # what is half written ends its file: the next epoch begins another
            warnings.warn(
                f"{directory} cannot be written ({error.strerror}): the figures of step {step} "
                "are missing there",
                RuntimeWarning,
                stacklevel=2,
            )

    def close() -> None:
        nonlocal file
        if file is not None:
            with contextlib.suppress(OSError):  # all has been written, or it has been said
                file.close()
            file = None

    try:
        yield Reporter(log)
    finally:
        close()


@contextlib.contextmanager
def wandb(**settings: Any) -> Iterator[Reporter]:
    """A reporter to Weights & Biases; the settings are those of `wandb.init`.

    With mode="offline" it needs no network; with id=... and resume="allow" a resumed run goes on
    in the same one.

    Raises:
      RunError: wandb is not installed.
    """
    with extras.require("wandb").init(**settings) as run:
        yield Reporter(lambda figures, step: run.log(figures, step=step))


@contextlib.contextmanager
def mlflow(**settings: Any) -> Iterator[Reporter]:
    """A reporter to MLflow; the settings are those of `mlflow.start_run`.

    Where it goes, MLFLOW_TRACKING_URI says; file:FOLDER needs no server, but of late
    MLFLOW_ALLOW_FILE_STORE=true. With run_id=... a resumed run goes on in the same one.

    Raises:
      RunError: mlflow is not installed.
    """
    module = extras.require("mlflow")
    with module.start_run(**settings) as run:
        run_id = run.info.run_id
        yield Reporter(lambda figures, step: module.log_metrics(figures, step, run_id=run_id))
