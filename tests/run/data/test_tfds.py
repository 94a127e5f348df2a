"""Prepared data sets of TensorFlow Datasets, of which a builder is anything with data sources."""

from types import SimpleNamespace

import numpy as np
import pytest

from vae_jax.run import data
from vae_jax.run.data.dataset import rows_by_position
from vae_jax.run.data.tfds import Prepared
from vae_jax.run.errors import DataError
from vae_jax.run.options import OwnData

GREYS = np.random.default_rng(0).integers(0, 256, (60, 5, 4), np.uint8)


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Loads a set whose examples a function makes."""
    tfds = pytest.importorskip("tensorflow_datasets")

    def load(
        example, *, stream=False, splits=("train", "test"), num=200, by_position=False, **chosen
    ):
        decoded = []

        class Source(list):
            def __getitem__(self, i):
                decoded.append(i)
                return example(i)

        class Builder:
            info = SimpleNamespace(full_name="greys/1.0.0")

            def as_data_source(self, split=None, decoders=None):
                sources = {"train": Source(range(num)), "test": Source(range(30))}
                sources = {name: sources[name] for name in splits}
                return sources if split is None else sources[split]

        monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder())
        own = OwnData("tfds:greys", data_dir=tmp_path, **chosen)
        return data.load(own, stream=stream, by_position=by_position), decoded

    return load


def grey(i):
    return {"image": GREYS[i % len(GREYS)][..., None], "label": i % 2}


@pytest.mark.parametrize("stream", [False, True])
def test_pictures_are_decoded_once_or_when_asked_for(load, stream):
    found, decoded = load(grey, stream=stream, by_position=True)
    assert [len(part.images) for part in found[1:4]] == [180, 20, 30]
    assert isinstance(found.train.images, Prepared) == stream
    rows = np.array([[3, 100], [179, 3]])
    images, labels = found.train.images[rows], found.train.labels[rows]
    before = len(decoded)
    np.testing.assert_array_equal(found.train.images[rows], images)
    assert len(decoded) - before == (rows.size if stream else 0)
    numbers = np.concatenate([rows_by_position(200, "greys")[part] for part in (2, 0)])[rows]
    np.testing.assert_array_equal(images, GREYS[numbers % len(GREYS)][..., None])
    np.testing.assert_array_equal(labels, numbers % 2)
    assert found.names == ("0", "1")


@pytest.mark.parametrize("stream", [False, True])
def test_copies_are_on_one_side_and_each_image_has_its_label(load, stream):
    """Of 60 images there are three or four copies each."""
    found, _ = load(grey, stream=stream)
    np.testing.assert_array_equal(found.test.images, GREYS[:30, ..., None])
    sides = []
    for images, labels in found.train, found.validation:
        which = [int((image[..., 0] == GREYS).all((1, 2)).argmax()) for image in np.asarray(images)]
        assert (labels == np.array(which) % 2).all()
        sides.append(which)
    assert sorted(sides[0] + sides[1]) == sorted(i % 60 for i in range(200))
    assert len(set(sides[0])) > 40
    assert not set(sides[0]) & set(sides[1])


def test_a_set_that_grows_moves_no_test_image_into_training(load):
    many = np.random.default_rng(1).integers(0, 256, (1500, 3, 3), np.uint8)
    before, after = (
        load(lambda i, start=start: {"image": many[start:][i]}, splits=("train",), num=num)[0]
        for start, num in ((300, 1200), (0, 1500))
    )
    test, train = (
        {image.tobytes() for image in split.images} for split in (before.test, after.train)
    )
    assert 80 < len(test) < 160
    assert not test & train
    assert before.digest != after.digest


@pytest.mark.parametrize("stream", [False, True])
def test_zeros_and_ones_are_binary(load, stream):
    found, _ = load(lambda i: {"image": (grey(i)["image"] > 127).astype(np.uint8)}, stream=stream)
    assert found.binary
    assert set(np.unique(np.asarray(found.test.images))) == {0, 255}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool"])
def test_images_of_each_type_are_seen_as_they_are_or_refused_in_a_line(load, dtype, channels):
    """What is transparent lies on white."""
    random = np.random.default_rng(0).integers(0, 256, (200, 5, 4, channels))
    values = (random > 127) if dtype == "bool" else random.astype(dtype)
    seen = random
    if channels == 4:
        alpha = random[..., 3:] / 255
        seen = random[..., :3] * alpha + 255 * (1 - alpha)
    if dtype == "bool":
        seen = 255 * values
    example = lambda i: {"image": values[i % 200]}  # noqa: E731
    if dtype in ("uint16", "float32") or (dtype == "bool" and channels > 1):
        with pytest.raises(DataError) as raised:
            load(example)
        assert "\n" not in str(raised.value)
        return
    found, _ = load(example)
    np.testing.assert_allclose(found.test.images, seen[:30], atol=1.01 * (channels == 4))


def test_texts_are_classes(load):
    found, _ = load(lambda i: {**grey(i), "label": (b"dog", b"cat")[i % 2]})
    assert found.names == ("cat", "dog")


def test_several_labels_are_none(load):
    found, _ = load(lambda i: {**grey(i), "label": np.array([0, 1])})
    assert found.num_classes == 0


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (lambda i: {"text": b"no"}, "has no feature 'image'"),
        (lambda i: {"image": np.zeros((5, 4, 5), np.uint8)}, "no picture that Pillow can read"),
        (lambda i: {"image": np.zeros((5 + i % 2, 4), np.uint8)}, "images of several sizes"),
    ],
)
def test_what_cannot_be_learned_is_one_line(load, example, said):
    with pytest.raises(DataError, match=said) as raised:
        load(example)
    assert "\n" not in str(raised.value)


def test_a_set_without_a_train_split_is_named(load):
    with pytest.raises(DataError, match="has the splits test, and none called train"):
        load(grey, splits=("test",))


def test_a_set_that_is_not_prepared_is_named(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(DataError, match=r"nothing is not prepared as array_record in .*tfds build"):
        data.load(OwnData("tfds:nothing", data_dir=tmp_path))
