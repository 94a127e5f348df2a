"""Folders of pictures: one rule for each mode, against arrays that are made without Pillow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vae_jax.run import data
from vae_jax.run.data.picture import Reading, decode
from vae_jax.run.data.pictures import Pictures
from vae_jax.run.errors import DataError
from vae_jax.run.options import OwnData

GREYS = np.random.default_rng(0).integers(0, 256, (60, 5, 4), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (60, 5, 4, 3), np.uint8)
ALPHA = np.random.default_rng(2).integers(0, 256, (5, 4), np.uint8)


def load(path, **chosen):
    return data.load(OwnData(str(path), **chosen))


def everything(dataset):
    splits = dataset.train, dataset.validation, dataset.test
    images = np.concatenate([np.asarray(split.images) for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    return in_order(images, labels)


def in_order(images, labels):
    order = np.lexsort(images.reshape(len(images), -1).T)
    return images[order], labels[order]


def write_pictures(folder, images, names, suffix="png"):
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        path = folder / name / f"{i:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def over(colour, alpha, ground):
    """What lies on an opaque ground, in exact fractions of 255."""
    share = alpha.astype(np.float64)[..., None] / 255
    return colour * share + np.asarray(ground) * (1 - share)


# Modes


def saved(picture, tmp_path, suffix="png", **how):
    picture.save(tmp_path / f"a.{suffix}", **how)
    return tmp_path / f"a.{suffix}"


GREY, COLOUR = GREYS[0], COLOURS[0]
BITS = GREY > 127
DEEP = np.random.default_rng(3).integers(0, 2**16, (5, 4)).astype(np.uint16)


@pytest.mark.parametrize(
    ("picture", "suffix", "expected"),
    [
        (Image.fromarray(GREY), "png", GREY[..., None]),
        (Image.fromarray(GREY), "bmp", GREY[..., None]),
        (Image.fromarray(BITS), "png", 255 * BITS[..., None]),
        (Image.fromarray(COLOUR), "png", COLOUR),
        (Image.fromarray(COLOUR), "tiff", COLOUR),
        (Image.fromarray(COLOUR).convert("CMYK"), "tiff", COLOUR),
        (Image.fromarray(DEEP), "png", DEEP[..., None]),
        (Image.fromarray(DEEP), "tiff", DEEP[..., None]),
        (Image.fromarray(DEEP.astype(np.int32)), "tiff", DEEP[..., None]),
        (Image.fromarray(DEEP.astype(np.int32)), "pgm", DEEP[..., None]),
        (Image.fromarray((DEEP / 65535).astype(np.float32)), "tiff", (DEEP / 65535)[..., None]),
    ],
    ids=["L", "L bmp", "1", "RGB", "RGB tiff", "CMYK", "I;16", "I;16 tiff", "I", "I pgm", "F"],
)
def test_each_mode_has_the_values_that_were_written(tmp_path, picture, suffix, expected):
    found = decode(saved(picture, tmp_path, suffix), Reading())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_colour_models_become_rgb(mode):
    """To a rounding of their own: these are 8 bits of another cube."""
    found = np.asarray(Image.fromarray(COLOUR).convert(mode).convert("RGB")).astype(int)
    assert np.abs(found - COLOUR).max() <= 12


@pytest.mark.parametrize(
    ("background", "ground"), [("white", 255), ("black", 0), ("#204060", (32, 64, 96))]
)
def test_what_is_transparent_is_laid_on_the_background(tmp_path, background, ground):
    reading = Reading(background=background)
    rgba = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    found = decode(saved(rgba, tmp_path), reading).astype(float)
    np.testing.assert_allclose(found, over(COLOUR, ALPHA, ground), atol=1.01)
    la = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    found = decode(saved(la, tmp_path), reading).astype(float)
    expected = over(GREY[..., None], ALPHA, np.broadcast_to(ground, 3))
    if np.ptp(np.broadcast_to(ground, 3)) == 0:
        expected = expected[..., :1]  # grey on grey stays grey
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1.01)


def test_a_black_drawing_on_nothing_is_seen(tmp_path):
    """Of such a picture the colours alone are black everywhere."""
    drawn = np.zeros((5, 4, 4), np.uint8)
    drawn[1:3, 1, 3] = 255
    found = decode(saved(Image.fromarray(drawn), tmp_path), Reading())
    np.testing.assert_array_equal(found, np.repeat(255 - drawn[..., 3:], 3, axis=2))


def test_a_palette_with_a_transparent_entry(tmp_path):
    picture = Image.fromarray((np.arange(20) % 3).astype(np.uint8).reshape(5, 4), "P")
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    picture.putpalette([value for colour in colours for value in colour])
    found = decode(saved(picture, tmp_path, transparency=1), Reading())
    expected = np.array([colours[0], (255, 255, 255), colours[2]])[np.arange(20) % 3]
    np.testing.assert_array_equal(found, expected.reshape(5, 4, 3))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_that_was_turned(tmp_path, orientation, suffix):
    """The eight orientations of EXIF, written out with NumPy."""
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(COLOUR), tmp_path, suffix, exif=exif)
    np.testing.assert_array_equal(decode(path, Reading()), turn(COLOUR))


@pytest.mark.parametrize("suffix", ["gif", "tiff", "png", "webp"])
def test_several_frames_are_refused_and_said(tmp_path, suffix):
    frames = [Image.fromarray(image) for image in COLOURS[:3]]
    path = saved(frames[0], tmp_path, suffix, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="has 3 frames: save those you want as single pictures"):
        decode(path, Reading())


def test_a_picture_of_many_pixels_is_read_at_the_size_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = saved(Image.fromarray(np.full((9, 12), 7, np.uint8)), tmp_path)
    np.testing.assert_array_equal(decode(path, Reading(size=3)), np.full((3, 3, 1), 7))
    assert Image.MAX_IMAGE_PIXELS == 10  # other programs' guard is as it was


CONTAINERS = {  # those of Pillow's that keep every value of a mode
    "1": ["png", "tiff", "bmp", "pbm"],
    "L": ["png", "tiff", "bmp", "gif", "tga", "pgm"],
    "P": ["png", "tiff", "bmp", "gif"],
    "LA": ["png", "tga"],
    "RGB": ["png", "tiff", "bmp", "tga", "ppm", "webp"],
    "RGBA": ["png", "tiff", "tga"],
    "CMYK": ["tiff"],
    "I;16": ["png", "tiff", "pgm"],
    "I": ["tiff"],
    "F": ["tiff"],
}


def random_picture(mode, random, shape):
    """A picture, what is to be seen of it, and by how much rounding may be off."""
    bytes_ = random.integers(0, 256, (*shape, 4), np.uint8)
    palette = random.integers(0, 256, (256, 3), np.uint8)
    made = {
        "1": (random.random(shape) > 0.5, lambda v: 255.0 * v, 0),
        "L": (bytes_[..., 0], lambda v: v, 0),
        "P": (bytes_[..., 0], lambda v: palette[v], 0),
        "LA": (bytes_[..., :2], lambda v: over(v[..., :1], v[..., 1], 255), 1.01),
        "RGB": (bytes_[..., :3], lambda v: v, 0),
        "RGBA": (bytes_, lambda v: over(v[..., :3], v[..., 3], 255), 1.01),
        "CMYK": (bytes_, lambda v: (255.0 - v[..., :3]) * (255.0 - v[..., 3:]) / 255, 1.01),
        "I;16": (random.integers(0, 2**16, shape).astype(np.uint16), lambda v: v, 0),
        "I": (random.integers(-(2**31), 2**31, shape).astype(np.int32), lambda v: v, 0),
        "F": (random.random(shape).astype(np.float32), lambda v: v, 0),
    }
    values, seen, off = made[mode]
    if mode in ("P", "LA", "CMYK"):
        picture = Image.frombytes(mode, shape[::-1], np.ascontiguousarray(values).tobytes())
        if mode == "P":
            picture.putpalette(palette.tobytes())
    else:
        picture = Image.fromarray(values)
    return picture, seen(values).reshape(*shape, -1).astype(np.float64), off


@settings(deadline=None, max_examples=250)
@given(
    kind=st.sampled_from([(mode, suffix) for mode, all_ in CONTAINERS.items() for suffix in all_]),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_random_pictures_of_every_mode_and_container(tmp_path_factory, kind, height, width, seed):
    mode, suffix = kind
    random = np.random.default_rng(seed)
    picture, expected, off = random_picture(mode, random, (height, width))
    path = tmp_path_factory.mktemp("any") / f"a.{suffix}"
    picture.save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    found = decode(path, Reading())
    if found.shape[-1] > expected.shape[-1]:  # a palette of greys
        expected = np.broadcast_to(expected, found.shape)
    np.testing.assert_allclose(found, expected, atol=off)


# Folders


def test_sub_folders_are_classes_and_greys_among_colours_become_colours(tmp_path):
    names = [("zebra", "ant", "cat")[i % 3] for i in range(60)]
    write_pictures(tmp_path, COLOURS, names)
    dataset = load(tmp_path)
    assert dataset.names == ("ant", "cat", "zebra")
    labels = np.array([dataset.names.index(name) for name in names])
    for found, expected in zip(everything(dataset), in_order(COLOURS, labels), strict=True):
        np.testing.assert_array_equal(found, expected)
    write_pictures(tmp_path, GREYS[:3] | 1, ["."] * 3)  # without a label
    mixed = load(tmp_path)
    assert f"{tmp_path}: 3 of 63 pictures are grey, read as colours" in mixed.notes
    images, labels = everything(mixed)
    assert (labels == -1).sum() == 3
    grey = images[labels == -1]
    assert (grey == grey[..., :1]).all()


def test_classes_are_in_natural_order_and_hidden_folders_are_none(tmp_path):
    names = [str(i % 12) for i in range(48)] + [".thumbnails", "__MACOSX", ".ipynb_checkpoints"] * 4
    write_pictures(tmp_path, COLOURS, names)
    dataset = load(tmp_path)
    assert dataset.names == tuple(str(i) for i in range(12))
    assert dataset.num_images == 48


def test_what_is_no_picture_is_passed_over_and_counted(tmp_path):
    write_pictures(tmp_path, GREYS, ["."] * 60)
    for name in "labels.h5", "paper.pdf", "README.txt", "phone.heic", "Thumbs.db", ".DS_Store":
        (tmp_path / name).write_bytes(b"")
    notes = load(tmp_path).notes
    assert len(notes) == 1
    assert "4 files that are no pictures passed over" in notes[0]
    assert ".h5, .heic, .pdf, .txt; pillow-heif reads .heic" in notes[0]


def test_deeper_folders_are_said(tmp_path):
    write_pictures(tmp_path, GREYS, ["a"] * 60)
    write_pictures(tmp_path, GREYS[:3], ["a/b/c"] * 3)
    assert any("3 pictures in deeper folders passed over" in n for n in load(tmp_path).notes)


@pytest.mark.parametrize("validation", [None, "val", "validation"])
def test_a_users_own_splits_are_respected(tmp_path, validation):
    parts = ["train"] * 40 + ["test"] * 10 + [validation or "train"] * 10
    names = [f"{part}/{('cat', 'dog')[i % 2]}" for i, part in enumerate(parts)]
    write_pictures(tmp_path, COLOURS, names)
    dataset = load(tmp_path)
    assert dataset.names == ("cat", "dog")
    test = {image.tobytes() for image in np.asarray(dataset.test.images)}
    assert test == {image.tobytes() for image in COLOURS[40:50]}
    if validation:
        held_out = {image.tobytes() for image in np.asarray(dataset.validation.images)}
        assert held_out == {image.tobytes() for image in COLOURS[50:]}


def test_pictures_are_resized(tmp_path):
    flat = np.random.default_rng(0).integers(60, 90, 30)
    for i, (grey, size) in enumerate(zip(flat, [(8, 8), (20, 9), (7, 30)] * 10, strict=True)):
        Image.fromarray(np.full(size[::-1], grey, np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"3 sizes, such as .*png of \d+x\d+ .*: give --image-size"):
        load(tmp_path)
    images, _ = everything(load(tmp_path, image_size=6))
    np.testing.assert_array_equal(np.sort(images[:, 0, 0, 0]), np.sort(flat))
    assert (images == images[:, :1, :1]).all()


def test_deep_pictures_keep_their_levels_and_their_bits_are_said(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (60, 5, 4)).astype(np.uint16)
    deep[0, 0, 0] = 4095
    write_pictures(tmp_path, deep, ["."] * 60)
    dataset = load(tmp_path)
    images, _ = everything(dataset)
    expected, _ = in_order((deep / 4095)[..., None].astype(np.float32), np.zeros(60))
    np.testing.assert_allclose(images, expected, rtol=1e-6)
    assert any("values up to 4095 are taken for 12 bits" in note for note in dataset.notes)


def test_pictures_of_several_depths_are_refused(tmp_path):
    write_pictures(tmp_path, GREYS[:30], ["."] * 30)
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"several depths, such as .*000\.png and .*deep\.png"):
        load(tmp_path)


def test_floats_out_of_range_are_refused(tmp_path):
    write_pictures(tmp_path, GREYS[:30].astype(np.float32), ["."] * 30, "tiff")
    with pytest.raises(DataError, match=r"values from 0 to 2\d\d: save floats in \[0, 1\]"):
        load(tmp_path)


def ppm_of_16_bits(image):
    height, width, _ = image.shape
    return b"P6 %d %d 65535\n" % (width, height) + image.astype(">u2").tobytes()


def test_colours_of_16_bits_are_said_to_be_cut(tmp_path):
    write_pictures(tmp_path, COLOURS, ["."] * 60)
    (tmp_path / "deep.ppm").write_bytes(ppm_of_16_bits(COLOURS[0].astype(np.uint16) * 257))
    dataset = load(tmp_path)
    assert any("1 colour pictures of 16 bits a channel are read with 8" in n for n in dataset.notes)


def test_a_large_folder_is_read_while_it_trains(tmp_path, monkeypatch):
    write_pictures(tmp_path, COLOURS, ["ab"[i % 2] for i in range(60)])
    kept = load(tmp_path)
    monkeypatch.setattr("vae_jax.run.data.pictures.STREAM_BYTES", 100)
    lazy = load(tmp_path)
    assert isinstance(lazy.train.images, Pictures)
    assert isinstance(kept.train.images, np.ndarray)
    assert lazy.digest == kept.digest
    rows = np.array([[3, 1], [0, 7]])
    np.testing.assert_array_equal(lazy.train.images[rows], kept.train.images[rows])
    for a, b in zip(everything(lazy), everything(kept), strict=True):
        np.testing.assert_array_equal(a, b)


def test_folders_that_cannot_be_read(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty holds no pictures, nor do its sub-folders"):
        load(empty)
    write_pictures(empty, GREYS, ["."] * 60)
    (empty / "030.png").write_bytes((empty / "031.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"030\.png is no picture that Pillow can read"):
        load(empty)
