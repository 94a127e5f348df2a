"""What a run measures at its end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax.evaluation import batched
from vae_jax.run import cautions, measure
from vae_jax.run.model import make_model
from vae_jax.run.options import Model
from vae_jax.run.pixels import Pixels

PIXELS = Pixels(np.full((6, 6, 1), 0.5, np.float32), 1.0, 0.0, 1.0)


def test_the_hash_tells_parameters_apart():
    params = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    changed = {**params, "b": np.array([1, 1 + 2**-23], np.float32)}
    assert measure.sha256(params) == measure.sha256(dict(reversed(params.items())))
    assert measure.sha256(params) != measure.sha256(changed)


def test_active_units_do_not_count_what_the_label_alone_tells():
    """Posteriors equal to their priors, whose means differ from class to class."""
    model = make_model(
        Model(latent_dim=3, hidden=(8,), conditional=True),
        (6, 6, 1),
        "threshold",
        PIXELS,
        10,
    )
    label, x = jnp.arange(10), jnp.ones((10, 6, 6, 1))
    params = model.init(jax.random.key(0), x, label)
    ignoring = model._replace(encode=lambda params, x, label=None: model.prior(params, label))
    test = measure.measure(jax.random.key(1), ignoring, params, x, label, 2)
    assert test["active_units"] == 0
    assert any(said.startswith("none of the 3 latents is used") for said in test["warnings"])
    assert test["means"].var(axis=0).max() > 0.01
    np.testing.assert_allclose(test["kl_per_dimension"], 0, atol=1e-6)


def linear_gaussian(spread, num=40):
    """x = w z + noise with posteriors `spread` times too wide, and its exact log p(x)."""
    weight, rng = np.array([0.8, -0.5, 0.3, 1.0]), np.random.default_rng(0)
    variance = 1 / (1 + weight @ weight)
    x = rng.multivariate_normal(np.zeros(4), np.outer(weight, weight) + np.eye(4), num)
    row = jnp.asarray(weight, jnp.float32)
    model = vae_jax.VAE(
        None,
        lambda params, x, label=None: vae_jax.Normal(
            params * variance * x.reshape(*x.shape[:-3], 4) @ row[:, None],
            spread * variance**0.5,
        ),
        lambda params, label=None: vae_jax.Normal(jnp.zeros(1), 1.0),
        lambda params, z, label=None: vae_jax.Normal(
            (z @ row[None]).reshape(*z.shape[:-1], 2, 2, 1), 1.0, event_ndims=3
        ),
    )
    exact = stats.multivariate_normal(np.zeros(4), np.outer(weight, weight) + np.eye(4)).logpdf(x)
    return model, jnp.asarray(x.reshape(num, 2, 2, 1), jnp.float32), exact


def test_both_errors_are_told_apart_and_printed():
    model, x, exact = linear_gaussian(1.2)
    test = measure.measure(jax.random.key(0), model, 1.0, x, None, 500)
    assert abs(test["log_likelihood"] - exact.mean()) < 4 * test["log_likelihood_standard_error"]
    assert test["log_likelihood_standard_error_over_images"] == pytest.approx(
        stats.sem(exact), rel=0.02
    )
    assert (
        test["log_likelihood_standard_error_over_images"]
        > 20 * (test["log_likelihood_standard_error"])
    )
    assert test["elbo_standard_error_over_images"] == pytest.approx(stats.sem(exact), rel=0.1)
    assert test["effective_sample_size"] == pytest.approx(
        test["estimate"].effective_sample_size.mean(), rel=1e-6
    )
    assert test["warnings"] == []
    results = {**measure.reported(test), "conditional": False, "num_test": len(x)}
    lines = measure.summary(results).splitlines()
    over = results["test_log_likelihood_standard_error_over_images"]
    assert f"+- {over:.2f} over 40 images" in lines[1]
    assert f"+- {results['test_log_likelihood_standard_error']:.3f} of the 500 draws" in lines[1]
    assert f"+- {results['test_elbo_standard_error_over_images']:.2f} over 40 images" in lines[0]


def test_draws_that_cannot_be_trusted_are_said():
    model, x, exact = linear_gaussian(0.1)  # far too narrow: the weights' variance is infinite
    test = measure.measure(jax.random.key(0), model, 1.0, x, None, 500)
    assert exact.mean() - test["log_likelihood"] > 3 * test["log_likelihood_standard_error"]
    (warning,) = test["warnings"]
    assert "log p(x) may be too low" in warning
    assert "of 500 draws" in warning
    results = {**measure.reported(test), "conditional": False, "num_test": len(x)}
    assert results["warnings"] == [warning]
    assert measure.summary(results).splitlines()[-1] == f"warning: {warning}"


@pytest.mark.parametrize(
    ("nats", "num_levels", "said"),
    [(-544.0, 2, True), (-543.0, 2, False), (-1.0, 1, True), (0.0, 1, False), (-4348, 256, True)],
)
def test_a_model_that_is_worse_than_knowing_nothing_is_said(nats, num_levels, said):
    """A coin a pixel costs 784 log 2 = 543.4 nats, a byte eight times as much."""
    found = cautions.uninformed(nats, (28, 28, 1), num_levels)
    assert ["worse than if it knew nothing" in warning for warning in found] == [True] * said
    nats = {1: "0 nats, a density of 1 on [0, 1]", 2: "-543 nats", 256: "-4347 nats"}[num_levels]
    assert all(f"nothing of them ({nats}): train" in warning for warning in found)


NATS_OF_100_BYTES = {0.0: 8.0, 100 * np.log(256): 0.0, -100 * np.log(2): 9.0}


@pytest.mark.parametrize(("nats", "bits"), NATS_OF_100_BYTES.items())
def test_of_dequantised_bytes_bits_per_dimension_stand_beside_nats(nats, bits):
    """A density of 1 on [0, 1] is 1/256 a byte, 8 bits; each factor of 2 is one bit."""
    images, grey = np.zeros((3, 10, 10, 1), np.uint8), {"binarization": "none", "pixels": {}}
    test = {"log_likelihood": nats, "warnings": ["one"]}
    found = measure.compared(test, grey, images, 1)
    assert found["bits_per_dimension"] == pytest.approx(bits)
    assert len(found["warnings"]) == 1 + (bits > 8)
    # Of the bytes themselves: certainty costs nothing.
    of_bytes = measure.compared(test | {"log_likelihood": -nats}, grey, images, 256)
    assert of_bytes["bits_per_dimension"] == pytest.approx(nats / 100 / np.log(2))
    assert test["warnings"] == ["one"]
    for config, of in (
        (grey, images.astype(np.float32)),
        ({**grey, "binarization": "dynamic"}, images),
        ({"binarization": "none"}, images),  # version 0.1 did not dequantise
    ):
        assert "bits_per_dimension" not in measure.compared(test, config, of, 1)


def test_the_program_that_measures_does_not_hold_the_parameters():
    model, x, _ = linear_gaussian(1.0)
    lowered = [
        measure.measure_batch(model, 10, 1).lower(params, jax.random.key(0), x, None).as_text()
        for params in (jnp.float32(0.123), jnp.float32(0.456))
    ]
    assert lowered[0] == lowered[1]


def test_batches_change_the_draws_and_nothing_else(monkeypatch):
    model, x, exact = linear_gaussian(1.2)
    monkeypatch.setattr(batched, "_CPU_BYTES", 7 * 4 * 4)
    test = measure.measure(jax.random.key(0), model, 1.0, x, None, 500)
    estimate = test["estimate"]
    assert (np.abs(estimate.value - exact) < 5 * estimate.standard_error).all()
    assert test["means"].shape == (40, 1)


def test_one_image():
    model, x, _ = linear_gaussian(1.2)
    test = measure.measure(jax.random.key(0), model, 1.0, x[:1], None, 500)
    assert np.isfinite(test["log_likelihood"])
    assert np.isnan(test["log_likelihood_standard_error_over_images"])
    said = measure.summary({**measure.reported(test), "num_test": 1})
    assert "nan" not in said
    assert said.count("nats, of 1 images, too few to tell an error") == 2


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_conditions_that_change_nothing_are_said(weight):
    """x is the condition and noise: shuffling costs (c - c')^2 / 2, or nothing."""
    rng = np.random.default_rng(0)
    label = rng.normal(size=(400, 1)).astype(np.float32)
    x = jnp.asarray(label + rng.normal(size=(400, 1)).astype(np.float32))
    model = vae_jax.VAE(
        None,
        lambda params, x, label=None: vae_jax.Normal(jnp.zeros_like(x), 1.0),
        lambda params, label=None: vae_jax.Normal(jnp.zeros(1), 1.0),
        lambda params, z, label=None: vae_jax.Normal(0.0 * z + params * label, 1.0),
    )
    found = cautions.unused_conditions(jax.random.key(0), model, jnp.float32(weight), x, label)
    assert len(found) == (weight == 0)
    if found:
        assert "shuffled ones cost 0.00 +- 0.00 nats; see that each example has its own" in found[0]
    assert not cautions.unused_conditions(jax.random.key(0), model, weight, x[:1], label[:1])
