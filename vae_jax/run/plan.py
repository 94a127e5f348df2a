"""What a training run is asked for, and how far it has come."""

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import vae_jax

Row = dict[str, Any]
"""An epoch's line of metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run trains, in what batches and on which devices, and what it keeps.

    Attributes:
      batch_size: examples a step, over all devices.
      epochs: passes over the data; this or `steps`.
      steps: of the optimizer, wherever in an epoch the last of them falls.
      accumulate: parts that a batch is computed in, where it does not fit at once.
      average_decay: of a moving average of the parameters, then what is judged; 0 for none.
      mesh: devices that share a batch, over its axis `data`; one device when not given.
      shard_parameters: split the state over them; see `vae_jax.state_sharding`.
      stream: read the data while training, in place of holding them on every device.
      num_workers: processes that read a stream, for what is dear to decode; 0 is a thread.
      folder: of checkpoints and of metrics.jsonl, a row an epoch; None keeps nothing on disk.
      resume: go on from the newest checkpoint in the folder; from the start where there is none.
      keep: how many of the newest checkpoints stay.
      checkpoint_seconds: least time between two, but at the end and at a stop.
      keep_best: name of a figure of the rows, such as validation_elbo; the parameters of the epoch
        where it is highest are the result.
      max_minutes: of the run, all its processes together, from their starts; then it ends, within
        an epoch too, whose row is of the steps that there were.

    >>> Plan(epochs=20, batch_size=100, keep_best="validation_elbo").accumulate
    1
    """

    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    accumulate: int = 1
    average_decay: float = 0.0
    mesh: Mesh | None = None
    shard_parameters: bool = False
    stream: bool = False
    num_workers: int = 0
    folder: Path | None = None
    resume: bool = False
    keep: int = 3
    checkpoint_seconds: float = 10.0
    keep_best: str | None = None
    max_minutes: float = math.inf

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"epochs is {self.epochs} and steps is {self.steps}: give one of them, the length "
                "of the run"
            )
        for name in ("batch_size", "epochs", "steps", "accumulate", "keep"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} is {value}: it must be a whole number, 1 or more")
            object.__setattr__(self, name, int(value))  # JSON takes no numbers of NumPy's
        axes = {"data": 1} if self.mesh is None else self.mesh.shape
        if "data" not in axes:
            raise ValueError(f"mesh has the axes {', '.join(axes)}: name one of them data")
        if self.batch_size % (self.accumulate * axes["data"]):
            raise ValueError(
                f"batch_size is {self.batch_size}: it must be a multiple of accumulate, "
                f"{self.accumulate}, times the mesh's devices, {axes['data']}"
            )
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay is {self.average_decay}: it must be in [0, 1)")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(
                f"checkpoint_seconds is {self.checkpoint_seconds}: it must be 0 or more"
            )
        if not self.max_minutes > 0:
            raise ValueError(f"max_minutes is {self.max_minutes}: it must be above 0")
        if self.folder is None and self.resume:
            raise ValueError("resume needs a folder, that of the run to go on with")
        if self.folder is not None:
            object.__setattr__(self, "folder", Path(self.folder))


@dataclass
class Progress:
    """How far a run has come; what every callback is given.

    Attributes:
      num_steps: of the whole run.
      steps_per_epoch: of one pass over the data.
      batch_size: examples a step.
      step: taken so far.
      rows: of the epochs so far.
      sums: of each metric over the steps of the epoch under way.
      epoch_seconds: of the same.
      compile_seconds: of the run, all its processes together, as the next.
      total_seconds: up to the last checkpoint.
      ended_by: plan, max_minutes or the class of a callback; empty while the run goes on.
    """

    num_steps: int
    steps_per_epoch: int
    batch_size: int
    step: int = 0
    rows: list[Row] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    compile_seconds: float = 0.0
    total_seconds: float = 0.0
    ended_by: str = ""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        return self.step >= self.num_steps

    @property
    def at_row(self) -> bool:
        """Whether an epoch ends here, or the run."""
        return self.step % self.steps_per_epoch == 0 or self.finished

    def stored(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; the step is the state's, the rows are in metrics.jsonl."""
        names = ("sums", "epoch_seconds", "compile_seconds", "total_seconds")
        return {name: getattr(self, name) for name in names}

    def add(self, metrics: vae_jax.Metrics, seconds: float) -> None:
        """Counts the steps of a call: metrics [steps] of each, on the host."""
        named: dict[str, Any] = {"loss": metrics.loss, **named_leaves(metrics.aux)}
        # Of a run that is older than the loss in its rows.
        names = self.sums.keys() & named.keys() if self.sums else named.keys()
        for name in sorted(names):
            # One by one: the sum must not depend on how the epoch is cut into calls.
            self.sums[name] = functools.reduce(
                operator.add, named[name].tolist(), self.sums.get(name, 0.0)
            )
        self.step += len(metrics.loss)
        self.epoch_seconds += seconds

    def end_epoch(self, validation: Mapping[str, Any]) -> Row:
        """The row of the epoch that ends here: means over its training steps."""
        # A run that ended within an epoch, and goes on to more steps, has a row within it.
        last = max((row["step"] for row in self.rows), default=0)
        steps = min(self.step - last, (self.step - 1) % self.steps_per_epoch + 1)
        row = {
            "epoch": -(-self.step // self.steps_per_epoch),
            "step": self.step,
            **{f"train_{name}": total / steps for name, total in self.sums.items()},
            **{f"validation_{name}": float(value) for name, value in validation.items()},
            "examples_per_second": steps * self.batch_size / self.epoch_seconds,
            "seconds": self.epoch_seconds,
        }
        self.sums, self.epoch_seconds = {}, 0.0
        self.rows.append(row)
        return row


def named_leaves(aux: Any) -> dict[str, Any]:
    """What a loss reports beside its value, by name: a `Bound` has an elbo and its two terms."""
    if isinstance(aux, vae_jax.Bound):
        return {"elbo": aux.value, "log_likelihood": aux.log_likelihood, "kl": aux.kl}
    return {
        jax.tree_util.keystr(path, simple=True, separator="_") or "aux": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(aux)
    }
