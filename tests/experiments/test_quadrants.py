"""In-painting: the quadrants are those of Pyro's tutorial, and what is learned beats a guess."""

import json

import numpy as np
import pytest
import scipy.special
from PIL import Image

from experiments import quadrants
from vae_jax.run.data import named
from vae_jax.run.errors import UsageError


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("num_given", [1, 2, 3])
def test_quadrants_are_those_of_the_tutorial(num_given):
    """Its code, in NumPy: -1 stands for what is not in the output, or not in the input."""
    image = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    output = image[..., 0] / 255
    output[:, 14:, :14] = -1
    if num_given == 2:
        output[:, :, :14] = -1
    if num_given == 3:
        output[:, :14, :] = -1
    given = quadrants.mask(num_given, 28, 28)
    taken = quadrants.take(image, given)
    assert given.sum() == 196 * num_given
    np.testing.assert_allclose(taken.missing, output[output != -1].reshape(2, -1), rtol=1e-6)
    np.testing.assert_allclose(quadrants.put(taken, given), image / 255, rtol=1e-6)


@pytest.mark.long
def test_quadrants_of_digits(command, tmp_path):
    output = tmp_path / "run"
    small = ("--epochs=30", "--hidden=64", "--num-importance-samples=50")
    process = command("quadrants", "--dataset=digits", "--given", 1, *small, f"--output={output}")
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((output / "results.json").read_text())
    (row,) = results["quadrants"]
    assert row["given"] == 1
    # The latent variable tells more than a guess for each pixel, and the bound is one.
    assert row["baseline_log_likelihood"] < row["log_likelihood"]
    assert row["elbo"] < row["log_likelihood"]
    # Grey pixels have their own entropy, which no prediction can undercut.
    test = quadrants.take(named.load("digits").test.images, quadrants.mask(1, 8, 8))
    missing = np.asarray(test.missing, np.float64)
    entropy = -scipy.special.xlogy(missing, missing) - scipy.special.xlog1py(1 - missing, -missing)
    assert row["log_likelihood"] < -entropy.sum(axis=1).mean()
    picture = pixels(output / "completions_1.png")
    assert picture.shape == (7 * 9 * 9, 7 * 9 * 16)
    assert picture.std() > 10


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": 0}, "--epochs is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"seed": 2**63}, f"--seed is {2**63}"),
        ({"given": ()}, r"--given is \(\): give 1, 2, 3"),
        ({"given": (1, 1)}, r"--given is \(1, 1\)"),
        ({"hidden": (0,)}, r"--hidden is \(0,\)"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"num_importance_samples": 1}, "--num-importance-samples is 1"),
    ],
)
def test_bad_options_of_quadrants(option, message):
    with pytest.raises(UsageError, match=message):
        quadrants.check(quadrants.Options(**option))
