"""Drawn images beside real ones, in the space of a classifier: here one whose space is known."""

import types

import jax
import numpy as np
import pytest
import scipy.linalg

import vae_jax
from vae_jax.run import classifier, generated
from vae_jax.run.data import named
from vae_jax.run.data.dataset import Dataset, Split

RNG = np.random.default_rng(0)


def split(num, values=(0, 256)):
    labels = np.arange(num, dtype=np.int32) % 3
    return Split(RNG.integers(*values, (num, 3, 2, 1)).astype(np.uint8), labels)


DATASET = Dataset("tiny", split(90), split(25), split(40), 3, "")


@pytest.fixture
def drawing(monkeypatch):
    """A run that draws greys, what it was asked for, and what a classifier was trained on."""
    asked = []
    pictures = RNG.random((40, 3, 2, 1)).astype(np.float32)

    def generate(num, label, *, seed, progress):
        asked.append((num, label, seed))
        return pictures[:num]

    def train_judge(key, of, num_classes):
        asked.append(of)
        flat = lambda images: images.reshape(len(images), -1)  # noqa: E731
        return classifier.Judge(lambda x: jax.nn.one_hot([0] * len(x), num_classes), flat)

    monkeypatch.setattr(classifier, "train_judge", train_judge)
    monkeypatch.setattr(generated, "_BATCH", 16)
    conditional = types.SimpleNamespace(model=types.SimpleNamespace(conditional=True))
    run = types.SimpleNamespace(generate=generate, options=conditional)
    return run, pictures, asked


def test_the_numbers_are_those_of_as_many_images_of_each_kind(drawing):
    run, pictures, asked = drawing
    found = generated.measure(run, DATASET, 5000, seed=7)
    rows = np.arange(25) * 40 // 25
    judged, (num, label, seed) = asked
    assert (num, seed, found["samples_num"]) == (25, 7, 25)
    np.testing.assert_array_equal(label, DATASET.test.labels[rows])
    np.testing.assert_allclose(judged.images, DATASET.train.images / 255, rtol=1e-6)
    assert found["samples_classifier_test_accuracy"] == (label == 0).mean()
    real = (DATASET.test.images[rows] / 255).reshape(25, -1)
    held_out = (DATASET.validation.images / 255).reshape(25, -1)
    for name, others in ("", pictures[:25].reshape(25, -1)), ("_of_validation", held_out):
        a, b = np.cov(real.T), np.cov(others.T)
        means = np.square(real.mean(axis=0) - others.mean(axis=0)).sum()
        expected = means + np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(a @ b)))
        measured = found[f"samples_frechet_distance{name}"]
        np.testing.assert_allclose(measured, expected, rtol=1e-4)
        shares = vae_jax.precision_and_recall(real, others)
        assert found[f"samples_precision{name}"] == shares.precision
        assert found[f"samples_recall{name}"] == shares.recall
    assert "precision            0." in generated.lines(found)[1]


def test_images_without_a_label_teach_the_classifier_nothing(drawing):
    run, _, asked = drawing
    labels = np.where(np.arange(90) % 2, DATASET.train.labels, -1)
    generated.measure(run, DATASET._replace(train=DATASET.train._replace(labels=labels)), 9, 0)
    assert "samples_absent" in generated.measure(run, DATASET, 9, 0)
    asked.clear()
    generated.measure(run, DATASET._replace(train=DATASET.train._replace(labels=labels)), 25, 0)
    np.testing.assert_array_equal(asked[0].labels, labels[1::2])
    assert len(asked[0].images) == 45


def test_large_images_are_shrunk_by_their_means(drawing, monkeypatch):
    run, _, asked = drawing
    assert generated._shape((64, 64, 3)) == (64, 64, 3)
    assert generated._shape((256, 128, 3)) == (104, 52, 3)
    monkeypatch.setattr(generated, "_MOST_VALUES", 2)
    run.generate = lambda num, *_, **__: np.full((num, 2, 4, 1), 0.5, np.float32)
    halves = np.zeros((40, 2, 4, 1), np.uint8)
    halves[:, :, 2:] = 255
    of = Split(halves, DATASET.test.labels)
    dataset = Dataset("halves", of, of, of, 3, "")
    found = generated.measure(run, dataset, 40, 0)
    assert asked[0].images.shape == (40, 1, 2, 1)
    left, right = asked[0].images[0].ravel()
    assert left < 0.2 < 0.8 < right  # of a triangle over each one's neighbors
    assert "all shrunk to 1 x 2" in found["samples_protocol"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_classes": 0}, "the images have no classes, so no classifier can be trained"),
        ({"num_classes": 1}, "the images have one class"),
        ({"missing": True}, "images have missing pixels"),
        ({"test": split(19)}, "19 test and validation images are too few: 20 or more"),
    ],
)
def test_where_nothing_can_be_measured_it_is_said_why(change, why):
    found = generated.measure(None, DATASET._replace(**change), 5000, 0)
    assert found["samples_absent"].startswith(why)
    assert generated.lines(found) == [f"drawn images are not judged: {found['samples_absent']}"]
    assert generated.lines({}) == []


@pytest.mark.relax("numpy_dtype_promotion")
def test_features_are_what_the_classes_are_told_by():
    """Logits are an affine function of them, which of more images than features is no chance."""
    digits = named.load("digits").train
    judge = classifier.train_judge(jax.random.key(0), digits, 10, num_steps=20)
    images = classifier.unit(jax.numpy.asarray(digits.images[:800]))
    features = np.asarray(judge.features(images), np.float64)
    assert features.shape == (800, 500)
    assert features.min() == 0
    logits = np.log(np.asarray(judge.probabilities(images), np.float64))
    logits -= logits[:, :1]
    ones = np.ones((800, 1))
    fitted = np.linalg.lstsq(np.concatenate([features, ones], axis=1), logits, rcond=None)[0]
    np.testing.assert_allclose(features @ fitted[:-1] + fitted[-1], logits, atol=1e-3)
