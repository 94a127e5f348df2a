"""A trained run in Python: NumPy arrays in and out, without its training data."""

import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vae_jax
from vae_jax.distributions.location import location
from vae_jax.evaluation import batched
from vae_jax.run import callbacks, given, keys, measure, options, sampler
from vae_jax.run.data import examples
from vae_jax.run.model import expected
from vae_jax.run.restore import Trained, restore
from vae_jax.run.scores import Codes, Scores, Traversal

# At most; of fewer examples the next power of two, so that few programs are compiled. Of large
# images fewer: their activations are some hundred times their values.
_BATCH, _MOST_VALUES = 512, 2**23


class TrainedRun:
    """What a run has learned, to use: see `load`.

    Images are bytes [N, H, W, C], or floats in [0, 1]; of one channel, [N, H, W] too. They are
    binarised or dequantised as in the run, by noise that `seed` and the image's place in the array
    decide. Of a conditional run every method takes labels: a class by its name or number for all,
    or one for each. Each program is compiled once for a size of batch. Images may be anything with
    `shape` and `dtype` that is read by `images[rows]`; they are read while the device is at those
    before. Pictures, of which there may be too many to hold, go into `out`, where that is given, by
    `out[rows] = pictures`, such as np.lib.format.open_memmap(...). `progress` shows a bar.

    Attributes:
      model: the `vae_jax.VAE`.
      params: its parameters; the average of them, or the best on the validation set, where the run
        has such.
      options: of the run.
      results: what results.json says; None while the run trains.
      classes: their names; empty of data without.
      image_shape: (H, W, C).
      config: what config.json says.
      step: of the checkpoint.
    """

    def __init__(self, trained: Trained, results: dict[str, Any] | None) -> None:
        self.model, self.params, self.step = trained.model, trained.params, trained.step
        self.options, self.results = trained.options, results
        self.classes: tuple[str, ...] = tuple(trained.classes)
        self.image_shape: tuple[int, ...] = tuple(trained.config["image_shape"])
        self.config = trained.config
        self._observe, self._likelihood = trained.observe, trained.likelihood
        self._measures: dict[tuple[int, int], Callable[..., Any]] = {}
        self._programs: dict[Any, Callable[..., Any]] = {}

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
        place = np.arange(len(x), dtype=np.int32)
        of_batch = functools.partial(self._codes(num_draws), keys.of_run(seed)["codes"])
        codes: Codes = self._in_batches(of_batch, (x, label, place), "codes" if progress else "")
        return codes

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
        return self._in_batches(self._reconstructed, (x, label), name, out)

    def decode(self, z: Any, label: Any = None) -> np.ndarray:
        """The pictures that codes [N, Z] stand for, [N, H, W, C] in [0, 1].

        Raises:
          TypeError: labels of a run without, or none.
          ValueError: codes of another size, or a label that there is not.
        """
        z = np.asarray(z, np.float32)
        size = self.options.model.latent_dim
        if z.ndim != 2 or z.shape[1] != size:
            raise ValueError(f"z has shape {z.shape}: give codes [N, {size}]")
        label = self._labels(label, len(z))
        pictures: np.ndarray = self._in_batches(self._decoded, (z, label))
        return pictures

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
        mean = self.encode(np.stack([start, end]), ends, seed=seed).mean
        z = np.linspace(*mean, steps)
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
          label: of a conditional run.
          temperature: what the prior's standard deviation is multiplied by, below 1 for pictures
            that are more alike and less odd; of Gaussian priors, their mixtures and flows.
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
        label, key = self._labels(label, num), keys.of_run(seed)["generate"]
        # A draw's key is that of its place: the first of many are those of few.
        place = np.arange(num, dtype=np.int32)
        drawn = functools.partial(self._drawn(temperature), key)
        return self._in_batches(drawn, (place, label), "pictures" if progress else "", out)

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
        key = keys.of_run(seed)["evaluation"]
        batch_size, chunk_size = batched.split(
            key, self.model, self.params, x, label, num_samples=num_samples
        )
        of = num_samples, chunk_size
        if of not in self._measures:
            self._measures[of] = measure.measure_batch(self.model, *of)
        parts, running = [], None
        name = f"log p(x), {num_samples} draws" if progress else ""
        batches = _counted(batched.rows_of(len(x), batch_size), len(x), name)
        for i, rows in enumerate(batches):
            batch = batched.take((x, label), rows)
            bound, estimate, *_ = self._measures[of](
                self.params, jax.random.fold_in(key, i), *batch
            )
            if running is not None:
                parts.append(jax.device_get(running))
            running = Scores(
                estimate.value, estimate.standard_error, bound.value, bound.log_likelihood
            )
        scores: Scores = batched.joined([*parts, jax.device_get(running)], len(x))
        return scores

    def _codes(self, num_draws: int) -> Callable[..., Any]:
        def codes(key: jax.Array, params: Any, x: jax.Array, label: Any, place: Any) -> Codes:
            posterior = self.model.encode(params, x, label)
            scale = posterior.scale if isinstance(posterior, vae_jax.Normal) else None

            def draw(x: jax.Array, label: Any, place: jax.Array) -> Any:
                own = jax.random.fold_in(key, place)
                return vae_jax.sample(own, self.model.encode(params, x, label), num_draws)

            drawn = jax.vmap(draw)(x, label, place) if num_draws else None
            return Codes(location(posterior), scale, drawn)

        return self._compiled(("codes", num_draws), codes)

    @functools.cached_property
    def _reconstructed(self) -> Callable[..., Any]:
        return jax.jit(
            lambda params, x, label: expected(vae_jax.reconstruct(self.model, params, x, label))
        )

    @functools.cached_property
    def _decoded(self) -> Callable[..., Any]:
        return jax.jit(lambda params, z, label: expected(self.model.decode(params, z, label)))

    def _drawn(self, temperature: float) -> Callable[..., Any]:
        model = self.model
        if temperature != 1:
            model = sampler.tempered(model, temperature)

        def drawn(key: jax.Array, params: Any, place: jax.Array, label: Any) -> jax.Array:
            def one(place: jax.Array, label: Any) -> jax.Array:
                own = jax.random.fold_in(key, place)
                return expected(vae_jax.generate(own, model, params, (), label))

            return jax.vmap(one)(place, label)

        return self._compiled(("drawn", temperature), drawn)

    def _compiled(self, name: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, jitted once for a name."""
        return self._programs.setdefault(name, jax.jit(function))

    def _in_batches(
        self, of_batch: Callable[..., Any], arrays: Any, name: str = "", out: Any = None
    ) -> Any:
        """What the batches give, as one; one is read while the device is at the one before."""
        num = len(arrays[0])
        most = min(_BATCH, max(1, _MOST_VALUES // math.prod(self.image_shape)))
        size = min(most, 1 << (num - 1).bit_length())
        parts: list[Any] = []

        def keep(found: Any, start: int) -> None:
            found = jax.device_get(found)
            if out is None:
                parts.append(found)
            else:
                out[start : start + size] = found[: num - start]

        running, start = None, 0
        for rows in _counted(batched.rows_of(num, size), num, name):
            following = of_batch(self.params, *batched.take(arrays, rows))
            if running is not None:
                keep(running, start)
            running, start = following, int(rows[0])
        keep(running, start)
        return batched.joined(parts, num) if out is None else out

    def _checked(self, images: Any, seed: int) -> measure.Observed:
        """The images as the model sees them, when they are asked for."""
        options.check_seed(seed)
        images = given.checked(images, self.image_shape, self._likelihood)
        key = keys.of_run(seed)["pictures"]
        return measure.Observed(self._observe, images, key)

    def _labels(self, label: Any, num: int) -> np.ndarray | None:
        """int32 [num] of what a caller says."""
        if not self.options.model.conditional:
            if label is not None:
                raise TypeError("a label was given but the run is unconditional: leave it out")
            return None
        return given.numbered(label, num, self.classes)


def _counted(batches: Any, total: int, name: str) -> Any:
    """The batches, with a bar where it has a name."""
    return callbacks.counted(batches, total, name) if name else batches


def load(run: str | os.PathLike[str]) -> TrainedRun:
    """A run by its folder: its newest checkpoint, to encode, decode, generate and score with.

    The training data are not read, and a run that is still training can be looked at.

    Args:
      run: folder of the run.

    Returns:
      A `TrainedRun`.

    Raises:
      UsageError: the folder holds no run.
      RunError: its checkpoint is of other data.
      CheckpointError: it holds no checkpoint that can be read.
    """
    folder = Path(run)
    trained = restore(folder)
    try:
        results = json.loads((folder / "results.json").read_text())
    except (OSError, ValueError):  # not yet, or half written
        results = None
    return TrainedRun(trained, results)
