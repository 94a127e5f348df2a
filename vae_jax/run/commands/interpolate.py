"""The pictures between two, along a line between their codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.run import command, folder, options, output
from vae_jax.run.data import conditions, examples
from vae_jax.run.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Decodes the straight line between the codes of two images, both ends included.

    A picture, such as .png, has them in a row, the two images themselves at its ends; a folder, a
    .npz or a .npy file the decoded ones alone.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    start: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """A picture's file; or a number, the `row` that an image of the run's test set has in what
    embed and score write of it, from 0."""
    end: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """Likewise."""
    steps: int = 9
    """Pictures, those of A and B among them."""
    label: str | None = None
    """Of a conditional run: the class of A, of B and of all between; needed where they are files.
    That of A when not given."""
    output: Path = Path("interpolation.png")
    """A picture, a new folder, or a .npz or .npy file."""
    data: str | None = None
    """Where the run's own data lie, if they have moved, when A or B is a number."""
    resize: bool = False
    """Crop a picture's file to a square in the middle and resize it to the size of the run's, as a
    run that was given an --image-size does in any case."""
    seed: int = 0
    """Of the noise that binarises or dequantises."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_at_least(2, steps=chosen.steps)
    options.check_seed(chosen.seed)
    output.check_pictures(chosen.output)
    config = folder.read_config(chosen.run)
    ends, label = _ends(chosen, config)

    import numpy as np

    from vae_jax.run.loaded import load_images  # after the options, as it brings JAX

    trained = load_images(chosen.run)
    made = trained.interpolate(ends[0], ends[1], chosen.steps, label, seed=chosen.seed)
    if not output.is_picture(chosen.output):
        with output.pictures(chosen.output, made.shape) as out:
            out[: len(made)] = made
        print(f"interpolation: {chosen.output}, {len(made)} images")
        return
    from vae_jax.run import classifier, figures  # here, as matplotlib takes a second

    start, end = (np.asarray(classifier.unit(one[None])) for one in ends)
    row = np.concatenate([start, made, end])
    folder.save_picture(figures.grid(row, len(row)), chosen.output)
    print(f"picture: {chosen.output}")


def _ends(chosen: Options, config: dict[str, Any]) -> tuple[list[Any], Any]:
    """The two images, and the class that a conditional run is told."""
    names = folder.classes(config)
    given = (chosen.start, chosen.end)
    test = None
    if any(one.isdecimal() for one in given):
        test = examples.own(config, "test", options.UsedData(data=chosen.data))
    elif chosen.data is not None:
        raise UsageError(f"--data is {chosen.data} but A and B are files: leave it out")
    ends, labels = [], []
    for one in given:
        if not one.isdecimal():
            ends.append(examples.picture(Path(one), config, resize=chosen.resize))
            labels.append("")
            continue
        assert test is not None
        row, num = int(one), len(test.images)
        if row >= num:
            raise UsageError(f"row {one} is not in the test set: give one from 0 to {num - 1}")
        ends.append(test.images[row : row + 1][0])
        labels.append("" if test.labels is None else test.labels[row])
    if columns := conditions.of_run(config):
        examples.check_label(config, names, chosen.label)
        if test is None or test.told is None or not given[0].isdecimal():
            told = ", ".join(column.name for column in columns)
            raise UsageError(
                f"the run is conditional on {told}, which A={given[0]} does not say: name a row of "
                "the test set"
            )
        return ends, test.told[int(given[0])]
    label = chosen.label
    conditional = config["options"]["model"].get("conditional")
    if conditional and label is None and labels[0]:
        label = str(labels[0])
    return ends, examples.check_label(config, names, label)
