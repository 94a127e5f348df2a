"""The commands, run as a user runs them: on scikit-learn's digits, in a folder of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from vae_jax import run
from vae_jax.run.commands import mnist
from vae_jax.run.errors import RunError, UsageError

ROOT = Path(__file__).parents[3]
SMALL = ("--hidden=32", "--latent-dim=4", "--num-importance-samples=20", "--accelerator=cpu")


def succeeded(process):
    assert process.returncode == 0, process.stdout + process.stderr
    return process


def train(command, output, *arguments, **extra):
    return command("mnist", "--dataset=digits", f"--output={output}", *SMALL, *arguments, **extra)


@pytest.fixture(scope="session")
def finished(command, tmp_path_factory):
    """A run of 6 epochs, every epoch checkpointed, never interrupted."""
    output = tmp_path_factory.mktemp("finished") / "run"
    succeeded(train(command, output, "--epochs=6", "--checkpoint-seconds=0", "--tensorboard"))
    return output


def rows(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def without_times(row):
    return {k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")}


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def results(output):
    return json.loads((output / "results.json").read_text())


def contents(output):
    """Of every file."""
    files = (path for path in output.rglob("*") if path.is_file())
    return {path.relative_to(output): path.read_bytes() for path in files}


def test_a_run_leaves_its_numbers_and_pictures(finished):
    written = results(finished)
    expected = {
        "dataset": "digits",
        "binarization": "dynamic",
        "num_train": 1297,
        "num_validation": 200,
        "num_test": 300,
        "seed": 0,
        "epochs": 6,
        "latent_dim": 4,
        "num_importance_samples": 20,
    }
    assert expected.items() <= written.items()
    assert {"python", "jax", "jaxlib", "flax", "optax"} <= written["versions"].keys()
    assert len(written["kl_per_dimension"]) == 4
    assert 0 <= written["active_units"] <= 4
    assert -64 * np.log(2) < written["test_elbo"] < written["test_log_likelihood"] < 0
    np.testing.assert_allclose(
        written["test_elbo"], written["test_reconstruction"] - written["test_kl"], rtol=1e-5
    )
    np.testing.assert_allclose(sum(written["kl_per_dimension"]), written["test_kl"], rtol=1e-4)
    assert written["train_seconds"] < written["total_seconds"]
    for name in ("reconstructions", "samples", "latent", "curves"):
        assert pixels(finished / f"{name}.png").std() > 10, f"{name}.png is blank"
    assert list((finished / "tensorboard").glob("events.*"))


def test_a_run_is_loaded_by_its_folder(finished):
    loaded = run.load(finished)
    assert loaded.results == results(finished)
    assert (loaded.step, loaded.image_shape) == (60, (8, 8, 1))
    assert repr(loaded) == "TrainedRun(digits, images 8 x 8 x 1, 4 latents, step 60)"
    (block,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    rng = np.random.default_rng(0)
    names = {"images": rng.integers(256, size=(5, 8, 8, 1), dtype=np.uint8)}
    exec(block.replace("runs/own", str(finished)), names)
    assert names["made"].shape == (8, 8, 8, 1)
    assert names["halfway"].shape == (1, 8, 8, 1)
    assert len(names["codes"].mean) == 5
    assert np.isfinite(names["scores"].log_likelihood).all()


def test_training_improves_the_validation_bound(finished):
    epochs = rows(finished)
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1]["validation_elbo"] > epochs[0]["validation_elbo"] + 0.4
    for row in epochs:
        for split in ("train", "validation"):
            bound = row[f"{split}_log_likelihood"] - row[f"{split}_kl"]
            np.testing.assert_allclose(row[f"{split}_elbo"], bound, rtol=1e-5)


def test_seeds_at_once_are_the_runs_that_each_is_alone(command, finished, tmp_path):
    output = tmp_path / "both"
    process = succeeded(train(command, output, "--epochs=6", "--seeds=2"))
    first, second = (results(output / f"seed={seed}") for seed in (0, 1))
    for name in "parameters_sha256", "test_log_likelihood", "test_elbo":
        assert results(finished)[name] == first[name] != second[name]
    assert [*map(without_times, rows(output / "seed=0"))] == [*map(without_times, rows(finished))]
    both = [of["test_log_likelihood"] for of in (first, second)]
    assert results(output)["means"][0]["log_likelihood"] == pytest.approx(np.mean(both))
    assert f"2 seeds: test log p(x) {np.mean(both):.2f} +- " in process.stdout


def interrupt(output, signum, arguments):
    """Starts a run, sends it a signal once it has made an epoch, returns how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.mnist", f"--output={output}", *SMALL, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = output / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 2:
            process.send_signal(signum)
            break
        time.sleep(0.005)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


# Long enough that the signal finds them under way.
LONG = ("--dataset=digits", "--epochs=100", "--checkpoint-seconds=0")


@pytest.fixture(scope="session")
def unbroken(command, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken") / "run"
    succeeded(train(command, output, "--epochs=100"))
    return output


@pytest.mark.few(1)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_unbroken_runs_numbers(
    command, unbroken, tmp_path, signum
):
    output = tmp_path / "run"
    status, errors = interrupt(output, signum, LONG)
    if signum == signal.SIGKILL:
        assert status == -signum
    else:
        assert status == 128 + signum, errors
        assert f"python -m experiments.mnist --output={output} --resume" in errors
    assert "Traceback" not in errors
    assert 2 <= len(rows(output)) < 100
    succeeded(command("mnist", f"--output={output}", "--resume"))
    assert results(output)["parameters_sha256"] == results(unbroken)["parameters_sha256"]
    assert results(output)["test_log_likelihood"] == results(unbroken)["test_log_likelihood"]
    assert [*map(without_times, rows(output))] == [*map(without_times, rows(unbroken))]


@pytest.mark.long
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(command, tmp_path):
    output = tmp_path / "run"
    succeeded(train(command, output, "--epochs=2"))
    before = sorted(p.name for p in (output / "checkpoints").iterdir())
    # No checkpoint by the clock, which on a slow machine comes before the loss is infinite.
    ruinous = ("--epochs=9", "--learning-rate=1e30", "--checkpoint-seconds=1000")
    process = command("mnist", f"--output={output}", "--resume", *ruinous)
    assert process.returncode == 1
    assert "the loss of step" in process.stderr
    assert f"--output={output} --resume --learning-rate=" in process.stderr
    assert "Traceback" not in process.stderr
    assert sorted(p.name for p in (output / "checkpoints").iterdir()) == before
    succeeded(
        command("mnist", f"--output={output}", "--resume", "--epochs=3", "--learning-rate=1e-3")
    )


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(command, finished):
    before = contents(finished)
    process = command("mnist", f"--output={finished}", "--resume", "--tensorboard", "--epochs=3")
    assert process.returncode == 2
    assert "the run has made 6" in process.stderr
    assert contents(finished) == before
    succeeded(command("mnist", f"--output={finished}", "--resume", "--epochs=6"))


@pytest.mark.long
def test_two_latent_dimensions_grey_pixels_convolutions_and_an_average(command, tmp_path):
    process = command(
        "mnist",
        "--dataset=digits",
        f"--output={tmp_path / 'run'}",
        *SMALL[2:],
        "--epochs=2",
        "--network=conv",
        "--channels=4",
        "--latent-dim=2",
        "--binarization=none",
        "--average-decay=0.9",
    )
    succeeded(process)
    written = results(tmp_path / "run")
    assert (written["binarization"], written["likelihood"]) == ("none", "normal")
    with Image.open(tmp_path / "run" / "latent.png") as picture:
        width, height = picture.size
    assert width > 1.5 * height, "no decoded plane beside the means"
    succeeded(command("generate", tmp_path / "run", f"--output={tmp_path / 'grid.png'}"))


def test_generate_and_evaluate_read_a_run(command, finished, tmp_path):
    picture = tmp_path / "grid.png"
    process = command("generate", finished, "--num=10", f"--output={picture}", "--seed=3")
    succeeded(process)
    assert not process.stderr
    first = pixels(picture)
    succeeded(command("generate", finished, "--num=10", f"--output={picture}", "--seed=4"))
    assert (pixels(picture) != first).any()
    succeeded(command("evaluate", finished, "--num-samples=40", "--num-generated=0"))
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert evaluation["num_importance_samples"] == 40
    assert evaluation["parameters_sha256"] == results(finished)["parameters_sha256"]
    # The same model and test set; twice the draws, another seed.
    difference = evaluation["test_log_likelihood"] - results(finished)["test_log_likelihood"]
    assert abs(difference) < 0.5


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--epoch=3"], 2, "--epochs"),
        (["--dataset=cifar"], 2, "binarized_mnist"),
        (["--epochs=0"], 2, "--epochs is 0"),
        (["--latent-dim=0"], 2, "--latent-dim is 0"),
        (["--learning-rate=0"], 2, "--learning-rate is 0"),
        (["--learning-rate=nan"], 2, "--learning-rate is nan"),
        (["--batch-size=5000", "--dataset=digits"], 2, "1297 training examples"),
        (["--num-importance-samples=1"], 2, "--num-importance-samples is 1"),
        (["--seed=9223372036854775808"], 2, "--seed is 9223372036854775808"),
        (
            ["--dataset=binarized_mnist", "--binarization=none"],
            2,
            "binarized_mnist is binary",
        ),
        (["--resume"], 2, "--resume needs --output"),
        (["--resume", "--output=/nonexistent"], 2, "/nonexistent holds no run"),
        (["--output=/proc/run", "--dataset=digits"], 1, "cannot write /proc/run"),
        (["--objective=iwae"], 2, "--objective=iwae of one draw is the elbo"),
        (
            ["--dataset=digits", "--accelerator=cpu", "--epochs=6", "--kl-warmup=6"],
            2,
            "--kl-warmup is 6 of 6 epochs, so the KL's weight would not reach --beta",
        ),
    ],
)
def test_a_wrong_option_is_one_clear_line(tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError if status == 2 else RunError) as raised:
        mnist.main(arguments, "vae-jax mnist")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir()), "something was written"


@pytest.mark.parametrize(
    ("option", "environment", "said"),
    [
        ("--accelerator=tpu", {}, "jax[tpu]"),
        ("--accelerator=auto", {"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS to use cuda and finds"),
        ("--accelerator=gpu", {"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS to use cuda and finds"),
    ],
)
def test_what_is_not_there_ends_a_process_with_one_line(
    command, tmp_path, option, environment, said
):
    if jax.default_backend() != "cpu":
        pytest.skip("there is an accelerator")
    process = command("mnist", option, "--dataset=digits", cwd=tmp_path, **environment)
    assert process.returncode == 1
    assert said in process.stderr
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir()), "something was written"


@pytest.mark.long
def test_what_is_maximised_is_named_and_what_is_reported_stays_the_bound(command, tmp_path):
    """Of beta 10 the KL is far smaller; the ELBO is still log p(x|z) - KL, and below log p(x)."""
    chosen = {"beta": 10.0, "kl_warmup": 2, "num_draws": 2}
    found = {}
    for name, arguments in {
        "plain": [],
        "weighted": [f"--{k.replace('_', '-')}={v}" for k, v in chosen.items()],
        "iwae": ["--objective=iwae", "--num-draws=5"],
    }.items():
        process = succeeded(train(command, tmp_path / name, "--epochs=20", *arguments))
        assert ("What is reported is the ELBO" in process.stdout) == (name != "plain")
        found[name] = results(tmp_path / name)
        of = found[name]
        assert of["test_elbo"] == pytest.approx(of["test_reconstruction"] - of["test_kl"], rel=1e-4)
        assert of["test_elbo"] <= of["test_log_likelihood"]
        assert of["parameters_sha256"] not in {
            f["parameters_sha256"] for f in [*found.values()][:-1]
        }
    defaults = {"objective": "elbo", "gradient": "reparameterized", "free_bits": 0.0}
    assert found["weighted"].items() >= {**defaults, **chosen}.items()
    assert found["weighted"]["test_kl"] < 0.5 * found["plain"]["test_kl"]
    last = rows(tmp_path / "weighted")[-1]
    assert last["train_elbo"] == pytest.approx(
        last["train_log_likelihood"] - last["train_kl"], rel=1e-4
    )
    assert -last["train_loss"] == pytest.approx(last["train_elbo"] - 9 * last["train_kl"], rel=1e-3)
    last = rows(tmp_path / "iwae")[-1]
    assert last["train_elbo"] < last["train_iwae"] == pytest.approx(-last["train_loss"], rel=1e-5)


def test_a_run_is_neither_overwritten_nor_turned_into_another(command, finished):
    before = contents(finished)
    process = train(command, finished, "--epochs=1")
    assert process.returncode == 2
    assert "--overwrite" in process.stderr
    process = command("mnist", f"--output={finished}", "--resume", "--latent-dim=5")
    assert process.returncode == 2
    assert "--latent-dim is 5" in process.stderr
    assert contents(finished) == before


def test_of_two_outputs_the_last_is_resumed_with_its_own_options(command, finished, tmp_path):
    process = command("mnist", f"--output={finished}", "--resume", f"--output={tmp_path / 'two'}")
    assert process.returncode == 2
    assert "two holds no run" in process.stderr
    assert not (tmp_path / "two").exists()


def test_a_picture_that_fails_is_a_warning_and_the_numbers_are_there(command, finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "results.json").unlink()
    (tmp_path / "sitecustomize.py").write_text(
        "import PIL.Image\n"
        "def save(*_, **__): raise OSError('no room')\n"
        "PIL.Image.Image.save = save\n"
    )
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    process = succeeded(command("mnist", f"--output={copy}", "--resume", PYTHONPATH=path))
    assert "warning: a picture could not be made (OSError: no room)" in process.stderr
    assert "Traceback" not in process.stderr
    assert results(copy)["parameters_sha256"] == results(finished)["parameters_sha256"]


@pytest.mark.long
def test_overwrite_replaces_a_run(command, tmp_path):
    output = tmp_path / "run"
    succeeded(train(command, output, "--epochs=2"))
    succeeded(train(command, output, "--epochs=1", "--overwrite"))
    assert results(output)["epochs"] == len(rows(output)) == 1


def test_a_folder_of_other_files_is_left_alone(command, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    process = train(command, tmp_path, "--epochs=1", "--overwrite")
    assert process.returncode == 2
    assert "no run" in process.stderr
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def test_a_checkpoint_of_another_architecture_is_named(command, finished, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", finished, copy], check=True)
    config = json.loads((copy / "config.json").read_text())
    config["options"]["model"]["latent_dim"] = 5
    (copy / "config.json").write_text(json.dumps(config))
    process = command("generate", copy, f"--output={tmp_path / 'grid.png'}")
    assert process.returncode == 1
    assert "of another model" in process.stderr
    assert "Traceback" not in process.stderr


def test_auto_without_a_network_is_the_digits_said_loudly(command, tmp_path):
    unreachable = {"https_proxy": "http://127.0.0.1:9", "TFDS_DATA_DIR": str(tmp_path / "tfds")}
    process = command("mnist", "--epochs=1", *SMALL, cwd=tmp_path, **unreachable)
    succeeded(process)
    assert "digits" in "".join(process.stdout.splitlines()[:3])
    (output,) = (tmp_path / "runs").iterdir()
    assert output.name.startswith("digits-instead-of-mnist")
    assert results(output)["dataset"] == "digits"
    assert "MNIST" in results(output)["notice"]


def test_tensorboard_that_is_not_installed_is_named(command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tensorboardX'] = None")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    process = train(command, tmp_path / "run", "--tensorboard", PYTHONPATH=path)
    assert process.returncode == 1
    assert 'pip install "vae_jax[tensorboard]"' in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()


def test_help_says_every_default(command):
    text = succeeded(command("mnist", "--help", COLUMNS="500")).stdout
    for name in (
        "--binarization",
        "--latent-dim",
        "--resume",
        "--accelerator",
        "(default: 500)",
    ):
        assert name in text
