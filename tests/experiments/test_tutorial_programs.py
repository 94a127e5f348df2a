"""The tutorial's programs and pictures: what a reader types, and what a chapter's figures claim."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]
WHOLE = ROOT / "experiments" / "tutorial" / "whole.py"


# The whole program


def typed(folder, source, *arguments):
    """What the program says, run from a folder where there is nothing else."""
    (folder / "whole.py").write_text(source)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.setdefault("PYTHONPATH", str(ROOT))  # the library, where it is not installed
    process = subprocess.run(
        [sys.executable, "whole.py", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def with_settings(source, **settings):
    """The program as a reader changes it: other numbers in its line of settings."""
    names, values = re.search(r"^(LATENTS, .*) = (.*)$", source, re.MULTILINE).groups()
    new = dict(zip(names.split(", "), values.split(", "), strict=True))
    assert settings.keys() <= new.keys()
    new |= {name: str(value) for name, value in settings.items()}
    return source.replace(f"{names} = {values}", f"{names} = {', '.join(new.values())}")


def test_the_whole_program_is_short_and_needs_no_other_file():
    lines = WHOLE.read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if "experiments" in line]


@pytest.mark.long
def test_the_whole_program_as_it_is_typed(tmp_path):
    said = typed(tmp_path, WHOLE.read_text())
    plain, conditional = map(float, re.findall(r"test: ELBO (\S+)", said))
    # A pixel on its own, the best that a model without a code could do, is worse than both.
    x = load_digits().images / 16
    rate = x[:1617].mean(axis=0).clip(1e-3, 1 - 1e-3)
    alone = (x * np.log(rate) + (1 - x) * np.log(1 - rate))[1617:].sum(axis=(1, 2)).mean()
    assert plain > alone + 3
    assert conditional > plain + 1
    grid = 1 - plt.imread(tmp_path / "whole.png")[..., 0]
    assert grid.shape == (4 * 8, 10 * 8)
    pictures = grid.reshape(4, 8, 10, 8).swapaxes(1, 2).reshape(4, 10, 64)
    digits = load_digits()
    centres = np.stack([digits.data[digits.target == c].mean(axis=0) / 16 for c in range(10)])
    nearest = np.square(pictures[:, :, None] - centres).sum(axis=-1).argmin(axis=-1)
    assert (nearest[2:] == 2).mean() > 0.8
    assert len(set(nearest[:2].ravel())) > 4
    assert typed(tmp_path, WHOLE.read_text()) == said


def test_the_whole_program_with_two_latent_dimensions(tmp_path):
    source = with_settings(WHOLE.read_text(), LATENTS=2, STEPS=200)
    said = typed(tmp_path, source)
    assert said.count("test: ELBO") == 2
    assert "step 200: ELBO" in said
    assert plt.imread(tmp_path / "whole.png").shape[:2] == (32, 80)


def test_the_whole_program_with_arrays_of_ones_own(tmp_path):
    """As Fashion-MNIST's, and neither square nor of digits."""
    generator = np.random.default_rng(0)
    label, style = generator.integers(10, size=1000), generator.integers(3, size=1000)
    image = np.zeros((1000, 12, 20), np.uint8)
    for row in range(4):  # a class is where in the width, a style where in the height
        image[np.arange(1000), 4 * style + row, 2 * label] = 255
    np.savez(tmp_path / "own.npz", image=image, label=label)
    source = with_settings(WHOLE.read_text(), STEPS=1000)
    said = typed(tmp_path, source, "own.npz")
    plain, conditional = map(float, re.findall(r"test: ELBO (\S+)", said))
    # Pixels on their own need 240 H(1/30) = 35 nats for an image, which image it is takes log 30.
    assert -20 < plain < -np.log(30) + 0.3
    assert plain + 1 < conditional < -np.log(3) + 0.3
    grid = 1 - plt.imread(tmp_path / "whole.png")[..., 0]
    twos = grid.reshape(4, 12, 10, 20).swapaxes(1, 2)[2:]
    assert (twos.mean(axis=2).argmax(axis=-1) == 4).mean() > 0.9


def test_an_array_without_labels_names_what_is_missing(tmp_path):
    np.savez(tmp_path / "own.npz", image=np.zeros((10, 4, 4), np.uint8))
    with pytest.raises(AssertionError, match="label is not a file in the archive"):
        typed(tmp_path, WHOLE.read_text(), "own.npz")
