"""What the chapters share: the data, the models that were trained, a judge of pictures."""

import functools
import time
import zlib
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.decomposition import PCA

import vae_jax
from vae_jax import run
from vae_jax.run import classifier, measure, model, options
from vae_jax.run.data.dataset import Dataset, Split
from vae_jax.run.pixels import measure_pixels

BATCH_SIZE, LEARNING_RATE = 128, 2e-3
NUM_COMPARED, NUM_COMPONENTS = 1000, 20
SURE = 0.9
"""The judge is sure of an image when it gives one class at least this probability."""


class Trained(NamedTuple):
    """A model's parameters, what its loss reported at every step, and how long training took."""

    params: Any
    metrics: vae_jax.Metrics
    seconds: float


class EveryStep:
    """Keeps what the loss reports at every step, for a chapter's curves."""

    def __init__(self) -> None:
        self._parts: list[vae_jax.Metrics] = []

    def start(self, progress: run.Progress) -> None:
        pass

    def steps(self, progress: run.Progress, metrics: vae_jax.Metrics) -> None:
        self._parts.append(metrics)

    def epoch(self, progress: run.Progress, row: dict[str, Any]) -> None:
        pass

    def metrics(self) -> vae_jax.Metrics:
        together: vae_jax.Metrics = jax.tree.map(lambda *parts: np.concatenate(parts), *self._parts)
        return together


class Study:
    """One data set and one seed, from which every chapter takes what it needs.

    A model is trained once, when the first chapter asks for it. All noise comes from keys named
    after what they are for, so that a chapter alone has the numbers it has among the others.

    Attributes:
      dataset: uint8 images and labels.
      steps: of the optimizer, for each model.
      batch: the training images and their labels, on the device.
      x: up to 1000 test images, binarised, float32 [N, H, W, 1].
      label: their classes [N].
    """

    def __init__(self, dataset: Dataset, seed: int, steps: int) -> None:
        self.dataset, self.seed, self.steps = dataset, seed, steps
        self.batch = vae_jax.Batch(*map(jnp.asarray, dataset.train))
        self.x = measure.observed(vae_jax.binarize, dataset.test.images[:1000], "test")
        self.label = dataset.test.labels[:1000]
        self._trained: dict[Hashable, Trained] = {}

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.dataset.train.images.shape[1:]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of the hidden layers of each network."""
        return (64, 64) if self.dataset.name == "digits" else (200, 200)

    @property
    def settings(self) -> dict[str, Any]:
        """What a chapter's text says of how its models were trained."""
        num_train = len(self.dataset.train.images)
        return {
            "hidden": self.hidden[0],
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "steps": self.steps,
            "num_train": num_train,
            "num_components": NUM_COMPONENTS,
            "epochs": self.steps * BATCH_SIZE / num_train,
        }

    @functools.cached_property
    def features(self) -> Callable[[np.ndarray], np.ndarray]:
        """Images [N, H, W, 1] -> their principal components [N, K] among training images.

        Among all pixels the noise of each would outweigh what a picture shows.
        """
        project = PCA(NUM_COMPONENTS, svd_solver="full").fit(_rows(self.real_draws)).transform
        return lambda images: project(_rows(images))

    @functools.cached_property
    def real_draws(self) -> np.ndarray:
        """1000 training images, binarised, which `fidelity` compares generated ones with."""
        images = self.dataset.train.images[:NUM_COMPARED]
        return np.asarray(vae_jax.binarize(self.key("real draws"), jnp.asarray(images)))

    def fidelity(
        self, means: jax.Array, features: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> dict[str, float]:
        """Precision and recall of images drawn from so many decoded means [N, H, W, 1].

        They are compared in the space of the study's `features`, or of others.
        """
        features = features or self.features
        drawn = np.asarray(jax.random.bernoulli(self.key("draws of pixels"), means[:NUM_COMPARED]))
        spaces = features(self.real_draws), features(drawn)
        return vae_jax.precision_and_recall(*spaces)._asdict()

    def key(self, name: str) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(name.encode()))

    def make_model(self, latent_dim: int, **settings: Any) -> vae_jax.VAE:
        """The VAE of experiments.mnist with smaller networks; settings are its `Model` options."""
        binarization = settings.pop("binarization", "dynamic")
        small = {"hidden": self.hidden}
        return model.make_model(
            options.Model(latent_dim=latent_dim, **{**small, **settings}),
            self.image_shape,
            binarization,
            measure_pixels(self.dataset.train.images, binarization),
            self.dataset.num_classes,
        )

    def train(
        self,
        name: str,
        model: vae_jax.VAE,
        loss: Callable[..., Any],
        optimizer: optax.GradientTransformation | None = None,
        *,
        steps: int | None = None,
        batch_size: int = BATCH_SIZE,
        conditional: bool = False,
        batch: vae_jax.Batch | None = None,
    ) -> Trained:
        """Trains a model, or finds it trained under this name.

        Args:
          name: of the model.
          model: the VAE.
          loss: (params, key, batch) -> (scalar to minimise, what to report).
          optimizer: Adam with a cosine decay when not given.
          steps: those of the study when not given.
          batch_size: images a step.
          conditional: give the labels to `model.init` too.
          batch: training images other than those of the study.
        """
        if name in self._trained:
            return self._trained[name]
        if optimizer is None:
            optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, self.steps))
        init_key, train_key = jax.random.split(self.key(f"train {name}"))
        batch = batch or self.batch
        label = self.batch.label[:1] if conditional else None
        params = jax.jit(model.init)(init_key, jnp.zeros((1, *batch.image.shape[1:])), label)
        every_step = EveryStep()
        start = time.perf_counter()
        fitted = run.fit(
            train_key,
            loss,
            params,
            optimizer,
            batch,
            run.Plan(steps=steps or self.steps, batch_size=batch_size),
            callbacks=[run.ProgressBar(name), every_step],
        )
        seconds = time.perf_counter() - start - fitted.compile_seconds
        self._trained[name] = Trained(fitted.params, every_step.metrics(), seconds)
        return self._trained[name]

    @functools.cached_property
    def judge(self) -> Callable[[jax.Array], jax.Array]:
        """Images [N, H, W, 1] -> probabilities [N, num_classes + 1], the last of no digit at all.

        A perceptron trained on real images, and on as many that are no digits: a classifier that
        has only ever seen digits is sure of noise too.
        """
        images, labels = self.dataset.train
        nonsense = no_digits(np.random.default_rng(self.seed), images)
        split = Split(
            np.concatenate([images, nonsense]),
            np.concatenate([labels, np.full_like(labels, self.dataset.num_classes)]),
        )
        return classifier.train_probabilities(
            self.key("judge"), split, self.dataset.num_classes + 1, self.steps
        )

    def sure(self, images: jax.Array) -> float:
        """The share of the images that the judge is sure to be some digit."""
        return float((self.judge(images)[:, :-1].max(axis=-1) >= SURE).mean())


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64)


def no_digits(generator: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Images of the same greys without a digit: four quadrants of as many digits, or shuffled."""
    num, height, width, _ = images.shape
    top, left = np.arange(height)[:, None] < height // 2, np.arange(width) < width // 2
    stitched = np.zeros_like(images)
    for quadrant in (top & left, top & ~left, ~top & left, ~top & ~left):
        stitched += images[generator.permutation(num)] * quadrant[..., None]
    shuffled = generator.permuted(images.reshape(num, -1), axis=1).reshape(images.shape)
    return np.where(np.arange(num)[:, None, None, None] % 2, stitched, shuffled)
