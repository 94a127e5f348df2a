"""A trained run on a table in Python, frames in and out; and the one way to load any run."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vae_jax
from vae_jax.run import folder, keys, options, tabular
from vae_jax.run.data import tables
from vae_jax.run.errors import DataError
from vae_jax.run.loaded import TrainedRun, load_images, results_of
from vae_jax.run.programs import Programs
from vae_jax.run.scores import Codes, Scores


class TrainedTable:
    """What a run on a table has learned, to use: see `load`.

    Rows are a frame of pandas or polars with the run's columns. What is missing is not observed: it
    is no part of the codes, and scores are of what is there.

    Attributes:
      model: the `vae_jax.VAE`, of rows as numbers.
      params: its parameters, the best on the validation set.
      columns: of the table.
      options: of the run.
      results: what results.json says; None while the run trains.
      config: what config.json says.
      step: of the checkpoint.
    """

    def __init__(self, trained: tabular.Trained, results: dict[str, Any] | None) -> None:
        self.model, self.params, self.step = trained.model, trained.params, trained.step
        self.columns, self.options = trained.columns, trained.options
        self.results, self.config = results, trained.config
        self._trained = trained
        self._programs = Programs(trained.model, trained.params, _drawn, "row")

    def data(self, split: str = "test", where: str | os.PathLike[str] | None = None) -> Any:
        """A split of the run's own rows, read now: a frame whose index is the row in the table.

        Args:
          split: train, validation or test.
          where: the table lies, if it has moved.

        Raises:
          DataError: it is not there, or is another.
        """
        of = self.options.data
        path = Path(where or of.dataset)
        frame = tables.read(path, of.missing)
        table = tables.split(frame, path.stem, str(path), tables.asked_kinds(of.columns))
        if table.digest != self.config["digest"]:
            raise DataError(
                f"the rows in {path} are not those of the run: name the place where those are"
            )
        return frame.iloc[table.places[split]]

    def read(
        self, table: Path | None, where: Path | None = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """A file's rows, or the run's test set, and the columns beside what is made of them.

        Raises:
          DataError: it cannot be read, or the run's table is another.
        """
        if table is None:
            rows = self.data("test", where)
            return rows, {"name": rows.index.to_numpy()}
        rows = tables.read(table, self.options.data.missing)
        for note in tables.encode(rows, self.columns)[1]:
            print(f"note: {note}")
        return rows, {}

    def encode(
        self, rows: Any, *, num_draws: int = 0, seed: int = 0, progress: bool = False
    ) -> Codes:
        """The codes of rows, and `num_draws` draws of each one's posterior.

        Raises:
          DataError: a column is not there, or holds what it cannot.
        """
        if num_draws < 0:
            raise ValueError(f"num_draws is {num_draws}: give 0 or more")
        name = "codes" if progress else ""
        x = self._numbers(rows, seed)
        return self._programs.codes(x, None, num_draws=num_draws, seed=seed, name=name)

    def score(
        self, rows: Any, *, num_samples: int = 500, seed: int = 0, progress: bool = False
    ) -> Scores:
        """How likely rows are, what is there of them, each by `num_samples` draws.

        Raises:
          DataError: as `encode`.
          ValueError: num_samples is less than 2.
        """
        name = f"log p(x), {num_samples} draws" if progress else ""
        x = self._numbers(rows, seed)
        return self._programs.scores(x, None, num_samples=num_samples, seed=seed, name=name)

    def reconstruct(self, rows: Any, *, seed: int = 0) -> Any:
        """What is left of rows after encoding and decoding, a frame of the table's columns.

        Numbers are the medians, classes the most probable of draws of p(x|z), z the code's mean;
        what was missing is there too.

        Raises:
          DataError: as `encode`.
        """
        drawn = self._programs.reconstructions(self._numbers(rows, seed), None)
        values = np.median(drawn, axis=1)
        for i, column in enumerate(tables.learned(self.columns)):
            if column.num_classes:
                levels = np.arange(column.num_classes)[:, None, None]
                values[:, i] = (drawn[..., i] == levels).sum(-1).argmax(0)
        return tables.decode(values, self.columns, seed)

    def generate(self, num: int = 1, *, seed: int = 0) -> Any:
        """Rows drawn from the model, a frame of the table's columns.

        Raises:
          ValueError: num is less than 1.
        """
        if num < 1:
            raise ValueError(f"num is {num}: give 1 or more")
        options.check_seed(seed)
        return tabular.generate(keys.of_run(seed)["generate"], self._trained, num, seed)

    def _numbers(self, rows: Any, seed: int) -> np.ndarray:
        options.check_seed(seed)
        x, _ = tables.encode(rows, self.columns)
        if not len(x):
            raise DataError("there are no rows: give 1 or more")
        return x


def _drawn(likelihood: Any) -> jax.Array:
    """Draws [*b, S, D] of a row's likelihood, the same ones each time."""
    x: jax.Array = vae_jax.sample(jax.random.key(0), likelihood, _NUM_DRAWS)
    return x.swapaxes(0, -2)


_NUM_DRAWS = 199  # odd, for a median that is one of them


def load(run: str | os.PathLike[str]) -> TrainedRun | TrainedTable:
    """A run by its folder: its newest checkpoint, to encode, decode, generate and score with.

    The training data are not read, and a run that is still training can be looked at.

    Args:
      run: folder of the run.

    Returns:
      A `TrainedRun`, or of a table a `TrainedTable`.

    Raises:
      UsageError: the folder holds no run.
      RunError: its checkpoint is of other data.
      CheckpointError: it holds no checkpoint that can be read.
    """
    path = Path(run)
    return load_table(path) if folder.holds_table(path) else load_images(path)


def load_table(path: Path) -> TrainedTable:
    """A run on a table by its folder; see `load`."""
    return TrainedTable(tabular.restore(path), results_of(path))
