"""A trained run on what is no image in Python; and the one way to load any run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vae_jax
from vae_jax.run import examples, folder, hub, keys, kinds, options, tabular
from vae_jax.run.buckets import without_padding
from vae_jax.run.data import remote
from vae_jax.run.errors import DataError
from vae_jax.run.illnesses import Finding
from vae_jax.run.loaded import TrainedRun, check_ended, findings, load_images, results_of
from vae_jax.run.plan import Row
from vae_jax.run.programs import Programs
from vae_jax.run.schedule import rate_at
from vae_jax.run.scores import Codes, Filled, Scores


class TrainedExamples:
    """What a run on a table, on counts or on sequences has learned, to use: see `load`.

    Its methods take a file of the run's kind, or what Python has of it: a frame of pandas or polars
    with the run's columns, arrays [T_i, D] of sequences; or a part of the run's own, from `data`.
    What is missing is not observed: it is no part of the codes, and scores are of what is there.

    Attributes:
      kind: of the data: table, counts or sequences.
      model: the `vae_jax.VAE`, of examples as numbers.
      params: its parameters, the best on the validation set.
      options: of the run.
      results: what results.json says; None while the run trains.
      config: what config.json says.
      step: of the checkpoint.
      rows: of metrics.jsonl, up to that step.
    """

    def __init__(
        self,
        trained: examples.Trained,
        results: dict[str, Any] | None,
        rows: Sequence[Row] = (),
    ) -> None:
        self.kind, self.model, self.params = trained.kind.name, trained.model, trained.params
        self.options, self.results, self.config = trained.options, results, trained.config
        self.step, self.rows = trained.step, rows
        self._trained, self._parts = trained, trained.kind.parts
        self._programs = Programs(trained.model, trained.params, _drawn, trained.kind.noun[:-1])

    def __repr__(self) -> str:
        of = f"{self.config['dataset']}, {self._trained.kind.what}"
        return f"TrainedExamples({of}, step {self.step:,})"

    def data(
        self, split: str = "test", where: str | os.PathLike[str] | None = None
    ) -> tuple[vae_jax.Batch, np.ndarray | None]:
        """A split of the run's own data, read now, and of a table its rows' numbers in the file.

        Args:
          split: train, validation or test.
          where: the file lies, if it has moved.

        Raises:
          DataError: it is not there, or is another.
        """
        own = examples.own(self._trained, None if where is None else str(where))
        return getattr(own, split), own.places.get(split)

    def read(
        self, file: str | None, where: str | None = None
    ) -> tuple[vae_jax.Batch, dict[str, np.ndarray]]:
        """A file's examples, or the run's test set, and the columns beside what is made of them.

        Raises:
          DataError: it cannot be read, or the run's own is another.
        """
        if file is None:
            batch, places = self.data("test", where)
            return batch, {} if places is None else {"name": places}
        batch, notes = self._given(file)
        for note in notes:
            print(f"note: {note}")
        return batch, {}

    def encode(
        self, data: Any, *, num_draws: int = 0, seed: int = 0, progress: bool = False
    ) -> Codes:
        """The codes of examples, and `num_draws` draws of each one's posterior.

        Those of sequences by a deep Markov model have an axis more, of steps; NaN after the end.

        Raises:
          DataError: the data are not such as the run's.
        """
        if num_draws < 0:
            raise ValueError(f"num_draws is {num_draws}: give 0 or more")
        name = "codes" if progress else ""
        batch = self._batch(data, seed)
        codes = self._programs.codes(*batch, num_draws=num_draws, seed=seed, name=name)
        return codes if codes.mean.ndim == 2 else _within(codes, np.asarray(batch.image))

    def score(
        self, data: Any, *, num_samples: int = 500, seed: int = 0, progress: bool = False
    ) -> Scores:
        """How likely examples are, what is there of them, each by `num_samples` draws.

        Raises:
          DataError: as `encode`.
          ValueError: num_samples is less than 2.
        """
        name = f"log p(x), {num_samples} draws" if progress else ""
        batch = self._batch(data, seed)
        return self._programs.scores(*batch, num_samples=num_samples, seed=seed, name=name)

    def reconstruct(self, data: Any, *, seed: int = 0) -> Any:
        """What is left of a table's rows after encoding and decoding, a frame of its columns.

        Numbers are the medians, classes the most probable of draws of p(x|z), z the code's mean;
        what was missing is there too.

        Raises:
          TypeError: the run is on no table.
          DataError: as `encode`.
        """
        if self.kind != "table":
            raise TypeError(f"the run is on {self.kind}: rows of a table alone are reconstructed")
        x, label = self._batch(data, seed)
        drawn = self._programs.reconstructions(x, label).swapaxes(0, 1)
        values = tabular.with_classes(np.median(drawn, axis=0), drawn, self.config)
        return self._parts.returned(iter([values]), label, self.config, seed)[0]

    def generate(
        self, num: int = 1, condition: Mapping[str, Any] | None = None, *, seed: int = 0
    ) -> Any:
        """Examples drawn from the model: a frame of a table, a matrix of counts, or sequences.

        Args:
          num: how many.
          condition: of a run with conditions, values by their columns' names, {"age": 40}; what is
            not given is as it was in training.
          seed: of the draws.

        Raises:
          ValueError: num is less than 1.
          UsageError: the run has no such condition, or knows no such value.
        """
        if num < 1:
            raise ValueError(f"num is {num}: give 1 or more")
        options.check_seed(seed)
        key = keys.of_run(seed)["generate"]
        return examples.generate(key, self._trained, num, condition or {}, seed)[0]

    def impute(
        self, data: Any, *, num_samples: int = 1000, num_draws: int = 0, seed: int = 0
    ) -> Filled:
        """Rows of a table, or sequences, without holes, each by `num_samples` draws of its latents.

        Args:
          data: as of the other methods; steps at the end of a sequence that are NaN are what comes
            next.
          num_samples: as many as make the effective sample size large.
          num_draws: of the whole data, filled at random, too.
          seed: of the draws.

        Raises:
          TypeError: the run is on counts, which have no holes.
          DataError: as `encode`; or nothing is missing.
          ValueError: num_samples is less than 2, or num_draws less than 0.
        """
        if self._parts.fill is None:
            raise TypeError(f"the run is on {self.kind}, which have no holes")
        options.check_seed(seed)
        key = keys.of_run(seed)["impute"]
        found: Filled
        found, _ = self._parts.fill(key, self._trained, self._local(data), num_samples, num_draws)
        return found

    def diagnose(
        self, where: str | os.PathLike[str] | None = None, *, seed: int = 0
    ) -> list[Finding]:
        """What ails the run: measured on its own data, which are read, up to 1,000 of a split.

        Args:
          where: the file lies, if it has moved.
          seed: of the draws.

        Raises:
          RunError: the run has not ended.
          DataError: the file is not there, or is another.
        """
        check_ended(self.results, self.rows)
        options.check_seed(seed)
        own = examples.own(self._trained, None if where is None else str(where))
        splits = {"train": own.train, "validation": own.validation, "test": own.test}
        of = self.options.training
        return findings(
            self, splits, lambda steps, num: rate_at(steps, num, of.learning_rate, warm_up=1), seed
        )

    def _batch(self, data: Any, seed: int) -> vae_jax.Batch:
        options.check_seed(seed)
        batch: vae_jax.Batch = data
        if not isinstance(data, vae_jax.Batch):
            batch, _ = self._given(data)
        if not len(batch.image):
            raise DataError(f"there are no {self._trained.kind.noun}: give 1 or more")
        return batch

    def _given(self, data: Any) -> tuple[vae_jax.Batch, list[str]]:
        """What the user has of the run's kind, a file or its URL too, as a batch; and notes."""
        found: tuple[vae_jax.Batch, list[str]] = self._parts.given(self._local(data), self.config)
        return found

    def _local(self, data: Any) -> Any:
        """The data, or the path of their file here."""
        if isinstance(data, str | Path):
            kinds.check_file(self._trained.kind, str(data))
            data = Path(remote.local(str(data)))
        return data


def _within(codes: Codes, x: np.ndarray) -> Codes:
    """Codes of steps [N, T, Z] without those after the end of a sequence [T, D]."""
    mean, draws = without_padding(x, codes.mean), codes.draws
    if draws is not None:
        draws = np.stack([without_padding(x, one) for one in draws.swapaxes(0, 1)], axis=1)
    return codes._replace(mean=mean, draws=draws)


def _drawn(likelihood: Any) -> jax.Array:
    """Draws [*b, S, D] of a row's likelihood, the same ones each time."""
    x: jax.Array = vae_jax.sample(jax.random.key(0), likelihood, _NUM_DRAWS)
    return x.swapaxes(0, -2)


_NUM_DRAWS = 199  # odd, for a median that is one of them


def load(run: str | os.PathLike[str]) -> TrainedRun | TrainedExamples:
    """A run by its folder: its newest checkpoint, to encode, decode, generate and score with.

    The training data are not read, and a run that is still training can be looked at.

    Args:
      run: folder of the run; or hf:ORG/NAME, a model of the Hugging Face hub.

    Returns:
      A `TrainedRun`, or of a table, of counts and of sequences a `TrainedExamples`.

    Raises:
      UsageError: the folder holds no run.
      RunError: its checkpoint is of other data.
      CheckpointError: it holds no checkpoint that can be read.
    """
    path = hub.place(run)
    return load_images(path) if folder.kind_in(path) is None else load_examples(path)


def load_examples(path: Path) -> TrainedExamples:
    """A run on what is no image by its folder; see `load`."""
    trained = examples.restore(path)
    return TrainedExamples(trained, results_of(path), folder.read_metrics(path, trained.step))
