"""Files that other people have: each is read right, or refused or remarked on in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax.run import data
from vae_jax.run.data.dataset import Found, classes_of, natural
from vae_jax.run.data.picture import Reading, decode
from vae_jax.run.errors import DataError, UsageError
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


# Arrays that belong together


@pytest.mark.parametrize(
    ("train", "test", "white"),
    [
        (16 * np.uint16(GREYS), np.uint16(GREYS), 4095),  # the second alone would be 8 bits
        (np.float64(GREYS) / 1000, np.float64(GREYS) / 255, 1),  # the second alone would be bytes
        (np.uint8(GREYS), np.int64(GREYS), 255),
        (GREYS, np.asarray(GREYS, ">i4"), 255),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_one_range_holds_for_all_splits(tmp_path, train, test, white, kind):
    if kind == "npz":
        np.savez(tmp_path / "a.npz", x_train=train, x_test=test)
        dataset = load(tmp_path / "a.npz")
    else:
        np.save(tmp_path / "a.npy", train)
        np.save(tmp_path / "b.npy", test)
        dataset = load(tmp_path / "a.npy", test=tmp_path / "b.npy")
    found = np.asarray(dataset.test.images)[..., 0]
    assert found.dtype == dataset.train.images.dtype
    found = found / 255 if found.dtype == np.uint8 else found
    np.testing.assert_allclose(found, test.astype(np.float64) / white, atol=1e-6)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (GREYS, GREYS / 255, r"'x_test' has float64 from 0 to 1, and the other splits uint8"),
        (GREYS / 255, GREYS, r"'x_test' has uint8 from 0 to 255, and the other splits float64"),
        (GREYS, np.uint8(GREYS > 9), r"'x_test' has uint8 from 0 to 1, and the other splits uint8"),
        (GREYS > 9, GREYS, r"'x_train' has bool from 0 to 1, and the other splits"),
        (GREYS, np.uint16(GREYS) * 200, r"'x_train' has uint8 .* together from 0 to 51000"),
        (GREYS, GREYS[:, :4], r"'x_train' has images of \(5, 4\) and .*'x_test' of \(4, 4\)"),
    ],
)
def test_splits_of_several_ranges_or_shapes_are_refused(tmp_path, train, test, said):
    np.savez(tmp_path / "a.npz", x_train=train, x_test=test)
    with pytest.raises(DataError, match=said):
        load(tmp_path / "a.npz")


def test_one_range_holds_for_the_folders_of_all_splits(tmp_path):
    deep = RANDOM.integers(0, 4096, (30, 5, 4), np.uint16)
    write(tmp_path / "a", deep, ["."] * 30)
    write(tmp_path / "b", deep // 16, ["."] * 30)  # alone of 8 bits
    dataset = load(tmp_path / "a", test=tmp_path / "b")
    np.testing.assert_allclose(
        np.asarray(dataset.test.images)[..., 0], (deep // 16) / 4095, rtol=1e-6
    )
    assert len(dataset.train.labels) + len(dataset.validation.labels) == 30


# Options that the data have no use for


@pytest.mark.parametrize(
    ("name", "chosen", "said"),
    [
        ("a.npy", {"labels_key": "y"}, "--labels-key is y and .*npy is a .npy file: leave it out"),
        ("a.npy", {"images_key": "x"}, "--images-key is x"),
        ("a.npy", {"background": "red"}, "--background is red and .* is an array"),
        ("a.npy", {"data_dir": Path("/data")}, "--data-dir is /data"),
        ("a.npz", {"labels": Path("y.npy")}, "--labels is y.npy and .* is a .npz file"),
        ("a.npz", {"image_size": 8}, "--image-size is 8"),
        ("folder", {"labels": Path("y.npy")}, "--labels is y.npy and .* is a folder"),
        ("folder", {"images_key": "x"}, "--images-key is x"),
        ("folder", {"labels_key": "x"}, "--labels-key is x"),
        ("tfds:mnist", {"test": Path("b")}, "--test is b and tfds:mnist is prepared by TFDS"),
        ("folder", {"test": "a.npy"}, "are of two kinds"),
    ],
)
def test_an_option_that_the_data_have_no_use_for_is_refused(tmp_path, name, chosen, said):
    np.save(tmp_path / "a.npy", GREYS)
    np.savez(tmp_path / "a.npz", images=GREYS)
    write(tmp_path / "folder", GREYS, ["."] * 60)
    if chosen.get("test") == "a.npy":
        chosen = {"test": tmp_path / "a.npy"}
    with pytest.raises(UsageError, match=said) as raised:
        load(name if name.startswith("tfds") else tmp_path / name, **chosen)
    assert str(raised.value).endswith(("leave it out", "give two folders or two files"))


def test_labels_of_the_training_set_are_not_given_to_the_test_set(tmp_path):
    np.save(tmp_path / "a.npy", GREYS)
    np.save(tmp_path / "b.npy", 255 - GREYS)
    np.save(tmp_path / "y.npy", np.arange(60) % 2)
    with pytest.raises(UsageError, match=r"--labels=.*y\.npy has none for --test=.*b\.npy: save"):
        load(tmp_path / "a.npy", test=tmp_path / "b.npy", labels=tmp_path / "y.npy")


# Files under other names, and of other types


def test_what_a_file_is_its_content_says(tmp_path):
    np.save(tmp_path / "a.npy", GREYS)
    np.savez(tmp_path / "b.npz", images=GREYS)
    (tmp_path / "a.npy").rename(tmp_path / "A.NPY")
    assert members(load(tmp_path / "A.NPY")) == members(load(tmp_path / "b.npz"))
    (tmp_path / "A.NPY").rename(tmp_path / "c.npz")
    (tmp_path / "b.npz").rename(tmp_path / "d.npy")
    for name, kind in ("c.npz", "npy"), ("d.npy", "npz"):
        with pytest.raises(DataError, match=rf"{name} is a \.{kind} file: rename it, or name a"):
            load(tmp_path / name)
    np.save(tmp_path / "e.npy", GREYS)
    with pytest.raises(DataError, match=r"c\.npz is a \.npy|d\.npy is a \.npz file"):
        load(tmp_path / "e.npy", labels=tmp_path / "d.npy")
    with pytest.raises(DataError, match=r"y\.npy does not exist"):
        load(tmp_path / "e.npy", labels=tmp_path / "y.npy")


def test_names_that_no_file_can_have(tmp_path):
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    for name in ("x" * 300 + ".npy", "loop.npy", "nowhere.npy", "a\0b.npy"):
        with pytest.raises(DataError, match=r"(does not exist|cannot be looked for).*: name an"):
            load(tmp_path / name)


def test_half_precision_has_the_bytes_that_were_divided(tmp_path):
    for quotient in (np.float16(GREYS / 255), np.float16(GREYS) / np.float16(255)):
        np.save(tmp_path / "a.npy", quotient)
        dataset = load(tmp_path / "a.npy")
        assert dataset.train.images.dtype == np.uint8
        assert set().union(*members(dataset)) == {image.tobytes() for image in GREYS}
    np.save(tmp_path / "a.npy", np.float16(RANDOM.random(GREYS.shape)))
    assert load(tmp_path / "a.npy").train.images.dtype == np.float32


def test_what_lies_behind_80_bits_chooses_no_split(tmp_path):
    """A long double has six bytes, or four, that hold nothing, and may hold anything."""
    images = (GREYS / 300).astype(np.longdouble)
    np.save(tmp_path / "a.npy", images)
    words = images.copy().view(np.uint8).reshape(-1, images.itemsize)
    if np.finfo(np.longdouble).nmant == 63:
        words[:, 10:] = 255
    again = words.reshape(-1).view(np.longdouble).reshape(images.shape)
    np.testing.assert_array_equal(again, images)
    np.save(tmp_path / "b.npy", again)
    one, other = load(tmp_path / "a.npy"), load(tmp_path / "b.npy")
    assert one.digest == other.digest
    assert members(one) == members(other)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_no_number_is_named_and_nothing_else_is_said(tmp_path, value, dtype):
    images = (GREYS / 255).astype(dtype)
    images[7, 1, 1] = value
    np.save(tmp_path / "a.npy", images)
    kind = "NaN" if np.isnan(value) else "an infinity"
    with pytest.raises(DataError, match=f"has {kind} in 1 of its images from number 7 on: leave"):
        load(tmp_path / "a.npy")


def test_a_range_that_is_just_missed_is_said_in_full(tmp_path):
    np.save(tmp_path / "a.npy", np.where(GREYS == 255, 1 + 1e-7, GREYS / 255))
    with pytest.raises(DataError, match=r"values from 0 to 1\.0000001: scale them"):
        load(tmp_path / "a.npy")


def test_dark_bytes_are_said(tmp_path):
    """Such as scikit-learn's digits, whose white is 16."""
    np.save(tmp_path / "a.npy", GREYS % 17)
    (note,) = load(tmp_path / "a.npy").notes
    assert note.endswith("values up to 16 are taken for bytes, of which 255 is white")


def test_what_of_a_npz_file_is_not_read_is_said(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=GREYS, arr_1=np.arange(60) % 2)
    (note,) = load(tmp_path / "a.npz").notes
    assert note.endswith("a.npz: not read: arr_1; --images-key and --labels-key choose")
    assert not load(tmp_path / "a.npz", images_key="arr_0", labels_key="arr_1").notes
    np.savez(tmp_path / "b.npz", x_train=GREYS, y_train=np.arange(60) % 2)
    dataset = load(tmp_path / "b.npz")  # of a training set alone, all
    assert dataset.names == ("0", "1")
    assert not dataset.notes
    np.savez(tmp_path / "c.npz", x_train=GREYS, x_test=GREYS[:9] // 2, lab=np.arange(60) % 2)
    with pytest.raises(DataError, match=r"x_train and x_test, and --labels-key is lab: give --im"):
        load(tmp_path / "c.npz", labels_key="lab")
    np.savez(tmp_path / "d.npz")
    with pytest.raises(DataError, match="holds no array: save the images in it"):
        load(tmp_path / "d.npz")


@pytest.mark.parametrize("label", [1e300, np.inf, np.nan, 0.5, 2.0**54])
def test_floats_that_are_no_whole_numbers_are_no_labels(tmp_path, label):
    np.savez(tmp_path / "a.npz", images=GREYS, labels=np.where(np.arange(60) % 2, 0.0, label))
    with pytest.raises(DataError, match="labels are one whole number or text for each image"):
        load(tmp_path / "a.npz")


def test_images_that_are_all_alike_are_said_to_be(tmp_path):
    np.save(tmp_path / "a.npy", np.full((60, 5, 4), 200, np.uint8))
    with pytest.raises(DataError, match="of its 60 images 1 are different: give more, or splits"):
        load(tmp_path / "a.npy")


# Folders


def test_names_that_differ_little_have_one_order_in_every_process():
    """A set's order of texts is another in each process, that of a folder in each file system."""
    names = ["cat", "Cat", "CAT", "1", "01", "m\u00b2", "\u0663", "10", "2"]
    expected = ["01", "1", "2", "\u0663", "10", "CAT", "Cat", "cat", "m\u00b2"]
    for order in (names, names[::-1], sorted(names)):
        assert sorted(order, key=natural) == expected
    found = Found(GREYS[:9, ..., None], np.array(names), np.arange(9, dtype=np.uint64))
    assert classes_of([found])[0] == tuple(expected)


def test_pictures_in_deeper_folders_are_said_where_none_or_few_are_found(tmp_path):
    write(tmp_path / "none", GREYS[:30], ["a/b"] * 30)
    with pytest.raises(DataError, match=r"none holds no pictures, .*30 pictures in deeper folders"):
        load(tmp_path / "none")
    write(tmp_path / "few", GREYS[:30], ["a/b"] * 29 + ["."])
    with pytest.raises(
        DataError, match=r"few has 1 images; .*29 pictures in deeper folders passed"
    ):
        load(tmp_path / "few")
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", GREYS)
    with pytest.raises(DataError, match=r"1 files that are no pictures passed over \(\.npy\): put"):
        load(tmp_path / "arrays")


def test_folders_that_are_called_after_splits(tmp_path):
    write(tmp_path / "a", GREYS, ["train/cat", "train/dog"] * 30)
    assert load(tmp_path / "a").names == ("cat", "dog")  # a training set alone is all
    write(tmp_path / "b", GREYS, ["train", "val"] * 30)
    with pytest.raises(DataError, match="has train and val but no test: rename the one"):
        load(tmp_path / "b")
    write(tmp_path / "c", GREYS, ["train", "val", "valid", "test"] * 15)
    with pytest.raises(DataError, match=r"val and .*valid are both taken for the validation set"):
        load(tmp_path / "c")
    write(tmp_path / "d", GREYS, ["train"] * 60)
    (tmp_path / "d" / "test").mkdir()
    with pytest.raises(DataError, match="test holds no pictures"):
        load(tmp_path / "d")
    write(tmp_path / "e", GREYS, ["train", "car"] * 30)
    assert load(tmp_path / "e").names == ("car", "train")  # they are classes


def test_pictures_of_zeros_and_ones_are_binary(tmp_path):
    """Masks, as programs of segmentation save them."""
    write(tmp_path / "a", np.uint8(GREYS > 127), ["."] * 60)
    dataset = load(tmp_path / "a")
    assert dataset.binary
    (note,) = dataset.notes
    assert note.endswith("every value is 0 or 1, so the images are binary")
    assert {image.tobytes() for image in np.float32(GREYS > 127)} == set().union(*members(dataset))
    write(tmp_path / "b", GREYS % 17, ["."] * 60)
    (note,) = load(tmp_path / "b").notes
    assert note.endswith("values up to 16 are taken for bytes, of which 255 is white")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_picture_with_values_that_are_no_numbers_is_named(tmp_path, value):
    for i, grey in enumerate(GREYS[:30]):
        values = np.float32(grey / 255)
        values[0, 0] = value if i == 7 else 0
        Image.fromarray(values).save(tmp_path / f"{i}.tif")
    with pytest.raises(DataError, match=r"7\.tif has values that are no numbers, or infinite"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"background": "nocolour"}, "--background is nocolour: give the name of a colour, or #rr"),
        ({"background": "#ff000000"}, "--background is #ff000000"),
        ({"image_size": 100_000}, "--image-size is 100000: 4,096 is the largest"),
    ],
)
def test_an_option_of_pictures_that_cannot_be_used_is_named(tmp_path, chosen, said):
    write(tmp_path, GREYS, ["."] * 60)
    with pytest.raises(UsageError, match=said):
        load(tmp_path, **chosen)


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    write(tmp_path, GREYS, ["a", "b"] * 30)

    def iterdir(path, found=Path.iterdir):
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return found(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(DataError, match=r"/b cannot be looked into \(Permission denied\)"):
        load(tmp_path)


def test_a_damaged_picture_is_named_without_an_address_in_memory(tmp_path):
    write(tmp_path, GREYS, ["."] * 60)
    (tmp_path / "007.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"007\.png is .* \(its content is of no format that it kn"):
        load(tmp_path)
