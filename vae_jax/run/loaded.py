"""A trained run in Python: NumPy arrays in and out, without its training data."""

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vae_jax
from vae_jax.distributions.location import location
from vae_jax.evaluation import batched
from vae_jax.run import keys, measure, options
from vae_jax.run.model import expected, num_levels
from vae_jax.run.restore import Trained, restore

_BATCH = 512  # at most; of fewer examples the next power of two, so that few programs are compiled


class Codes(NamedTuple):
    """q(z|x) of images.

    Attributes:
      mean: [N, Z]; of a posterior without one, of flows, the point that its base's mean goes to.
      scale: standard deviations [N, Z], of Gaussian posteriors of independent latents; else None.
    """

    mean: np.ndarray
    scale: np.ndarray | None


class Scores(NamedTuple):
    """How likely images are, in nats, each [N].

    Attributes:
      log_likelihood: log p(x), or log p(x|c), by importance sampling.
      standard_error: of it, by the draws.
      elbo: the bound.
      reconstruction: log p(x|z), the mean over draws of q(z|x).
    """

    log_likelihood: np.ndarray
    standard_error: np.ndarray
    elbo: np.ndarray
    reconstruction: np.ndarray


class TrainedRun:
    """What a run has learned, to use: see `load`.

    Images are bytes [N, H, W, C], or floats in [0, 1]; of one channel, [N, H, W] too. They are
    binarised or dequantised as in the run, by noise that `seed` and the image's place in the array
    decide. Of a conditional run every method takes labels: a class by its name or number for all,
    or one for each. Each program is compiled once for a size of batch.

    Attributes:
      model: the `vae_jax.VAE`.
      params: its parameters; the average of them, or the best on the validation set, where the run
        has such.
      options: of the run.
      results: what results.json says; None while the run trains.
      classes: their names; empty of data without.
      image_shape: (H, W, C).
      step: of the checkpoint.
    """

    def __init__(self, trained: Trained, results: dict[str, Any] | None) -> None:
        self.model, self.params, self.step = trained.model, trained.params, trained.step
        self.options, self.results = trained.options, results
        self.classes: tuple[str, ...] = tuple(trained.classes)
        self.image_shape: tuple[int, ...] = tuple(trained.config["image_shape"])
        self._observe, self._likelihood = trained.observe, trained.likelihood
        self._measures: dict[tuple[int, int], Callable[..., Any]] = {}

    def encode(self, images: Any, label: Any = None, *, seed: int = 0) -> Codes:
        """The codes of images.

        Raises:
          TypeError: images of another type than the run's; labels of a run without, or none.
          ValueError: another shape, values outside [0, 1], or a label that there is not.
        """
        x, label = self._checked(images, seed), self._labels(label, len(images))
        mean, scale = self._in_batches(self._codes, (x, label), len(x))
        return Codes(mean, scale)

    def reconstruct(self, images: Any, label: Any = None, *, seed: int = 0) -> np.ndarray:
        """What is left of images after encoding and decoding, [N, H, W, C] in [0, 1].

        Raises:
          TypeError, ValueError: as `encode`.
        """
        x, label = self._checked(images, seed), self._labels(label, len(images))
        pictures: np.ndarray = self._in_batches(self._reconstructed, (x, label), len(x))
        return pictures

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
        pictures: np.ndarray = self._in_batches(self._decoded, (z, label), len(z))
        return pictures

    def generate(self, num: int = 1, label: Any = None, *, seed: int = 0) -> np.ndarray:
        """Pictures of draws from the prior, [num, H, W, C] in [0, 1].

        Raises:
          TypeError: labels of a run without, or none.
          ValueError: num is less than 1, or a label that there is not.
        """
        if num < 1:
            raise ValueError(f"num is {num}: give 1 or more")
        label, key = self._labels(label, num), keys.of_run(seed)["generate"]
        # A draw's key is that of its place: the first of many are those of few.
        place = np.arange(num, dtype=np.int32)
        drawn = functools.partial(self._drawn, key)
        pictures: np.ndarray = self._in_batches(drawn, (place, label), num)
        return pictures

    def score(
        self, images: Any, label: Any = None, *, num_samples: int = 500, seed: int = 0
    ) -> Scores:
        """How likely images are, each by `num_samples` draws: the odd ones are those of the least.

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
        parts = []
        for i, rows in enumerate(batched.rows_of(len(x), batch_size)):
            batch = batched.take((x, label), rows)
            bound, estimate, *_ = self._measures[of](
                self.params, jax.random.fold_in(key, i), *batch
            )
            parts.append(
                jax.device_get(
                    Scores(
                        estimate.value, estimate.standard_error, bound.value, bound.log_likelihood
                    )
                )
            )
        scores: Scores = batched.joined(parts, len(x))
        return scores

    @functools.cached_property
    def _codes(self) -> Callable[..., Any]:
        @jax.jit
        def codes(params: Any, x: jax.Array, label: Any) -> tuple[jax.Array, Any]:
            posterior = self.model.encode(params, x, label)
            gaussian = isinstance(posterior, vae_jax.Normal)
            return location(posterior), posterior.scale if gaussian else None

        return codes

    @functools.cached_property
    def _reconstructed(self) -> Callable[..., Any]:
        return jax.jit(
            lambda params, x, label: expected(vae_jax.reconstruct(self.model, params, x, label))
        )

    @functools.cached_property
    def _decoded(self) -> Callable[..., Any]:
        return jax.jit(lambda params, z, label: expected(self.model.decode(params, z, label)))

    @functools.cached_property
    def _drawn_of_places(self) -> Callable[..., Any]:
        @jax.jit
        def drawn(params: Any, key: jax.Array, place: jax.Array, label: Any) -> jax.Array:
            def one(place: jax.Array, label: Any) -> jax.Array:
                own = jax.random.fold_in(key, place)
                return expected(vae_jax.generate(own, self.model, params, (), label))

            return jax.vmap(one)(place, label)

        return drawn

    def _drawn(self, key: jax.Array, params: Any, place: jax.Array, label: Any) -> jax.Array:
        pictures: jax.Array = self._drawn_of_places(params, key, place, label)
        return pictures

    def _in_batches(self, of_batch: Callable[..., Any], arrays: Any, num: int) -> Any:
        size = min(_BATCH, 1 << (num - 1).bit_length())
        parts = [
            jax.device_get(of_batch(self.params, *batched.take(arrays, rows)))
            for rows in batched.rows_of(num, size)
        ]
        return batched.joined(parts, num)

    def _checked(self, images: Any, seed: int) -> measure.Observed:
        """The images as the model sees them, when they are asked for."""
        options.check_seed(seed)
        if not hasattr(images, "shape"):
            images = np.asarray(images)
        if images.ndim == 3 and self.image_shape[-1] == 1:
            images = images[..., None]
        if len(images.shape) != 4 or tuple(images.shape[1:]) != self.image_shape or not len(images):
            sizes = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images have shape {tuple(images.shape)}: give [N, {sizes}]")
        if images.dtype != np.uint8:
            if not np.issubdtype(images.dtype, np.floating):
                raise TypeError(
                    f"images have dtype {images.dtype}: give bytes, uint8, or floats in [0, 1]"
                )
            if num_levels(self._likelihood) == 256:
                raise TypeError(
                    f"images have dtype {images.dtype} but the run's likelihood, "
                    f"{self._likelihood}, is of bytes: give uint8"
                )
            for piece in _pieces(images):
                if not ((piece >= 0) & (piece <= 1)).all():  # NaN too
                    raise ValueError(
                        f"images have values from {piece.min()} to {piece.max()}: give floats in "
                        "[0, 1], or bytes"
                    )
        key = keys.of_run(seed)["pictures"]
        return measure.Observed(self._observe, images, key)

    def _labels(self, label: Any, num: int) -> np.ndarray | None:
        """int32 [num] of what a caller says."""
        if not self.options.model.conditional:
            if label is not None:
                raise TypeError("a label was given but the run is unconditional: leave it out")
            return None
        names = f"one of {', '.join(self.classes[:20])}{', ...' * (len(self.classes) > 20)}"
        if label is None:
            raise TypeError(f"the run is conditional: give a label, {names}")
        each = [label] if isinstance(label, str) or np.ndim(label) == 0 else list(label)
        numbers = [
            self.classes.index(one) if isinstance(one, str) and one in self.classes else one
            for one in each
        ]
        for one in numbers:
            if not isinstance(one, int | np.integer) or not 0 <= one < len(self.classes):
                raise ValueError(f"label {one!r} is no class of the run: give {names}")
        if len(numbers) not in (1, num):
            raise ValueError(f"{len(numbers)} labels of {num}: give one for all, or one for each")
        return np.broadcast_to(np.asarray(numbers, np.int32), num)


def _pieces(images: Any) -> Iterator[np.ndarray]:
    for start in range(0, len(images), 1000):
        yield np.asarray(images[start : start + 1000])


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
