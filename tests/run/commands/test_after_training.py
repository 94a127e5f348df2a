"""What a trained model is for, from a shell: each file is read back by a program not ours."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.run.commands.after import every_name, of_command, read
from vae_jax import run
from vae_jax.run import card, data, folder, keys, measure
from vae_jax.run.commands import (
    compare,
    diagnose,
    embed,
    generate,
    interpolate,
    reconstruct,
    score,
    traverse,
)
from vae_jax.run.errors import RunError

pytestmark = pytest.mark.usefixtures("one_program_for_all")


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
