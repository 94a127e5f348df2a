"""One's own images from a shell: a folder or an array, resident or streamed."""

import json

import numpy as np
import pytest
from PIL import Image

from vae_jax.run.commands import train
from vae_jax.run.errors import DataError, RunError, UsageError

GREYS = np.random.default_rng(0).integers(0, 256, (60, 5, 4), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (60, 5, 4, 3), np.uint8)
SMALL = ("--hidden=16", "--latent-dim=2", "--num-importance-samples=5", "--epochs=2")


def write_pictures(folder, images, names):
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        path = folder / name / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def results(output):
    return json.loads((output / "results.json").read_text())


@pytest.mark.long
def test_a_folder_of_colour_pictures_trains_with_one_command(command, tmp_path):
    write_pictures(tmp_path / "pets", np.tile(COLOURS, (3, 1, 1, 1)), ["cat", "dog"] * 90)
    output = tmp_path / "run"
    process = command("train", tmp_path / "pets", f"--output={output}", *SMALL, "--batch-size=16")
    assert process.returncode == 0, process.stderr
    written = results(output)
    sizes = [written[f"num_{split}"] for split in ("train", "validation", "test")]
    assert written["dataset"] == "pets"
    assert sum(sizes) == 180
    # Each picture is there three times, and all three are in one split.
    assert all(size and size % 3 == 0 for size in sizes)
    assert sizes[0] > 100
    assert (written["binarization"], written["likelihood"]) == ("none", "discretized_logistic")
    assert written["defaults"]["kind"] == "colours"
    # Widths say which network, and what is given is not chosen.
    assert written["defaults"]["options"]["network"] == written["network"] == "mlp"
    assert "latent_dim" not in written["defaults"]["options"]
    assert "chosen for colours: --likelihood=discretized_logistic --network=mlp" in process.stdout
    assert np.isfinite(written["test_log_likelihood"])
    with Image.open(output / "samples.png") as picture:
        assert picture.mode == "RGB"
    process = command("train", f"--output={output}", "--resume", "--epochs=3")
    assert process.returncode == 0, process.stderr
    assert results(output)["epochs"] == 3
    assert results(output)["defaults"] == written["defaults"]
    assert "chosen for colours: --likelihood=discretized_logistic" in process.stdout
    process = command("evaluate", output, "--num-samples=5")
    assert process.returncode == 0, process.stderr
    again = json.loads((output / "evaluation.json").read_text())
    for numbers in results(output), again:
        bits = -numbers["test_log_likelihood"] / (5 * 4 * 3) / np.log(2)
        assert numbers["test_bits_per_dimension"] == pytest.approx(bits)
    assert f"bits per dimension {bits:7.2f}, of bytes" in process.stdout


@pytest.mark.long
def test_a_streamed_array_is_the_resident_one_bit_for_bit(command, tmp_path):
    np.save(tmp_path / "a.npy", np.tile(GREYS, (10, 1, 1)))
    for name, arguments in ("resident", ()), ("streamed", ("--stream",)):
        process = command(
            "train", tmp_path / "a.npy", f"--output={tmp_path / name}", *SMALL, *arguments
        )
        assert process.returncode == 0, process.stderr
        assert ("data streamed" in process.stdout) == (name == "streamed")
    one, other = results(tmp_path / "resident"), results(tmp_path / "streamed")
    assert one["parameters_sha256"] == other["parameters_sha256"]
    assert one["test_log_likelihood"] == other["test_log_likelihood"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "DATA"),
        (("nowhere",), 1, "nowhere does not exist"),
        (("a.npy", "--batch-size=4000"), 2, "50 training examples"),
        (("a.npy", "--conditional"), 1, "has no labels"),
        (("a.npy", "--image-size=0"), 2, "--image-size is 0"),
        (("a.npy", "--num-devices=9"), 2, "--num-devices is 9 but JAX finds 8"),
        (
            ("a.npy", "--batch-size=16", "--accumulate=3"),
            2,
            "a multiple of the 8 devices times --acc",
        ),
        (("a.npy", "--process-id=1"), 2, "need --coordinator=HOST:PORT"),
        (("a.npy", "--coordinator=localhost:1", "--output=r"), 2, "needs --num-processes and"),
    ],
)
def test_a_wrong_option_is_one_clear_line(tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", GREYS)
    with pytest.raises(UsageError if status == 2 else (RunError, DataError)) as raised:
        train.main([*arguments, "--accelerator=cpu"], "vae-jax train")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"], "something was written"


@pytest.mark.long
def test_worker_processes_read_what_a_thread_reads(command, tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.tile(GREYS, (4, 1, 1)))
    for name, arguments in ("thread", ()), ("workers", ("--workers=1",)):
        output = f"--output={tmp_path / name}"
        process = command("train", file, output, "--stream", *arguments, *SMALL, "--batch-size=16")
        assert process.returncode == 0, process.stderr
    one, other = results(tmp_path / "thread"), results(tmp_path / "workers")
    assert one["parameters_sha256"] == other["parameters_sha256"]
