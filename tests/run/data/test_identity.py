"""A run belongs to its data: splits follow from content, and other data are refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax import run
from vae_jax.run import data
from vae_jax.run.data.dataset import content_hash
from vae_jax.run.errors import DataError, RunError
from vae_jax.run.options import Data, OwnData

IMAGES = np.random.default_rng(0).integers(0, 256, (900, 4, 4), np.uint8)


def load(path, **chosen):
    return data.load(OwnData(str(path), **chosen))


def members(split):
    return {image.tobytes() for image in np.asarray(split.images)}


def test_data_that_grow_never_move_a_test_image_into_training(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[:600])
    np.save(tmp_path / "b.npy", IMAGES)
    before, after = load(tmp_path / "a.npy"), load(tmp_path / "b.npy")
    assert members(before.test) <= members(after.test)
    assert not members(before.test) & (members(after.train) | members(after.validation))
    assert before.digest != after.digest


def test_exact_copies_are_on_one_side(tmp_path):
    np.save(tmp_path / "a.npy", np.concatenate([IMAGES[:300]] * 3))
    dataset = load(tmp_path / "a.npy")
    train, validation, test = map(members, (dataset.train, dataset.validation, dataset.test))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(dataset.test.labels) == 3 * len(test)


def test_the_shares_are_a_tenth_each(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (20_000, 2, 2), np.uint8)
    np.save(tmp_path / "a.npy", images)
    dataset = load(tmp_path / "a.npy")
    for split in dataset.validation, dataset.test:  # 5 standard deviations of a binomial
        assert abs(len(split.labels) - 2000) < 5 * np.sqrt(20_000 * 0.1 * 0.9)
    assert dataset.num_images == 20_000


def test_the_order_of_the_images_does_not_choose(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "b.npy", IMAGES[::-1])
    one, other = load(tmp_path / "a.npy"), load(tmp_path / "b.npy")
    assert members(one.test) == members(other.test)


def test_a_hash_tells_shape_type_and_values():
    image = np.arange(12, dtype=np.uint8)
    others = [image.reshape(3, 4), image.view(np.int8), image[::-1].copy()]
    assert len({content_hash(i) for i in (image, *others)}) == 4
    assert content_hash(image) == content_hash(image.copy())


def test_images_in_both_of_a_users_splits_are_said(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES[:100], x_test=IMAGES[70:130])
    notes = load(tmp_path / "a.npz").notes
    assert any("of the 60 test images are in the training set too" in note for note in notes)
    np.savez(tmp_path / "b.npz", x_train=IMAGES[:100], x_test=IMAGES[100:130])
    assert not load(tmp_path / "b.npz").notes


def test_the_test_set_may_lie_elsewhere(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[:100])
    np.save(tmp_path / "b.npy", IMAGES[100:130])
    dataset = load(tmp_path / "a.npy", test=tmp_path / "b.npy")
    np.testing.assert_array_equal(np.asarray(dataset.test.images)[..., 0], IMAGES[100:130])
    np.save(tmp_path / "c.npy", IMAGES[100:130, :3])
    with pytest.raises(DataError, match="has images of"):
        load(tmp_path / "a.npy", test=tmp_path / "c.npy")


def save_labelled(path, images, labels):
    np.savez(path, images=images, labels=labels)
    return path


def of_hashes(images, low, high):
    """The images whose hashes, as fractions, are in [low, high)."""
    return {i.tobytes() for i in images if low <= content_hash(i) / 2**64 < high}


@pytest.mark.parametrize("num_classes", [2, 7, 60])
def test_a_small_set_is_split_by_class(tmp_path, num_classes):
    images, labels = IMAGES[:300], np.arange(300) % num_classes
    dataset = load(save_labelled(tmp_path / "a.npz", images, labels))
    least = (np.bincount(labels) + 5) // 10  # a tenth, to the nearest
    for split in dataset.validation, dataset.test:
        assert (np.bincount(split.labels, minlength=num_classes) >= least).all()
    assert not any("has no image of" in note for note in dataset.notes)
    # Each class has the test images that it would have by their hashes alone, and the next ones.
    hashes = np.array([content_hash(image) for image in images])
    for c in range(num_classes):
        of_class = images[labels == c][np.argsort(hashes[labels == c])]
        num = (dataset.test.labels == c).sum()
        assert num == max(least[c], len(of_hashes(of_class, 0, 0.1)))
        expected = {image.tobytes() for image in of_class[:num]}
        chosen = np.asarray(dataset.test.images)[dataset.test.labels == c]
        assert {image.tobytes() for image in chosen} == expected


def test_a_small_set_may_grow(tmp_path):
    """A hash below 0.1 is in the test set for ever, and none below 0.2 is ever trained on.

    So what filled the test set up goes to validation; to training where its hash is not below 0.2.
    """
    labels = np.arange(900) % 30
    for num in (60, 90, 300, 600, 900):
        dataset = load(save_labelled(tmp_path / f"{num}.npz", IMAGES[:num], labels[:num]))
        assert of_hashes(IMAGES[:num], 0, 0.1) <= members(dataset.test)
        assert not members(dataset.train) & of_hashes(IMAGES, 0, 0.2)


def test_copies_in_a_small_set_are_on_one_side_whatever_their_labels(tmp_path):
    images, labels = np.concatenate([IMAGES[:40]] * 3), np.arange(120) % 7
    dataset = load(save_labelled(tmp_path / "a.npz", images, labels))
    train, validation, test = map(members, (dataset.train, dataset.validation, dataset.test))
    assert not (train & validation) | (train & test) | (validation & test)
    assert len(train | validation | test) == 40


def test_labels_do_not_split_a_large_set(tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (1000, 3, 3), np.uint8)
    labels = np.arange(1000) % 300
    with_labels = load(save_labelled(tmp_path / "a.npz", images, labels))
    for split, low, high in (("test", 0, 0.1), ("validation", 0.1, 0.2), ("train", 0.2, 1)):
        assert members(getattr(with_labels, split)) == of_hashes(images, low, high)


@pytest.mark.parametrize("distinct", [3, 4, 5, 8])
def test_an_empty_tenth_of_few_pictures_takes_the_next_hashes(tmp_path, distinct):
    for seed in range(10):
        images = np.random.default_rng(seed).integers(0, 256, (distinct, 2, 2), np.uint8)
        place = sorted(content_hash(image) / 2**64 for image in images)
        np.save(tmp_path / "a.npy", np.concatenate([images] * 10))
        if place[-2] < 0.1 or place[-1] < 0.2:
            continue  # what is of the test set by its hash stays there
        dataset = load(tmp_path / "a.npy")
        train, validation, test = map(members, (dataset.train, dataset.validation, dataset.test))
        assert len(train) + len(validation) + len(test) == distinct
        assert len(test) == max(1, sum(p < 0.1 for p in place))
        assert validation
        assert train


def test_a_users_own_training_set_is_validated_by_class_too(tmp_path):
    labels = np.arange(60) % 6
    arrays = {"x_train": IMAGES[:60], "y_train": labels, "x_test": IMAGES[60:66]}
    np.savez(tmp_path / "a.npz", **arrays, y_test=np.arange(6))
    dataset = load(tmp_path / "a.npz")
    assert (np.bincount(dataset.validation.labels, minlength=6) >= 1).all()
    assert members(dataset.test) == {image.tobytes() for image in IMAGES[60:66]}


def test_a_split_that_lacks_a_class_is_said(tmp_path):
    labels = np.zeros(100, int)
    labels[0] = 1
    np.savez(tmp_path / "a.npz", images=IMAGES[:100], labels=labels)
    lacking = [n for n in load(tmp_path / "a.npz").notes if n.endswith("has no image of 1")]
    assert len(lacking) == 2


def test_changed_data_are_refused_in_a_line_that_says_what_changed(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[:600])
    before = load(tmp_path / "a.npy")
    config = json.loads(json.dumps({"digest": before.digest, "num_images": before.num_images}))
    chosen = OwnData(str(tmp_path / "a.npy"))
    assert data.load_of_run(config, chosen).digest == before.digest
    np.save(tmp_path / "moved.npy", IMAGES[:600])
    assert data.load_of_run(config, OwnData(str(tmp_path / "moved.npy"))).digest == before.digest
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(DataError, match="900 images where the run saw 600"):
        data.load_of_run(config, chosen)
    np.save(tmp_path / "a.npy", IMAGES[300:])
    with pytest.raises(DataError, match="600 as before, but not the same ones"):
        data.load_of_run(config, chosen)


def test_a_run_of_version_0_1_keeps_its_splits(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    dataset = data.load_of_run({}, OwnData(str(tmp_path / "a.npy")))
    order = np.random.RandomState(0).permutation(900)  # as that version had them
    np.testing.assert_array_equal(np.asarray(dataset.test.images)[..., 0], IMAGES[order[:90]])
    np.testing.assert_array_equal(np.asarray(dataset.train.images)[..., 0], IMAGES[order[180:]])


def test_the_bundled_digits_keep_their_splits_and_have_an_identity():
    digits = data.load(Data("digits"))
    assert [len(s.labels) for s in (digits.train, digits.validation, digits.test)] == [
        1297,
        200,
        300,
    ]
    assert digits.digest == data.load(Data("digits")).digest
    assert digits.names == tuple("0123456789")


@pytest.mark.long
def test_a_checkpoint_copied_into_another_runs_folder_is_refused_where_the_data_differ(
    command, tmp_path
):
    """All that differs are the data: options and arrays are the same."""
    options = ("--hidden=8", "--latent-dim=2", "--epochs=1", "--patience=0", "--accelerator=cpu")
    for name, images in (("a", IMAGES[:300]), ("b", IMAGES[300:600])):
        np.save(tmp_path / f"{name}.npy", images)
        output = tmp_path / name
        process = command(
            "train", f"{output}.npy", *options, "--num-importance-samples=2", f"--output={output}"
        )
        assert process.returncode == 0, process.stderr
    assert command("evaluate", output, "--num-samples=2").returncode == 0
    shutil.rmtree(output / "checkpoints")
    shutil.copytree(tmp_path / "a" / "checkpoints", output / "checkpoints")

    def contents():
        files = (path for path in output.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files}

    before = contents()
    for program, *arguments in (
        ("evaluate", output, "--num-samples=2"),
        ("generate", output, f"--output={tmp_path / 'grid.png'}"),
        ("train", f"{output}.npy", f"--output={output}", "--resume"),
    ):
        process = command(program, *arguments)
        assert process.returncode == 1
        (line,) = process.stderr.splitlines()
        assert "is of a run on other data than config.json is: move it away" in line
    assert contents() == before


@pytest.mark.relax("numpy_dtype_promotion")
def test_a_checkpoint_of_fit_copied_into_another_folder_is_refused_where_the_data_differ(tmp_path):
    def loss(params, key, batch):
        return jnp.square(params - batch).mean(), {}

    def fit(name, x, **options):
        plan = run.Plan(steps=2, batch_size=2, folder=tmp_path / name, **options)
        return run.fit(jax.random.key(0), loss, jnp.zeros(()), optax.sgd(0.1), x, plan)

    x = np.arange(4, dtype=np.float32)
    fit("a", x)
    fit("b", x + 1)
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    with pytest.raises(RunError, match="is of a run on other data"):
        fit("b", x + 1, resume=True)
    assert fit("a", x, resume=True).state.step == 2
