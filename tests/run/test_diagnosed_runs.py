"""Runs that were built to be ill, one for each illness, and healthy ones: each is named rightly."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits

from vae_jax import run
from vae_jax.run import conditional, folder
from vae_jax.run.commands import diagnose, train

pytestmark = [
    pytest.mark.long,  # fifteen trainings, four minutes of one core
    pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse"),
]

ONE = "--num-devices=1"
SMALL = ("--hidden=64", "--latent-dim=16", "--batch-size=100", "--epochs=60", ONE)
CELLS = ("--hidden=32", "--latent-dim=5", "--num-importance-samples=20")
CONDITIONAL = ("--conditional", "--num-class-samples=2")
DRAWS = "--num-importance-samples=20"
BYTES = ("--likelihood=discretized_logistic",)

HEALTHY = {
    "digits": ("digits.npz", *SMALL),
    "digits by class": ("digits.npz", *SMALL, *CONDITIONAL),
    "cells": ("cells.npz", *CELLS, "--epochs=60"),
}

# Arguments, and what else such a run may have: a model that is ill in one way is often in another.
ILL = {
    "collapsed latents": (("digits.npz", *SMALL, "--beta=30"), {"underfitting"}),
    "decoder that ignores the label": (("shuffled.npz", *SMALL, *CONDITIONAL), set()),
    "overfitting": (
        ("few.npz", "--hidden=256", "--latent-dim=16", "--epochs=300", "--select=last", ONE),
        {"underfitting", "proposal too narrow"},  # by the test set, beside a mixture of the few
    ),
    "underfitting": (("digits.npz", *SMALL, "--hidden=3"), set()),
    "too few latents": (("digits.npz", *SMALL, "--latent-dim=4"), set()),
    "likelihood that cannot fit these data": (
        ("overdispersed.npz", *CELLS, "--epochs=40", "--likelihood=poisson"),
        {"too few latents", "proposal too narrow", "prior and codes apart"},  # all by heart
    ),
    "proposal too narrow": (
        ("greys.npz", *SMALL, *BYTES, "--epochs=200", "--learning-rate=4e-3"),
        set(),
    ),
    "prior and codes apart": (
        ("digits.npz", *SMALL, "--beta=0.01"),
        {"underfitting", "too few latents", "proposal too narrow"},
    ),
    "schedule not finished": (
        ("digits.npz", *SMALL, "--epochs=100000", "--max-minutes=0.3"),
        None,  # whatever it had come to
    ),
    "learning rate too small for so few steps": (
        ("digits.npz", *SMALL, "--learning-rate=1e-5"),
        {"underfitting", "decoder that ignores z"},
    ),
    "too few epochs": (("cells.npz", *CELLS, "--epochs=12"), None),
}


@pytest.fixture(autouse=True)
def no_classifier(monkeypatch):
    """What a conditional run measures beside, the doctor does not look at."""
    monkeypatch.setattr(
        conditional.classifier, "train", lambda *_: lambda x: jnp.zeros(len(x), int)
    )
    monkeypatch.setattr(conditional, "NUM_GENERATED", 500)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the data."""
    rng, found = np.random.default_rng(0), tmp_path_factory.mktemp("diagnosed")
    digits = load_digits()
    bits = (digits.images > 7.5).astype(np.uint8)[..., None]
    np.savez(found / "digits.npz", images=bits, labels=digits.target)
    np.savez(found / "few.npz", images=bits[:80])
    np.savez(found / "shuffled.npz", images=bits, labels=rng.permutation(digits.target))
    np.savez(found / "greys.npz", images=(digits.images * 15.9).astype(np.uint8)[..., None])
    factors = rng.normal(size=(1000, 2)) @ rng.normal(size=(2, 30)) / 2
    rate = 5 * np.exp(factors + rng.normal(size=30))
    for name, shape in ("cells", 5.0), ("overdispersed", 0.5):
        counts = rng.poisson(rate * rng.gamma(shape, 1 / shape, rate.shape))
        scipy.sparse.save_npz(found / f"{name}.npz", scipy.sparse.csr_matrix(counts))
    return found


def named(place, output, arguments):
    """What a run has, by the command."""
    data, *options = arguments
    if DRAWS not in options:
        options.append(DRAWS)
    with contextlib.redirect_stdout(io.StringIO()):
        where = (f"--output={output}", "--patience=0")
        train.main([str(place / data), *options, *where], "vae-jax train")
        folder.unlock(output)
        diagnose.main([str(output)], "vae-jax diagnose")
    return set(json.loads((output / "diagnosis.json").read_text())["ill"])


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_have_nothing(place, tmp_path, name):
    assert named(place, tmp_path / "run", HEALTHY[name]) == set()


@pytest.mark.parametrize("name", ILL)
def test_ill_runs_are_named_rightly(place, tmp_path, name):
    arguments, others = ILL[name]
    found = named(place, tmp_path / "run", arguments)
    assert name in found
    if others is not None:
        assert found - {name} <= others


def test_a_decoder_whose_weights_of_z_are_gone_ignores_it(place, tmp_path):
    named(place, tmp_path / "run", ("digits.npz", *SMALL, "--epochs=20"))
    trained = run.load(tmp_path / "run")
    shape = (16, 64)  # of the layer that takes z
    leaves = [leaf.shape for leaf in jax.tree.leaves(trained.params)]
    assert leaves.count(shape) == 1
    trained.params = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf) if leaf.shape == shape else leaf, trained.params
    )
    found = {finding.name for finding in trained.diagnose() if finding.ill}
    assert "decoder that ignores z" in found
    assert "collapsed latents" not in found
