"""What the tests of commands on a trained run share; its fixtures are in conftest."""

import contextlib
import io

import numpy as np
from PIL import Image

SHAPE = (6, 5, 1)


def write_pictures(place, images, prefix=""):
    for i, image in enumerate(images):
        path = place / ("cat", "dog")[i % 2] / f"{prefix}{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def every_name(pictures):
    return sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png"))


def read(pictures):
    return np.stack([np.asarray(Image.open(pictures / name)) for name in every_name(pictures)])


def of_command(module, *arguments):
    """What a command says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        module.main(list(map(str, arguments)), module.__name__.rpartition(".")[2])
    return said.getvalue()
