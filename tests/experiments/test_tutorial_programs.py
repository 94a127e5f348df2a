"""The tutorial's programs and pictures: what a reader types, and what a chapter's figures claim."""

import importlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from experiments.tutorial.__main__ import CHAPTERS

ROOT = Path(__file__).parents[2]
PROGRAMS = ("attributes", "loss_cases", "optimisation", "conditional", "program")
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


def pictures_of(path, height, width):
    """The pictures [4, 10, height, width] of the program's grid, which has a line before each."""
    grid = 1 - plt.imread(path)[..., 0]
    assert grid.shape == (4 * (height + 1), 10 * (width + 1))
    return grid.reshape(4, height + 1, 10, width + 1).swapaxes(1, 2)[:, :, 1:, 1:]


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
    pictures = pictures_of(tmp_path / "whole.png", 8, 8).reshape(4, 10, 64)
    digits = load_digits()
    centres = np.stack([digits.data[digits.target == c].mean(axis=0) / 16 for c in range(10)])
    nearest = np.square(pictures[:, :, None] - centres).sum(axis=-1).argmin(axis=-1)
    assert (nearest[2:] == 2).mean() > 0.8
    assert len(set(nearest[:2].ravel())) > 4
    assert typed(tmp_path, WHOLE.read_text()) == said


@pytest.mark.long
def test_the_whole_program_with_two_latent_dimensions(tmp_path):
    source = with_settings(WHOLE.read_text(), LATENTS=2, STEPS=200)
    said = typed(tmp_path, source)
    assert said.count("test: ELBO") == 2
    assert "step 200: ELBO" in said
    assert pictures_of(tmp_path / "whole.png", 8, 8).std() > 0.1


@pytest.mark.long
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
    twos = pictures_of(tmp_path / "whole.png", 12, 20)[2:]
    assert (twos.mean(axis=2).argmax(axis=-1) == 4).mean() > 0.9


def test_an_array_without_labels_names_what_is_missing(tmp_path):
    np.savez(tmp_path / "own.npz", image=np.zeros((10, 4, 4), np.uint8))
    with pytest.raises(AssertionError, match="label is not a file in the archive"):
        typed(tmp_path, WHOLE.read_text(), "own.npz")


# The chapters


@pytest.mark.long
@pytest.mark.parametrize("name", CHAPTERS)
def test_every_number_in_the_exercises_is_in_the_json(numbers, name):
    module = importlib.import_module(f"experiments.tutorial.{name}")
    for text in itertools.chain(*getattr(module, "EXERCISES", ())):
        for reference in re.findall(r"\[\[([\w.]+)", text):
            value = numbers[name]
            for part in reference.split("."):
                value = value[int(part)] if isinstance(value, list) else value[part]
            assert np.isfinite(value)


@pytest.mark.long
@pytest.mark.parametrize("name", ["autoencoder", "latent", *PROGRAMS])
def test_a_chapter_has_five_exercises_with_folded_answers(text, name):
    section = text.split(f'<h2 id="{name}">')[1].split("</section>")[0]
    assert section.count("<details><summary>Answer</summary><p>") == 5


@pytest.mark.long
def test_every_link_of_the_page_leads_somewhere(text):
    targets = re.findall(r'\bid="([^"]+)"', text)
    assert len(targets) == len(set(targets))
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= set(targets)
    entries = {f"entry-{name}" for name in ("nat", "posterior-collapse", "sohn-et-al-2015")}
    assert {*CHAPTERS, *entries, "use-entry-nat"} <= links


@pytest.mark.long
def test_recall_tells_what_the_judge_does_not(numbers):
    found = numbers["autoencoder"]["fidelity"]
    for row in ("prior", "far"):
        assert found[row]["vae"]["precision"] > found[row]["autoencoder"]["precision"] + 0.1
        assert found[row]["vae"]["recall"] > found[row]["autoencoder"]["recall"]
    assert found["plane"]["vae"]["recall"] > found["plane"]["autoencoder"]["recall"] + 0.05
    assert min(found["real"].values()) > 0.85
    for space in numbers["autoencoder"]["elsewhere"].values():
        assert space["prior"]["vae"]["recall"] > space["prior"]["autoencoder"]["recall"] + 0.02
    cases = numbers["loss_cases"]
    assert cases["fidelity"]["sure"] > 0.75 * cases["both"]["sure"]  # 0.86 to 1.15, three seeds
    assert cases["fidelity"]["recall"] < cases["both"]["recall"] - 0.02
    assert cases["fidelity"]["digits"] < cases["both"]["digits"] - 0.5


@pytest.mark.long
def test_halfway_between_classes(numbers):
    found = numbers["loss_cases"]
    assert found["both"]["halfway"] > found["sure_average"] + 0.2
    assert found["regulariser"]["halfway"] == 0
    for case in ("fidelity", "both"):
        assert 0 < found[case]["third"] < found[case]["halfway"]
    assert found["both"]["scale"] > found["half"]["scale"] > found["fidelity"]["scale"]
    assert found["half"]["log_likelihood"] > found["both"]["log_likelihood"]


@pytest.mark.long
def test_sprites_factors_are_in_the_codes(numbers):
    found = numbers["attributes"]
    for name in ("autoencoder", "vae"):
        assert min(found["explained"][name][factor] for factor in ("x", "y", "scale")) > 0.8
    assert max(found["width"].values()) < 0.5 < 1  # the prior's
    least = stats.norm(0, found["width"]["x"])  # whatever the mean, that of 0 costs no more
    nats = least.expect(lambda z: least.logpdf(z) - stats.norm.logpdf(z))
    np.testing.assert_allclose(found["least_nats"], nats - found["width"]["x"] ** 2 / 2, rtol=1e-4)
    wrong = found["wrong"]
    assert wrong["prior"]["autoencoder"] > 2 * wrong["prior"]["vae"]
    assert wrong["far"]["autoencoder"] > wrong["far"]["vae"]
    assert wrong["own"]["autoencoder"] < wrong["own"]["vae"]


@pytest.mark.long
def test_each_step_in_turn_raises_the_bound(numbers):
    zoom = numbers["optimisation"]["zoom"]
    turns, joint = np.array(zoom["elbo"]["alternating"]), np.array(zoom["elbo"]["joint"])
    assert len(turns) == 2 * zoom["num"] + 1
    assert len(joint) == zoom["num"] + 1
    assert turns[0] == joint[0]
    assert (np.diff(turns) > 0).all()
    assert (np.diff(joint) > 0).all()
    np.testing.assert_allclose(zoom["theta"] + zoom["phi"], turns[-1] - turns[0], rtol=1e-4)
    # Half of the passes, and nearly as far: the two gradients hardly interfere.
    np.testing.assert_allclose(joint[-1] - joint[0], turns[-1] - turns[0], rtol=0.2)


@pytest.mark.long
def test_twenty_twos_are_different(numbers):
    found = numbers["conditional"]
    assert found["share_asked"] > 0.9 > 0.25 > found["unconditional_share"]
    np.testing.assert_allclose(found["difference"]["asked"], found["difference"]["real"], rtol=0.3)
    assert found["elbo"]["without_label"] > found["elbo"]["unconditional"]


@pytest.mark.long
def test_the_answers_about_the_whole_program(numbers):
    found = numbers["program"]
    for name in ("unconditional", "conditional"):
        assert found["elbo"][name] > found["plane"][name]
        assert found["elbo"][name] > found["short"][name] + 0.5
        assert found["fidelity"][name] > found["elbo"][name] + 5
    lost = {n: found["elbo"][n] - found["plane"][n] for n in ("unconditional", "conditional")}
    assert lost["conditional"] < lost["unconditional"]
