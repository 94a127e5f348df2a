"""The small VDVAE's page: a run of a few steps from original files to results."""

import gzip
import json
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.papers import __main__ as papers
from experiments.papers import child2021
from vae_jax.run.errors import DataError, UsageError


@pytest.mark.long  # compiles a training step and an importance sampler of convolutions
@pytest.mark.relax("numpy_dtype_promotion")
def test_a_run_from_original_files_to_results(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for part, num in ("train", 60), ("t10k", 20):
        images = rng.integers(0, 256, size=(num, 28, 28), dtype=np.uint8)
        path = tmp_path / f"{part}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(bytes(16) + images.tobytes()))
        np.testing.assert_array_equal(child2021.read(tmp_path, part)[..., 0], images)
    arguments = [
        "--size",
        "tiny",
        "--steps",
        "4",
        "--num-importance-samples",
        "4",
        "--warm-up",
        "2",
    ]
    places = [f"--manual-dir={tmp_path}", f"--output={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", ["child2021", *arguments, *places])
    child2021.main()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "| tiny, 2 layers |" in papers.page([results])
    row = results["rows"][0]
    assert row["training"][0]["steps"] == 4
    assert len(row["kl_per_layer"]) == len(row["active_units"]) == 2
    assert row["num_test"] == 20
    # Noise of which every pixel is on half of the time.
    assert row["negative_log_likelihood"] == pytest.approx(784 * np.log(2), rel=0.1)
    assert row["negative_elbo"] >= row["negative_log_likelihood"]
    with Image.open(tmp_path / "run" / "samples.png") as picture:  # test images above draws
        assert picture.height == 2 * 29 * 2
    assert "layer  2: KL" in capsys.readouterr().out
    with pytest.raises(UsageError, match="holds a run"):
        child2021.main()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*train-images-idx3-ubyte.gz \(No such file"):
        child2021.read(tmp_path, "train")
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(100)))
    with pytest.raises(DataError, match="name MNIST's folder"):
        child2021.read(tmp_path, "t10k")
