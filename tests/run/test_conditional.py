"""Conditional runs: what is measured of p(x|c), and the commands that take a label."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from PIL import Image

import vae_jax
from vae_jax import run
from vae_jax.run import classifier, conditional, figures, measure, options
from vae_jax.run.commands import evaluate, generate, mnist
from vae_jax.run.commands import train as train_command
from vae_jax.run.data import named
from vae_jax.run.data.dataset import Dataset, Split
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.model import make_model
from vae_jax.run.pixels import Pixels

ROOT = Path(__file__).parents[2]
PIXELS = Pixels(np.full((6, 6, 1), 0.5, np.float32), 1.0, 0.0, 1.0)
CLASSES = "one of the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_log_likelihoods_of_every_class_and_what_is_made_of_them(monkeypatch):
    """Against a model whose p(x|c) is known: z does nothing, x is Bernoulli(logits[c])."""
    num_classes, num_test = 3, 7
    numbers = np.random.default_rng(0)
    logits = numbers.normal(size=(num_classes, 4, 4, 1))

    def decode(params, z, label=None):
        shape = (*z.shape[:-1], 4, 4, 1)
        return vae_jax.Bernoulli(jnp.broadcast_to(params[label], shape), event_ndims=3)

    def standard(shape):
        return vae_jax.Normal(jnp.zeros((*shape, 2)), jnp.ones(()))

    model = vae_jax.VAE(
        init=None,
        encode=lambda params, x, label=None: standard(x.shape[:1]),
        prior=lambda params, label=None: standard(jnp.shape(label)),
        decode=decode,
    )
    images = numbers.integers(0, 2, (num_test, 4, 4, 1), np.uint8) * 255
    x = images.astype(np.float32) / 255
    exact = (x[:, None] * logits - np.logaddexp(0, logits)).sum(axis=(2, 3, 4))
    params = jnp.float32(logits)
    key = jax.random.key(0)
    estimate = conditional.log_likelihoods(key, model, params, jnp.asarray(x), num_classes, 2)
    np.testing.assert_allclose(estimate.value, exact, rtol=1e-5)
    np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-5)

    labels = numbers.integers(0, num_classes, num_test).astype(np.int32)
    training = np.array([0, 1, 1, 2, 2, 2], np.int32)
    dataset = Dataset(
        "tiny",
        Split(np.zeros((6, 4, 4, 1), np.uint8), training),
        Split(images, labels),
        Split(images, labels),
        num_classes,
        "",
    )
    monkeypatch.setattr(
        conditional.classifier, "train", lambda *_: lambda images: jnp.zeros(len(images), int)
    )
    rows = np.arange(num_test)
    one = np.ones(num_test)
    own = vae_jax.Estimate(exact[rows, labels].astype(np.float32), 0.1 * one, one, one)
    fields = conditional.measure(key, model, params, jnp.asarray(x), dataset, own, 2)
    joint = exact + np.log([1 / 6, 2 / 6, 3 / 6])
    marginal = scipy.special.logsumexp(joint, axis=1)
    weight = np.exp(joint[rows, labels] - marginal)
    correct = joint.argmax(axis=1) == labels
    zero, a_third = labels == 0, np.arange(conditional.NUM_GENERATED) % 3 == 0
    expected = {
        "log_likelihood": exact[rows, labels].mean(),
        "log_likelihood_standard_error": 0.1 / np.sqrt(num_test),
        "log_likelihood_standard_error_over_images": scipy.stats.sem(exact[rows, labels]),
        "marginal_log_likelihood": marginal.mean(),
        "marginal_log_likelihood_standard_error_over_images": scipy.stats.sem(marginal),
        "marginal_log_likelihood_standard_error": 0.1 * np.sqrt((weight**2).sum()) / num_test,
        "bayes_accuracy": correct.mean(),
        "bayes_accuracy_standard_error": scipy.stats.sem(correct),
        "classifier_test_accuracy": zero.mean(),
        "classifier_agreement": a_third.mean(),
        "classifier_agreement_standard_error": scipy.stats.sem(a_third),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(fields[f"conditional_{name}"], value, rtol=1e-4, err_msg=name)
    shuffled = fields["conditional_shuffled_log_likelihood"]
    cost = fields["conditional_shuffled_labels_cost"]
    np.testing.assert_allclose(shuffled + cost, expected["log_likelihood"], rtol=1e-5)
    assert cost != 0
    assert fields["conditional_shuffled_log_likelihood_standard_error"] < 1e-5
    said = conditional.summary({**fields, "num_test": num_test}).splitlines()
    over = scipy.stats.sem(marginal)
    of_draws = expected["marginal_log_likelihood_standard_error"]
    assert f"{marginal.mean():9.2f} nats, +- {over:.2f} over 7 images, +- {of_draws:.3f}" in said[1]


@pytest.mark.long
def test_the_classifier_sees_floats_as_it_sees_the_bytes_that_they_are():
    digits = named.load("digits").train
    test = jnp.asarray(digits.images[:50], jnp.float32) / 255
    of_bytes, of_floats = (
        classifier.train_probabilities(jax.random.key(0), Split(images, digits.labels), 10, 20)
        for images in (digits.images, digits.images.astype(np.float32) / 255)
    )
    np.testing.assert_allclose(of_bytes(test), of_floats(test), rtol=1e-4)
    recognised = of_floats(classifier.unit(jnp.asarray(digits.images[:50]))).argmax(axis=1)
    assert (recognised == digits.labels[:50]).mean() > 0.5


def test_rows_without_a_label_are_dropped_from_every_split():
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    split = Split(images, np.array([1, -1, 0, -1], np.int32))
    dataset = Dataset("tiny", split, split, split, 2, "")
    for kept in conditional.labelled(dataset)[1:4]:
        assert kept.images.flatten().tolist() == [0, 2]
        assert kept.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"train split of tiny has the label 1: .* 0 to 0"):
        conditional.labelled(dataset._replace(num_classes=1))
    none = Split(images, np.full(4, -1, np.int32))
    with pytest.raises(DataError, match=r"test split of tiny has no labels: leave --cond"):
        conditional.labelled(dataset._replace(test=none))


def test_a_column_of_the_class_grid_is_one_style():
    model = make_model(
        options.Model(latent_dim=3, hidden=(8,), conditional=True, prior="standard"),
        (6, 6, 1),
        "threshold",
        PIXELS,
        10,
    )
    params = model.init(jax.random.key(0), jnp.ones((1, 6, 6, 1)), jnp.array([0]))
    images = conditional.by_class(jax.random.key(1), model, params, 10, 4)
    z = jax.random.normal(jax.random.key(1), (4, 1, 3))[:, 0]
    for label in range(10):
        row = images[4 * label : 4 * label + 4]
        expected = model.decode(params, z, jnp.int32(label)).mean
        np.testing.assert_allclose(row, expected, atol=1e-6)


# Two devices

TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, optax, vae_jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from vae_jax.run.model import make_model
from vae_jax.run.pixels import Pixels
from vae_jax.run.options import Model

options = Model(network=NETWORK, conditional=True, latent_dim=40, hidden=(8,), channels=(4, 8))
pixels = Pixels(np.full((6, 6, 1), 0.5, np.float32), 1.0, 0.0, 1.0)
model = make_model(options, (6, 6, 1), "threshold", pixels, 10)
params = model.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), jnp.zeros(1, jnp.int32))
loss = vae_jax.make_loss(model, observe=lambda key, image: (image > 127).astype(jnp.float32))
numbers = np.random.default_rng(0)
image, label = numbers.integers(0, 256, (8, 6, 6, 1), np.uint8), np.arange(8, dtype=np.int32)
optimizer = optax.sgd(1e-2)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
results = []
for spec in PartitionSpec(), PartitionSpec("data"):
    state = vae_jax.init_state(jax.random.key(1), params, optimizer)
    state = jax.jit(lambda s: s, out_shardings=NamedSharding(mesh, PartitionSpec()))(state)
    batch = jax.device_put(vae_jax.Batch(image, label), NamedSharding(mesh, spec))
    assert len(batch.label.sharding.device_set) == 2
    results.append(vae_jax.make_train_step(loss, optimizer)(state, batch)[0].params)
for one, two in zip(*map(jax.tree.leaves, results)):
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (params, results[1]))))
"""


@pytest.mark.long
@pytest.mark.parametrize("network", ["mlp", pytest.param("conv", marks=pytest.mark.long)])
def test_a_step_on_two_devices_is_the_step_on_one(network):
    flags = f"--xla_force_host_platform_device_count=2 {os.environ['XLA_FLAGS']}"
    process = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES.replace("NETWORK", repr(network))],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr


# The commands, on scikit-learn's digits


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def train(command, output, *arguments):
    arguments = ("--dataset=digits", "--accelerator=cpu", f"--output={output}", *arguments)
    process = command("mnist", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module")
def standard(command, tmp_path_factory):
    """A run with a standard prior, in which only encoder and decoder see the label."""
    output = tmp_path_factory.mktemp("standard") / "run"
    small = ("--hidden", 200, "--num-importance-samples=20", "--num-class-samples=20")
    return output, train(
        command, output, "--conditional", "--prior=standard", "--epochs=60", *small
    )


@pytest.mark.long
def test_shuffled_labels_cost_a_model_that_uses_them(standard):
    results = standard[1]
    cost = results["conditional_shuffled_labels_cost"]
    assert cost - 4 * results["conditional_shuffled_labels_cost_standard_error"] > 5


@pytest.mark.long
def test_a_label_that_changes_nothing_is_warned_of_with_the_remedy(
    standard, tmp_path, monkeypatch, capsys
):
    """Labels that have nothing to do with their images."""
    assert not any("label" in warning for warning in standard[1]["warnings"])
    monkeypatch.setattr(
        conditional.classifier, "train", lambda *_: lambda images: jnp.zeros(len(images), int)
    )
    monkeypatch.setattr(conditional, "NUM_GENERATED", 500)
    path, output = tmp_path / "a.npz", tmp_path / "run"
    labels = np.random.default_rng(0).integers(0, 2, 400)
    np.savez(path, images=named.load("digits").train.images[:400], labels=labels)
    small = ("--hidden=16", "--epochs=1", "--num-importance-samples=5", "--num-class-samples=5")
    train_command.main([str(path), "--conditional", *small, f"--output={output}"], "train")
    results = json.loads((output / "results.json").read_text())
    (warning,) = (w for w in results["warnings"] if "label" in w)
    assert warning.startswith("the label changes nothing that can be seen: shuffled labels cost")
    assert warning.endswith("train for longer, or leave --conditional out")
    assert f"warning: {warning}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cost", "error", "said"), [(3, 1, 0), (1.9, 1, 1), (-5, 1, 1), (0, 0, 1), (0, np.nan, 1)]
)
def test_what_shuffled_labels_cost_is_judged_by_its_own_error(cost, error, said):
    name = "conditional_shuffled_labels_cost"
    found = conditional.unused_label({name: cost, f"{name}_standard_error": error})
    assert len(found) == said


def test_a_conditional_run_leaves_its_numbers_and_pictures(standard):
    output, results = standard
    assert results["conditional"] is True
    assert results["conditional_log_likelihood"] == results["test_log_likelihood"]
    # p(x) = sum_c p(c) p(x|c) has one term in ten, or more, of p(x|c): the label's share at most.
    counts = np.bincount(named.load("digits").train.labels)
    least = np.log(counts.min() / counts.sum())
    gap = results["conditional_marginal_log_likelihood"] - results["conditional_log_likelihood"]
    assert least < gap < 0
    assert results["conditional_bayes_accuracy"] > 0.8
    assert results["conditional_classifier_agreement"] > 0.8
    assert results["conditional_classifier_test_accuracy"] > 0.95
    names = [name for name in results if f"{name}_standard_error" in results]
    assert len(names) == 8
    for name in names:  # of a share that is 1, as all images may be as asked, it is 0
        error = results[f"{name}_standard_error"]
        assert error == 0 if results[name] == 1 else 0 < error < 5, name
    # Borders of a pixel, images of 8 x 8, enlarged sevenfold.
    assert pixels(output / "samples_by_class.png").shape == (7 * 9 * 10, 7 * 9 * 16)
    assert pixels(output / "style_transfer.png").shape == (7 * 9 * 10, 7 * 9 * 11)
    for name in ("samples_by_class", "style_transfer", "samples", "reconstructions"):
        assert pixels(output / f"{name}.png").std() > 10, f"{name}.png is blank"


@pytest.mark.long
def test_a_run_drops_the_rows_without_a_label(tmp_path, monkeypatch):
    digits = named.load("digits")
    labels = np.where(np.arange(len(digits.train.labels)) % 3, digits.train.labels, -1)
    train = Split(digits.train.images, labels.astype(np.int32))
    monkeypatch.setattr(named, "load", lambda *_, **__: digits._replace(train=train))
    monkeypatch.setattr(
        conditional.classifier, "train", lambda *_: lambda images: jnp.zeros(len(images), int)
    )
    monkeypatch.setattr(conditional, "NUM_GENERATED", 500)
    arguments = ("--epochs=1", "--hidden", "16", "--num-importance-samples=2")
    arguments += ("--num-class-samples=2", f"--output={tmp_path / 'run'}")
    mnist.main(["--dataset=digits", "--conditional", *arguments], "mnist")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["num_train"] == (labels >= 0).sum()
    assert np.isfinite(results["test_elbo"])


@pytest.mark.long
def test_convolutions_with_a_conditional_prior(command, tmp_path):
    small = ("--channels", 8, 16, "--num-importance-samples=4", "--num-class-samples=4")
    results = train(
        command, tmp_path / "run", "--conditional", "--network=conv", "--epochs=15", *small
    )
    assert results["conditional_bayes_accuracy"] > 0.5
    assert results["conditional_shuffled_labels_cost"] > 1


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (("--label=2", "--num=9"), (7 * 9 * 3, 7 * 9 * 3)),
        (("--label=all", "--num=5"), (7 * 9 * 10, 7 * 9 * 5)),
        (("--reconstruct-as=7", "--num=20"), (7 * 9 * 4, 7 * 9 * 16)),
    ],
    ids=["label", "all", "reconstruct"],
)
def test_generate_by_class(command, standard, tmp_path, arguments, shape):
    process = command("generate", standard[0], *arguments, f"--output={tmp_path / 'grid.png'}")
    assert process.returncode == 0, process.stderr
    picture = pixels(tmp_path / "grid.png")
    assert picture[:, -shape[1] :].shape == shape
    assert (picture.shape[1] > shape[1]) == ("--reconstruct-as=7" in arguments)  # names of rows
    assert pixels(tmp_path / "grid.png").std() > 10
    if "--reconstruct-as=7" in arguments:  # of all 300, evenly spaced
        x = measure.observed(vae_jax.binarize, named.load("digits").test.images, "test")
        np.testing.assert_array_equal(
            picture[:63, -shape[1] :], np.asarray(figures.grid(x[: 15 * 16 : 15], 16))[:63]
        )


@pytest.mark.relax("numpy_dtype_promotion")
def test_evaluate_a_conditional_run(standard, monkeypatch, capsys):
    output, results = standard
    hardly = functools.partial(classifier.train_judge, num_steps=200)
    monkeypatch.setattr(classifier, "train_judge", hardly)
    evaluate.main([str(output), "--num-samples=20", "--seed=1"], "evaluate")
    again = json.loads((output / "evaluation.json").read_text())
    assert again["samples_num"] == 200  # as many as validation has
    assert again["samples_classifier_test_accuracy"] > 0.9
    # Real images are nearer, but all lie about where digits do.
    assert again["samples_frechet_distance"] > again["samples_frechet_distance_of_validation"]
    assert again["samples_precision"] > 0.5
    distance = f"{again['samples_frechet_distance']:.2f} of 200 drawn images"
    assert distance in capsys.readouterr().out
    text = (output / "README.md").read_text()
    assert f"{again['samples_recall']:.3g}; of validation images" in text
    assert run.compare([output]).numbers["precision"] == [again["samples_precision"]]
    error = np.hypot(*(r["test_log_likelihood_standard_error"] for r in (results, again)))
    # The same p(x|c) from other draws.
    difference = abs(again["test_log_likelihood"] - results["test_log_likelihood"])
    assert difference < 5 * error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), f"is a conditional run: give --label or --reconstruct-as, {CLASSES}, or --label=all"),
        (("--label=10",), f"--label is 10: give {CLASSES}, or all"),
        (("--label=-1",), f"--label is -1: give {CLASSES}, or all"),
        (("--label=2.5",), f"--label is 2.5: give {CLASSES}, or all"),
        (("--reconstruct-as=all",), f"--reconstruct-as is all: give {CLASSES}"),
        (("--label=2", "--reconstruct-as=7"), "give one of them"),
    ],
)
def test_bad_labels_of_generate(standard, arguments, message):
    with pytest.raises(UsageError) as error:
        generate.main([str(standard[0]), *arguments], "generate")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_that_is_called_all_is_drawn_as_one(tmp_path, monkeypatch, capsys):
    """The user's own name is heard first, and it is said."""
    drawn = []
    monkeypatch.setattr(generate, "draw", lambda *_, every: drawn.append((_[1], every)))
    monkeypatch.setattr("vae_jax.run.restore.restore", lambda run: None)
    monkeypatch.setattr(generate.folder, "save_picture", lambda *_: None)
    for names in ["all", "cat"], ["cat", "dog"]:
        write_config(tmp_path, classes=names, num_classes=2, conditional=True)
        generate.main([str(tmp_path), "--label=all"], "generate")
    assert drawn == [(64, False), (16, True)]
    said = capsys.readouterr().out
    assert said.count("--label=all is the class of that name; samples_by_class.png has every") == 1


def write_config(folder, *, conditional=False, **changed):
    config = {
        "options": options.to_json(options.Options(model=options.Model(conditional=conditional))),
        "dataset": "digits",
        "notice": "",
        "binarization": "dynamic",
        "image_shape": [8, 8, 1],
        "num_classes": 10,
    }
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


def test_label_for_an_unconditional_run(tmp_path):
    write_config(tmp_path)
    with pytest.raises(UsageError, match=r"--label is 2 but .* is an unconditional run"):
        generate.main([str(tmp_path), "--label=2"], "generate")


# Real data, minutes each


@pytest.mark.long
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_real_images(command, shared_data, tmp_path, dataset, network):
    if shared_data is None:
        pytest.skip("no original files beside the repository")
    output = tmp_path / "run"
    process = command(
        "mnist",
        f"--dataset={dataset}",
        f"--data-dir={tmp_path / 'tfds'}",
        f"--manual-dir={shared_data / dataset}",
        f"--network={network}",
        f"--output={output}",
        "--conditional",
        "--epochs=1",
        "--num-importance-samples=10",
        "--num-class-samples=2",
    )
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((output / "results.json").read_text())
    assert results["conditional_shuffled_labels_cost"] > 5
    assert results["conditional_bayes_accuracy"] > (0.8 if dataset == "mnist" else 0.6)
    assert results["conditional_classifier_test_accuracy"] > (0.98 if dataset == "mnist" else 0.85)
