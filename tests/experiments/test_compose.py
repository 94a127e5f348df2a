"""The programs of experiments.compose: each runs, and learns."""

import importlib

import pytest

# Each is run in its author's settings, not in this repository's strict ones.
pytestmark = pytest.mark.relax

# Arguments of a short run, and what it must reach: far above where it starts.
SHORT = {
    "plain_vae": ({"epochs": 10}, -32),
    "nnx_vae": ({"epochs": 10}, -32),
    "equinox_vae": ({"epochs": 10}, -32),
    "haiku_vae": ({"epochs": 10}, -32),
    "numpyro_model": ({"epochs": 10}, -32),
    "sequence_vae": ({"epochs": 10}, -32),
    "classifier": ({"epochs": 30}, 0.6),
    "semi_supervised": ({"dataset": "digits", "epochs": 20}, 0.6),
}
NEEDS = {
    "equinox_vae": ["equinox"],
    "haiku_vae": ["haiku", "distrax"],
    "numpyro_model": ["numpyro"],
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.long] * (n != "plain_vae")) for n in SHORT],
)
def test_a_short_run_learns(name):
    for module in NEEDS.get(name, []):
        pytest.importorskip(module)
    program = importlib.import_module(f"experiments.compose.{name}")
    options, least = SHORT[name]
    figure = program.main(**options)
    print(name, figure)
    assert figure > least
