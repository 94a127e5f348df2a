"""Arrays on disk: what the model sees is what NumPy wrote, and each mistake is one line."""

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vae_jax.run import data
from vae_jax.run.data.arrays import Rows, look, scaled
from vae_jax.run.data.ranges import BYTES
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.options import OwnData

ROOT = Path(__file__).parents[3]
GREYS = np.random.default_rng(0).integers(0, 256, (60, 5, 4), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (60, 5, 4, 3), np.uint8)


def load(path, **chosen):
    return data.load(OwnData(str(path), **chosen))


def everything(dataset):
    """Images and labels of all splits, in a fixed order."""
    splits = dataset.train, dataset.validation, dataset.test
    images = np.concatenate([np.asarray(split.images) for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    return in_order(images, labels)


def in_order(images, labels):
    order = np.lexsort(images.reshape(len(images), -1).T)
    return images[order], labels[order]


def assert_holds(dataset, images, labels):
    for found, expected in zip(everything(dataset), in_order(images, labels), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype in (np.uint8, np.int32)


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_that_were_divided_by_255_are_those_bytes(tmp_path, dtype):
    np.save(tmp_path / "a.npy", (GREYS / 255).astype(dtype))
    assert_holds(load(tmp_path / "a.npy"), GREYS[..., None], np.full(60, -1))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int64, np.uint32])
def test_whole_numbers_up_to_255_are_bytes(tmp_path, dtype):
    np.save(tmp_path / "a.npy", GREYS.astype(dtype))
    assert_holds(load(tmp_path / "a.npy"), GREYS[..., None], np.full(60, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float32])
def test_zeros_and_ones_are_binary_and_it_is_said(tmp_path, dtype):
    bits = GREYS > 127
    np.save(tmp_path / "a.npy", bits.astype(dtype))
    dataset = load(tmp_path / "a.npy")
    assert dataset.binary
    assert_holds(dataset, np.uint8(255) * bits[..., None], np.full(60, -1))
    assert any("every value is 0 or 1, so the images are binary" in n for n in dataset.notes)


def test_floats_of_more_than_256_levels_keep_them_and_it_is_said(tmp_path):
    images = np.random.default_rng(2).random((60, 5, 4))
    np.save(tmp_path / "a.npy", images)
    dataset = load(tmp_path / "a.npy")
    found, _ = everything(dataset)
    assert found.dtype == np.float32
    expected, _ = in_order(images.astype(np.float32)[..., None], np.zeros(60))
    np.testing.assert_array_equal(found, expected)
    assert any("more than 256 levels, kept as floats" in note for note in dataset.notes)


@pytest.mark.parametrize(("bits", "high"), [(10, 1000), (12, 4095), (14, 9000), (16, 65535)])
def test_16_bit_numbers_keep_their_levels_and_their_bits_are_said(tmp_path, bits, high):
    images = np.random.default_rng(3).integers(0, high, (60, 5, 4)).astype(np.uint16)
    images[0, 0, 0] = high
    np.save(tmp_path / "a.npy", images)
    dataset = load(tmp_path / "a.npy")
    found, _ = everything(dataset)
    expected, _ = in_order((images / (2**bits - 1))[..., None], np.zeros(60))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(np.unique(found)) == len(np.unique(images))
    assert any(f"values up to {high} are taken for {bits} bits" in n for n in dataset.notes)


@settings(deadline=None, max_examples=150)
@given(
    arrays(
        st.sampled_from(["u1", "?", "i2", "u2", "i4", "<f4", ">f4", "f8", ">u2"]),
        array_shapes(min_dims=3, max_dims=3, max_side=5).map(lambda s: (*s, 1)),
        elements={"min_value": 0, "max_value": 1},
    )
)
def test_whatever_is_in_range_is_seen_to_a_256th_at_least(images):
    """Against NumPy's own division, of every type and byte order."""
    found = np.asarray(scaled({"all": look(images, "a", None)})["all"].images)
    seen = found / 255 if found.dtype == np.uint8 else found
    np.testing.assert_allclose(seen, images.astype(np.float64), atol=1e-5)


def test_rows_are_read_like_an_arrays(tmp_path):
    np.save(tmp_path / "a.npy", COLOURS)
    for file in np.load(tmp_path / "a.npy", mmap_mode="r"), COLOURS:
        rows = Rows(file, "a", BYTES)
        for index in np.array([3, 1, 1, 59]), np.array([[0, 5], [2, 2]]), slice(4, 9), slice(0, 0):
            np.testing.assert_array_equal(rows[index], COLOURS[index])
        some = rows.take(np.array([7, 3]))
        np.testing.assert_array_equal(np.asarray(some), COLOURS[[7, 3]])
        assert some.shape == (2, 5, 4, 3)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(some))[:2], COLOURS[[7, 3]])


def test_rows_are_pickled_without_the_array(tmp_path):
    np.save(tmp_path / "a.npy", np.tile(GREYS, (100, 1, 1)))
    rows = load(tmp_path / "a.npy").train.images
    assert len(pickle.dumps(rows)) < 60 * 100 * 10  # the numbers of the rows


def test_a_file_that_is_cut_short_after_it_was_looked_at_is_named(tmp_path):
    np.save(tmp_path / "a.npy", GREYS)
    dataset = load(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 128 + 20 * 5)
    with pytest.raises(DataError, match=r"a\.npy ends before its image \d+"):
        np.asarray(dataset.train.images)


_PEAK = """
import resource, sys
import numpy as np
from vae_jax.run import data
from vae_jax.run.options import OwnData
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data.load(OwnData(sys.argv[1]), stream=True)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_a_large_file_of_floats_is_looked_at_in_pieces(tmp_path):
    images = np.random.default_rng(0).random((20_000, 28, 28), np.float64)  # 125 MB
    np.save(tmp_path / "a.npy", images)
    said = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path / "a.npy")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert resource.getpagesize()  # in bytes on Linux, as ru_maxrss is in kilobytes
    assert int(said) < 3 * images.nbytes  # validation and test are in memory, and a few pieces


# Labels and keys


def test_labels_come_from_their_key(tmp_path):
    labels = np.arange(60) % 7
    np.savez(tmp_path / "a.npz", images=GREYS, labels=labels, other=np.zeros(3))
    dataset = load(tmp_path / "a.npz")
    assert_holds(dataset, GREYS[..., None], labels)
    assert dataset.names == tuple("0123456")
    np.savez(tmp_path / "b.npz", pictures=GREYS, kind=labels - 1)
    dataset = load(tmp_path / "b.npz", images_key="pictures", labels_key="kind")
    assert_holds(dataset, GREYS[..., None], labels - 1)
    assert dataset.num_classes == 6


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.arange(60) % 3 + 1, ("1", "2", "3")),
        (np.where(np.arange(60) % 3 == 0, 255, 7), ("7", "255")),
        (np.arange(60) % 2 * 20000, ("0", "20000")),
        (np.arange(60) % 2 * (2**32 + 5), ("0", str(2**32 + 5))),
        (np.array(["cat", "dog"] * 30), ("cat", "dog")),
        (np.array([b"cat", b"dog"] * 30), ("cat", "dog")),
        ((np.arange(60) % 2)[:, None], ("0", "1")),
        (np.arange(60) % 2 == 0, ("False", "True")),
        (np.eye(4)[np.arange(60) % 4], ("0", "1", "2", "3")),
        ((np.arange(60) % 2).astype(np.float64), ("0", "1")),
        (np.array([f"class {i}" for i in (2, 10, 1)] * 20), ("class 1", "class 2", "class 10")),
    ],
    ids=[
        "from 1",
        "void 255",
        "20000",
        "beyond 32 bits",
        "text",
        "bytes",
        "column",
        "bool",
        "one-hot",
        "float",
        "natural",
    ],
)
def test_only_classes_that_occur_are_counted_and_named_in_natural_order(tmp_path, labels, names):
    np.savez(tmp_path / "a.npz", images=GREYS, labels=labels)
    dataset = load(tmp_path / "a.npz")
    assert dataset.names == names
    assert dataset.num_classes == len(names)
    numbers = np.concatenate([s.labels for s in (dataset.train, dataset.validation, dataset.test)])
    assert set(numbers.tolist()) == set(range(len(names)))


def test_labels_of_a_npy_file_are_in_another(tmp_path):
    labels = np.arange(60) % 3
    np.save(tmp_path / "a.npy", GREYS)
    np.save(tmp_path / "y.npy", labels)
    dataset = load(tmp_path / "a.npy", labels=tmp_path / "y.npy")
    assert_holds(dataset, GREYS[..., None], labels)


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
    ids=["Keras", "MedMNIST"],
)
def test_the_splits_of_known_files_are_theirs(tmp_path, keys):
    labels = np.arange(60)[:, None] % 3
    values = (GREYS[:45], labels[:45], GREYS[45:], labels[45:])
    np.savez(tmp_path / "a.npz", **dict(zip(keys, values, strict=True)))
    dataset = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.asarray(dataset.test.images)[..., 0], GREYS[45:])
    np.testing.assert_array_equal(dataset.test.labels, labels[45:, 0])
    assert len(dataset.train.labels) + len(dataset.validation.labels) == 45


def test_a_pickled_array_elsewhere_does_no_harm(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREYS, meta=np.array([{"a": 1}]))
    assert_holds(load(tmp_path / "a.npz"), GREYS[..., None], np.full(60, -1))


# Mistakes


def with_nan(at):
    images = GREYS / 255
    images[at, 2, 1] = np.nan
    return images


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (with_nan(55), "NaN in 1 of its images from number 55 on"),
        (GREYS.astype(float), r"values from 0 to 255: scale them to \[0, 1\]"),
        (GREYS.astype(int) - 1, r"values from -1 to \d+: scale them to \[0, 255\]"),
        (GREYS.astype(int) * 1000, r"values from 0 to 255000: scale them to \[0, 255\]"),
        (GREYS.astype(complex), "holds complex128"),
        (GREYS[0], r"shape \(5, 4\): images are \[N, H, W\]"),
        (COLOURS[..., :2], r"shape \(60, 5, 4, 2\): .* with 1 or 3 channels"),
        (GREYS[:19], "19 images: 20 are the least"),
        (GREYS[:0], "is empty"),
        (np.asfortranarray(GREYS), "Fortran"),
        (np.array([{}] * 60), "cannot be read"),
    ],
)
def test_an_array_that_cannot_be_used(tmp_path, images, said):
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(DataError, match=said) as raised:
        load(tmp_path / "a.npy")
    assert "\n" not in str(raised.value)
    assert "a.npy" in str(raised.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": GREYS, "labels": np.zeros(59, int)}, r"labels of shape \(59,\) for 60 images"),
        ({"images": GREYS, "labels": np.full(60, 0.5)}, r"is float64 of shape \(60,\)"),
        ({"pixels": GREYS, "kind": np.zeros(60, int)}, "has the arrays pixels, kind: choose"),
        ({"images": with_nan(3)}, "NaN in 1 of its images from number 3 on"),
        ({"images": np.array([{}] * 60)}, "cannot be read"),
    ],
)
def test_a_npz_file_that_cannot_be_used(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=said):
        load(tmp_path / "a.npz")


def test_a_key_that_is_not_there_is_named_with_those_that_are(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREYS, labels=np.zeros(60, int))
    with pytest.raises(DataError, match="has no array 'lables' but images, labels"):
        load(tmp_path / "a.npz", labels_key="lables")


def test_files_that_cannot_be_read(tmp_path):
    for name, content in (
        ("a.npy", b"not an array"),
        ("b.npz", b"no"),
        ("c.txt", b""),
        ("d.npy", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} (cannot be read|is no \.npy or \.npz file)"):
            load(tmp_path / name)
    with pytest.raises(DataError, match=r"nowhere does not exist: name an array"):
        load(tmp_path / "nowhere")
    np.save(tmp_path / "e.npy", GREYS)
    with pytest.raises(
        UsageError, match=r"--image-size is 4 and .*e\.npy is an array: leave it out"
    ):
        load(tmp_path / "e.npy", image_size=4)


# Missing pixels

HOLES = np.random.default_rng(2).random(GREYS.shape) < 0.3


def in_turn(dataset):
    splits = dataset.train, dataset.validation, dataset.test
    images = np.concatenate([np.asarray(split.images) for split in splits])
    return images[np.argsort(np.concatenate([dataset.places[n] for n in PARTS]))]


PARTS = "train", "validation", "test"


def test_missing_pixels_are_nan_and_the_rest_is_as_it_was(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREYS, observed=~HOLES)
    found = load(tmp_path / "a.npz")
    expected = np.where(HOLES, np.float32(np.nan), GREYS / np.float32(255))[..., None]
    np.testing.assert_array_equal(in_turn(found), expected)
    assert (found.missing, found.binary) == (True, False)
    assert any(f"missing: {HOLES.mean():.1%} of all" in note for note in found.notes)
    assert not any("not read" in note for note in found.notes)
    # What stands behind the mask, NaN too, is nothing; the mask itself is something.
    np.savez(tmp_path / "b.npz", images=np.where(HOLES, np.uint8(7), GREYS), observed=~HOLES)
    assert load(tmp_path / "b.npz").digest == found.digest
    np.savez(tmp_path / "c.npz", images=np.where(HOLES, np.nan, GREYS / 255), observed=~HOLES)
    np.testing.assert_allclose(in_turn(load(tmp_path / "c.npz")), expected, rtol=1e-6)
    np.savez(tmp_path / "d.npz", images=GREYS * ~HOLES)
    assert load(tmp_path / "d.npz").digest != found.digest
    assert not load(tmp_path / "d.npz").missing


def test_a_test_set_may_be_whole(tmp_path):
    of = {"x_train": GREYS[:40], "observed_train": ~HOLES[:40], "x_test": GREYS[40:]}
    np.savez(tmp_path / "a.npz", **of)
    found = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.test.images, (GREYS[40:] / np.float32(255))[..., None])
    assert np.isnan(found.train.images).any()
    assert found.missing
    binary = {**of, "x_train": GREYS[:40] > 99, "x_test": GREYS[40:] > 99}
    np.savez(tmp_path / "b.npz", **binary)
    found = load(tmp_path / "b.npz")
    assert found.binary
    values = found.train.images[~np.isnan(found.train.images)]
    assert set(values.tolist()) == {0.0, 1.0}
    # Of colours one mask may be for all channels.
    np.savez(tmp_path / "c.npz", images=COLOURS, observed=~HOLES)
    holes = np.isnan(in_turn(load(tmp_path / "c.npz")))
    np.testing.assert_array_equal(holes, np.broadcast_to(HOLES[..., None], COLOURS.shape))
    for wrong, said in (
        (HOLES.astype(int), r"'observed', is int64 of shape \(60, 5, 4\): give bool"),
        (HOLES[:9], r"is bool of shape \(9, 5, 4\): give bool of the images' shape, \(60, 5, 4\)"),
        (HOLES & False, "has no True: nothing is known of the images"),
    ):
        np.savez(tmp_path / "wrong.npz", images=GREYS, observed=wrong)
        with pytest.raises(DataError, match=said):
            load(tmp_path / "wrong.npz")
    np.save(tmp_path / "nan.npy", with_nan(3))
    with pytest.raises(DataError, match=r"leave them out, or save a .npz with an array `observed`"):
        load(tmp_path / "nan.npy")
