"""The engine of a run: data, training that survives, measurements, pictures, commands.

`fit` trains any loss over any data. What it takes and gives is here too; the rest of the package is
what the commands of `vae-jax` are made of.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax.run.callbacks import (
        Callback,
        Collapse,
        EarlyStopping,
        ProgressBar,
        Reporter,
        mlflow,
        tensorboard,
        wandb,
    )
    from vae_jax.run.comparison import Comparison, compare
    from vae_jax.run.errors import Diverged, Interrupted, RunError, UsageError
    from vae_jax.run.exported import export
    from vae_jax.run.illnesses import Finding
    from vae_jax.run.loaded import TrainedRun
    from vae_jax.run.loaded_examples import TrainedExamples, load
    from vae_jax.run.plan import Plan, Progress
    from vae_jax.run.scores import Codes, Filled, Scores, Traversal, Typicality, typicality
    from vae_jax.run.training import Fitted, fit

# Loaded when they are used: a shell that asks for help waits for none of them.
_ROOMS = {
    "callbacks": (
        "Callback",
        "Collapse",
        "EarlyStopping",
        "ProgressBar",
        "Reporter",
        "mlflow",
        "tensorboard",
        "wandb",
    ),
    "comparison": ("Comparison", "compare"),
    "illnesses": ("Finding",),
    "errors": ("Diverged", "Interrupted", "RunError", "UsageError"),
    "exported": ("export",),
    "loaded": ("TrainedRun",),
    "loaded_examples": ("TrainedExamples", "load"),
    "scores": ("Codes", "Filled", "Scores", "Traversal", "Typicality", "typicality"),
    "training": ("Fitted", "fit"),
    "plan": ("Plan", "Progress"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Callback",
    "Codes",
    "Collapse",
    "Comparison",
    "Diverged",
    "EarlyStopping",
    "Filled",
    "Finding",
    "Fitted",
    "Interrupted",
    "Plan",
    "Progress",
    "ProgressBar",
    "Reporter",
    "RunError",
    "Scores",
    "TrainedExamples",
    "TrainedRun",
    "Traversal",
    "Typicality",
    "UsageError",
    "compare",
    "export",
    "fit",
    "load",
    "mlflow",
    "tensorboard",
    "typicality",
    "wandb",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
