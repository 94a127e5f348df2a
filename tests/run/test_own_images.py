"""Runs on one's own images: names, places and defaults that nobody had to give."""

import contextlib
import dataclasses
import io
import json
import math
import re
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from scipy import special, stats

import vae_jax
from vae_jax import checkpoint
from vae_jax.run import (
    conditional,
    data,
    defaults,
    exported,
    figures,
    images,
    job,
    keys,
    loaded,
    measure,
    model,
    options,
    restore,
    selection,
)
from vae_jax.run import folder as run_folder
from vae_jax.run import pixels as start
from vae_jax.run.commands import diagnose, embed, evaluate, explore, generate, impute, train
from vae_jax.run.data.arrays import Rows
from vae_jax.run.data.dataset import Dataset, Split
from vae_jax.run.errors import DataError, Interrupted, UsageError
from vae_jax.run.pixels import measure_pixels

RANDOM = np.random.default_rng(0)
MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))


def write_pictures(folder, num):
    """Bright cats and dark dogs; the first are the same whatever their number."""
    pictures = np.random.default_rng(1).integers(0, 100, (num, 6, 5), np.uint8)
    for i, picture in enumerate(pictures):
        path = folder / ("cat", "dog")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture + np.uint8(100 * (1 - i % 2))).save(path)
    return folder


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A conditional run on 60 pictures: its folder, theirs, and what it said."""
    base, said = tmp_path_factory.mktemp("pets"), io.StringIO()
    folder, output = write_pictures(base / "pictures", 60), base / "run"
    small = ("--hidden=8", "--latent-dim=2", "--epochs=2", "--num-importance-samples=2")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(conditional.classifier, "train", lambda *_: lambda x: jnp.zeros(len(x), int))
        patch.setattr(conditional, "NUM_GENERATED", 500)
        arguments = ("--conditional", "--num-class-samples=2", f"--output={output}")
        train.main([str(folder), *small, *arguments], "train")
    run_folder.unlock(output)
    return output, folder, said.getvalue()


def read(path):
    return json.loads(path.read_text())


def test_a_run_records_its_data_and_names_its_classes(pets):
    output, folder, said = pets
    found = data.load(options.OwnData(str(folder)))
    config, results = read(output / "config.json"), read(output / "results.json")
    with checkpoint.manager(output / "checkpoints", read_only=True) as checkpoints:
        kept = checkpoint.restore_config(checkpoints)
    assert config["digest"] == results["data_digest"] == kept["digest"] == found.digest
    assert config["classes"] == results["classes"] == ["cat", "dog"]
    assert "\nclasses: cat, dog\n" in said
    assert "batches of 8, as pictures has" in said


def test_a_class_is_asked_for_by_its_name(pets, tmp_path):
    output, picture = pets[0], tmp_path / "grid.png"
    generate.main([str(output), "--label=dog", "--num=4", f"--output={picture}"], "generate")
    trained = restore.restore(output)
    key = keys.of_run(0)["generate"]
    dogs = vae_jax.generate(key, trained.model, trained.params, 4, jnp.int32(1)).mean
    with Image.open(picture) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(figures.grid(dogs, 2)))
    with pytest.raises(UsageError, match="--label is mouse: give one of the classes cat, dog, or"):
        generate.main([str(output), "--label=mouse"], "generate")


def test_a_run_on_whole_images_tells_nothing_of_holes(pets):
    with pytest.raises(UsageError, match="has learned from whole images, and cannot tell what is"):
        impute.main([str(pets[0])], "vae-jax impute")
    with pytest.raises(TypeError, match="has learned from whole images: it tells nothing"):
        loaded.load_images(pets[0]).impute(np.zeros((1, 6, 5, 1)), "cat")


def test_data_that_have_moved_are_found_where_data_says_and_others_are_refused(pets, tmp_path):
    output = pets[0]
    config = read(output / "config.json")
    stored = options.from_json(config["options"])
    moved = options.moved(stored.data, str(write_pictures(tmp_path / "moved", 60)))
    assert data.load_of_run(config, moved).digest == config["digest"]
    options.check_resumed(dataclasses.replace(stored, data=moved), stored)
    grown = options.moved(stored.data, str(write_pictures(tmp_path / "grown", 65)))
    with pytest.raises(DataError, match="65 images where the run saw 60") as raised:
        data.load_of_run(config, grown)
    assert "\n" not in str(raised.value)


def test_a_run_begins_with_anothers_parameters(pets):
    trained = restore.restore(pets[0])
    zeros = jax.tree.map(jnp.zeros_like, trained.params)
    fresh = vae_jax.init_state(jax.random.key(0), zeros, optax.adam(1e-3), average=True)
    state = selection.start_from(pets[0], trained.params, fresh)
    for found in state.params, state.average:
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, trained.params))
    assert state.step == 0
    other = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(3)}, optax.adam(1e-3))
    with pytest.raises(UsageError, match=r"--init-from=.* is of another model: \w.* has shape"):
        selection.start_from(pets[0], trained.params, other)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_while_measuring_says_that_the_training_is_safe(
    pets, tmp_path, monkeypatch, signum
):
    def stop(*_):
        if signum == signal.SIGINT:  # which a shell's background jobs are deaf to
            raise KeyboardInterrupt
        signal.raise_signal(signum)

    run, before = shutil.copytree(pets[0], tmp_path / "run"), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(measure, "measure", stop)
    said = r"the training is done and saved, .*\n  train --output="
    with pytest.raises(Interrupted, match=said) as stopped:
        train.main([f"--output={run}", "--resume"], "train")
    assert stopped.value.signum == signum
    assert signal.getsignal(signal.SIGTERM) == before


# Defaults


def dataset_of(num, name="pets", **changed):
    train = Split(np.zeros((num, 2, 2, 1), np.uint8), np.full(num, -1, np.int32))
    return Dataset(name, train, train, train, 0, name, **changed)


def settled(dataset, own="pets.npy", **training):
    data = options.OwnData(own) if own else options.Data(dataset=dataset.name)
    chosen = options.Options(data=data, training=options.Training(**training))
    return defaults.settled(chosen, dataset, MESH).training


@pytest.mark.parametrize("name", ["pets", "digits", "mnist"])
@pytest.mark.parametrize(("num", "batch_size"), [(100, 16), (1600, 128), (50_000, 128)])
def test_ones_own_images_have_a_budget_of_steps_whatever_their_name(capsys, name, num, batch_size):
    training = settled(dataset_of(num, name), f"{name}.npy")
    steps = num // batch_size
    assert training.batch_size == batch_size
    assert 10_000 <= training.epochs * steps < 10_000 + steps
    assert 1000 <= training.patience * steps < 1000 + steps
    said = f"batches of {batch_size}, as {name} has {num} training images" * (batch_size < 128)
    assert capsys.readouterr().out.strip() == said
    assert settled(dataset_of(num, "digits"), None).epochs == 200
    assert settled(dataset_of(num, "mnist"), None).epochs == 22


def test_a_batch_that_is_asked_for_is_not_made_smaller():
    assert settled(dataset_of(100), batch_size=100).batch_size == 100
    with pytest.raises(UsageError, match="--batch-size is 128 but pets has 100 training examples"):
        settled(dataset_of(100), batch_size=128)


@pytest.mark.parametrize("asked", ["none", "dynamic", "threshold"])
def test_a_file_that_is_called_as_a_named_set_is_binarized_as_asked(asked):
    chosen = options.Options(data=options.OwnData("binarized_mnist.npz", binarization=asked))
    assert defaults.binarization(chosen, dataset_of(100, "binarized_mnist")) == asked
    assert defaults.binarization(chosen, dataset_of(100, binary=True)) == "static"


@pytest.mark.parametrize("before", [2, 6])
def test_another_length_says_what_becomes_of_the_learning_rate(capsys, before):
    """The cosine from the end of the warm-up, a tenth of the steps, to a hundredth of the rate."""
    training = options.Training(epochs=4, batch_size=10, learning_rate=1e-3)
    job._say_longer(training, before, dataset_of(100))

    def rate(step, total):
        done = (step - total / 10) / (total - total / 10)
        return 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * done)) / 2

    at = min(before, 4)
    now, then = rate(10 * at, 40), rate(10 * at, 10 * before)
    said = capsys.readouterr().out
    assert f"end of epoch {at} becomes {now:.1e}, which was to be {then:.1e}" in said
    job._say_longer(training, 4, dataset_of(100))
    assert not capsys.readouterr().out


# The likelihood and the optimizer of greys and colours


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_scale_starts_from_the_data_and_has_its_own_rate(monkeypatch, dtype):
    """Measured a few images at a time, as all at once by NumPy."""
    x = RANDOM.beta(2, 5, (50, 4, 3, 3)) * RANDOM.random((4, 3, 3))
    x = np.uint8(255 * x) if dtype == np.uint8 else np.float32(x)
    values = x / 255 if dtype == np.uint8 else np.float64(x)
    monkeypatch.setattr(start, "_PART", 7 * 36)
    pixels = measure_pixels(x, "none")
    np.testing.assert_allclose(pixels.mean, values.mean(0), rtol=1e-5)
    expected = np.sqrt(np.square(values - values.mean(0)).mean())
    assert pixels.residual == pytest.approx(expected, rel=1e-5)
    assert (pixels.centre, pixels.spread) == pytest.approx((values.mean(), values.std()), rel=1e-5)
    vae = model.make_model(options.Model(hidden=(5,), latent_dim=2), x.shape[1:], "none", pixels, 0)
    params = vae.init(jax.random.key(0), jnp.zeros((1, *x.shape[1:])))
    likelihood = vae.decode(params, jnp.zeros(2))
    assert isinstance(likelihood, vae_jax.Normal)
    np.testing.assert_allclose(likelihood.scale, expected, rtol=1e-5)
    # What Adam moves the parameter by, 0.001 here, the logarithm moves by ten times.
    moved = jax.tree_util.tree_map_with_path(
        lambda path, p: p - 0.001 * ("log_scale" in jax.tree_util.keystr(path)), params
    )
    scale = vae.decode(moved, jnp.zeros(2)).scale
    np.testing.assert_allclose(scale, expected * np.exp(-0.01), rtol=1e-5)


@pytest.mark.parametrize("binarization", ["dynamic", "threshold", "static"])
def test_a_bernoulli_sees_zeros_and_ones_alone(binarization):
    x = RANDOM.integers(0, 256, (20, 3, 3, 1), np.uint8)
    seen = model.observe(binarization, "bernoulli")(jax.random.key(0), jnp.asarray(x))
    assert set(np.unique(seen).tolist()) == {0.0, 1.0}
    pixels = measure_pixels(x, binarization)
    vae = model.make_model(
        options.Model(hidden=(5,), latent_dim=2), (3, 3, 1), binarization, pixels, 0
    )
    params = vae.init(jax.random.key(0), seen[:1])
    assert isinstance(vae.decode(params, jnp.zeros(2)), vae_jax.Bernoulli)


@pytest.mark.relax("numpy_dtype_promotion")
def test_gradients_ten_times_as_long_as_those_before_are_clipped_and_no_others():
    lengths = np.exp(RANDOM.normal(0, 0.5, 120)).astype(np.float32)
    lengths[[10, 100]] = 1000, 5000  # the first within the warm-up of 50 steps
    direction = jnp.asarray([0.6, 0.8])
    clip = model.clip_spikes()
    state, update = clip.init(direction), jax.jit(clip.update)
    average = 0.0
    for i, length in enumerate(lengths):
        found, state = update(direction * length, state)
        most = 10 * np.exp(average / (1 - 0.98**i)) if i >= 50 else np.inf
        if length > most:
            assert i == 100
            np.testing.assert_allclose(found, direction * np.float32(most), rtol=1e-4)
        else:
            np.testing.assert_array_equal(found, direction * length)
        average = 0.98 * average + 0.02 * np.log(min(np.float64(length), most))


# Memory


def test_images_that_are_observed_when_asked_for_are_the_same_in_any_batch(monkeypatch):
    x = RANDOM.integers(0, 256, (30, 4, 4, 1), np.uint8)
    monkeypatch.setattr(measure, "_IN_MEMORY", 0)
    seen = measure.observed(model.observe("dynamic", "bernoulli"), x, "test")
    whole = np.asarray(seen[:])
    assert whole.shape == seen.shape == x.shape
    np.testing.assert_array_equal(seen[np.array([7, 3])], whole[[7, 3]])
    assert set(np.unique(whole)) == {0, 1}
    error = np.sqrt((x / 255 * (1 - x / 255)).sum())
    assert abs(whole.sum() - (x / 255).sum()) < 4 * error
    assert (whole[0] != whole[1]).any()


def test_images_without_a_label_are_dropped_unread(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, RANDOM.integers(0, 256, (40, 4, 4), np.uint8))
    labels = np.arange(40, dtype=np.int32) % 3 - 1
    np.save(tmp_path / "y.npy", labels)
    found = data.load(options.OwnData(str(path), labels=tmp_path / "y.npy"), stream=True)
    kept = conditional.labelled(found)
    assert isinstance(kept.train.images, Rows)
    assert (kept.train.labels >= 0).all()


def test_the_validation_set_is_decoded_in_batches_by_its_pixels(monkeypatch):
    """Of a decoder that ignores z and a posterior that is the prior, no draw changes the mean."""
    x = RANDOM.random((23, 2, 2, 1), np.float32)
    sizes = []

    def encode(params, x, label=None):
        sizes.append(len(x))
        return vae_jax.Normal(jnp.zeros((len(x), 1)), 1.0)

    def decode(params, z, label=None):
        mean = jnp.full((*z.shape[:-1], 2, 2, 1), params)
        return vae_jax.Normal(mean, 1.0, event_ndims=3)

    standard = vae_jax.Normal(jnp.zeros(1), 1.0)
    vae = vae_jax.VAE(None, encode, lambda params, label=None: standard, decode)
    dataset = dataset_of(23)._replace(validation=Split(x, np.full(23, -1, np.int32)))
    of = job.Job(
        options.Options(), dataset, MESH, None, {}, lambda key, x: x, vae, keys.of_run(0), "", 0.0
    )
    monkeypatch.setattr(images, "_VALIDATED_PIXELS", 5 * 4)
    found = images._validation(of)(jnp.float32(0.3))
    expected = -np.square(x.astype(np.float64) - 0.3).sum((1, 2, 3)) / 2 - 2 * np.log(2 * np.pi)
    assert found["elbo"] == pytest.approx(expected.mean(), rel=1e-6)
    assert found["kl"] == 0
    assert max(sizes) <= 5


# After training, of a conditional run


def test_classes_of_ones_own_go_with_codes_and_draws(pets, tmp_path):
    output, folder, _ = pets
    trained = loaded.load_images(output)
    with contextlib.redirect_stdout(io.StringIO()):
        embed.main([str(output), str(folder), f"--output={tmp_path / 'codes.npz'}"], "embed")
        how = ["--label=all", "--num=2", f"--output={tmp_path / 'made.npz'}"]
        generate.main([str(output), *how], "generate")
    with np.load(tmp_path / "codes.npz") as codes:
        assert codes["label"].tolist() == ["cat"] * 30 + ["dog"] * 30
        paths = [folder / name for name in codes["name"].tolist()]
        images = np.stack([np.asarray(Image.open(path)) for path in paths])
        expected = trained.encode(images, codes["label"].tolist()).mean
        np.testing.assert_array_equal(codes["mean"], expected)
        # The label is told to the encoder.
        assert np.abs(trained.encode(images, "cat").mean - expected)[30:].max() > 1e-4
    with np.load(tmp_path / "made.npz") as made:
        assert made["label"].tolist() == ["cat", "cat", "dog", "dog"]
        drawn = trained.generate(4, ["cat", "cat", "dog", "dog"])
        np.testing.assert_allclose(made["images"], 255 * drawn, atol=0.51)


def test_a_conditional_run_is_exported_with_its_label(pets, tmp_path):
    pytest.importorskip("flatbuffers")
    trained = loaded.load_images(pets[0])
    exported.export(trained, tmp_path / "model.stablehlo")
    about = read(tmp_path / "model.json")
    assert [of["name"] for of in about["decoder"]["takes"]] == ["z", "label"]
    assert about["classes"] == ["cat", "dog"]
    file = tmp_path / about["decoder"]["file"]
    decode = jax.export.deserialize(bytearray(file.read_bytes())).call
    z, label = np.ones((3, 2), np.float32), np.array([0, 1, 1], np.int32)
    np.testing.assert_allclose(decode(z, label)["image"], trained.decode(z, label), atol=1e-5)
    with pytest.raises(ValueError, match=r"model.onnx has neither ending"):
        exported.export(trained, "model.onnx")


@pytest.mark.long
@pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")
def test_a_run_is_told_columns_and_pictures_are_asked_for_by_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    level, kind = random.integers(20, 240, 60), random.choice(["row", "column"], 60)
    pictures = np.zeros((60, 4, 4), np.uint8)
    for picture, bright, of in zip(pictures, level, kind, strict=True):
        (picture if of == "row" else picture.T)[1] = bright
    np.savez("bars.npz", images=pictures, level=level, kind=kind)
    small = ("--hidden=8", "--latent-dim=2", "--epochs=2", "--num-importance-samples=2")
    train.main(["bars.npz", "--condition=level,kind", "--output=run", *small], "vae-jax train")
    run_folder.unlock(Path("run"))
    said = capsys.readouterr().out
    for line in "told level: number (from 2", "told kind: category (2 texts)", "log p(x|c)":
        assert line in said
    results = json.loads(Path("run/results.json").read_text())
    assert results["conditions"] == {"level": "number", "kind": "category"}
    assert (results["conditional"], results["prior"]) == (True, "conditional")
    card = re.search(r"```py\n(.*?)```", Path("run/README.md").read_text(), re.DOTALL)[1]
    exec(card.replace("path/of/this/folder", "run"), {"images": pictures[:3]})
    how = ["run", "--condition=level=200,kind=row"]
    generate.main([*how, "--num=9", "--output=made.npz"], "generate")
    with np.load("made.npz") as made:
        assert made["images"].shape == (9, 4, 4, 1)
        assert (set(made["level"]), set(made["kind"])) == ({200}, {"row"})
    generate.main([*how, "--num=9", "--output=made.png"], "generate")
    embed.main(["run", "bars.npz", "--output=codes.npz"], "embed")
    embed.main(["run", "--output=own.npz"], "embed")
    with np.load("codes.npz") as codes, np.load("own.npz") as own:
        # Each place has its own noise within a byte.
        np.testing.assert_allclose(codes["mean"][own["name"]], own["mean"], atol=0.02)
    for arguments, message in (
        (["run", "--label=row"], "--label is row but run is conditional on level, kind: ask for"),
        (["run", "--condition=kind=x"], "has kind=x: give one of column, row"),
        (["run", "--sampler=mixture"], "knows no classes but run is a conditional run"),
    ):
        with pytest.raises(UsageError, match=message):
            generate.main(arguments, "generate")
    train.main(["--output=run", "--resume", "--epochs=3"], "vae-jax train")


def check_imputed(bars, holes, capsys):
    """The commands of a run on bars with holes, and its fills against NumPy's own weighing."""
    np.savez("more.npz", images=bars, observed=~holes & (np.arange(30) > 0)[:, None, None])
    np.savez("whole.npz", images=bars, observed=np.ones_like(holes))
    few = ("--num-samples=20", "--num-draws=2")
    impute.main(["run", "more.npz", "--output=full.npy", *few], "impute")
    impute.main(["run", "more.npz", "--output=full", *few], "impute")
    impute.main(["run", "more.npz", "--output=shown.png", *few], "impute")
    said = capsys.readouterr().out
    assert f"{holes[1:].sum() + 16} of {holes[1:].sum() + 16} missing values filled, in" in said
    shown = np.asarray(Image.open("full_examples.png"))
    np.testing.assert_array_equal(shown, np.asarray(Image.open("shown.png")))
    there = ~holes[1:]
    for end in "", "_1", "_2":
        full = np.load(f"full{end}.npy")[..., 0]
        np.testing.assert_array_equal(full[1:][there], bars[1:][there])
        assert set(np.unique(full)) == {0, 1} if end else ((full >= 0) & (full <= 1)).all()
        files = [np.asarray(Image.open(f"full{end}/{i:05d}.png")) for i in range(30)]
        np.testing.assert_array_equal(files, np.round(255 * full))

    run = loaded.load_images(Path("run"))
    x = np.where(holes, np.nan, bars)[:3, ..., None].astype(np.float32)
    found = run.impute(np.concatenate([x, bars[:1, ..., None]]), num_samples=2_000)
    rng, codes = np.random.default_rng(0), run.encode(x)
    z = codes.mean + codes.scale * rng.normal(size=(4_000, *codes.mean.shape))
    pixels = run.decode(z.reshape(-1, 2)).reshape(4_000, *x.shape).astype(np.float64)
    terms = np.where(np.isnan(x), 0, np.log(np.where(x > 0, pixels, 1 - pixels)))
    log_weights = terms.sum(axis=(2, 3, 4)) + stats.norm.logpdf(z).sum(-1)
    log_weights -= stats.norm.logpdf(z, codes.mean, codes.scale).sum(-1)
    weights = special.softmax(log_weights, axis=0)
    wanted = np.where(np.isnan(x), (weights[..., None, None, None] * pixels).sum(0), x)
    assert found.effective_sample_size.shape == (3,)
    error = 4 / np.sqrt(found.effective_sample_size.min())
    np.testing.assert_allclose(found.filled[:3], wanted, atol=error)
    assert error < 0.3
    np.testing.assert_array_equal(found.filled[3, ..., 0], bars[0])
    with pytest.raises(DataError, match=r"nothing is missing in whole.npz: give a .npz"):
        impute.main(["run", "whole.npz", "--output=other.npz"], "impute")
    with pytest.raises(DataError, match="nothing is missing in the images of what the run has"):
        run.impute(bars[..., None])
    with pytest.raises(UsageError, match=r"--output=full_1 is there and not empty"):
        impute.main(["run", "more.npz", "--output=full_1", *few], "impute")


@pytest.mark.long
@pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")
def test_a_run_learns_from_images_of_which_half_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    bars = np.zeros((120, 4, 4), np.uint8)
    for bar in bars:
        bar[random.integers(4)] = 1
    holes = random.random((100, 4, 4)) < 0.5
    np.savez("holes.npz", x_train=bars[:100], x_test=bars[100:], observed_train=~holes)
    small = ("--hidden=16", "--latent-dim=2", "--epochs=40", "--num-importance-samples=50")
    train.main(["holes.npz", "--output=run", *small], "vae-jax train")
    run_folder.unlock(Path("run"))
    assert f"note: missing: {holes.mean():.1%} of train" in capsys.readouterr().out
    results = json.loads(Path("run/results.json").read_text())
    assert results["likelihood"] == "bernoulli"
    # Of whole images; 16 log 2 know nothing, and log 4 is all that there is to know.
    assert -11.1 < results["test_log_likelihood"] < -np.log(4)
    evaluate.main(["run", "--num-samples=50"], "vae-jax evaluate")
    again = json.loads(Path("run/evaluation.json").read_text())
    assert abs(again["test_log_likelihood"] - results["test_log_likelihood"]) < 0.5
    diagnose.main(["run"], "vae-jax diagnose")
    found = json.loads(Path("run/diagnosis.json").read_text())["findings"]
    assert all(isinstance(of["number"], float) for of in found)  # null of NaN
    assert "underfitting" in [of["name"] for of in found]
    np.savez("more.npz", images=bars[:30], observed=~holes[:30])
    explore.main(["run", "more.npz", "--export=page.html"], "vae-jax explore")
    embed.main(["run", "more.npz", "--output=codes.npz"], "embed")
    with np.load("codes.npz") as codes:
        assert np.isfinite(codes["mean"]).all()
    check_imputed(bars[:30], holes[:30], capsys)
    for option in "--likelihood=sigma_vae", "--prior=vamp":
        arguments = ["holes.npz", option, "--output=other"]
        if "sigma" in option:
            np.savez("greys.npz", images=bars * 99 + 9, observed=random.random(bars.shape) < 0.5)
            arguments[0] = "greys.npz"
        with pytest.raises(UsageError, match=f"{option} wants whole images and some pixels are m"):
            train.main(arguments, "vae-jax train")
