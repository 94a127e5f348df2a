"""Which parameters a run begins with, and what is said of the epoch that is its result."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax.run import folder, selection
from vae_jax.run.errors import UsageError
from vae_jax.run.training import Fitted

ROWS = [
    {"epoch": epoch, "validation_elbo": elbo}
    for epoch, elbo in enumerate([-30.0, -18.2, -20.5, -33.1], 1)
]


@pytest.mark.parametrize(
    ("chosen", "ended_by", "name", "line"),
    [
        (
            1,
            "EarlyStopping",
            "patience",
            "training ended in epoch 4 by --patience; the result is epoch 2, validation ELBO "
            "-18.20 nats, where the last has -33.10",
        ),
        (
            3,
            "max_minutes",
            "max_minutes",
            "training ended in epoch 4 by --max-minutes; the result is that epoch, validation "
            "ELBO -33.10 nats",
        ),
        (
            3,
            "plan",
            "epochs",
            "training ended in epoch 4 by --epochs; the result is that epoch, validation ELBO "
            "-33.10 nats",
        ),
    ],
)
def test_the_epoch_its_number_and_the_end(chosen, ended_by, name, line):
    fitted = Fitted(None, None, ROWS, 0.0, 0.0, ROWS[chosen], ended_by)
    found = selection.described(fitted, "best")
    assert found == {
        "select": "best",
        "ended_by": name,
        "last_epoch": 4,
        "last_validation_elbo": -33.1,
        "selected_epoch": chosen + 1,
        "selected_validation_elbo": ROWS[chosen]["validation_elbo"],
    }
    assert selection.summary(found) == line


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_a_run_begins_with_anothers_parameters_until_it_has_its_own(tmp_path, resume, saved):
    if saved:
        (tmp_path / "checkpoints" / "12").mkdir(parents=True)
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(0.1))

    def restore(run):
        return SimpleNamespace(params={"w": np.ones(2, np.float32)})

    of = SimpleNamespace(resume=resume)
    begun = selection.begun(Path("other"), restore, state, of, tmp_path)
    own = resume and saved
    np.testing.assert_array_equal(begun.params["w"], np.zeros(2) if own else np.ones(2))


@pytest.mark.parametrize("overwrites", [False, True])
def test_what_cannot_begin_leaves_no_run_but_the_one_before(tmp_path, overwrites):
    if overwrites:
        (tmp_path / "checkpoints" / "3").mkdir(parents=True)
        (tmp_path / "config.json").write_text("the one before")
        folder.create(tmp_path, "", overwrite=True)
        folder.unlock(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(0.1))

    def restore(run):
        return SimpleNamespace(params={"w": np.ones(3, np.float32)})

    with pytest.raises(UsageError, match=r"is of another model: w has shape \(3,\) there"):
        selection.begun(Path("other"), restore, state, SimpleNamespace(resume=False), tmp_path)
    left = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert left == ({"checkpoints", "config.json"} if overwrites else set())
    if overwrites:
        assert (tmp_path / "config.json").read_text() == "the one before"
        folder.create(tmp_path, "", overwrite=True)
        folder.unlock(tmp_path)
        of = SimpleNamespace(resume=False)
        assert selection.begun(None, restore, state, of, tmp_path) is state
        assert {path.name for path in tmp_path.iterdir()} == {".lock"}
