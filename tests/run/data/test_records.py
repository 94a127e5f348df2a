"""Folders of ArrayRecord files: what was written is what is read, and mistakes are one line."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from vae_jax.run import data, extras, options
from vae_jax.run.data import records
from vae_jax.run.errors import DataError, RunError, UsageError

array_record = pytest.importorskip("array_record.python.array_record_module")

IMAGES = np.random.default_rng(0).integers(256, size=(60, 4, 5), dtype=np.uint8)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write(path, contents):
    writer = array_record.ArrayRecordWriter(str(path), "group_size:1")
    for content in contents:
        writer.write(content)
    writer.close()


def example(image, label=None, name="image"):
    pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.proto import tf_example_pb2

    found = tf_example_pb2.Example()
    found.features.feature[name].bytes_list.value.append(encoded(image))
    if isinstance(label, str):
        found.features.feature["label"].bytes_list.value.append(label.encode())
    elif label is not None:
        found.features.feature["label"].int64_list.value.append(label)
    return found.SerializeToString()


def load(folder, **chosen):
    return data.load(options.OwnData(str(folder), **chosen))


def by_place(dataset):
    parts = ("train", "validation", "test")
    images = [np.asarray(getattr(dataset, part).images) for part in parts]
    labels = [getattr(dataset, part).labels for part in parts]
    places = np.concatenate([dataset.places[part] for part in parts]).tolist()
    both = zip(np.concatenate(images)[..., 0], np.concatenate(labels), strict=True)
    return dict(zip(places, both, strict=True))


def test_pictures_of_several_files_are_read(tmp_path):
    names = "a.array_record-00000-of-00002", "a.array_record-00001-of-00002"
    for name, part in zip(names, (IMAGES[:25], IMAGES[25:]), strict=True):
        write(tmp_path / name, map(encoded, part))
    found = load(tmp_path)
    assert (found.image_shape, found.num_images, found.num_classes) == ((4, 5, 1), 60, 0)
    images = by_place(found)
    for i, image in enumerate(IMAGES):
        np.testing.assert_array_equal(images[f"{names[i >= 25]}:{i - 25 * (i >= 25)}"][0], image)
    # As a folder of the same pictures has it.
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i:02d}.png")
    assert load(tmp_path / "pictures").digest == found.digest
    assert load(tmp_path, image_size=3).image_shape == (3, 3, 1)


def test_examples_have_labels_and_files_are_splits(tmp_path):
    names = [("cat", "dog")[i % 2] for i in range(60)]
    made = [example(*of) for of in zip(IMAGES, names, strict=True)]
    write(tmp_path / "pets-train.array_record-00000-of-00001", made[:40])
    write(tmp_path / "pets-test.array_record-00000-of-00001", made[40:])
    found = load(tmp_path)
    assert found.names == ("cat", "dog")
    np.testing.assert_array_equal(found.test.images[..., 0], IMAGES[40:])
    for place, (image, label) in by_place(found).items():
        row = int(place.rpartition(":")[2]) + 40 * ("test" in place)
        np.testing.assert_array_equal(image, IMAGES[row])
        assert found.names[label] == names[row]
    numbered = records._of_example(example(IMAGES[0], 7, "image/encoded"), "it")
    assert numbered == (encoded(IMAGES[0]), 7)
    with pytest.raises(UsageError, match="is of ArrayRecord files: leave it out"):
        load(tmp_path, test=tmp_path)


def test_what_is_no_picture_is_one_line(tmp_path, monkeypatch):
    for name, contents, message in (
        ("picture", [encoded(IMAGES[0]), b"none"], r"record 1, is no picture that Pillow can read"),
        ("example", [b"\nnone"], r"record 0, is neither an encoded picture nor a tf.train.Exampl"),
        ("feature", [example(IMAGES[0], 1, "pixels")], r"record 0, has the features label, pixels"),
    ):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.array_record", contents)
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.array_record").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"a.array_record cannot be read"):
        load(tmp_path / "torn")
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=r'array_record is not installed: pip install "vae_jax\[tf'):
        load(tmp_path / "torn")


def test_a_record_is_read_in_another_process_too(tmp_path):
    write(tmp_path / "a.array_record", map(encoded, IMAGES))
    again = pickle.loads(pickle.dumps(records.Record(tmp_path / "a.array_record", 3)))
    assert again.read_bytes() == encoded(IMAGES[3])
