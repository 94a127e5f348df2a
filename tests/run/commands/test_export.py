"""Encoder, decoder and parameters as files that need no vae_jax."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.run.commands.after import SHAPE, of_command, read
from vae_jax.run.commands import export

pytestmark = pytest.mark.usefixtures("one_program_for_all")


ALONE = """
import sys
from pathlib import Path

import jax
import numpy as np

given = np.load("given.npz")
made = {}
for name, x in ("encoder", given["x"]), ("decoder", given["z"]):
    file = Path(f"model.{name}.stablehlo")
    for num in 1, len(x):  # any number of examples
        made |= jax.export.deserialize(bytearray(file.read_bytes())).call(x[:num])
np.savez("made.npz", **made)
assert not {"vae_jax", "flax", "optax"} & set(sys.modules)
"""


def test_encoder_and_decoder_run_where_jax_is_alone(trained, of, tmp_path):
    pytest.importorskip("flatbuffers")
    of_run, pictures = trained
    of_command(export, of_run, f"--output={tmp_path / 'model.stablehlo'}")
    x = read(pictures)[:5, ..., None]
    codes = of.encode(x)
    np.savez(tmp_path / "given.npz", x=(x / 255).astype(np.float32), z=codes.mean)
    program = [sys.executable, "-c", ALONE]
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if "site" in p)}
    process = subprocess.run(program, cwd=tmp_path, env=kept, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    with np.load(tmp_path / "made.npz") as made:
        np.testing.assert_allclose(made["mean"], codes.mean, atol=1e-5)
        np.testing.assert_allclose(made["scale"], codes.scale, atol=1e-5)
        np.testing.assert_allclose(made["image"], of.decode(codes.mean), atol=1e-5)
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["encoder"]["takes"] == [
        {"name": "x", "shape": ["n", *SHAPE], "dtype": "float32"},
    ]
    assert about["decoder"]["gives"]["image"]["shape"] == ["n", *SHAPE]


def test_parameters_are_a_file_of_safetensors(trained, of, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    of_run, _ = trained
    of_command(export, of_run, f"--output={tmp_path / 'params.safetensors'}")
    found = safetensors.load_file(tmp_path / "params.safetensors")
    params = of.params
    num = 0
    for name, values in found.items():
        leaf = params
        for part in name.split("."):
            leaf = leaf[part]
        np.testing.assert_array_equal(values, leaf)
        num += 1
    assert num == len(jax.tree.leaves(params))
