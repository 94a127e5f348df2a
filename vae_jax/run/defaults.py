"""The options that follow from the data where they are not given."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax import networks
from vae_jax.run import options
from vae_jax.run.data.dataset import Dataset
from vae_jax.run.errors import UsageError
from vae_jax.run.model import HIDDEN, LADDER, check_pictures


def binarization(chosen: options.Options, dataset: Dataset) -> str:
    """What is done to the images: nothing to those that are binary as they come, static."""
    return "static" if dataset.binary else chosen.data.binarization


class Suited(NamedTuple):
    """What suits data of a kind, where no option says otherwise.

    Attributes:
      likelihood: of them.
      network: of pictures of ordinary size.
      latent_dim: of the codes.
      learning_rate: Adam's; NAdam's is twice that.
      why: the likelihood.
      why_network: the network.
    """

    likelihood: str
    network: str
    latent_dim: int
    learning_rate: float
    why: str = ""
    why_network: str = "the fastest"


NAMED = {
    "zeros and ones": Suited("bernoulli", "mlp", 40, 2e-3),
    "greys": Suited("normal", "mlp", 40, 1e-3),
}
"""Of MNIST and its like, whose runs compare with each other."""

_BYTES = "of the likelihoods of bytes whose codes hold the picture, the fewest bits"
_DENSITY = "a density, whose scale is learned"
_PLACES = "what it learns of one place holds at others"

# Of 10,000 colour pictures of 32 x 32, 620 steps of an mlp: normal 6.97 bits per dimension,
# student_t 6.88, discretized_logistic 6.80, each with reconstructions that show the object;
# mixture_of_logistics 6.06 with pale ones, as a pixel's channels tell it what the codes would. With
# discretized_logistic conv of 32, 64 and 128 channels has a validation ELBO of -14,439 nats where
# mlp has -14,539, in three times the time. Of greys no likelihood of bytes has been measured.
OWN = {
    "zeros and ones": Suited("bernoulli", "mlp", 40, 2e-3, why="a pixel is 0 or 1"),
    "greys": Suited("normal", "mlp", 128, 1e-3, why=_DENSITY),
    "colours": Suited("discretized_logistic", "conv", 128, 1e-3, _BYTES, _PLACES),
    "greys that are no bytes": Suited("normal", "mlp", 128, 1e-3, why=_DENSITY),
    "colours that are no bytes": Suited("normal", "conv", 128, 1e-3, _DENSITY, _PLACES),
}
"""Of one's own images, by `kind_of` them."""

# Sides of pictures: with less there is too little to halve, with more dense layers are too wide.
_SMALL, _LARGE = 16, 64


def kind_of(chosen: options.Options, dataset: Dataset) -> str:
    """Which row of the table the images are of, as the model sees them."""
    if binarization(chosen, dataset) != "none":
        return "zeros and ones"
    if not _own(chosen):
        return "greys"
    kind = "greys" if dataset.image_shape[-1] == 1 else "colours"
    in_bytes = dataset.train.images.dtype == np.uint8
    return kind if in_bytes else f"{kind} that are no bytes"


def _own(chosen: options.Options) -> bool:
    return isinstance(chosen.data, options.OwnData)


def suited(chosen: options.Options, dataset: Dataset) -> Suited:
    """The defaults of such data, their network one of pictures of that size."""
    kind = kind_of(chosen, dataset)
    if not _own(chosen):
        return NAMED[kind]
    sides = dataset.image_shape[:2]
    if min(sides) < _SMALL:
        return OWN[kind]._replace(network="mlp", why_network="there is little to halve")
    if max(sides) > _LARGE:
        why = "dense layers of so many pixels are large"
        return OWN[kind]._replace(network="conv", why_network=why)
    return OWN[kind]


def described(chosen: options.Options, complete: options.Options, dataset: Dataset) -> Any:
    """What the kind of one's own data decided, for config.json; None where nothing.

    Args:
      chosen: the options as they were given.
      complete: the same, `settled`.
      dataset: the images.
    """
    names = {"model": ("likelihood", "network", "latent_dim"), "training": ("learning_rate",)}
    filled = {
        name: getattr(getattr(complete, group), name)
        for group, of_group in names.items()
        for name in of_group
        if getattr(getattr(chosen, group), name) is None
    }
    if not filled or not _own(chosen):
        return None
    default, why = suited(chosen, dataset), {}
    if "likelihood" in filled:
        why["likelihood"] = default.why
    if "network" in filled and chosen.model.hidden is None and chosen.model.channels is None:
        why["network"] = default.why_network
    return {"kind": kind_of(chosen, dataset), "options": filled, "why": why}


def announced(found: dict[str, Any]) -> str:
    """The line of `described` that a run starts with."""
    pairs = found["options"].items()
    given = " ".join(f"--{name.replace('_', '-')}={value}" for name, value in pairs)
    why = "; ".join(f"{found['options'][name]}: {of}" for name, of in found["why"].items())
    return f"chosen for {found['kind']}: {given}{f' ({why})' if why else ''}"


def likelihood(chosen: options.Options, dataset: Dataset) -> str:
    """As asked for, or what suits the data.

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
    return asked or suited(chosen, dataset).likelihood


def settled(chosen: options.Options, dataset: Dataset, mesh: jax.sharding.Mesh) -> options.Options:
    """The options with what follows from the data, where they are not given.

    Raises:
      UsageError: they do not suit the data.
    """
    of_pixels, default = likelihood(chosen, dataset), suited(chosen, dataset)
    if dataset.missing:
        _check_missing(chosen, of_pixels)
    own = _own(chosen)
    if not own:
        # The run is of the data set that was found: a resume must not find another one.
        name: Any = dataset.name
        chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, dataset=name))
    batch_size = _batch_size(chosen.training, dataset, mesh)
    steps = len(dataset.train.images) // batch_size
    model = _with_network(chosen.model, default.network, dataset)
    latent_dim = _OF_A_PLACE if model.network == "top_down" else default.latent_dim
    model = _filled(model, latent_dim=latent_dim, likelihood=of_pixels)
    # Measured on MNIST, Fashion-MNIST and the digits, of this network and these priors alone.
    usual = (
        not own
        and (model.network, of_pixels) == ("mlp", "bernoulli")
        and model.prior in ("standard", "conditional")
        and dataset.name in ("mnist", "fashion_mnist", "digits")
    )
    training = _filled(chosen.training, optimizer="nadam" if usual else "adam")
    nadam = training.optimizer == "nadam"
    if own:
        slow = of_pixels in _SLOW or model.network in options.CONVOLUTIONS
        budget = _FEWER if slow else _BUDGET
        epochs, patience = math.ceil(budget / steps), math.ceil(budget / 10 / steps)
    else:
        passes = 22 if usual and nadam else 18
        epochs, patience = 200 if dataset.name == "digits" else passes, 0
    aim = chosen.objective
    # The validation ELBO does not judge these.
    aside = aim.beta != 1 or aim.free_bits or aim.penalty != "none"
    if aside:
        patience = 0
    # Of Fashion-MNIST, most of whose latents are not used, the loss went above 1e5 in 8 runs of 41,
    # 7 of them in bfloat16.
    lands = model.posterior == "normal" and dataset.name != "fashion_mnist"
    sticks = usual and nadam and lands and aim == options.Objective()
    aim = _filled(aim, gradient="sticking_the_landing" if sticks else "reparameterized")
    training = _filled(
        training,
        batch_size=batch_size,
        epochs=epochs,
        patience=patience,
        learning_rate=default.learning_rate * (2 if nadam else 1),
    )
    assert training.epochs is not None
    if aim.kl_warmup >= training.epochs:
        raise UsageError(
            f"--kl-warmup is {aim.kl_warmup} of {training.epochs} epochs, so the KL's weight would "
            f"not reach --beta: make it shorter, or --epochs longer"
        )
    select: Any = "best" if training.patience or (own and not aside) else "last"
    run = _filled(chosen.run, select=select)
    return dataclasses.replace(chosen, training=training, model=model, objective=aim, run=run)


def _check_missing(chosen: options.Options, of_pixels: str) -> None:
    """Raises UsageError for what wants all pixels of an image."""
    for option, wants, instead in (
        (f"--likelihood={of_pixels}", of_pixels == "sigma_vae", "normal"),
        ("--prior=vamp", chosen.model.prior == "vamp", "mixture"),
        ("--conditional", chosen.model.conditional, "--condition, of an array of the classes"),
    ):
        if wants:
            raise UsageError(f"{option} wants whole images and some pixels are missing: {instead}")


# Steps of a run on one's own images, unless the validation set ends it before; and of what takes
# several times as long a step, convolutions among it: minutes on two cores in either case.
_BUDGET, _FEWER, _SLOW = 10_000, 4_000, ("mixture_of_logistics", "categorical")
# Latents of top_down at each place.
_OF_A_PLACE = 16


def _with_network(model: options.Model, default: str, dataset: Dataset) -> options.Model:
    """With the network, and its widths: where one of these is given, it says which network.

    Raises:
      UsageError: the images are too small for it.
    """
    if model.network is None and model.channels is None and model.hidden is None:
        network: Any = default
        channels = networks.channels_for(dataset.image_shape) if default == "conv" else None
        model = dataclasses.replace(model, network=network, channels=channels)
    elif model.network is None:
        network = "mlp" if model.channels is None else "conv"
        model = dataclasses.replace(model, network=network)
    check_pictures(model, dataset.image_shape)
    if model.network in options.CONVOLUTIONS:
        return model
    filled: options.Model = _filled(model, hidden=LADDER if model.network == "ladder" else HIDDEN)
    return filled


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
    few = max(8, num_train // 4)
    while (size > few or size > num_train) and size // 2 >= least and size // 2 % least == 0:
        size //= 2
    if size > num_train:
        raise UsageError(
            f"{dataset.name} has {num_train} training examples, fewer than the {least} devices "
            "times --accumulate"
        )
    if size < 128:
        print(f"batches of {size}, as {dataset.name} has {num_train} training images")
    return size
