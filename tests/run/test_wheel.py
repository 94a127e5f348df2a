"""The wheel, in an empty folder without a network and without a checkout: the whole job."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
OFFLINE = ("unshare", "--map-root-user", "--net")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--wheel-dir={folder}", str(ROOT)], check=True, timeout=120)
    (path,) = folder.glob("vae_jax-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel, alone, is installed in; the rest is this environment's."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, f"--target={target}", str(wheel)], check=True, timeout=120)
    return target


def test_the_wheel_has_the_whole_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        (scripts,) = (n for n in file.namelist() if n.endswith(".dist-info/entry_points.txt"))
        assert "vae-jax = vae_jax.run.main:main" in file.read(scripts).decode()
    page = [
        path for ending in ("css", "html", "js") for path in ROOT.glob(f"vae_jax/**/*.{ending}")
    ]
    sources = [*(ROOT / "vae_jax").rglob("*.py"), ROOT / "vae_jax" / "py.typed", *page]
    assert len(page) == 7
    assert names == {path.relative_to(ROOT).as_posix() for path in sources}
    assert {"vae_jax/py.typed", "vae_jax/run/main.py", "vae_jax/run/data/named.py"} <= names


def test_the_whole_job_in_an_empty_folder_without_a_network(installed, tmp_path):
    if subprocess.run([*OFFLINE, "true"], capture_output=True).returncode:
        pytest.skip("a process cannot be kept from the network here: no unshare --net")

    def vae_jax(*arguments):
        process = subprocess.run(
            [*OFFLINE, installed / "bin" / "vae-jax", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, process.stdout + process.stderr

    small = ("--epochs=3", "--hidden=16", "--num-importance-samples=5")
    vae_jax("mnist", "--dataset=digits", "--output=digits", *small)
    vae_jax("generate", "digits", "--num=4", "--output=digits.png")
    vae_jax("evaluate", "digits", "--num-samples=5", "--num-generated=0")
    pictures = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    for i, picture in enumerate(pictures):
        path = tmp_path / "pictures" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    vae_jax("train", "pictures", "--output=own", *small)
    for output in "digits", "own":
        results = json.loads((tmp_path / output / "results.json").read_text())
        assert np.isfinite(results["test_log_likelihood"])
        assert (tmp_path / output / "samples.png").is_file()
    assert (tmp_path / "digits.png").is_file()
    assert (tmp_path / "digits" / "evaluation.json").is_file()
