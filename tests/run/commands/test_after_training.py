"""What a trained model is for, from a shell: each file is read back by a program not ours."""

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from vae_jax import run
from vae_jax.run import card, data, folder, keys, loaded, measure, options, output
from vae_jax.run.commands import (
    compare,
    diagnose,
    embed,
    explore,
    export,
    generate,
    interpolate,
    reconstruct,
    score,
    train,
    traverse,
)
from vae_jax.run.data import examples, pictures
from vae_jax.run.errors import DataError, RunError, UsageError
from vae_jax.run.explorer import contents, program

SHAPE = (6, 5, 1)


def write_pictures(place, images, prefix=""):
    for i, image in enumerate(images):
        path = place / ("cat", "dog")[i % 2] / f"{prefix}{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run on sixty pictures, black and white, and their folder."""
    place = tmp_path_factory.mktemp("after")
    # Two kinds, so that there is something to learn.
    on = np.arange(60)[:, None, None] % 2 == (np.arange(30).reshape(6, 5) < 15)
    noise = np.random.default_rng(0).random((60, 6, 5)) < 0.1
    write_pictures(place / "pictures", np.where(on ^ noise, 255, 0).astype(np.uint8))
    small = ("--hidden=8", "--latent-dim=2", "--epochs=40", "--num-importance-samples=2")
    with contextlib.redirect_stdout(io.StringIO()), jax.numpy_dtype_promotion("standard"):
        train.main([str(place / "pictures"), *small, f"--output={place / 'run'}"], "train")
    folder.unlock(place / "run")
    return place / "run", place / "pictures"


@pytest.fixture(scope="session")
def of(trained):
    """The run, loaded once."""
    return run.load(trained[0])


@pytest.fixture(autouse=True)
def one_program_for_all(of, monkeypatch):
    """Commands and Python calls share what is compiled."""
    monkeypatch.setattr(loaded, "load_images", lambda _: of)


def of_command(module, *arguments):
    """What a command says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        module.main(list(map(str, arguments)), module.__name__.rpartition(".")[2])
    return said.getvalue()


def test_the_best_epoch_on_validation_is_what_is_measured_and_loaded(trained, of):
    lines = (trained[0] / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    best = max(rows, key=lambda row: row["validation_elbo"])
    assert of.results["select"] == of.options.run.select == "best"
    assert of.results["selected_epoch"] == best["epoch"]
    assert of.results["selected_validation_elbo"] == best["validation_elbo"]
    assert of.results["last_validation_elbo"] == rows[-1]["validation_elbo"]
    assert (of.results["last_epoch"], of.results["ended_by"]) == (40, "epochs")
    assert of.results["parameters_sha256"] == measure.sha256(of.params)
    # The same draws as after each epoch.
    x = np.asarray(of.data("validation").images)
    key = keys.of_run(0)["validation"]
    observed = measure.observed(of._observe, x, "validation")
    found = measure.validation(of.model, key, observed, None, 99)(of.params)
    np.testing.assert_allclose(found["elbo"], best["validation_elbo"], rtol=1e-5)


def test_a_run_is_looked_over_and_a_program_can_read_what_was_found(
    trained, of, tmp_path, monkeypatch
):
    load, read = data.load_of_run, []
    monkeypatch.setattr(data, "load_of_run", lambda *of: read.append(load(*of)) or read[-1])
    said = of_command(diagnose, trained[0], f"--output={tmp_path / 'found.json'}")
    assert len(read) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["findings"] == [finding._asdict() for finding in of.diagnose()]
    ill = {finding["name"] for finding in found["findings"] if finding["ill"]}
    assert set(found["ill"]) == ill
    (few,) = [f for f in found["findings"] if f["name"].startswith("learning rate too small")]
    rise = np.arange(20) / 20  # a tenth of the steps, and a cosine to a hundredth
    fall = 0.01 + 0.99 * (1 + np.cos(np.pi * np.arange(180) / 180)) / 2
    assert (of.step, of.options.training.learning_rate) == (200, 2e-3)
    np.testing.assert_allclose(few["number"], 2e-3 * (rise.sum() + fall.sum()), rtol=1e-3)
    assert few["ill"] == (few["number"] < few["threshold"])
    for finding in found["findings"]:
        word = {True: "ILL ", False: "fine", None: "?   "}[finding["ill"]]
        assert f"\n{word}  {finding['name']}: {finding['said']}\n" in said
        assert (f"remedy: {finding['remedy']}\n" in said) == bool(finding["ill"])
    judged = [finding for finding in found["findings"] if finding["ill"] is not None]
    assert said.startswith(f"{len(ill) or 'none'} of {len(judged)} illnesses found")


def test_a_run_that_has_not_ended_is_not_looked_over(of, monkeypatch):
    monkeypatch.setattr(of, "results", None)
    with pytest.raises(RunError, match=r"the run has no results\.json, which it leaves at its"):
        of.diagnose()


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_codes_are_the_same_in_every_kind_of_file(trained, of, tmp_path):
    of_run, pictures = trained
    said = of_command(embed, of_run, pictures, f"--output={tmp_path / 'a.npz'}", "--num-draws=3")
    assert f"60 images: {pictures}\n" in said
    names = sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png"))
    with np.load(tmp_path / "a.npz") as arrays:
        codes = dict(arrays)
    assert codes["name"].tolist() == names
    assert codes["label"].tolist() == [name[:3] for name in names]
    assert codes["draws"].shape == (60, 3, 2)
    images = np.stack([np.asarray(Image.open(pictures / name)) for name in names])
    expected = of.encode(images, num_draws=3)
    for name, values in expected._asdict().items():
        np.testing.assert_array_equal(codes[name], values)
    draws = (expected.draws - expected.mean[:, None]) / expected.scale[:, None]
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.std() - 1) < 4 / np.sqrt(2 * draws.size)

    of_command(embed, of_run, pictures, f"--output={tmp_path / 'a.npy'}")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), codes["mean"])
    of_command(embed, of_run, pictures, f"--output={tmp_path / 'a.csv'}", "--num-draws=3")
    rows = read_csv(tmp_path / "a.csv")
    assert [row["name"] for row in rows] == names
    assert [row["row"] for row in rows] == list(map(str, range(60)))
    for i in range(2):
        written = np.array([row[f"scale_{i}"] for row in rows]).astype(np.float32)
        np.testing.assert_array_equal(written, codes["scale"][:, i])
        written = np.array([row[f"draws_2_{i}"] for row in rows]).astype(np.float32)
        np.testing.assert_array_equal(written, codes["draws"][:, 2, i])


def test_codes_in_a_frame(trained, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for name in "codes.csv", "codes.parquet":
        of_command(embed, trained[0], trained[1], f"--output={tmp_path / name}")
    found = pandas.read_parquet(tmp_path / "codes.parquet")
    names = ["row", "name", "label", "mean_0", "mean_1", "scale_0", "scale_1"]
    assert list(found.columns) == names
    of_text = pandas.read_csv(tmp_path / "codes.csv", dtype=dict(found.dtypes[3:]))
    pandas.testing.assert_frame_equal(of_text, found, check_dtype=False)


def test_what_is_left_out_is_the_runs_own_test_set(trained, of, tmp_path):
    """By its names the codes are those of the pictures themselves."""
    of_run, pictures = trained
    of_command(embed, of_run, f"--output={tmp_path / 'test.npz'}")
    of_command(embed, of_run, pictures, f"--output={tmp_path / 'all.npz'}")
    with np.load(tmp_path / "test.npz") as test, np.load(tmp_path / "all.npz") as every:
        rows = [every["name"].tolist().index(name) for name in test["name"].tolist()]
        assert len(rows) == json.loads((of_run / "results.json").read_text())["num_test"]
        np.testing.assert_allclose(test["mean"], every["mean"][rows], rtol=1e-5)
    data = of.data("train")
    assert len(data.images) == len(data.places) == len(data.labels)
    assert not set(data.places.tolist()) & set(map(str, np.array(every_name(pictures))[rows]))


def every_name(pictures):
    return sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png"))


def test_scores_and_which_are_odd(trained, of, tmp_path):
    of_run, pictures = trained
    odd = np.zeros((3, 6, 5), np.uint8)
    odd[:, ::2, ::2] = 255
    images = np.concatenate([read(pictures), odd])
    np.save(tmp_path / "images.npy", images)
    how = ("--num-samples=50", f"--output={tmp_path / 'scores.csv'}")
    said = of_command(score, of_run, tmp_path / "images.npy", *how)
    rows = read_csv(tmp_path / "scores.csv")
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    scores = of.score(images, num_samples=50)
    for name, values in scores._asdict().items():
        np.testing.assert_array_equal(column[name].astype(np.float32), values)
    usual = of.score(of.data("validation").images, num_samples=50).log_likelihood
    distance = np.abs(scores.log_likelihood.astype(np.float64) - usual.mean(dtype=np.float64))
    np.testing.assert_allclose(column["typicality"], distance)
    as_far = np.abs(usual - usual.mean(dtype=np.float64))[:, None] >= distance
    np.testing.assert_allclose(column["p_value"], (1 + as_far.sum(0)) / (1 + len(usual)))
    assert set(np.argsort(-distance)[:3]) == {60, 61, 62}
    assert f"{len(usual)} images of the validation set" in said
    together = run.typicality(scores.log_likelihood, usual).of_all
    assert f"{together:.1f} standard errors" in said
    with Image.open(tmp_path / "scores_oddest.png") as picture:
        first = np.asarray(picture)[9:63:9, 9:54:9]  # each pixel is nine wide, behind a border
        np.testing.assert_array_equal(first, odd[0])

    of_command(score, of_run, tmp_path / "images.npy", *how, "--num-reference=0")
    assert "typicality" not in read_csv(tmp_path / "scores.csv")[0]


def read(pictures):
    return np.stack([np.asarray(Image.open(pictures / name)) for name in every_name(pictures)])


def test_reconstructions_are_files_of_their_names_an_array_or_a_picture(trained, of, tmp_path):
    of_run, pictures = trained
    expected = of.reconstruct(read(pictures))
    as_bytes = np.round(255 * expected).astype(np.uint8)
    of_command(reconstruct, of_run, pictures, f"--output={tmp_path / 'made'}")
    assert every_name(tmp_path / "made") == every_name(pictures)
    np.testing.assert_array_equal(read(tmp_path / "made"), as_bytes[..., 0])
    of_command(reconstruct, of_run, pictures, f"--output={tmp_path / 'made.npz'}")
    with np.load(tmp_path / "made.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], as_bytes)
        assert arrays["name"].tolist() == every_name(pictures)
    of_command(reconstruct, of_run, f"--output={tmp_path / 'made.png'}")
    with Image.open(tmp_path / "made.png") as picture:
        assert picture.mode == "L"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "made.npz", "made.png"]


def test_generated_images_are_files_or_an_array(trained, of, tmp_path):
    of_run, _ = trained
    arguments = (of_run, "--num=7", "--seed=3", "--temperature=0.5")
    of_command(generate, *arguments, f"--output={tmp_path / 'made'}")
    expected = of.generate(7, seed=3, temperature=0.5)
    names = [f"{i:05d}.png" for i in range(7)]
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == names
    found = np.stack([np.asarray(Image.open(tmp_path / "made" / name)) for name in names])
    np.testing.assert_array_equal(found, np.round(255 * expected[..., 0]).astype(np.uint8))
    for name in "made.npy", "made.npz":
        of_command(generate, *arguments, f"--output={tmp_path / name}")
    np.testing.assert_array_equal(np.load(tmp_path / "made.npy")[..., 0], found)
    with np.load(tmp_path / "made.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"][..., 0], found)
    # Codes that are nearer to the middle make pictures that are more alike.
    warm, cold = (of.generate(200, temperature=t).std(0).mean() for t in (1, 0.1))
    assert cold < 0.5 * warm


def test_a_line_between_two_test_images(trained, of, tmp_path):
    of_run, pictures = trained
    test = of.data("test")
    path = pictures / test.places[1]
    of_command(interpolate, of_run, 0, path, "--steps=3", f"--output={tmp_path / 'line.npy'}")
    ends = of.reconstruct(test.images[:2])
    middle = of.decode(of.encode(test.images[:2]).mean.mean(axis=0, keepdims=True))
    expected = np.stack([ends[0], middle[0], ends[1]])
    found = np.load(tmp_path / "line.npy")
    np.testing.assert_allclose(found, 255 * expected, atol=0.51)
    of_command(interpolate, of_run, 0, 1, f"--output={tmp_path / 'line.png'}")
    with Image.open(tmp_path / "line.png") as picture:
        assert picture.size == (9 * 6 * 11, 9 * 7)


def test_what_each_latent_does(trained, of, tmp_path):
    of_run, pictures = trained
    arguments = (of_run, pictures, "--of=2", "--steps=5")
    of_command(traverse, *arguments, f"--output={tmp_path / 'a.npz'}")
    images = read(pictures)
    mean = of.encode(images).mean
    with np.load(tmp_path / "a.npz") as arrays:
        latents, values, made = arrays["latents"], arrays["values"], arrays["images"]
    assert latents.tolist() == [i for i in np.argsort(-mean.var(0)) if mean[:, i].var() > 0.01]
    for latent, along, of_latent in zip(latents, values, made, strict=True):
        changed = np.tile(mean[2], (5, 1))
        changed[:, latent] = along
        np.testing.assert_allclose(of_latent, 255 * of.decode(changed), atol=0.51)
        inner = np.quantile(np.r_[mean[2, latent], mean[:, latent]], [0.01, 0.99])
        np.testing.assert_allclose(along[[0, -1]], inner, rtol=1e-5)
    of_command(traverse, *arguments, f"--output={tmp_path / 'a.png'}")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.height == len(latents) * 9 * 7


def test_runs_side_by_side(trained, tmp_path):
    of_run, _ = trained
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((of_run / "config.json").read_text())
    results = json.loads((of_run / "results.json").read_text())
    config["options"]["training"]["learning_rate"] = 0.5
    folder.write_json(other / "config.json", config)
    folder.write_json(other / "results.json", {**results, "test_log_likelihood": -1.5})
    said = of_command(compare, of_run, other, f"--output={tmp_path / 'both.csv'}")
    first, second = read_csv(tmp_path / "both.csv")
    assert (first["run"], second["run"]) == (str(of_run), str(other))
    assert float(second["learning_rate"]) == 0.5
    assert "latent_dim" not in first
    assert float(first["log_likelihood"]) == results["test_log_likelihood"]
    error = results["test_log_likelihood_standard_error_over_images"]
    assert float(second["log_likelihood_error"]) == error
    assert float(first["minutes"]) == pytest.approx(results["total_seconds"] / 60)
    (line,) = (line for line in said.splitlines() if line.startswith("log_likelihood"))
    assert line.split()[1:] == [
        *(f"{results['test_log_likelihood']:.2f} +- {error:.2f}").split(),
        *(f"-1.50 +- {error:.2f}").split(),
    ]
    assert "note" not in said
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.width > 500
    folder.write_json(other / "config.json", {**config, "digest": "another"})
    (other / "results.json").unlink()
    found = run.compare([of_run, other])
    assert found.numbers["elbo"] == [results["test_elbo"], None]
    assert "no results.json yet" in found.notes[0]
    assert found.notes[1] == "the data are not the same, so nats do not compare"


ALONE = """
import sys
from pathlib import Path

import jax
import numpy as np

given = np.load("given.npz")
made = {}
for name, x in ("encoder", given["x"]), ("decoder", given["z"]):
    file = Path(f"model.{name}.stablehlo")
    for num in 1, len(x):  # any number of examples
        made |= jax.export.deserialize(bytearray(file.read_bytes())).call(x[:num])
np.savez("made.npz", **made)
assert not {"vae_jax", "flax", "optax"} & set(sys.modules)
"""


def test_encoder_and_decoder_run_where_jax_is_alone(trained, of, tmp_path):
    pytest.importorskip("flatbuffers")
    of_run, pictures = trained
    of_command(export, of_run, f"--output={tmp_path / 'model.stablehlo'}")
    x = read(pictures)[:5, ..., None]
    codes = of.encode(x)
    np.savez(tmp_path / "given.npz", x=(x / 255).astype(np.float32), z=codes.mean)
    program = [sys.executable, "-c", ALONE]
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if "site" in p)}
    process = subprocess.run(program, cwd=tmp_path, env=kept, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    with np.load(tmp_path / "made.npz") as made:
        np.testing.assert_allclose(made["mean"], codes.mean, atol=1e-5)
        np.testing.assert_allclose(made["scale"], codes.scale, atol=1e-5)
        np.testing.assert_allclose(made["image"], of.decode(codes.mean), atol=1e-5)
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["encoder"]["takes"] == [
        {"name": "x", "shape": ["n", *SHAPE], "dtype": "float32"},
    ]
    assert about["decoder"]["gives"]["image"]["shape"] == ["n", *SHAPE]


def test_parameters_are_a_file_of_safetensors(trained, of, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    of_run, _ = trained
    of_command(export, of_run, f"--output={tmp_path / 'params.safetensors'}")
    found = safetensors.load_file(tmp_path / "params.safetensors")
    params = of.params
    num = 0
    for name, values in found.items():
        leaf = params
        for part in name.split("."):
            leaf = leaf[part]
        np.testing.assert_array_equal(values, leaf)
        num += 1
    assert num == len(jax.tree.leaves(params))


def test_pictures_of_another_size_and_kind_become_the_runs(trained, tmp_path):
    of_run, _ = trained
    config = json.loads((of_run / "config.json").read_text())
    square = {**config, "image_shape": [4, 4, 3]}
    greys = np.random.default_rng(0).integers(0, 256, (3, 8, 10), np.uint8)
    write_pictures(tmp_path / "greys", greys)
    chosen = options.UsedData(str(tmp_path / "greys"), resize=True)
    found = examples.read(square, chosen)
    assert found.images.shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(found.images[..., 0], found.images[..., 2])
    one = examples.picture(tmp_path / "greys" / "cat" / "00.png", square, resize=True)
    np.testing.assert_array_equal(one, found.images[0])
    with pytest.raises(UsageError, match="but the run's pictures are 6 x 5: leave"):
        examples.read(config, chosen)


def test_splits_of_ones_own(trained, tmp_path):
    of_run, pictures = trained
    config = json.loads((of_run / "config.json").read_text())
    images = read(pictures)
    np.savez(
        tmp_path / "a.npz",
        x_train=images[:50],
        x_test=images[50:],
        y_test=np.arange(10),
        y_train=np.arange(50),
    )
    path = str(tmp_path / "a.npz")
    np.testing.assert_array_equal(
        np.asarray(examples.read(config, options.UsedData(path)).images)[..., 0], images[50:]
    )
    of_train = examples.read(config, options.UsedData(path, split="train"))
    assert len(of_train.images) == 50
    assert of_train.labels.tolist() == list(map(str, range(50)))
    with pytest.raises(UsageError, match=r"--split is validation but .* has train and test"):
        examples.read(config, options.UsedData(path, split="validation"))


def test_of_a_conditional_run_classes_are_the_images_own_or_given(trained, tmp_path):
    config = json.loads((trained[0] / "config.json").read_text())
    config["options"]["model"]["conditional"] = True
    names = ["cat", "dog"]
    images = np.zeros((4, *SHAPE), np.uint8)
    found = examples.Examples(images, np.array(["cat", "", "dog", "cat"]), None, "here")
    kept, labels = examples.with_classes(found, config, names, None)
    assert labels == ["cat", "dog", "cat"]
    assert kept.places.tolist() == [0, 2, 3]
    assert kept.notes == ("1 images without a label are left out",)
    assert examples.with_classes(found, config, names, "dog") == (found, "dog")
    for labels, label, error, said in (
        (None, None, UsageError, "here has no labels: give --label, one of the classes cat, dog"),
        (["cow"] * 4, None, DataError, "here has the class cow, which the run does not know"),
        ([""] * 4, None, UsageError, "no image of here has a label"),
        (["cat"] * 4, "cow", UsageError, "--label is cow: give one of the classes cat, dog"),
    ):
        others = found._replace(labels=None if labels is None else np.array(labels))
        with pytest.raises(error, match=said):
            examples.with_classes(others, config, names, label)


@pytest.mark.parametrize(
    ("module", "arguments", "error", "said"),
    [
        (embed, ["RUN", "--output=a.txt"], UsageError, "has none of the endings .npz, .csv, .parq"),
        (embed, ["RUN", "--output=no/a.npz"], RunError, "make the folder .*no first"),
        (embed, ["RUN", "--num-draws=-1"], UsageError, "--num-draws is -1: it must be 0 or more"),
        (embed, ["RUN", "--num-draws=1", "--output=a.npy"], UsageError, "holds the means alone"),
        (embed, ["RUN", "--label=cat"], UsageError, "--label is cat but the run is unconditional"),
        (embed, ["nothing"], UsageError, "nothing holds no run"),
        (embed, ["RUN", "nothing"], DataError, "nothing does not exist: name an array, a folder"),
        (embed, ["RUN", "other.npy"], DataError, "has images of 3 x 3 x 1 and the run of 6"),
        (embed, ["RUN", "other.npy", "--resize"], UsageError, "--resize is given but other.npy is"),
        (embed, ["RUN", "other.npy", "--split=test"], UsageError, "other.npy has no splits: leave"),
        (embed, ["RUN", "digits"], DataError, "has images of 8 x 8 x 1 and the run of 6"),
        (
            embed,
            ["RUN", "other.npy", "--data=a.npy"],
            UsageError,
            "--data is given but it is of the",
        ),
        (embed, ["RUN", "--labels=a.npy"], UsageError, "--labels is given but the run's own data"),
        (embed, ["RUN", "--data=other.npy"], DataError, "other.npy has 9 images: 20 are the least"),
        (score, ["RUN", "--num-samples=1"], UsageError, "--num-samples is 1: it must be 2 or more"),
        (score, ["RUN", "--num-reference=1"], UsageError, "--num-reference is 1: it must be 2"),
        (score, ["RUN", "--seed=-1"], UsageError, "--seed is -1"),
        (score, ["RUN", "--output=a.npy"], UsageError, "none of the endings .npz, .csv, .pa"),
        (reconstruct, ["RUN", "--output=full"], UsageError, "full is there and not empty"),
        (reconstruct, ["RUN", "--output=."], UsageError, "is there and not empty: name a new"),
        (reconstruct, ["RUN", "--output=a.csv"], UsageError, "has no ending of a picture"),
        (interpolate, ["RUN", "0", "999"], UsageError, "row 999 is not in the test set: give"),
        (interpolate, ["RUN", "0", "no.png"], DataError, "no.png does not exist: name a picture"),
        (interpolate, ["RUN", "0", "1", "--steps=1"], UsageError, "--steps is 1: it must be 2"),
        (interpolate, ["RUN", "0"], UsageError, "Missing from PROG: B"),
        (traverse, ["RUN", "--of=999"], UsageError, "--of is 999: give a row from 0 to"),
        (traverse, ["RUN", "--output=a.npy"], UsageError, "has no ending of a picture"),
        (generate, ["RUN", "--temperature=0"], UsageError, "--temperature is 0.0: it must"),
        (generate, ["RUN", "--output=full"], UsageError, "full is there and not empty"),
        (compare, ["RUN"], UsageError, "nothing to compare: name two runs or more"),
        (compare, ["RUN", "RUN"], UsageError, "is given twice: name it once"),
        (compare, ["RUN", "full"], UsageError, "full holds no run"),
        (export, ["RUN", "--output=model.onnx"], UsageError, "none of the endings .stablehlo"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_loaded(
    trained, tmp_path, monkeypatch, module, arguments, error, said
):
    monkeypatch.chdir(tmp_path)
    np.save("other.npy", np.random.default_rng(0).integers(0, 256, (9, 3, 3), np.uint8))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "digits").mkdir()  # the named set is meant nevertheless
    monkeypatch.setattr(loaded, "load_images", None)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(error, match=said) as raised:
        module.main([str(trained[0]) if a == "RUN" else a for a in arguments], "PROG")
    assert "\n" not in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_images_of_an_array_without_the_columns_that_a_run_is_told(trained):
    config = json.loads((trained[0] / "config.json").read_text())
    config["options"]["data"]["condition"] = "age"
    with pytest.raises(DataError, match=r"a.npy is a .npy file, which has no columns, and the run"):
        examples.read(config, options.UsedData("a.npy"))


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "images.npy"
    path.write_text("before")

    def fail(place):
        with output.pictures(place, (2, *SHAPE)) as out:
            out[0:1] = np.zeros((1, *SHAPE))
            raise KeyError

    for place in path, tmp_path / "new":
        with pytest.raises(KeyError):
            fail(place)
    assert [p.name for p in tmp_path.iterdir()] == ["images.npy"]
    assert path.read_text() == "before"
    # What one that was killed has left is no hindrance.
    (tmp_path / ".new.partial").mkdir()
    with output.pictures(tmp_path / "new", (1, *SHAPE)) as out:
        out[0:1] = np.ones((1, *SHAPE))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["00000.png"]
    with pytest.raises(RunError, match="cannot write"):
        output.write_columns({}, {"a": np.zeros(2)}, path / "a.npy")


def test_files_whose_names_would_fall_together_keep_their_endings():
    assert output._file_names(2, np.array(["a.jpg", "b.png"])) == ["a.png", "b.png"]
    assert output._file_names(2, np.array(["a.jpg", "a.png"])) == ["a.jpg.png", "a.png.png"]
    assert output._file_names(2, np.array([7, 9])) == ["00000.png", "00001.png"]


def test_a_folder_that_does_not_fit_is_read_batch_by_batch(trained, of, monkeypatch):
    """None of its pictures is kept, and the codes are the same."""
    config = json.loads((trained[0] / "config.json").read_text())
    chosen = options.UsedData(str(trained[1]))
    kept = examples.read(config, chosen).images
    monkeypatch.setattr(pictures, "STREAM_BYTES", 0)
    streamed = examples.read(config, chosen).images
    assert isinstance(kept, np.ndarray)
    assert isinstance(streamed, pictures.Pictures)
    np.testing.assert_array_equal(of.encode(streamed).mean, of.encode(kept).mean)


def test_a_page_of_its_own(trained, of, tmp_path):
    """Its codes, its map and its pictures, read as a browser does; it asks nobody for anything."""
    of_run, pictures = trained
    file = tmp_path / "page.html"
    assert "MB\n" in of_command(explore, of_run, pictures, f"--export={file}", "--num=20")
    page = file.read_text()
    assert not re.search(
        r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|https?://(?!www\.w3\.org/)""", page
    )
    assert str(pictures.parent) not in page  # where things lie is nobody's business
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (rules["default-src"], rules["connect-src"]) == ("'none'", "'none'")
    for tag, rule in ("style", "style-src"), ("script", "script-src"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    (told,) = re.findall(r'id="contents">(.*?)</script>', page, re.DOTALL)
    told = json.loads(told)

    def floats(text):
        return np.frombuffer(base64.b64decode(text), "<f4")

    names = sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png"))[::3]
    assert told["names"] == names
    assert [told["colours"][0]["names"][i] for i in told["colours"][0]["of"]] == [
        n[:3] for n in names
    ]
    images = np.stack([np.asarray(Image.open(pictures / name)) for name in names])
    codes = of.encode(images)
    np.testing.assert_array_equal(floats(told["codes"]).reshape(20, 2), codes.mean)
    np.testing.assert_array_equal(floats(told["maps"][0]["xy"]).reshape(20, 2), codes.mean)
    kl = (codes.mean**2 + codes.scale**2 - 1) / 2 - np.log(codes.scale)
    np.testing.assert_allclose(told["cost"], kl.mean(axis=0), atol=1e-4)
    assert set(told["active"]) == set(np.flatnonzero(codes.mean.var(axis=0) > 0.01).tolist())
    atlas = Image.open(io.BytesIO(base64.b64decode(told["atlas"]["src"].partition(",")[2])))
    np.testing.assert_array_equal(np.hsplit(np.asarray(atlas), 20), images)
    assert told["decoder"] is not None


def test_what_is_not_explored(trained, tmp_path):
    said = {
        "--port=65536": "--port is 65536",
        "--export=page.htm": "has none of the endings .html",
        "--num=0": "--num is 0",
    }
    for option, message in said.items():
        with pytest.raises(UsageError, match=message):
            of_command(explore, trained[0], option)
    for kind, what in ("counts", "counts"), ("sequences", "sequences"):
        (tmp_path / "config.json").write_text(json.dumps({**folder.stamp(), "kind": kind}))
        with pytest.raises(
            UsageError, match=f"holds a run on {what}, and explore is for runs on im"
        ):
            of_command(explore, tmp_path)


def test_a_network_that_a_page_cannot_carry(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "MOST_BYTES", 10)
    with pytest.raises(
        RunError, match=r"a page cannot carry .*, as the decoder has arrays of 0 MB"
    ):
        of_command(explore, trained[0], f"--export={tmp_path / 'page.html'}", "--num=5")
    assert not list(tmp_path.iterdir())


def test_latents_of_more_than_two_dimensions_are_seen_by_components(monkeypatch):
    rng = np.random.default_rng(0)
    mean = (rng.normal(size=(40, 3)) * [3, 0.1, 1] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]) + 5
    umap = types.SimpleNamespace(UMAP=lambda **how: PCA(2))  # in its place: it takes a minute
    monkeypatch.setitem(sys.modules, "umap", umap)
    of_components, by_latents, by_umap = contents._maps(mean, np.array([2, 0, 1]))
    assert (by_umap["name"], "directions" in by_umap) == ("UMAP", False)
    xy = np.frombuffer(base64.b64decode(of_components["xy"]), "<f4").reshape(40, 2)
    expected = PCA(2).fit(mean)
    np.testing.assert_allclose(np.abs(xy), np.abs(expected.transform(mean)), atol=1e-4)
    shares = [f"({share:.0%} of variance)" for share in expected.explained_variance_ratio_]
    assert [axis.partition(" (")[2] for axis in of_components["axes"]] == [s[1:] for s in shares]
    xy = np.frombuffer(base64.b64decode(by_latents["xy"]), "<f4").reshape(40, 2)
    np.testing.assert_allclose(xy, mean[:, [2, 0]], rtol=1e-6)


def test_the_card_says_what_the_run_is(trained, tmp_path):
    of_run, _ = trained
    card_of = (of_run / "README.md").read_text()
    results = json.loads((of_run / "results.json").read_text())
    assert card_of.startswith("---\nlicense: unknown\n")
    for said in (
        "| images of training, validation, test | ",
        f"| log p(x) | {results['test_log_likelihood']:.2f} +- ",
        "| height, width, channels | 6 x 5 x 1 |",
        "| classes | cat, dog |",
        "![Draws from the prior](samples.png)",
    ):
        assert said in card_of
    for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", card_of):
        assert (of_run / name).is_file()
    # What its owner makes of it stays; what a name holds is no markup.
    config = json.loads((of_run / "config.json").read_text())
    (tmp_path / "README.md").write_text("mine")
    card.write(tmp_path, config, results)
    assert (tmp_path / "README.md").read_text() == "mine"
    odd = {**results, "dataset": "<script>|[x](y)\n# z"}
    assert r"| data | \<script\>\|\[x\](y) \# z |" in card.text(tmp_path, config, odd)
