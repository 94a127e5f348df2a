"""A run on sixty pictures for the commands that use one."""

import contextlib
import io

import jax
import numpy as np
import pytest

from tests.run.commands.after import write_pictures
from vae_jax import run
from vae_jax.run import folder, loaded
from vae_jax.run.commands import train


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


@pytest.fixture
def one_program_for_all(of, monkeypatch):
    """Commands and Python calls share what is compiled."""
    monkeypatch.setattr(loaded, "load_images", lambda _: of)
