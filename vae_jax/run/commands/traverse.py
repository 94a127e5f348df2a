"""What each latent of a trained run does to a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, folder, options, output
from vae_jax.run.data import examples
from vae_jax.run.errors import RunError, UsageError

_MOST_IMAGES = 2000


@dataclass(frozen=True)
class Options:
    """Changes one latent of an image at a time: a row of pictures for each latent that is used.

    A latent is used where its mean varies by more than 0.01 over the images (active units of Burda
    et al. 2016). It goes from the 1 % to the 99 % quantile of these means, the others stay as the
    image has them. Rows are in the order of how much they vary, and `z7` is latent 7. A .npz file
    has `latents`, `values` [K, V] and `images` [K, V, H, W, C], bytes.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    images: options.UsedData = field(default_factory=options.UsedData)
    of: int = 0
    """Row of the image to change, from 0."""
    label: str | None = None
    """Of a conditional run: one class for all images; their own when not given."""
    steps: int = 9
    """Pictures of each latent."""
    output: Path = Path("traversal.png")
    """A picture, or a .npz file."""
    seed: int = 0
    """Of the noise that binarises or dequantises."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_at_least(2, steps=chosen.steps)
    options.check_at_least(0, of=chosen.of)
    options.check_seed(chosen.seed)
    output.check_picture_or_npz(chosen.output)
    config = folder.read_config(chosen.run)
    names = folder.classes(config)
    found, label = examples.open_for(config, names, chosen.images, chosen.label)
    if chosen.of >= len(found.images):
        raise UsageError(f"--of is {chosen.of}: give a row from 0 to {len(found.images) - 1}")

    import numpy as np

    from vae_jax.run.loaded import load_images  # after the options, as it brings JAX

    images, labels = examples.some(found, label, _MOST_IMAGES)
    # The one that is changed stands before the others.
    images = np.concatenate([found.images[np.array([chosen.of])], images])
    if isinstance(label, list):
        labels = [label[chosen.of], *labels]
    elif isinstance(label, np.ndarray):
        labels = np.concatenate([label[chosen.of : chosen.of + 1], labels])
    made = load_images(chosen.run).traverse(images, labels, steps=chosen.steps, seed=chosen.seed)
    if not len(made.latents):
        raise RunError(
            f"no latent of {chosen.run} is used, so there is none to change: train for longer, "
            "with a --kl-warmup, or with a smaller --learning-rate or --beta"
        )
    if output.is_picture(chosen.output):
        from vae_jax.run import figures  # here, as matplotlib takes a second

        picture = figures.grid(made.pictures.reshape(-1, *made.pictures.shape[2:]), chosen.steps)
        names_of = tuple(f"z{latent}" for latent in made.latents)
        folder.save_picture(figures.named_rows(picture, names_of, len(names_of)), chosen.output)
    else:
        arrays = made._asdict()
        arrays["images"] = output.as_bytes(arrays.pop("pictures"))
        output.write_columns({}, arrays, chosen.output)
    print(f"{len(made.latents)} latents are used: {chosen.output}")
