"""What results.json and a line say of the epoch that is a run's result."""

import pytest

from vae_jax.run import selection
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
