"""Orbax checkpoints of a training state, with a config beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vae_jax.train import TrainState

__all__ = ["CheckpointError", "manager", "restore", "restore_config", "save"]


class CheckpointError(Exception):
    """There is no checkpoint to restore, or it is of another model."""


def manager(directory: str | Path, *, keep: int = 3) -> ocp.CheckpointManager:
    """Orbax's manager of the checkpoints in a folder, made where there is none.

    Args:
      directory: the folder.
      keep: how many of the newest checkpoints stay.
    """
    return ocp.CheckpointManager(
        Path(directory).absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False),
        item_handlers={
            "state": ocp.StandardCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
        },
    )


def save(checkpoints: ocp.CheckpointManager, state: TrainState, config: Mapping[str, Any]) -> None:
    """Writes the state as the checkpoint of its step; complete on disk when this returns.

    The position in the data is the step: `shuffle` and the noise of a step follow from it and the
    key.

    Args:
      checkpoints: from `manager`.
      state: a `TrainState`; its typed key is stored as one.
      config: JSON values, such as the options that rebuild the model.
    """
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(dict(config))
    )
    checkpoints.save(int(state.step), args=items, force=True)


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState:
    """The newest checkpoint's state, on the devices of `like`.

    Args:
      checkpoints: from `manager`.
      like: a state of the same model and optimizer, or its `jax.ShapeDtypeStruct`s, which go to
        the first device where they carry no sharding. Its values are not read.

    Raises:
      CheckpointError: the folder holds no checkpoint, or the checkpoint's arrays have other names
        or shapes; the message names the first that differs.
    """
    step = _latest_step(checkpoints)
    _check_same_shapes(checkpoints.item_metadata(step)["state"].tree, like, step)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    # Restoring onto other devices than the checkpoint's takes abstract arrays with a sharding.
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), like
    )
    items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    state: TrainState = checkpoints.restore(step, args=items)["state"]
    return state


def restore_config(checkpoints: ocp.CheckpointManager) -> dict[str, Any]:
    """The newest checkpoint's config.

    Raises:
      CheckpointError: the folder holds no checkpoint.
    """
    items = ocp.args.Composite(config=ocp.args.JsonRestore())
    config: dict[str, Any] = checkpoints.restore(_latest_step(checkpoints), args=items)["config"]
    return config


def _latest_step(checkpoints: ocp.CheckpointManager) -> int:
    step: int | None = checkpoints.latest_step()
    if step is None:
        raise CheckpointError(f"{checkpoints.directory} holds no checkpoint")
    return step


def _check_same_shapes(saved: Any, like: TrainState, step: int) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path, simple=True, separator="."): x.shape for path, x in leaves
        }

    found, expected = shapes(saved), shapes(like)
    # A typed key is stored as the uint32 words behind it.
    del found["key"], expected["key"]
    for name in sorted(found | expected, reverse=True):  # params before their moments
        if found.get(name) != expected.get(name):
            raise CheckpointError(
                f"the checkpoint of step {step} is of another model or optimizer: {name} has shape "
                f"{found.get(name, 'absent')} there and {expected.get(name, 'absent')} here"
            )
