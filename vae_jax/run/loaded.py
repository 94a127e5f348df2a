"""A trained run in Python: NumPy arrays in and out, without its training data."""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.run import baseline, folder, given, holes, keys, latents, measure, options
from vae_jax.run.data import conditions, examples
from vae_jax.run.diagnosis import diagnose
from vae_jax.run.errors import RunError
from vae_jax.run.illnesses import Course, Finding
from vae_jax.run.model import expected, make_schedule, num_levels
from vae_jax.run.plan import Row
from vae_jax.run.probe import probe
from vae_jax.run.programs import Programs
from vae_jax.run.restore import Trained, restore
from vae_jax.run.scores import Codes, Filled, Scores, Traversal


class TrainedRun:
    """What a run has learned, to use: see `load`.

    Images are bytes [N, H, W, C], or floats in [0, 1]; of one channel, [N, H, W] too. They are
    binarised or dequantised as in the run, by noise that `seed` and the image's place in the array
    decide. Of a conditional run every method takes labels: a class by its name or number for all,
    or one for each; of one with conditions a mapping or a frame of their names and values, each one
    for all, or one for each image. Each program is compiled once for a size of batch. Images may be
    anything with `shape` and `dtype` that is read by `images[rows]`; they are read while the device
    is at those before. Pictures, of which there may be too many to hold, go into `out`, where that
    is given, by `out[rows] = pictures`, such as np.lib.format.open_memmap(...). `progress` shows a
    bar.

    Attributes:
      model: the `vae_jax.VAE`.
      params: its parameters; the average of them, or the best on the validation set, where the run
        has such.
      options: of the run.
      results: what results.json says; None while the run trains.
      classes: their names; empty of data without.
      image_shape: (H, W, C).
      latent_dim: Z, of a code; of a hierarchy that of all its layers, which a code has in turn.
      layers: of a hierarchy, the shape of each layer's part of a code, the top one first.
      config: what config.json says.
      step: of the checkpoint.
      rows: of metrics.jsonl, up to that step.
    """

    def __init__(
        self, trained: Trained, results: dict[str, Any] | None, rows: Sequence[Row] = ()
    ) -> None:
        self.model, self.params, self.step = trained.model, trained.params, trained.step
        self.options, self.results = trained.options, results
        self.classes: tuple[str, ...] = tuple(trained.classes)
        self.image_shape: tuple[int, ...] = tuple(trained.config["image_shape"])
        self.config, self.rows = trained.config, rows
        self._observe, self._likelihood = trained.observe, trained.likelihood
        self.layers = latents.layers(self.options.model, self.model, self.params)
        self.latent_dim = latents.latent_dim(self.options.model, self.layers)
        self._programs = Programs(self.model, self.params, picture, layers=self.layers)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image_shape))
        of = f"{self.config['dataset']}, images {shape}, {self.latent_dim} latents"
        return f"TrainedRun({of}, step {self.step:,})"

    def data(self, split: str = "test", where: str | None = None) -> examples.Examples:
        """A split of the run's own data, which are read now: images, their labels and places.

        Args:
          split: train, validation or test.
          where: they lie, if they have moved.

        Raises:
          DataError: they are not there, or are others.
        """
        return examples.own(self.config, split, options.UsedData(data=where))

    def encode(
        self,
        images: Any,
        label: Any = None,
        *,
        num_draws: int = 0,
        seed: int = 0,
        progress: bool = False,
    ) -> Codes:
        """The codes of images, and `num_draws` draws of each one's posterior.

        Raises:
          TypeError: images of another type than the run's; labels of a run without, or none.
          ValueError: another shape, values outside [0, 1], or a label that there is not.
        """
        if num_draws < 0:
            raise ValueError(f"num_draws is {num_draws}: give 0 or more")
        x, label = self._checked(images, seed), self._labels(label, len(images))
        name = "codes" if progress else ""
        return self._programs.codes(x, label, num_draws=num_draws, seed=seed, name=name)

    def reconstruct(
        self,
        images: Any,
        label: Any = None,
        *,
        seed: int = 0,
        out: Any = None,
        progress: bool = False,
    ) -> Any:
        """What is left of images after encoding and decoding, [N, H, W, C] in [0, 1].

        Raises:
          TypeError, ValueError: as `encode`.
        """
        x, label = self._checked(images, seed), self._labels(label, len(images))
        name = "reconstructions" if progress else ""
        return self._programs.reconstructions(x, label, name=name, out=out)

    def decode(self, z: Any, label: Any = None) -> np.ndarray:
        """The pictures that codes [N, Z] stand for, [N, H, W, C] in [0, 1].

        Raises:
          TypeError: labels of a run without, or none.
          ValueError: codes of another size, or a label that there is not.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim or not len(z):
            raise ValueError(f"z has shape {z.shape}: give codes [N, {self.latent_dim}]")
        return self._programs.decoded(z, self._labels(label, len(z)))

    def interpolate(
        self, start: Any, end: Any, steps: int = 9, label: Any = None, *, seed: int = 0
    ) -> np.ndarray:
        """Pictures along the straight line from one image's code to another's, both included.

        Args:
          start: [H, W, C].
          end: likewise.
          steps: pictures, 2 at least.
          label: of a conditional run, one for all, or one for each picture.
          seed: of the noise.

        Returns:
          [steps, H, W, C] in [0, 1].

        Raises:
          TypeError, ValueError: as `encode`; or steps is less than 2.
        """
        if steps < 2:
            raise ValueError(f"steps is {steps}: a line with both its ends has 2 pictures at least")
        label = self._labels(label, steps)
        ends = None if label is None else label[[0, -1]]
        first, last = self.encode(np.stack([start, end]), ends, seed=seed).mean
        z = np.linspace(first, last, steps)
        if self.options.model.posterior == "power_spherical":  # along the sphere's great circle
            z /= np.linalg.norm(z, axis=1, keepdims=True)
        return self.decode(z, label)

    def traverse(
        self, images: Any, label: Any = None, *, steps: int = 9, of: int = 0, seed: int = 0
    ) -> Traversal:
        """Pictures of an image whose latents are changed, one at a time.

        A latent is used where its mean varies by more than 0.01 over the images (active units of
        Burda et al. 2016). Each goes from the 1 % to the 99 % quantile of these means; the others
        stay as the image has them.

        Args:
          images: [N, H, W, C] of the data, a hundred or more.
          label: of a conditional run, one for all, or one for each image.
          steps: pictures of each latent, 2 at least.
          of: row of the image to change.
          seed: of the noise.

        Raises:
          TypeError, ValueError: as `encode`; steps is less than 2, or there is no such row.
        """
        if steps < 2 or not 0 <= of < len(images):
            raise ValueError(
                f"steps is {steps} and of is {of}: give 2 or more, and one of {len(images)} rows"
            )
        label = self._labels(label, len(images))
        mean = self.encode(images, label, seed=seed).mean
        variance = mean.var(axis=0)
        latents = np.argsort(-variance)[: (variance > 0.01).sum()]
        low, high = np.quantile(mean[:, latents], [0.01, 0.99], axis=0)
        values = np.linspace(low, high, steps, axis=1)
        if not len(latents):
            return Traversal(latents, values, np.zeros((0, steps, *self.image_shape), np.float32))
        z = np.tile(mean[of], (len(latents), steps, 1))
        np.put_along_axis(z, latents[:, None, None], values[..., None], axis=2)
        own = None if label is None else label[of]
        pictures = self.decode(z.reshape(-1, z.shape[-1]), own)
        return Traversal(latents, values, pictures.reshape(*values.shape, *self.image_shape))

    def generate(
        self,
        num: int = 1,
        label: Any = None,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        out: Any = None,
        progress: bool = False,
    ) -> Any:
        """Pictures of draws from the prior, [num, H, W, C] in [0, 1].

        Args:
          num: of pictures.
          label: of a conditional run; of one with conditions, those that are not given are as they
            were in training.
          temperature: what the prior's standard deviation is multiplied by, below 1 for pictures
            that are more alike and less odd; of Gaussian priors, and mixtures, flows and layers of
            them.
          seed: of the draws. The first of many are those of few.
          out: see above.
          progress: likewise.

        Raises:
          TypeError: labels of a run without, or none; a temperature of a prior that has none.
          ValueError: num is less than 1, the temperature not positive, or a label that there is
            not.
        """
        if num < 1:
            raise ValueError(f"num is {num}: give 1 or more")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}: give a positive number")
        name = "pictures" if progress else ""
        how: dict[str, Any] = {"temperature": temperature, "seed": seed, "name": name, "out": out}
        if conditions.of_run(self.config) and (label is None or isinstance(label, Mapping)):
            label, notes = conditions.drawn(self.config, num, label or {}, seed)
            for note in notes:
                warnings.warn(note, RuntimeWarning, stacklevel=2)
        return self._programs.drawn(num, self._labels(label, num), **how)

    def score(
        self,
        images: Any,
        label: Any = None,
        *,
        num_samples: int = 500,
        seed: int = 0,
        progress: bool = False,
    ) -> Scores:
        """How likely images are, each by `num_samples` draws; see `typicality` for which are odd.

        Raises:
          TypeError, ValueError: as `encode`; or num_samples is less than 2.
        """
        x, label = self._checked(images, seed), self._labels(label, len(images))
        name = f"log p(x), {num_samples} draws" if progress else ""
        return self._programs.scores(x, label, num_samples=num_samples, seed=seed, name=name)

    def impute(
        self,
        images: Any,
        label: Any = None,
        *,
        num_samples: int = 1000,
        num_draws: int = 0,
        seed: int = 0,
    ) -> Filled:
        """Images whose missing pixels, NaN, are filled, [N, H, W, C] in [0, 1].

        Args:
          images: [N, H, W, C], floats with NaN; those without are given back as they are.
          label: of a run with conditions.
          num_samples: draws of each image's latents, as many as make the effective sample size
            large.
          num_draws: of all images, filled at random, too.
          seed: of the draws, and of the noise that binarises.

        Raises:
          TypeError, ValueError: as `encode`; the run has learned from whole images, num_samples is
            less than 2, or num_draws less than 0.
          DataError: nothing is missing.
        """
        if not self.config.get("pixels", {}).get("missing"):
            raise TypeError("the run has learned from whole images: it tells nothing of holes")
        x, label = self._checked(images, seed), self._labels(label, len(images))
        images = np.asarray(images).reshape(x.shape)
        rows = np.flatnonzero(np.isnan(images).any(axis=(1, 2, 3)))
        found = holes.imputed(
            *(keys.of_run(seed)["impute"], self.model, self.params, (x, label), rows),
            source="the images",
            num_samples=num_samples,
            num_draws=num_draws,
        )

        def without_holes(values: np.ndarray) -> np.ndarray:
            whole: np.ndarray = images.astype(np.float32)
            # A density's mean, and its draws, may leave the range of pixels.
            whole[rows] = np.where(np.isnan(whole[rows]), values.clip(0, 1), whole[rows])
            return whole

        filled, draws = without_holes(found.mean), tuple(map(without_holes, found.draws))
        return Filled(filled, draws, found.effective_sample_size)

    def diagnose(self, where: str | None = None, *, seed: int = 0) -> list[Finding]:
        """What ails the run: measured on its own data, which are read, up to 1,000 of a split.

        Args:
          where: they lie, if they have moved.
          seed: of the draws.

        Raises:
          RunError: the run has not ended.
          DataError: the data are not there, or are others.
        """
        check_ended(self.results, self.rows)
        options.check_seed(seed)
        splits = {}
        for name, own in examples.every_split(self.config, where).items():
            found, label = examples.with_classes(own, self.config, list(self.classes), None)
            x = measure.observed(self._observe, found.images, name)
            splits[name] = vae_jax.Batch(x, self._labels(label, len(x)))
        levels = num_levels(self._likelihood)
        compared = {1: baseline.of_numbers, 2: baseline.of_bits, 256: baseline.of_bytes}[levels]
        of = self.options.training
        return findings(
            self, splits, lambda steps, num: make_schedule(of, num)(steps), seed, compared
        )

    def _checked(self, images: Any, seed: int) -> measure.Observed:
        """The images as the model sees them, when they are asked for."""
        options.check_seed(seed)
        missing = self.config.get("pixels", {}).get("missing", False)
        images = given.checked(images, self.image_shape, self._likelihood, missing=missing)
        key = keys.of_run(seed)["pictures"]
        return measure.Observed(self._observe, images, key)

    def _labels(self, label: Any, num: int) -> np.ndarray | None:
        """int32 [num] of what a caller says, or float32 [num, C] of conditions."""
        if columns := conditions.of_run(self.config):
            return given.told(label, num, columns)
        if not self.options.model.conditional:
            if label is not None:
                raise TypeError("a label was given but the run is unconditional: leave it out")
            return None
        return given.numbered(label, num, self.classes)


def picture(likelihood: Any) -> jax.Array:
    """What a likelihood expects, [*b, H, W, C], within [0, 1], which a density's mean may leave."""
    return jnp.clip(expected(likelihood), 0.0, 1.0)


def load_images(path: Path) -> TrainedRun:
    """A run on images by its folder; see `load`."""
    trained = restore(path)
    return TrainedRun(trained, results_of(path), folder.read_metrics(path, trained.step))


def findings(
    run: Any,
    splits: Mapping[str, vae_jax.Batch],
    rate: Callable[[jax.Array, int], Any],
    seed: int,
    compared: Callable[[Any, Any], np.ndarray] | None = None,
) -> list[Finding]:
    """What ails a run, by its own data.

    Args:
      run: a loaded one, on images or other data.
      splits: train, validation and test, as the model sees them.
      rate: (steps, their number in all) -> the learning rate at each.
      seed: of the draws.
      compared: as the baseline of `probe`.
    """
    key, of = keys.of_run(seed)["diagnosis"], run.options.training
    measured = probe(key, run.model, run.params, splits, compared)
    num_steps = of.epochs * (len(splits["train"].image) // of.batch_size)
    rates = np.asarray(rate(jnp.arange(num_steps, dtype=jnp.float32), num_steps))
    return diagnose(measured, Course(run.rows, ended_by(run.results), rates, run.step))


def check_ended(results: dict[str, Any] | None, rows: Sequence[Row]) -> None:
    """Raises RunError for a run that has no results yet, or no rows, as a model of the hub."""
    if results is None or not rows:
        missing = "metrics.jsonl" if results else "results.json"
        raise RunError(
            f"the run has no {missing}, which it leaves at its end: wait for it, --resume it, or "
            "name the folder that it was trained in"
        )


def ended_by(results: dict[str, Any] | None) -> str:
    """What ended a run's training; "" of one that is older than the word."""
    by: str = (results or {}).get("ended_by", "")
    return by


def results_of(path: Path) -> dict[str, Any] | None:
    """What results.json of a run says; None where it is not there yet."""
    try:
        results: Any = json.loads((path / "results.json").read_text())
    except (OSError, ValueError, RecursionError):  # not yet, or half written
        return None
    return results if isinstance(results, dict) else None
