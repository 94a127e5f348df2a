"""Runs on sequences: the models that they are of, and their commands from train to impute."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax.run import folder, loaded_examples, scores, sequence_options, sequences
from vae_jax.run.commands import evaluate, generate, impute, train
from vae_jax.run.errors import DataError, UsageError

relax = pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")


def waves(num=80):
    """Two numbers a step on other scales, 6 to 12 steps, a tenth missing."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(num):
        time = 0.7 * np.arange(rng.integers(6, 13)) + rng.uniform(0, 6)
        wave = np.stack([10 + np.sin(time), 1000 * np.cos(time)], axis=1).round(3)
        wave[rng.random(wave.shape) < 0.1] = np.nan
        found.append(wave)
    return found


def write(path, found):
    plain = [[[None if np.isnan(v) else float(v) for v in step] for step in one] for one in found]
    path.write_text("".join(json.dumps(one) + "\n" for one in plain))
    return path


def config_of(latents, likelihood, **more):
    model = {"latents": latents, "latent_dim": 3, "hidden": [4]}
    of = {"length": 6, "likelihood": likelihood, "centre": [0.5, 0.25], "spread": [1.0, 1.0]}
    return {**of, "options": {"model": model}, **more}


def test_padding_changes_nothing_in_a_recurrent_vae():
    """Of a short sequence in a padded batch, against the sequence by itself."""
    x = jnp.asarray(np.random.default_rng(0).integers(2, size=(2, 6, 2)), jnp.float32)
    x = x.at[1, 4:].set(jnp.nan).at[0, 2, 1].set(jnp.nan)
    padded, alone = (
        sequences.make_model(config_of("recurrent", "bernoulli", length=length))
        for length in (6, 4)
    )
    params = padded.init(jax.random.key(0), x)
    z = jax.random.normal(jax.random.key(1), (1, 3))

    def bound(model, params, x):
        likelihood = model.decode(params, z)
        return vae_jax.elbo(x, z, model.encode(params, x), model.prior(params), likelihood)

    found, gradient = jax.value_and_grad(lambda p: bound(padded, p, x[1:]).value[0])(params)
    own, gradient_alone = jax.value_and_grad(lambda p: bound(alone, p, x[1:, :4]).value[0])(params)
    np.testing.assert_allclose(found, own, rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (gradient, gradient_alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_numbers_are_seen_standardised_and_come_back_as_they_were():
    found = [np.float32([[1, 200], [3, np.nan]]), np.float32([[5, 400]])]
    scaled = sequences._scaled(np.concatenate(found), "student_t", "here")
    np.testing.assert_allclose(scaled["centre"], [3, 300])
    np.testing.assert_allclose(scaled["spread"], [np.std([1, 3, 5]), 100])
    config = config_of("recurrent", "student_t", length=3, **scaled)
    x = sequences.given([*found], config)[0].image
    assert x.shape == (2, 3, 2)
    np.testing.assert_allclose(np.nanmean(x, axis=(0, 1)), [0, 0], atol=1e-6)
    assert np.isnan(x[1, 1:]).all()
    np.testing.assert_allclose(sequences._as_given(x, config)[0, :2], found[0], rtol=1e-6)


def test_numbers_of_any_size_are_told_apart():
    """Seconds since 1970 and 1e30, whose squares are none of float32's."""
    found = [np.array([[1.7e9 + i, i * 1e30] for i in range(5)])]
    scaled = sequences._scaled(found[0], "student_t", "here")
    x = sequences.given(found, config_of("recurrent", "student_t", length=5, **scaled))[0].image
    of_both = (np.arange(5) - 2) / np.sqrt(2)
    np.testing.assert_allclose(x[0], np.stack([of_both, of_both], axis=1), rtol=1e-6)


def test_the_likelihood_follows_from_the_numbers():
    ones, other = np.float32([[0, 1], [1, np.nan]]), np.float32([[0.5, 1]])
    assert sequences._likelihood("auto", [ones])[0] == "bernoulli"
    assert sequences._likelihood("auto", [ones, other])[0] == "student_t"
    assert sequences._likelihood("normal", [ones])[0] == "normal"
    with pytest.raises(UsageError, match=r"zeros and ones but the sequences hold 0.5"):
        sequences._likelihood("bernoulli", [ones, other])


def test_sequences_unlike_the_runs_are_refused():
    config = config_of("recurrent", "bernoulli")
    for given, message in (
        (np.zeros((7, 2)), "a sequence of 7 steps and the run's longest has 6"),
        (np.zeros((6, 3)), "steps of 3 numbers and the run's have 2"),
        (np.full((6, 2), 2.0), "holds 2 and the run is of zeros and ones"),
    ):
        with pytest.raises(DataError, match=message):
            sequences.given([given], config)
    with pytest.raises(DataError, match="number 2 of every step in here is missing"):
        sequences._scaled(np.float32([[1, np.nan]]), "normal", "here")


def test_few_sequences_are_refused_before_anything_is_made(tmp_path):
    path = write(tmp_path / "few.jsonl", waves(5))
    with pytest.raises(DataError, match="5 sequences"):
        sequences.load(sequence_options.Options(sequence_options.Data(str(path))))


@pytest.mark.long
@relax
@pytest.mark.parametrize("latents", ["state_space", "recurrent"])
def test_a_run_leaves_numbers_pictures_and_sequences(tmp_path, monkeypatch, capsys, latents):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "waves.jsonl", waves())
    small = ("--hidden", "8", "--latent-dim=2", "--num-importance-samples=10", "--batch-size=20")
    train.main(
        ["waves.jsonl", "--output=run", "--epochs=2", f"--latents={latents}", *small],
        "vae-jax train",
    )
    folder.unlock(Path("run"))
    results = json.loads(Path("run/results.json").read_text())
    assert results["likelihood"] == "student_t"
    assert results["latent_dim"] == 2
    for name in "sequences.png", "curves.png", "metrics.jsonl":
        assert (tmp_path / "run" / name).stat().st_size > 0

    generate.main(["run", "--output=new.jsonl", "--num=30"], "vae-jax generate")
    new = [json.loads(line) for line in Path("new.jsonl").read_text().splitlines()]
    assert len(new) == 30
    assert {len(one) for one in new} <= set(range(6, 13))
    assert all(len(step) == 2 for one in new for step in one)

    holes = waves(3)
    holes[0][-2:] = np.nan  # what comes next is to be told
    write(tmp_path / "holes.jsonl", holes)
    impute.main(["run", "holes.jsonl", "--output=full.jsonl", "--num-samples=20"], "vae-jax impute")
    missing = sum(int(np.isnan(one).sum()) for one in holes)
    assert f"{missing} missing values filled" in capsys.readouterr().out
    for line, one in zip(Path("full.jsonl").read_text().splitlines(), holes, strict=True):
        full = np.array(json.loads(line), np.float64)
        assert full.shape == one.shape
        np.testing.assert_allclose(full[~np.isnan(one)], one[~np.isnan(one)], rtol=1e-6)

    evaluate.main(["run", "--num-samples=10"], "vae-jax evaluate")
    again = json.loads(Path("run/evaluation.json").read_text())
    assert again["parameters_sha256"] == results["parameters_sha256"]
    train.main(["--output=run", "--resume", "--epochs=3"], "vae-jax train")
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_codes_of_steps_end_with_their_sequence():
    x = np.full((2, 4, 1), np.nan, np.float32)
    x[0], x[1, 1] = 0, 0  # of 4 steps, and of 2 whose first is missing
    codes = scores.Codes(np.zeros((2, 4, 3)), None, np.zeros((2, 5, 4, 3)))
    found = loaded_examples._within(codes, x)
    for values in found.mean, found.draws[:, 0]:
        assert np.isnan(values).all(axis=-1).tolist() == [[False] * 4, [False, False, True, True]]
