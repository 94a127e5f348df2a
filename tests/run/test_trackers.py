"""Weights & Biases and MLflow are told of each epoch, without a network."""

import pytest

from vae_jax.run import callbacks
from vae_jax.run.plan import Progress

pytestmark = pytest.mark.filterwarnings("ignore")  # the trackers' own
ROWS = [
    {"epoch": 1, "step": 3, "train_loss": 10.0, "validation_elbo": -9.5},
    {"epoch": 2, "step": 6, "train_loss": 9.0, "validation_elbo": -8.5},
]


def report(reporter):
    progress = Progress(num_steps=6, steps_per_epoch=3, batch_size=1)
    reporter.start(progress)
    for row in ROWS:
        progress.step = row["step"]
        reporter.epoch(progress, row)


def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'runs'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with callbacks.mlflow() as reporter:
        report(reporter)
    for name, values in (("validation/elbo", (-9.5, -8.5)), ("train/loss", (10.0, 9.0))):
        (path,) = tmp_path.glob(f"runs/0/*/metrics/{name}")
        written = [line.split() for line in path.read_text().splitlines()]
        assert [(float(line[1]), int(line[2])) for line in written] == list(
            zip(values, (3, 6), strict=True)
        )


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with callbacks.wandb(mode="offline", dir=str(tmp_path), project="test") as reporter:
        report(reporter)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = path.read_bytes()
    assert all(value in content for value in (b"validation/elbo", b"-9.5", b"-8.5"))
