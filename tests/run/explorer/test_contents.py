"""What the page is told of images, without a run."""

import base64
import io

import numpy as np
from PIL import Image

from vae_jax.run.explorer import contents


def test_what_is_missing_of_a_picture_is_grey():
    images = np.ones((2, 3, 4, 1), np.float32)
    images[1, :2] = np.nan
    src = contents._atlas(images)["src"]
    with Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) as picture:
        shown = np.asarray(picture)
    expected = np.where(np.isnan(images), 128, 255)[..., 0]  # a cast of NaN warns, and is 0
    np.testing.assert_array_equal(shown, np.concatenate(expected, axis=1))
