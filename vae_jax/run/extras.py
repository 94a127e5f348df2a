"""Packages that an extra of vae_jax brings; one that is missing is named with what installs it."""

import importlib
import importlib.util
from typing import Any

from vae_jax.run.errors import RunError

_EXTRA_OF = {
    "tyro": "run",
    "tqdm": "run",
    "PIL": "run",
    "matplotlib": "run",
    "sklearn": "run",
    "pandas": "tables",
    "pyarrow": "tables",
    "anndata": "counts",
    "flatbuffers": "export",
    "safetensors": "export",
    "huggingface_hub": "hub",
    "tensorflow_datasets": "tfds",
    "importlib_resources": "tfds",
    "array_record": "tfds",
    "grain": "stream",
    "fsspec": "remote",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "latex2mathml": "tutorial",
}


def require(module: str) -> Any:
    """The module.

    Raises:
      RunError: it is not installed.
    """
    check(module)
    return importlib.import_module(module)


def check(*modules: str) -> None:
    """Raises RunError for the first that is not installed; imports none, as most are slow."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise RunError(advice(module))


def missing(error: ModuleNotFoundError) -> str | None:
    """What is said of an import that failed; None where the package is no extra's."""
    module = (error.name or "").partition(".")[0]
    return advice(module) if module in _EXTRA_OF else None


def advice(module: str) -> str:
    """What is missing, and the command that installs it."""
    return f'{module} is not installed: pip install "vae_jax[{_EXTRA_OF[module]}]"'
