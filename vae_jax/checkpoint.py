"""Orbax checkpoints of a training state, with a config beside it.

A checkpoint holds arrays and JSON; loading one executes nothing from it. It can be restored onto
other devices than it was saved from, by other processes too.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array

__all__ = ["CheckpointError", "manager", "restore", "restore_best", "restore_config", "save"]


class _State(Protocol):
    """What a state needs: its step. `TrainState` is one."""

    @property
    def step(self) -> Array: ...


State = TypeVar("State", bound=_State)


class CheckpointError(Exception):
    """There is no checkpoint to restore, it is of another model, or none can be written."""


def manager(
    directory: str | Path, *, keep: int = 3, read_only: bool = False
) -> ocp.CheckpointManager:
    """Orbax's manager of the checkpoints in a folder, made where there is none.

    Args:
      directory: the folder.
      keep: how many of the newest checkpoints stay.
      read_only: change nothing, for a folder that another process may be writing to. False removes
        what a process that was killed left half written.
    """
    return ocp.CheckpointManager(
        Path(directory).absolute(),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        ),
        item_handlers={
            "state": ocp.StandardCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
            "best": ocp.StandardCheckpointHandler(),
        },
    )


def save(
    checkpoints: ocp.CheckpointManager,
    state: _State,
    config: Mapping[str, Any],
    *,
    best: Any = None,
) -> None:
    """Writes the state as the checkpoint of its step; complete on disk when this returns.

    The position in the data is the step: `shuffle` and the noise of a step follow from it and the
    key. Where there are many processes, all of them call this.

    Args:
      checkpoints: from `manager`.
      state: a `TrainState`; its typed key is stored as one.
      config: JSON values, such as the options that rebuild the model.
      best: parameters to keep beside the state, of the best epoch so far; None for none.

    Raises:
      CheckpointError: it cannot be written, as on a full disk; the checkpoints before it stay.
    """
    step = int(state.step)
    # Orbax's files are compressed without a checksum: a byte that changes on disk goes unnoticed.
    stored = {"config": dict(config), "checksums": _checksums(state)}
    items = {"state": ocp.args.StandardSave(state), "config": ocp.args.JsonSave(stored)}
    if best is not None:
        items["best"] = ocp.args.StandardSave(best)
    try:
        checkpoints.save(step, args=ocp.args.Composite(**items), force=True)
    except (OSError, ValueError) as error:  # tensorstore's are ValueErrors
        raise CheckpointError(
            f"the checkpoint of step {step} cannot be written in {checkpoints.directory} "
            f"({_brief(error)}): make room; those before it stay"
        ) from error


def restore(checkpoints: ocp.CheckpointManager, like: State) -> State:
    """The newest checkpoint's state, on the devices of `like`.

    A checkpoint that is damaged is passed over with a `RuntimeWarning` for the one before.

    Args:
      checkpoints: from `manager`.
      like: a state of the same model and optimizer, or its `jax.ShapeDtypeStruct`s, which go to
        the first device where they carry no sharding. Its values are not read.

    Raises:
      CheckpointError: the folder holds no checkpoint, none that can be read, or the checkpoint's
        arrays have other names or shapes; the message names the first that differs.
    """
    newest = _latest_step(checkpoints)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    # Restoring onto other devices than the checkpoint's takes abstract arrays with a sharding.
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), like
    )
    items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            # Of a checkpoint without arrays there is no metadata.
            _check_same_shapes(checkpoints.item_metadata(step)["state"].tree, like, step)
            state: State = checkpoints.restore(step, args=items)["state"]
            if _checksums(state) != _stored(checkpoints, step)["checksums"]:
                raise ValueError("its values are not those that were saved")
            return state
        except CheckpointError:
            raise
        except Exception as error:  # damage shows as errors of every type
            warnings.warn(
                f"the checkpoint of step {step} in {checkpoints.directory} is damaged "
                f"({_brief(error)}): going back to the one before",
                RuntimeWarning,
                stacklevel=2,
            )
    raise CheckpointError(
        f"no checkpoint in {checkpoints.directory} can be read, the newest of step {newest}: start "
        "a new run"
    )


def restore_best(checkpoints: ocp.CheckpointManager, step: int, like: Any) -> Any:
    """The best epoch's parameters as they stand in the checkpoint of a step, on the host.

    Args:
      checkpoints: from `manager`.
      step: of the checkpoint.
      like: parameters of the same model, or their `jax.ShapeDtypeStruct`s.

    Returns:
      A pytree of NumPy arrays, or None where the checkpoint keeps none.
    """
    if "best" not in (checkpoints.item_metadata(step) or {}):
        return None
    target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
    items = ocp.args.Composite(best=ocp.args.StandardRestore(target))
    return checkpoints.restore(step, args=items)["best"]


def restore_config(checkpoints: ocp.CheckpointManager, step: int | None = None) -> dict[str, Any]:
    """A checkpoint's config.

    Args:
      checkpoints: from `manager`.
      step: of the checkpoint; the newest when not given.

    Raises:
      CheckpointError: the folder holds no checkpoint.
    """
    step = _latest_step(checkpoints) if step is None else step
    config: dict[str, Any] = _stored(checkpoints, step)["config"]
    return config


def _stored(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    items = ocp.args.Composite(config=ocp.args.JsonRestore())
    stored: dict[str, Any] = checkpoints.restore(step, args=items)["config"]
    return stored


def _latest_step(checkpoints: ocp.CheckpointManager) -> int:
    step: int | None = checkpoints.latest_step()
    if step is None:
        raise CheckpointError(f"{checkpoints.directory} holds no checkpoint")
    return step


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:100]


def _checksums(state: _State) -> list[int]:
    return [int(x) for x in _sums(jax.tree.leaves(state))]


@jax.jit
def _sums(leaves: list[Array]) -> list[Array]:
    """The sum of each array's bits as integers: the same however it is split over devices."""

    def total(leaf: Array) -> Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.dtype == jnp.bool_:
            leaf = leaf.astype(jnp.uint8)
        width = 8 * leaf.dtype.itemsize
        bits = jax.lax.bitcast_convert_type(leaf, f"uint{min(width, 32)}")
        return bits.astype(jnp.uint32).sum(dtype=jnp.uint32)

    return [total(leaf) for leaf in leaves]


def _check_same_shapes(saved: Any, like: _State, step: int) -> None:
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
