"""The table of gradient estimators: its statistics on draws of known moments, and a small run."""

import json

import numpy as np
import pytest

from experiments import gradients
from vae_jax.run.errors import UsageError

RNG = np.random.default_rng(0)
MEAN, SCALE = RNG.normal(size=30), 2.0


def drawn(num, bias=0.0):
    return MEAN + bias + SCALE * RNG.normal(size=(num, 30))


def test_variance_and_signal_to_noise_of_normal_draws():
    row = gradients.compare(drawn(4000), drawn(8000))
    assert row["variance"] == pytest.approx(30 * SCALE**2, rel=0.05)
    ratio = np.linalg.norm(MEAN) / (SCALE * np.sqrt(30))
    assert row["signal_to_noise"] == pytest.approx(ratio, rel=0.05)
    assert row["gradient_length"] == pytest.approx(np.linalg.norm(MEAN), rel=0.05)


def test_a_signal_far_below_the_noise_of_its_mean_is_not_made_of_it():
    """The length of the mean of 400 draws of no mean is sqrt(30 / 400) scales, and no signal."""
    found = [
        gradients.compare(SCALE * RNG.normal(size=(400, 30)), drawn(800))["signal_to_noise"]
        for _ in range(40)
    ]
    assert 8 <= np.isnan(found).sum() <= 32  # nan about every other time
    assert np.nanmax(found) < 0.06  # of the 0.05 that is not corrected for


def test_a_bias_is_found_with_its_size():
    row = gradients.compare(drawn(2000, bias=0.2), drawn(4000))
    want = 0.2 * np.sqrt(30) / np.linalg.norm(MEAN)
    assert row["bias"] == pytest.approx(want, abs=5 * row["bias_standard_error"] + 0.1 * want)
    assert row["p_value"] < 1e-6


def test_p_values_without_a_bias_are_uniform():
    values = [gradients.compare(drawn(100), drawn(200))["p_value"] for _ in range(400)]
    counts, _ = np.histogram(values, bins=4, range=(0, 1))
    assert (np.abs(counts - 100) < 4 * np.sqrt(75)).all()


@pytest.mark.long
def test_a_small_run(command, tmp_path):
    output = tmp_path / "run"
    small = ("--draws=8", "--num-replicates=150", "--epochs=2", "--hidden=8", "--latent-dim=2")
    process = command("gradients", *small, f"--output={output}")
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((output / "results.json").read_text())
    rows = results["rows"]
    assert len(rows) == len(gradients.ESTIMATORS) * 2 * 3 == results["num_tests"]
    biased = {(row["estimator"], row["network"]) for row in rows if row["biased"]}
    # Sticking the landing is for the ELBO; nothing else is biased, no decoder is.
    assert biased == {("IWAE, STL", "encoder")}
    cells = {(r["estimator"], r["network"], r["stage"]): r for r in rows}
    for stage in gradients.STAGES:
        of = {name: cells[name, "encoder", stage]["variance"] for name in gradients.ESTIMATORS}
        assert of["ELBO, leave-one-out"] < of["ELBO, score"]
    assert "IWAE, VIMCO" in process.stdout
    assert (output / "signal_to_noise.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": 1}, "--epochs is 1: it must be 2 or more"),
        ({"num_replicates": 2}, "--num-replicates is 2: it must be 20"),
        ({"draws": ()}, r"--draws is \(\): give positive"),
        ({"draws": (4, 4)}, r"--draws is \(4, 4\): .* different"),
        ({"hidden": (0,)}, r"--hidden is \(0,\)"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(UsageError, match=message):
        gradients.check(gradients.Options(**option))


def test_a_refused_option_ends_with_status_2(command):
    process = command("gradients", "--draws=0")
    assert process.returncode == 2
    assert process.stderr.startswith("error: --draws is (0,)")
