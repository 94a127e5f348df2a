"""Images from a trained run: draws from the prior, of a class, or test images in another class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro

import vae_jax
from experiments import command, conditional, figures, folder, measure, options, own
from experiments.model import observe
from experiments.restore import Trained, restore


@dataclass(frozen=True)
class Options:
    """Draws images from a trained run and writes them as one picture."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder that experiments.mnist wrote."""
    num: int | None = None
    """How many images; with --label=all, how many of each class. 64, and 16, when not given."""
    label: str | None = None
    """Of a conditional run: the class to draw, or all for a row of each class, in which a column
    is a style."""
    reconstruct_as: str | None = None
    """Of a conditional run: take the first test images and change their class to this one, in the
    style that they have; each stands above its change."""
    output: Path = Path("grid.png")
    """The picture; PNG, or what else its name's ending says."""
    seed: int = 0
    """Of the draws."""


def main() -> None:
    chosen = command.parse(Options, prog="python -m experiments.generate")
    num = (16 if chosen.label == "all" else 64) if chosen.num is None else chosen.num
    if num < 1:
        raise options.UsageError(f"--num is {num}: it must be 1 or more")
    folder.check_picture(chosen.output)
    check_label(chosen, folder.read_config(chosen.run))
    options.check_seed(chosen.seed)
    trained = restore(chosen.run)
    key, model, params = jax.random.key(chosen.seed), trained.model, trained.params
    if chosen.reconstruct_as is not None:
        picture = reconstructed_as(int(chosen.reconstruct_as), num, trained)
    elif chosen.label == "all":
        images = conditional.by_class(key, model, params, trained.num_classes, num)
        picture = figures.grid(images, num)
    else:
        label = None if chosen.label is None else jnp.int32(chosen.label)
        likelihood = vae_jax.generate(key, model, params, num, label)
        picture = figures.grid(likelihood.mean, min(num, round(num**0.5)))
    folder.save_picture(picture, chosen.output)
    print(f"picture: {chosen.output}")


def check_label(chosen: Options, config: dict) -> None:
    """Raises UsageError for a label that the run cannot use, before anything is compiled."""
    asked = {"--label": chosen.label, "--reconstruct-as": chosen.reconstruct_as}
    given = {option: label for option, label in asked.items() if label is not None}
    classes = f"a class from 0 to {config['num_classes'] - 1}"
    if not config["options"]["model"].get("conditional"):
        for option, label in given.items():
            raise options.UsageError(
                f"{option} is {label} but {chosen.run} is an unconditional run: leave it out, or "
                "train one with --conditional"
            )
    elif not given:
        raise options.UsageError(
            f"{chosen.run} is a conditional run: give --label, {classes} or all, or "
            f"--reconstruct-as, {classes}"
        )
    if len(given) == 2:
        raise options.UsageError(
            "--label draws new images and --reconstruct-as changes those of the test set: give one "
            "of them"
        )
    for option, label in given.items():
        is_class = label.isdecimal() and int(label) < config["num_classes"]
        if not is_class and (option, label) != ("--label", "all"):
            also = " or all" if option == "--label" else ""
            raise options.UsageError(f"{option} is {label}: give {classes}{also}")


def reconstructed_as(label: int, num: int, trained: Trained):
    """The first test images, each above itself as another class."""
    stored = trained.options.data
    dataset = conditional.labelled(own.load(stored))
    num = min(num, len(dataset.test.images))
    # All are binarised, so that each is as the run's results have it.
    x = measure.observed(observe(trained.binarization), dataset.test.images, "test")[:num]
    label_now = jnp.asarray(dataset.test.labels[:num])
    likelihood = vae_jax.transfer(
        trained.model, trained.params, x, label_now, jnp.full_like(label_now, label)
    )
    return figures.reconstructions(x, likelihood.mean)


if __name__ == "__main__":
    command.run(main)
