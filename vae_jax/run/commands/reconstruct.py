"""Images after encoding and decoding, as files or as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, folder, options, output
from vae_jax.run.data import examples

_SHOWN = 64


@dataclass(frozen=True)
class Options:
    """Encodes images by a trained run and decodes them again.

    A folder gets a PNG file for each, 00000.png and so on, or of the name that its picture has in
    its folder; a .npz file bytes `images` [N, H, W, C] beside `name` and `label`; a .npy file the
    bytes alone. A picture, such as .png, has 64 of the images, evenly spaced, each above what
    became of it.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    images: options.UsedData = field(default_factory=options.UsedData)
    label: str | None = None
    """Of a conditional run: one class for all images; their own when not given."""
    output: Path = Path("reconstructions.png")
    """A new folder, a .npz or .npy file, or a picture."""
    seed: int = 0
    """Of the noise that binarises or dequantises."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_seed(chosen.seed)
    output.check_pictures(chosen.output)
    config = folder.read_config(chosen.run)
    names = folder.classes(config)
    found, label = examples.open_for(config, names, chosen.images, chosen.label)

    from vae_jax.run.loaded import load_images  # after the options, as it brings JAX

    trained = load_images(chosen.run)
    if not output.is_picture(chosen.output):
        shape = (len(found.images), *trained.image_shape)
        with output.pictures(chosen.output, shape, found.places, found.columns()) as out:
            trained.reconstruct(found.images, label, seed=chosen.seed, out=out, progress=True)
        print(f"reconstructions: {chosen.output}, {shape[0]:,} images")
        return
    from vae_jax.run import classifier, figures  # here, as matplotlib takes a second

    images, label = examples.some(found, label, _SHOWN)
    made = trained.reconstruct(images, label, seed=chosen.seed)
    shown = classifier.unit(images)
    picture = figures.reconstructions(shown, made, ("image", "reconstruction"))
    folder.save_picture(picture, chosen.output)
    print(f"picture: {chosen.output}")
