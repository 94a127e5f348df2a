"""What a run keeps on disk while it trains: checkpoints, a row of metrics for each epoch."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import vae_jax
from vae_jax.run import folder
from vae_jax.run.errors import UsageError
from vae_jax.run.plan import Plan, Progress, Row


class Saver(contextlib.ExitStack):
    """Keeps a run in its plan's folder; without one, the best parameters alone, in memory.

    Attributes:
      best: parameters of the best epoch so far on the host, None where the plan keeps none.
      best_row: that epoch's row.
    """

    def __init__(self, plan: Plan, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.best: Any = None
        self.best_row: Row | None = None
        self._plan, self._config = plan, config
        self._leader = jax.process_index() == 0
        self._saved_at = time.monotonic()
        self._checkpoints: Any = None

    def __enter__(self) -> "Saver":
        if self._plan.folder is not None:
            from vae_jax import checkpoint  # here, as orbax takes a second

            self._checkpoints = self.enter_context(
                checkpoint.manager(self._plan.folder / "checkpoints", keep=self._plan.keep)
            )
        return self

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint; 0 where there will be none."""
        return 0.0 if self._checkpoints is None else time.monotonic() - self._saved_at

    def begin(
        self, state: vae_jax.TrainState, progress: Progress
    ) -> tuple[vae_jax.TrainState, Progress]:
        """The state and the progress to start from: the newest checkpoint's where a run resumes.

        Raises:
          UsageError: the run has made more steps than it is asked for.
          RunError: the checkpoint is of other data.
          CheckpointError: see `checkpoint.restore`.
        """
        if not self._plan.resume:
            return state, progress
        from vae_jax import checkpoint

        assert self._plan.folder is not None
        if self._checkpoints.latest_step() is None:  # killed before the first: it starts over
            if self._leader:
                folder.sign(self._plan.folder)
                folder.write_metrics(self._plan.folder, [])
            return state, progress
        state = checkpoint.restore(self._checkpoints, state)
        progress.step = int(state.step)
        written = checkpoint.restore_config(self._checkpoints, progress.step)
        folder.check_checkpoint(self._plan.folder, progress.step, written, self._config)
        if progress.step > progress.num_steps:
            raise UsageError(
                f"the run has made {progress.epoch} epochs, {progress.step} steps, and is asked "
                f"for {progress.num_steps} steps: give as many or more"
            )
        for name, value in written["progress"].items():
            setattr(progress, name, value)
        progress.rows = folder.read_metrics(self._plan.folder, progress.step)
        if self._plan.keep_best is not None:
            self.best = checkpoint.restore_best(self._checkpoints, progress.step, state.params)
        if self.best is not None:
            self.best_row = max(progress.rows, key=self._figure)  # the first, as in `add`
        if self._leader:  # all is read: now it may be changed
            folder.sign(self._plan.folder)
            checkpoint.set_aside(self._checkpoints, progress.step)
            folder.write_metrics(self._plan.folder, progress.rows)
        return state, progress

    def add(self, row: Row, params: Any) -> None:
        """Writes an epoch's row, and keeps its parameters where they are the best so far."""
        if self._plan.folder is not None and self._leader:
            folder.append_metrics(self._plan.folder, row)
        if self._plan.keep_best is None:
            return
        before = -np.inf if self.best_row is None else self._figure(self.best_row)
        if self._figure(row) > before:
            self.best, self.best_row = jax.device_get(params), row

    def save(self, state: vae_jax.TrainState, progress: Progress) -> None:
        """Writes a checkpoint, complete on disk when this returns."""
        if self._checkpoints is None:
            return
        from vae_jax import checkpoint

        config = {**self._config, "progress": progress.stored()}
        checkpoint.save(self._checkpoints, state, config, best=self.best)
        self._saved_at = time.monotonic()

    def _figure(self, row: Row) -> float:
        name = self._plan.keep_best
        if name not in row:
            raise ValueError(f"keep_best is {name!r} but the rows have {', '.join(row)}")
        # What is not finite is never the best; on disk it is one with what is no number.
        return float(row[name]) if np.isfinite(row[name]) else -np.inf
