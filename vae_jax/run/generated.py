"""What the images that a run draws are worth, to a classifier that has seen real ones alone."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.evaluation import batched
from vae_jax.run import classifier, keys
from vae_jax.run.data.dataset import Dataset, Split, spread
from vae_jax.run.loaded import TrainedRun

# Of a larger image the perceptron would have more weights than a run of it; the classifier's
# training set is in memory; of fewer images a distance tells nothing, by dozens of features.
_MOST_VALUES, _MOST_BYTES, _FEWEST = 2**14, 2**29, 20
_NUM_NEIGHBORS = 3


def measure(run: TrainedRun, dataset: Dataset, num: int, seed: int) -> dict[str, Any]:
    """The samples_ fields of evaluation.json.

    The classifier is that of the data, whatever the run and the seed, so that runs on the same data
    compare.

    Args:
      run: of images.
      dataset: its own; of a conditional run all rows have a label.
      num: images to draw, at most.
      seed: of the draws.

    Returns:
      The Fréchet distance, precision and recall of drawn images beside test images, and those of as
      many validation images; or `samples_absent`, why there are none.
    """
    num = min(num, len(dataset.test.images), len(dataset.validation.images))
    if why := _why_not(dataset, num):
        return {"samples_absent": why}
    shape = _shape(dataset.image_shape)
    real = dataset.train
    known = np.flatnonzero(real.labels >= 0)
    known = known[spread(len(known), _MOST_BYTES // (4 * math.prod(shape)))]
    split = Split(_shrunk(real.images, known, shape), real.labels[known])
    judge = classifier.train_judge(keys.of_run(0)["judge"], split, dataset.num_classes)

    def features(images: Any) -> np.ndarray:
        parts = (images[rows] for rows in batched.rows_of(len(images), _BATCH))
        found: np.ndarray = batched.joined(
            [judge.features(jnp.asarray(of)) for of in parts], len(images)
        )
        return found

    test_rows = spread(len(dataset.test.images), num)
    labels: Any = None
    if dataset.conditions:
        labels = dataset.told["test"][test_rows]
    elif run.options.model.conditional:
        labels = dataset.test.labels[test_rows]
    test = _shrunk(dataset.test.images, test_rows, shape)
    of_test = features(test)
    held_out = spread(len(dataset.validation.images), num)
    others = {
        "": _shrunk(run.generate(num, labels, seed=seed, progress=True), np.arange(num), shape),
        "_of_validation": _shrunk(dataset.validation.images, held_out, shape),
    }
    found: dict[str, Any] = {}
    for name, images in others.items():
        space = of_test, features(images)
        precision, recall = vae_jax.precision_and_recall(*space, _NUM_NEIGHBORS)
        found |= {
            f"samples_frechet_distance{name}": vae_jax.frechet_distance(*space),
            f"samples_precision{name}": precision,
            f"samples_recall{name}": recall,
        }
    told = np.asarray(judge.probabilities(jnp.asarray(test))).argmax(axis=1)
    there = dataset.test.labels[test_rows] >= 0
    right = (told == dataset.test.labels[test_rows])[there]
    return {
        **found,
        "samples_num": num,
        "samples_classifier_test_accuracy": float(right.mean()) if len(right) else None,
        "samples_protocol": _protocol(split, shape, dataset.image_shape),
    }


_BATCH = 500


def _protocol(split: Split, shape: tuple[int, ...], image_shape: tuple[int, ...]) -> str:
    shrunk = ""
    if shape != image_shape:
        shrunk = f", all shrunk to {shape[0]} x {shape[1]}"
    return (
        "samples_num drawn images E[x|z], z from p(z), of a conditional run under test images' "
        "labels, beside as many test images; _of_validation: as many validation images in their "
        "place, which is what real ones have; in the last hidden layer of a perceptron, "
        f"D-500-500-classes, trained on the labels of {len(split.images):,} training images{shrunk}"
        f"; squared Fréchet distance (Heusel et al. 2017), precision and recall (Kynkäänniemi et "
        f"al. 2019) by {_NUM_NEIGHBORS} neighbors. Not of an Inception network: published "
        "distances do not compare"
    )


def _why_not(dataset: Dataset, num: int) -> str:
    """Why nothing can be said; empty where it can."""
    if dataset.num_classes < 2:
        what = "no classes" if not dataset.num_classes else "one class"
        return f"the images have {what}, so no classifier can be trained whose features compare"
    if dataset.missing:
        return "images have missing pixels, of which a classifier has no features"
    if num < _FEWEST:
        return f"{num} test and validation images are too few: {_FEWEST} or more tell something"
    return ""


def _shape(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """What images are shrunk to, so that they have few enough values."""
    height, width, channels = image_shape
    by = max(1.0, math.sqrt(math.prod(image_shape) / _MOST_VALUES))
    return max(1, int(height / by)), max(1, int(width / by)), channels


def _shrunk(images: Any, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Some images as floats in [0, 1], of a shape, by the means of their parts."""
    found = np.empty((len(rows), *shape), np.float32)
    for start in range(0, len(rows), _BATCH):
        part = classifier.unit(jnp.asarray(images[rows[start : start + _BATCH]]))
        if part.shape[1:] != shape:
            part = jax.image.resize(part, (len(part), *shape), "linear")  # antialiased
        found[start : start + len(part)] = part
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """The fields for a terminal; none where they were not asked for."""
    if "samples_absent" in found:
        return [f"drawn images are not judged: {found['samples_absent']}"]
    if "samples_num" not in found:
        return []
    return [
        f"{title:16s} {found[name]:9.{digits}f} of {found['samples_num']:,} drawn images, "
        f"{found[f'{name}_of_validation']:.{digits}f} of as many validation images"
        for title, name, digits in (
            ("Fréchet distance", "samples_frechet_distance", 2),
            ("precision", "samples_precision", 3),
            ("recall", "samples_recall", 3),
        )
    ]
