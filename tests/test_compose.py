"""The programs of experiments.compose: each runs, and learns."""

import importlib

import pytest

# Each is run in its author's settings, not in this repository's strict ones.
pytestmark = pytest.mark.relax

# A short run, and what it must reach: above where it starts, below the figure of a whole run.
SHORT = {
    "plain_vae": ({"epochs": 20}, lambda nll: nll < 28),
    "nnx_vae": ({"epochs": 20}, lambda nll: nll < 28),
    "equinox_vae": ({"epochs": 20}, lambda nll: nll < 28),
    "haiku_vae": ({"epochs": 20}, lambda nll: nll < 28),
    "numpyro_model": ({"epochs": 20}, lambda nll: nll < 28),
    "sequence_vae": ({"epochs": 10}, lambda elbo: elbo > -30),
    "classifier": ({"epochs": 40}, lambda accuracy: accuracy > 0.6),
    "semi_supervised": ({"dataset": "digits", "epochs": 20}, lambda accuracy: accuracy > 0.6),
}
NEEDS = {
    "equinox_vae": ["equinox"],
    "haiku_vae": ["haiku", "distrax"],
    "numpyro_model": ["numpyro"],
}


@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_learns(name, capsys):
    for module in NEEDS.get(name, []):
        pytest.importorskip(module)
    program = importlib.import_module(f"experiments.compose.{name}")
    options, reached = SHORT[name]
    figure = program.main(**options)
    print(name, figure)
    assert reached(figure)
