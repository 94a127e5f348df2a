"""Images from a trained run: draws from the prior, decoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

import vae_jax
from experiments import command, folder, options
from experiments.restore import restore


@dataclass(frozen=True)
class Options:
    """Draws images from the prior of a trained run and writes them as one picture."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder that experiments.mnist wrote."""
    num: int = 64
    """How many images."""
    output: Path = Path("grid.png")
    """The picture; PNG, or what else its name's ending says."""
    seed: int = 0
    """Of the draws."""


def main() -> None:
    chosen = command.parse(Options, prog="python -m experiments.generate")
    if chosen.num < 1:
        raise options.UsageError(f"--num is {chosen.num}: it must be 1 or more")
    folder.check_picture(chosen.output)
    trained = restore(chosen.run)
    key = jax.random.key(chosen.seed)
    likelihood = vae_jax.generate(key, trained.model, trained.params, chosen.num)

    from experiments import figures

    columns = min(chosen.num, round(chosen.num**0.5))
    folder.save_picture(figures.grid(likelihood.mean, columns), chosen.output)
    print(f"{chosen.num} images: {chosen.output}")


if __name__ == "__main__":
    command.run(main)
