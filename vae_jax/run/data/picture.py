"""One picture of any mode that Pillow reads, as an array: a rule for each."""

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run.data import records
from vae_jax.run.data.arrays import brief
from vae_jax.run.errors import DataError, UsageError

_LARGEST = 4096


class Reading(NamedTuple):
    """How the pictures of a folder are read.

    Attributes:
      size: crop to a square in the middle and resize to so many pixels a side; None for as it is.
      background: what transparent pictures are laid on, a colour that Pillow knows by this name.
      channels: so many at least: 3 for greys to become colours, as they do among such.
    """

    size: int | None = None
    background: str = "white"
    channels: int = 1


def check(reading: Reading) -> None:
    """Raises UsageError for a way of reading that there is none of."""
    from PIL import ImageColor

    if reading.size is not None and reading.size > _LARGEST:
        raise UsageError(f"--image-size is {reading.size}: {_LARGEST:,} is the largest")
    try:
        opaque = len(ImageColor.getrgb(reading.background)) == 3
    except ValueError:
        opaque = False
    if not opaque:
        raise UsageError(
            f"--background is {reading.background}: give the name of a colour, or #rrggbb"
        )


def decode(source: Any, reading: Reading, what: str | None = None) -> np.ndarray:
    """A picture, a file or an array, as [H, W, 1 or 3].

    uint8 of pictures with a byte a channel: truth values are 0 and 255, palettes and the colour
    models of print and video become RGB, what is transparent is laid on the background. The values
    themselves of what has more levels: uint16, int32 or float32. `what` names it in errors.

    Raises:
      DataError: it cannot be read; one line that says why.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    what = str(source) if what is None else what
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Any = (
                Image.fromarray(source) if isinstance(source, np.ndarray) else _open(source)
            )
            with picture:
                # Of a camera's .mpo the first is the picture, and the others its previews.
                if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
                    raise DataError(
                        f"{what} has {picture.n_frames} frames: save those you want as single "
                        "pictures"
                    )
                picture = _plain(ImageOps.exif_transpose(picture), reading.background)
                values = np.asarray(picture)
                if reading.size is not None:
                    if picture.mode not in ("L", "RGB"):  # as floats, which can be averaged
                        picture = Image.fromarray(values.astype(np.float32))
                    fitted = np.asarray(ImageOps.fit(picture, (reading.size, reading.size)))
                    fitted = np.clip(fitted, values.min(), values.max())  # bicubic overshoots
                    whole = values.dtype.kind in "iu"
                    values = (np.round(fitted) if whole else fitted).astype(values.dtype)
                return values.reshape(*values.shape[:2], -1)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise every type
        unknown = isinstance(error, UnidentifiedImageError)
        why = "its content is of no format that it knows" if unknown else brief(error)
        raise DataError(
            f"{what} is no picture that Pillow can read ({why}): delete it, or save it anew"
        ) from error


def _open(path: Path | records.Record) -> Any:
    """An opened picture, however large: a folder of one's own is no attacker's.

    From its content, not its name: by name Pillow maps a TIFF, which it then turns to garble where
    EXIF says to turn it.
    """
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(io.BytesIO(path.read_bytes()))
    finally:
        Image.MAX_IMAGE_PIXELS = before


def is_cut(path: Path | records.Record) -> bool:
    """Whether each channel of a colour picture has 16 bits, of which Pillow reads 8."""
    if path.suffix.lower() not in (".png", ".tif", ".tiff", ".ppm"):
        return False
    with _open(path) as picture:
        how = str([tile[-1] for tile in picture.tile])
        return picture.mode in ("RGB", "RGBA", "LA") and (";16" in how or "65535" in how)


def _plain(picture: Any, background: str) -> Any:
    """In mode L or RGB, or in one of those that have more than a byte a channel."""
    from PIL import Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return picture
    if picture.has_transparency_data:
        grey = picture.mode in ("L", "LA", "La")
        layer = Image.new("RGBA", picture.size, background)
        picture = Image.alpha_composite(layer, picture.convert("RGBA")).convert("RGB")
        values = np.asarray(picture)
        # Of a grey picture on a grey ground the colours say nothing.
        return picture.convert("L") if grey and (np.ptp(values, axis=2) == 0).all() else picture
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return picture.convert("RGB")
