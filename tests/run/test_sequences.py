"""Runs on sequences: the models that they are of, and their commands from train to impute."""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax.run import (
    examples,
    folder,
    kinds,
    learn,
    load,
    loaded_examples,
    options,
    scores,
    sequence_options,
    sequences,
    training,
)
from vae_jax.run.commands import evaluate, generate, impute, train
from vae_jax.run.data import stream
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.plan import Plan

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

    def with_gradient(model, x):
        return jax.jit(jax.value_and_grad(lambda p: bound(model, p, x).value[0]))(params)

    found, gradient = with_gradient(padded, x[1:])
    own, gradient_alone = with_gradient(alone, x[1:, :4])
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


def told(num=60):
    """Lines whose level goes with a number and a class beside them, some of which lack one."""
    rng = np.random.default_rng(0)
    return [
        {"id": i, "age": round(float(rng.normal(40, 9)), 1), "site": "ab"[i % 2]}
        | {"walk": (i % 2 + 0.3 * rng.normal(size=rng.integers(3, 7))).round(3).tolist()}
        | ({"age": None} if i == 3 else {})
        for i in range(num)
    ]


def options_of(path, condition, latents="recurrent"):
    data = sequence_options.Data(str(path), condition)
    model = sequence_options.Model(latents=latents, latent_dim=2, hidden=(4,))
    return sequence_options.Options(data, model)


def test_fields_of_the_lines_are_told_and_belong_to_the_data(tmp_path):
    path, lines = tmp_path / "told.jsonl", told()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = sequences.load(options_of(path, "age,site"))
    assert found.said["conditions"] == {"age": "number", "site": "category"}
    sizes = [len(of.image) for of in (found.train, found.validation, found.test)]
    assert sum(sizes) == 59
    assert [of.label.shape for of in (found.train, found.test)] == [(sizes[0], 2), (sizes[2], 2)]
    assert any("1 of 60 sequences lack age or site" in note for note in found.notes)
    # The class of each is its own: the level of its walk goes with it.
    levels = np.nanmean(found.train.image[..., 0], axis=1)
    assert np.corrcoef(levels, found.train.label[:, 1])[0, 1] > 0.9
    ages = np.array([line["age"] for line in lines], np.float64)
    np.testing.assert_allclose(np.std(found.train.label[:, 0]), 1, rtol=0.02)
    assert abs(found.train.label[:, 0]).max() < (np.nanmax(ages) - np.nanmin(ages)) / 5
    lines[0]["site"] = "b"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert sequences.load(options_of(path, "age,site")).digest != found.digest
    plain = sequences.load(options_of(path, None))
    assert plain.train.label is None
    assert "not read: id, age, site; --condition tells the model of them" in plain.notes
    with pytest.raises(DataError, match=r"no column 'sex' to condition on but id, age, site"):
        sequences.load(options_of(path, "sex"))


@pytest.mark.parametrize("latents", ["state_space", "recurrent"])
def test_a_field_changes_encoder_decoder_and_prior(tmp_path, latents):
    path = tmp_path / "told.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in told()))
    chosen = options_of(path, "age,site", latents)
    config = {**sequences.load(chosen).stored, "options": kinds.to_json(chosen)}
    model = sequences.make_model(config)
    items = [{"walk": [0.5, 1.0], "age": 40, "site": site} for site in "ab"]
    x, label = sequences.given(items, config)[0]
    params = jax.jit(model.init)(jax.random.key(0), x, label)
    steps = (6,) if latents == "state_space" else ()
    z = jnp.zeros((5, 2, *steps, 2))  # of each of them, five

    @jax.jit
    def means(label):
        parts = model.encode(params, x, label), model.decode(params, z, label)
        return [part.mean for part in (*parts, model.prior(params, label))]

    younger = label - np.float32([[1, 0]])
    for own, other in zip(means(label), means(younger), strict=True):
        assert (np.abs(own - other).max(axis=-1) > 0).all()
    decoded = np.asarray(means(label)[1])
    assert decoded.shape == (5, 2, *x.shape[1:])
    assert (decoded[:, 0] != decoded[:, 1]).any()
    with pytest.raises(DataError, match="row 1 of what was given has the site c, which the run"):
        sequences.given([{**items[0], "site": "c"}], config)
    with pytest.raises(DataError, match="what was given has no column 'age' to condition on"):
        sequences.given([np.zeros((2, 1))], config)


@pytest.mark.long
@relax
@pytest.mark.parametrize("latents", ["state_space", "recurrent"])
def test_sequences_are_asked_for_by_what_the_run_is_told(tmp_path, monkeypatch, capsys, latents):
    monkeypatch.chdir(tmp_path)
    lines = [line for line in told() if line["age"] is not None]
    lines[0]["walk"][1] = None
    Path("told.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    small = ("--hidden=8", "--latent-dim=2", "--num-importance-samples=5", "--epochs=2")
    of = ("--condition=age,site", f"--latents={latents}", "--output=run")
    train.main(["told.jsonl", *of, *small], "vae-jax train")
    folder.unlock(Path("run"))
    said = capsys.readouterr().out
    assert "told age: number" in said
    assert "log p(x|c)" in said
    generate.main(["run", "--num=9", "--condition=site=b", "--output=new.jsonl"], "generate")
    new = [json.loads(line) for line in Path("new.jsonl").read_text().splitlines()]
    assert {one["site"] for one in new} == {"b"}
    assert {one["age"] for one in new} <= {line["age"] for line in lines}
    assert all(3 <= len(one["sequence"]) <= 6 for one in new)
    impute.main(["run", "told.jsonl", "--output=full.jsonl", "--num-samples=9"], "impute")
    full = [json.loads(line) for line in Path("full.jsonl").read_text().splitlines()]
    assert full[1:] == lines[1:]
    assert full[0] | {"walk": 0} == lines[0] | {"walk": 0}
    assert full[0]["walk"][1] is not None
    (one,) = load("run").generate(1, {"age": 90.0})
    assert (one["age"], one["sequence"].shape[1]) == (90.0, 1)
    assert load("run").score(new, num_samples=5).elbo.shape == (9,)


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
    few = ("--num-samples=20", "--num-draws=1")
    impute.main(["run", "holes.jsonl", "--output=full.jsonl", *few], "vae-jax impute")
    missing = sum(int(np.isnan(one).sum()) for one in holes)
    assert f"{missing} of {missing} missing values filled" in capsys.readouterr().out
    filled, drawn = (Path(name).read_text().splitlines() for name in ("full.jsonl", "full_1.jsonl"))
    assert filled != drawn
    for line, one in zip(filled + drawn, holes * 2, strict=True):
        full = np.array(json.loads(line), np.float64)
        assert full.shape == one.shape
        np.testing.assert_allclose(full[~np.isnan(one)], one[~np.isnan(one)], rtol=1e-6)
    with pytest.raises(DataError, match=r"nothing is missing in full.jsonl of what the run has"):
        impute.main(["run", "full.jsonl", "--output=other.jsonl"], "vae-jax impute")

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


def test_widths_are_few_and_spare_padding():
    lengths = np.random.default_rng(0).integers(1, 100, 900)
    lengths[:60], lengths[0] = 41, 800
    widths = stream.widths_of(lengths, 50)
    assert set(widths) == {100, 800}  # no batch of 101 to 400 steps is full
    assert (widths >= lengths).all()
    assert (widths[lengths <= 100] == 100).all()
    halves = stream.widths_of(np.repeat([3, 5, 10, 20], 99), 9)
    np.testing.assert_array_equal(halves, np.repeat([3, 5, 10, 20], 99))
    assert stream.widths_of(np.full(99, 7), 9) is None
    assert stream.widths_of(np.array([400] * 90 + [50] * 9), 9) is None  # a twentieth is spared


def test_batches_are_of_like_widths_and_of_every_sequence():
    widths = np.random.default_rng(0).choice([4, 8, 16], 50)
    order = np.random.default_rng(1).permutation(50).astype(np.int32)[:48].reshape(6, 8)
    found = stream.by_width(order, widths)
    assert sorted(found.ravel()) == sorted(order.ravel())
    assert sum(len(set(widths[rows])) > 1 for rows in found) <= 2
    x = np.random.default_rng(2).normal(size=(50, 16, 2)).astype(np.float32)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    batch = vae_jax.Batch(x, widths.astype(np.float32))

    def pieces(step):
        return list(stream.in_buckets(batch, widths, lambda e: (found + e) % 50, mesh, step, 3))

    for i, piece in enumerate(pieces(0)):
        rows = (found[i % 6] + i // 6) % 50
        width = widths[rows].max()
        assert (piece.epoch, piece.start, piece.stop) == (i // 6, i % 6, i % 6 + 1)
        np.testing.assert_array_equal(piece.dataset.image[0], x[rows, :width])
        np.testing.assert_array_equal(piece.dataset.label[0], widths[rows])
    for whole, rest in zip(pieces(0)[8:], pieces(8), strict=True):
        assert (whole.epoch, whole.start) == (rest.epoch, rest.start)
        np.testing.assert_array_equal(whole.dataset.image, rest.dataset.image)


def test_fit_cuts_batches_to_their_widths():
    widths = np.repeat([3, 6], 20)
    x = np.where(np.arange(6) < widths[:, None], np.arange(40)[:, None], np.nan)[..., None]

    def loss(params, key, batch):
        width, there = batch.image.shape[1], (~jnp.isnan(batch.image)).mean()
        rows = jnp.nanmax(batch.image, axis=(1, 2)).mean()
        return jnp.square(params).sum(), {"width": jnp.float32(width), "there": there, "row": rows}

    def fitted(data):
        plan = Plan(epochs=2, batch_size=10)
        args = jax.random.key(0), loss, jnp.ones(2), optax.sgd(0.1)
        return training.fit(*args, data, plan, widths=widths)

    for row in fitted(vae_jax.Batch(x.astype(np.float32), None)).rows:
        found = [row[f"train_{name}"] for name in ("width", "there", "row")]
        np.testing.assert_allclose(found, [4.5, 1.0, 19.5], rtol=1e-5)
    with pytest.raises(TypeError, match=r"widths are of a vae_jax.Batch of seq"):
        fitted(x)


@pytest.mark.parametrize(
    "latents", [pytest.param("state_space", marks=pytest.mark.long), "recurrent"]
)
def test_a_batch_that_is_cut_has_the_loss_of_one_that_is_padded(latents):
    x = np.full((4, 9, 2), np.nan, np.float32)
    for i, length in enumerate((2, 3, 4, 4)):
        x[i, :length] = np.random.default_rng(i).integers(2, size=(length, 2))
    config = config_of(latents, "bernoulli", length=9)
    found = examples.Examples("", "", vae_jax.Batch(x), None, None, "", 4, {}, {}, (), ())
    of = learn._Job(
        *(kinds.KINDS["sequences"], None, found, sequences.make_model(config), config),
        *(None, "", 0.0, np.array([4, 4, 9, 9])),
    )
    params = of.model.init(jax.random.key(0), jnp.asarray(x))
    cut = learn._loss(of, options.Objective(kl_warmup=2), 3)
    padded = learn._loss(of._replace(widths=None), options.Objective(kl_warmup=2), 3)
    results = [
        jax.jit(jax.value_and_grad(loss, has_aux=True))(
            params, jax.random.key(1), vae_jax.Batch(x[:, :width]), jnp.int32(1)
        )
        for loss, width in ((cut, 4), (padded, 9))
    ]
    (one, bound), gradient = results[0]
    (other, of_padded), of_whole = results[1]
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(bound.value, of_padded.value, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (gradient, of_whole)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.relax("numpy_dtype_promotion")
def test_steps_on_batches_of_several_widths_are_those_of_sgd(tmp_path):
    """Against NumPy: the mean of what is there, one parameter, whole and stopped in an epoch."""
    rng = np.random.default_rng(0)
    lengths = rng.choice([2, 4, 8], 24)
    x = np.full((24, 8, 1), np.nan, np.float32)
    for row, length in enumerate(lengths):
        x[row, :length] = rng.normal(size=(length, 1))

    def loss(params, key, batch):
        there = ~jnp.isnan(batch.image)
        filled = jnp.where(there, batch.image, params)
        value = jnp.square(filled - params).sum() / 6
        return value, {"elbo": -value}

    def trained(**of):
        state = vae_jax.init_state(jax.random.key(0), jnp.zeros(()), optax.sgd(0.01))
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
        sharding = vae_jax.state_sharding(state, mesh)
        setup = training.Setup(
            loss=loss,
            optimizer=optax.sgd(0.01),
            data=vae_jax.Batch(x),
            sharding=sharding,
            plan=Plan(batch_size=6, folder=tmp_path, mesh=mesh, checkpoint_seconds=0, **of),
            validate=None,
            config={},
            continued_by="",
            start=time.perf_counter(),
            widths=lengths,
        )
        return training.train(setup, jax.device_put(state, sharding), [])

    trained(steps=6)
    found = float(trained(steps=12, resume=True).params)
    value = 0.0
    for epoch in range(3):
        order = vae_jax.shuffle(jax.random.key(0), epoch, num_examples=24, batch_size=6)
        for rows in stream.by_width(np.asarray(order), lengths):
            value -= 0.01 * np.nansum(2 * (value - x[rows].astype(np.float64))) / 6
    np.testing.assert_allclose(found, value, rtol=1e-5)
