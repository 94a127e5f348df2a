"""Options as JSON values, and back; where the data of a stored run now lie."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from vae_jax.run.errors import UsageError
from vae_jax.run.options.groups import (
    CONVOLUTIONS,
    Data,
    Devices,
    Evaluation,
    Model,
    Objective,
    Options,
    OwnData,
    OwnOptions,
    Run,
    Training,
)


def to_json(options: Options) -> dict[str, Any]:
    """The options as JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return None if value == math.inf else value  # JSON has no infinity

    groups = dataclasses.asdict(options)
    of_one_command = {
        "run": ("resume", "restartable", "overwrite", "seeds", "sweep"),
        "devices": ("coordinator", "num_processes", "process_id"),
    }
    for group, names in of_one_command.items():
        for name in names:
            del groups[group][name]
    return {name: {k: plain(v) for k, v in group.items()} for name, group in groups.items()}


def from_json(config: dict[str, Any]) -> Options:
    """The options that `to_json` wrote.

    Raises:
      KeyError, TypeError: config is not such options.
    """
    config = {name: dict(group) for name, group in config.items()}
    paths = [("data", name) for name in ("data_dir", "manual_dir", "test", "labels")]
    for group, name in (*paths, ("training", "init_from"), ("run", "output")):
        if config[group].get(name) is not None:
            config[group][name] = Path(config[group][name])
    # Of versions 0.1 and 0.2 every run has both.
    other = "hidden" if config["model"]["network"] in CONVOLUTIONS else "channels"
    for name in "hidden", "channels":
        widths = config["model"][name]
        config["model"][name] = None if widths is None or name == other else tuple(widths)
    if (blocks := config["model"].get("blocks")) is not None:
        config["model"]["blocks"] = tuple(blocks)
    # Where these could not be chosen yet, they are what there was.
    config.setdefault("objective", {"gradient": "reparameterized"})
    config["training"].setdefault("optimizer", "adam")
    if config["training"]["clip_norm"] is None:
        config["training"]["clip_norm"] = math.inf
    own = "image_size" in config["data"]
    if "patience" not in config["training"]:  # version 0.1
        config["training"]["patience"] = 0
        if own:
            for name in "images_key", "labels_key":
                config["data"][name] = None
    if "select" not in config["run"]:  # before it could be chosen
        config["run"]["select"] = "best" if config["training"]["patience"] else "last"
    kind: Any = OwnOptions if own else Options
    options: Options = kind(
        (OwnData if own else Data)(**config["data"]),
        Model(**config["model"]),
        Training(**config["training"]),
        Objective(**config["objective"]),
        Devices(**config["devices"]),
        Evaluation(**config["evaluation"]),
        Run(**config["run"]),
    )
    return options


def moved(data: Data | OwnData, where: str | None) -> Data | OwnData:
    """The data's options with the place where they now lie, where one is given.

    Raises:
      UsageError: they are a named data set, which lies where --data-dir says.
    """
    if where is None:
        return data
    if isinstance(data, Data):
        raise UsageError(
            f"--data is {where} but the run is of {data.dataset}, which is found by its name: "
            "leave it out"
        )
    return dataclasses.replace(data, dataset=where)
