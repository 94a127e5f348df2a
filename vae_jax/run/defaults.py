"""The options that follow from the data where they are not given."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from vae_jax.run import options
from vae_jax.run.data.dataset import Dataset
from vae_jax.run.errors import UsageError


def binarization(chosen: options.Options, dataset: Dataset) -> str:
    """What is done to the images: nothing to those that are binary as they come, static."""
    return "static" if dataset.binary else chosen.data.binarization


def likelihood(chosen: options.Options, dataset: Dataset) -> str:
    """As asked for, or Bernoulli of zeros and ones and Normal of all else.

    Raises:
      UsageError: it is not one of such data.
    """
    if binarization(chosen, dataset) != "none":
        kind, possible = "zeros and ones", list(options.BINARY)
    elif dataset.train.images.dtype == np.uint8:
        kind, possible = "bytes", [*options.DENSITIES, *options.OF_BYTES]
    else:
        kind, possible = "numbers that are no bytes", list(options.DENSITIES)
    asked = chosen.model.likelihood
    if asked is not None and asked not in possible:
        raise UsageError(
            f"--likelihood is {asked} but the model sees {dataset.name} as {kind}: choose from "
            f"{', '.join(possible)}"
        )
    return asked or possible[0]


def settled(chosen: options.Options, dataset: Dataset, mesh: jax.sharding.Mesh) -> options.Options:
    """The options with what follows from the data, where they are not given.

    Raises:
      UsageError: they do not suit the data.
    """
    of_pixels = likelihood(chosen, dataset)
    own = isinstance(chosen.data, options.OwnData)
    grey = binarization(chosen, dataset) == "none"
    if not own:
        # The run is of the data set that was found: a resume must not find another one.
        name: Any = dataset.name
        chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, dataset=name))
    batch_size = _batch_size(chosen.training, dataset, mesh)
    steps = len(dataset.train.images) // batch_size
    if own:
        epochs, patience = math.ceil(_BUDGET / steps), math.ceil(_BUDGET / 10 / steps)
    else:
        epochs, patience = 200 if dataset.name == "digits" else 18, 0
    aim = chosen.objective
    if (
        aim.beta != 1 or aim.free_bits or aim.penalty != "none"
    ):  # the validation ELBO does not judge these
        patience = 0
    training = _filled(
        chosen.training,
        batch_size=batch_size,
        epochs=epochs,
        patience=patience,
        learning_rate=1e-3 if grey else 2e-3,
    )
    assert training.epochs is not None
    if aim.kl_warmup >= training.epochs:
        raise UsageError(
            f"--kl-warmup is {aim.kl_warmup} of {training.epochs} epochs, so the KL's weight would "
            f"not reach --beta: make it shorter, or --epochs longer"
        )
    model = _filled(chosen.model, latent_dim=128 if own and grey else 40, likelihood=of_pixels)
    return dataclasses.replace(chosen, training=training, model=model)


# Steps of a run on one's own images, unless the validation set ends it before.
_BUDGET = 10_000


def _filled(group: Any, **defaults: Any) -> Any:
    """The options with defaults for those that are not given."""
    missing = {name: of for name, of in defaults.items() if getattr(group, name) is None}
    return dataclasses.replace(group, **missing)


def _batch_size(training: options.Training, dataset: Dataset, mesh: jax.sharding.Mesh) -> int:
    """As asked for, else 128, or the largest part of it that leaves a few steps an epoch."""
    num_train = len(dataset.train.images)
    if training.batch_size is not None:
        if training.batch_size > num_train:
            raise UsageError(
                f"--batch-size is {training.batch_size} but {dataset.name} has {num_train} "
                "training examples: make it smaller"
            )
        return training.batch_size
    least = mesh.size * training.accumulate
    size = 128 if 128 % least == 0 else least
    while size > num_train // 4 and size // 2 >= 8 and size // 2 % least == 0:
        size //= 2
    if size > num_train:
        raise UsageError(
            f"{dataset.name} has {num_train} training examples, fewer than the {least} devices "
            "times --accumulate"
        )
    if size < 128:
        print(f"batches of {size}, as {dataset.name} has {num_train} training images")
    return size
