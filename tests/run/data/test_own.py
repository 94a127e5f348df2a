"""One's own images: what is read is what NumPy and Pillow wrote, and each mistake is one line."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from vae_jax.run import data
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.options import OwnData

GREYS = np.random.default_rng(0).integers(0, 256, (60, 5, 4), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (60, 5, 4, 3), np.uint8)


def load(path, **chosen):
    return data.load(OwnData(str(path), **chosen))


def everything(dataset):
    """Images and labels of all splits, in a fixed order."""
    splits = dataset.train, dataset.validation, dataset.test
    images = np.concatenate([np.asarray(split.images) for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    order = np.lexsort(images.reshape(len(images), -1).T)
    return images[order], labels[order]


def in_order(images, labels):
    order = np.lexsort(images.reshape(len(images), -1).T)
    return images[order], labels[order]


def assert_holds(dataset, images, labels):
    for found, expected in zip(everything(dataset), in_order(images, labels), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype in (np.uint8, np.int32)
    sizes = [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [len(images) - 2 * (len(images) // 10), *[len(images) // 10] * 2]


def write_pictures(folder, images, names):
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        path = folder / name / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


# Arrays


@pytest.mark.parametrize(
    "images", [GREYS, GREYS[..., None], COLOURS], ids=["grey", "one channel", "colour"]
)
def test_an_array_is_read_as_it_was_saved(tmp_path, images):
    np.save(tmp_path / "a.npy", images)
    none = np.full(len(images), -1)
    expected = images if images.ndim == 4 else images[..., None]
    assert_holds(load(tmp_path / "a.npy"), expected, none)
    np.savez(tmp_path / "a.npz", anything=images)
    assert_holds(load(tmp_path / "a.npz"), expected, none)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_numbers_from_0_to_1_are_greys(tmp_path, dtype):
    np.save(tmp_path / "a.npy", (GREYS / 255).astype(dtype))
    images = everything(load(tmp_path / "a.npy"))[0]
    exact = dtype != np.float16
    expected = in_order(GREYS[..., None], np.zeros(60))[0]
    assert not exact or np.array_equal(images, expected)
    assert abs(images.astype(int).sum() - expected.astype(int).sum()) <= (0 if exact else 600)
    np.save(tmp_path / "b.npy", GREYS > 127)
    assert set(np.unique(everything(load(tmp_path / "b.npy"))[0])) == {0, 255}
    np.save(tmp_path / "c.npy", GREYS.astype(np.int64))
    np.testing.assert_array_equal(everything(load(tmp_path / "c.npy"))[0], expected)


def test_labels_come_from_their_key(tmp_path):
    labels = np.arange(60) % 7
    np.savez(tmp_path / "a.npz", images=GREYS, labels=labels, other=np.zeros(3))
    dataset = load(tmp_path / "a.npz")
    assert_holds(dataset, GREYS[..., None], labels)
    assert dataset.num_classes == 7
    np.savez(tmp_path / "b.npz", pictures=GREYS, kind=labels - 1)
    dataset = load(tmp_path / "b.npz", images_key="pictures", labels_key="kind")
    assert_holds(dataset, GREYS[..., None], labels - 1)
    assert dataset.num_classes == 6


def test_rows_are_read_like_an_arrays(tmp_path):
    np.save(tmp_path / "a.npy", COLOURS)
    rows = own.Rows(np.load(tmp_path / "a.npy", mmap_mode="r"), "a")
    for index in np.array([3, 1, 1, 59]), np.array([[0, 5], [2, 2]]), slice(4, 9), slice(0, 0):
        np.testing.assert_array_equal(rows[index], COLOURS[index])
    some = rows.take(np.array([7, 3]))
    np.testing.assert_array_equal(np.asarray(some), COLOURS[[7, 3]])
    assert some.shape == (2, 5, 4, 3)


def test_splits_do_not_change(tmp_path):
    np.save(tmp_path / "a.npy", GREYS)
    first, second = (load(tmp_path / "a.npy") for _ in range(2))
    for a, b in zip(first[1:4], second[1:4], strict=True):
        np.testing.assert_array_equal(np.asarray(a.images), np.asarray(b.images))
    os.truncate(tmp_path / "a.npy", 128 + 20 * 5)
    with pytest.raises(DataError, match="ends before its image 5"):
        np.asarray(first.train.images)


# Pictures


def test_sub_folders_are_labels(tmp_path):
    names = [("zebra", "ant", "cat")[i % 3] for i in range(60)]
    write_pictures(tmp_path, COLOURS, names)
    (tmp_path / "README.txt").write_text("not a picture")
    dataset = load(tmp_path)
    labels = np.array([("ant", "cat", "zebra").index(name) for name in names])
    assert_holds(dataset, COLOURS, labels)
    assert dataset.num_classes == 3
    write_pictures(tmp_path, GREYS[:3] | 1, ["."] * 3)  # without a label, grey among colours
    images, labels = everything(load(tmp_path))
    assert (labels == -1).sum() == 3
    grey = images[labels == -1]
    assert (grey == grey[..., :1]).all()


def test_pictures_are_resized(tmp_path):
    flat = np.full((30, 8, 12), 77, np.uint8)
    for i, (image, size) in enumerate(zip(flat, [(8, 8), (20, 9), (7, 30)] * 10, strict=True)):
        Image.fromarray(image).resize(size).save(tmp_path / f"{i}.jpg", quality=95)
    with pytest.raises(DataError, match=r"3 sizes, such as .*jpg of \d+x\d+ .*: give --image-size"):
        load(tmp_path)
    images, _ = everything(load(tmp_path, image_size=6))
    assert images.shape == (30, 6, 6, 1)
    assert np.abs(images.astype(int) - 77).max() <= 2


def test_every_kind_of_pixel(tmp_path):
    deep = (GREYS[0].astype(np.uint16) << 8) | 200
    for i in range(20):
        kind = ("L", "1", "LA", "I;16")[i % 4]
        picture = Image.fromarray(deep) if kind == "I;16" else Image.fromarray(GREYS[0])
        (picture if kind == "I;16" else picture.convert(kind)).save(tmp_path / f"{i}.png")
    images, _ = everything(load(tmp_path))
    assert images.shape == (20, 5, 4, 1)
    assert sum(np.array_equal(image[..., 0], GREYS[0]) for image in images) == 15
    Image.fromarray(COLOURS[0]).convert("P").save(tmp_path / "p.png")
    Image.fromarray(COLOURS[0]).convert("RGBA").save(tmp_path / "a.png")
    assert everything(load(tmp_path))[0].shape == (22, 5, 4, 3)


# Mistakes


def with_nan(at):
    images = GREYS / 255
    images[at, 2, 1] = np.nan
    return images


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (with_nan(55), "NaN in 1 of "),
        (GREYS.astype(float), r"values from 0\.0 to 255\.0: scale them to \[0, 1\]"),
        (GREYS.astype(int) - 1, r"values from -1 to \d+: scale them to \[0, 255\]"),
        (GREYS.astype(complex), "holds complex128"),
        (GREYS[0], r"shape \(5, 4\): images are \[N, H, W\]"),
        (COLOURS[..., :2], r"shape \(60, 5, 4, 2\): .* with 1 or 3 channels"),
        (GREYS[:19], "19 images: 20 are the least"),
        (GREYS[:0], "0 images: 20 are the least"),
        (np.asfortranarray(GREYS), "Fortran"),
        (np.array([{}] * 60), "cannot be read"),
    ],
)
def test_an_array_that_cannot_be_used(tmp_path, images, said):
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(DataError, match=said) as raised:
        np.asarray(load(tmp_path / "a.npy").train.images)
    assert "\n" not in str(raised.value)
    assert "a.npy" in str(raised.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": GREYS, "labels": np.zeros(59, int)}, "60 images but 59 labels"),
        ({"images": GREYS, "labels": np.zeros(60)}, r"is float64 of shape \(60,\)"),
        ({"x": GREYS, "y": np.zeros(60, int)}, "no array 'images' but x, y: choose one with --im"),
        ({"images": with_nan(3)}, "NaN in 1 of 60 images, the first of them number 3"),
        ({"images": np.array([{}] * 60)}, "cannot be read"),
    ],
)
def test_a_npz_file_that_cannot_be_used(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=said):
        load(tmp_path / "a.npz")


def test_files_that_cannot_be_read(tmp_path):
    for name in "a.npy", "a.npz", "b.txt":
        (tmp_path / name).write_bytes(b"not an array")
        with pytest.raises(DataError, match=rf"{name} (cannot be read|is no \.npy or \.npz file)"):
            load(tmp_path / name)
    with pytest.raises(DataError, match=r"nowhere does not exist: name an array"):
        load(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty holds no images, nor do its sub-folders"):
        load(empty)
    write_pictures(empty, GREYS, ["."] * 60)
    (empty / "030.png").write_bytes((empty / "031.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"030\.png is no image that Pillow can read"):
        load(empty)
    with pytest.raises(DataError, match=r"nothing is not prepared as array_record in .*tfds build"):
        load("tfds:nothing", data_dir=tmp_path)
    np.save(tmp_path / "c.npy", GREYS)
    with pytest.raises(UsageError, match=r"c\.npy is an array: leave it out"):
        load(tmp_path / "c.npy", image_size=4)


# What is read while it trains


def test_rows_are_pickled_without_the_array(tmp_path):
    np.save(tmp_path / "a.npy", np.tile(GREYS, (100, 1, 1)))
    rows = load(tmp_path / "a.npy").train.images
    content = pickle.dumps(rows)
    assert len(content) < 60 * 100 * 10  # the numbers of the rows
    np.testing.assert_array_equal(pickle.loads(content)[:7], rows[:7])


@pytest.mark.parametrize("stream", [False, True])
def test_pictures_of_tfds_are_decoded_once_or_when_asked_for(monkeypatch, tmp_path, stream):
    """A data source of TFDS is anything with a length that gives examples."""
    import tensorflow_datasets as tfds

    decoded = []

    class Source(list):
        def __getitem__(self, i):
            decoded.append(i)
            return {"image": GREYS[i % len(GREYS)][..., None], "label": i % 2}

    class Builder:
        def as_data_source(self, split=None, decoders=None):
            sources = {"train": Source(range(200)), "test": Source(range(30))}
            return sources if split is None else sources[split]

    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder())
    chosen = OwnData("tfds:greys", data_dir=tmp_path)
    found = data.load(chosen, stream=stream)
    assert [len(part.images) for part in found[1:4]] == [180, 20, 30]
    assert isinstance(found.train.images, own.Pictures) == stream
    rows = np.array([[3, 100], [179, 3]])
    images, labels = found.train.images[rows], found.train.labels[rows]
    before = len(decoded)
    np.testing.assert_array_equal(found.train.images[rows], images)
    assert len(decoded) - before == (rows.size if stream else 0)
    numbers = np.concatenate([own._split_rows(200, "greys")[part] for part in (2, 0)])[rows]
    np.testing.assert_array_equal(images, GREYS[numbers % len(GREYS)][..., None])
    np.testing.assert_array_equal(labels, numbers % 2)
