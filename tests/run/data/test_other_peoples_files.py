"""Files that other people have: each is read right, or refused or remarked on in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax.run import data
from vae_jax.run.data.pictures import Reading, decode
from vae_jax.run.options import OwnData

RANDOM = np.random.default_rng(0)
GREYS = RANDOM.integers(0, 256, (60, 5, 4), np.uint8)


def load(path, **chosen):
    return data.load(OwnData(str(path), **chosen))


def write(folder, images, names):
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        path = Path(folder, name, f"{i:03d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def members(dataset):
    return [{image.tobytes() for image in np.asarray(split.images)} for split in dataset[1:4]]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scan_that_was_turned(tmp_path, orientation, compression):
    """Pillow 13 turns a TIFF that it has mapped into garble, and says nothing."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(GREYS[0]).save(tmp_path / "a.tif", exif=exif, compression=compression)
    turn = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: np.rot90,
    }[orientation]
    found = decode(tmp_path / "a.tif", Reading())
    np.testing.assert_array_equal(found[..., 0], turn(GREYS[0]))


def test_a_folder_of_black_and_white_is_binary(tmp_path):
    write(tmp_path, GREYS > 127, ["."] * 60)
    dataset = load(tmp_path)
    assert dataset.binary
    assert any("every pixel is black or white" in note for note in dataset.notes)
    write(tmp_path, GREYS[:1], ["grey"])
    assert not load(tmp_path).binary
