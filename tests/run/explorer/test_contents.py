"""What the page is told, without a run that has learned anything."""

import base64
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vae_jax
from vae_jax.networks import CellLabel
from vae_jax.run import cells, examples, kinds, sequences
from vae_jax.run.data import columns
from vae_jax.run.explorer import cell, contents, heatmap
from vae_jax.run.loaded_examples import TrainedExamples

RNG = np.random.default_rng(0)


def untrained(kind, parts, config):
    model = parts.make_model(config)
    params = jax.jit(model.init)(jax.random.key(0), *parts.example(config))
    # Far from where it starts, so that codes tell something.
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape), params)
    trained = examples.Trained(kinds.KINDS[kind], model, params, 0, None, config)
    return TrainedExamples(trained, None)


def picture_of(told):
    src = told["atlas"]["src"].partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(src))) as picture:
        return np.asarray(picture)


def test_the_genes_that_tell_cells_apart():
    found = RNG.gamma(1.0, 1.0, (20, 50)).astype(np.float32)
    found[:, 7] *= 100
    genes = cell.telling(found)
    assert genes[0] == 7
    assert set(genes) == set(np.argsort(np.log1p(found).std(axis=0))[-30:])
    shown = cell.of_genes(lambda z: z, genes, 50)
    np.testing.assert_array_equal(shown(jnp.asarray(found)), found[:, genes])
    config = {"genes": [f"g{i}" for i in range(60)], "kept": list(range(5, 55))}
    first = cell.columns_of(config, genes, found)[0]
    assert (first["name"], first["high"]) == ("g12", found[:, 7].max())


def test_numbers_by_time_are_a_picture_each_by_its_range():
    x = RNG.normal(size=(9, 12, 2)).astype(np.float32) * np.float32([1, 10])
    x[3, 5:] = np.nan
    low, high = np.nanquantile(x, [0.01, 0.99], axis=(0, 1))
    expected = np.clip((x - low) / (high - low), 0, 1).swapaxes(1, 2)
    expected = np.repeat(expected, 2, axis=1)[..., None]  # three times as wide as high
    np.testing.assert_allclose(heatmap.scaled_by(x)(jnp.asarray(x)), expected, atol=1e-6)
    flat = np.ones((2, 3, 1), np.float32)  # of no range
    assert heatmap.scaled_by(flat)(jnp.asarray(flat)).max() == 0


@pytest.mark.long
def test_of_cells_the_genes_that_differ_most_are_shown():
    num_genes = 40
    batch = columns.Column("batch", "category", "texts", "str", levels=("b0", "b1"))
    config = {
        "dataset": "cells",
        "genes": [f"g{i}" for i in range(50)],
        "kept": list(range(5, 45)),
        "shares": [1 / num_genes] * num_genes,
        "concentrations": [1.0] * num_genes,
        "typical_library": 100.0,
        "conditions": columns.to_json([batch]),
        "options": {
            "model": {
                "likelihood": "zero_inflated_negative_binomial",
                "latent_dim": 2,
                "hidden": [8],
            }
        },
    }
    trained = untrained("counts", cells, config)
    x = RNG.poisson(2.0, (25, num_genes)).astype(np.float32)
    label = CellLabel(x.sum(axis=1), (np.arange(25) % 2).astype(np.float32)[:, None])
    found = contents.of_cells(trained, vae_jax.Batch(x, label), "here", 20)
    told, rows = found.contents, np.arange(20) * 25 // 20
    assert (found.cannot, told["noun"], told["classes"]) == (None, "cell", ["b0", "b1"])
    assert told["told"] == (rows % 2).tolist()
    z = np.asarray(trained.encode(vae_jax.Batch(x, label)).mean[rows], np.float32)
    typical = CellLabel(np.full(20, 100.0, np.float32), label.condition[rows])
    means = np.asarray(trained.model.decode(trained.params, jnp.asarray(z), typical).mean)
    genes = np.argsort(-np.log1p(means).std(axis=0), kind="stable")[:30]
    assert [column["name"] for column in told["columns"]] == [f"g{i + 5}" for i in genes]
    np.testing.assert_allclose(
        [column["high"] for column in told["columns"]], means[:, genes].max(axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        found.decode(z, (rows % 2).astype(np.int32)), means[:, genes], rtol=1e-4
    )
    own = (x / x.sum(axis=1, keepdims=True) * 100)[rows][:, genes]
    np.testing.assert_allclose(np.array(told["rows"], np.float64), own, atol=0.0051)
    assert told["colours"][0]["of"] == (rows % 2).tolist()
    assert len(told["colours"]) == 31


@pytest.mark.long
def test_of_sequences_a_picture_by_time():
    config = {
        "dataset": "waves",
        "length": 12,
        "likelihood": "normal",
        "centre": [0.0, 0.0],
        "spread": [1.0, 1.0],
        "options": {"model": {"latents": "recurrent", "latent_dim": 2, "hidden": [8]}},
    }
    trained = untrained("sequences", sequences, config)
    x = RNG.normal(size=(9, 12, 2)).astype(np.float32) * np.float32([1, 10])
    x[3, 5:] = np.nan
    found = contents.of_sequences(trained, vae_jax.Batch(x), "here", 9)
    told = found.contents
    # Twelve steps of two numbers, each two pixels high.
    assert (told["shape"], told["noun"], told["observed"]) == ([4, 12, 1], "sequence", None)
    low, high = np.nanquantile(x, [0.01, 0.99], axis=(0, 1))

    def picture(x):
        return np.repeat(np.clip((x - low) / (high - low), 0, 1).swapaxes(1, 2), 2, axis=1)

    shown = picture_of(told).reshape(4, 9, 12).swapaxes(0, 1)
    expected = np.where(np.isnan(picture(x)), 0.5, picture(x))
    assert np.abs(shown - 255 * expected).max() <= 1
    z = np.asarray(trained.encode(vae_jax.Batch(x)).mean, np.float32)
    means = np.asarray(trained.model.decode(trained.params, jnp.asarray(z)).mean)
    decoded = found.decode(z, None).reshape(9, 4, 12)
    np.testing.assert_allclose(decoded, picture(means), atol=1e-5)
    assert found.cannot is None  # the recurrent network too
    assert told["decoder"]["size"] == 2


def test_what_is_missing_of_a_picture_is_grey():
    images = np.ones((2, 3, 4, 1), np.float32)
    images[1, :2] = np.nan
    src = contents._atlas(images)["src"]
    with Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) as picture:
        shown = np.asarray(picture)
    expected = np.where(np.isnan(images), 128, 255)[..., 0]  # a cast of NaN warns, and is 0
    np.testing.assert_array_equal(shown, np.concatenate(expected, axis=1))
