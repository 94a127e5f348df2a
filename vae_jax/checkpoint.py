"""Orbax checkpoints of a training state, with a config beside it.

A checkpoint holds arrays and JSON; loading one executes nothing from it. It can be restored onto
other devices than it was saved from, by other processes too.
"""

import contextlib
import errno
import functools
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array

from vae_jax import _checksum as checksum

__all__ = [
    "CheckpointError",
    "manager",
    "restore",
    "restore_best",
    "restore_config",
    "save",
    "set_aside",
]


class _State(Protocol):
    """What a state needs: its step. `TrainState` is one."""

    @property
    def step(self) -> Array: ...


State = TypeVar("State", bound=_State)
Read = TypeVar("Read")


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

    Raises:
      CheckpointError: the folder cannot be made or read.
    """

    def open_folder() -> ocp.CheckpointManager:
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

    try:
        return _retried(open_folder, Path(directory), f"the folder {directory}")
    except OSError as error:
        raise CheckpointError(
            f"{directory} is no folder of checkpoints ({_brief(error)})"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Orbax warns of when it is asked to write nothing."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _is_not_raised(record: logging.LogRecord) -> bool:
    said = record.pathname + logging.Formatter().format(record)  # with the traceback
    return record.levelno < logging.ERROR or "orbax" not in said


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Without the errors that Orbax's threads and tasks log: they are raised as well, and said."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    clean = [logger for logger in loggers if _is_not_raised not in logger.filters]
    for logger in clean:
        logger.addFilter(_is_not_raised)
    yield
    # Not where it failed: what it had begun may log until the program ends.
    for logger in clean:
        logger.removeFilter(_is_not_raised)


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
    stored = {"config": dict(config), "mixed": checksum.mixed(state)}
    items = {"state": ocp.args.StandardSave(_filled(state)), "config": ocp.args.JsonSave(stored)}
    if best is not None:
        stored["best"] = checksum.mixed(best)
        # On the host, as a single array of JAX's would be refused.
        items["best"] = ocp.args.StandardSave(_filled(jax.device_get(best)))
    try:
        with _said_once():
            checkpoints.save(step, args=ocp.args.Composite(**items), force=True)
    except (OSError, ValueError) as error:  # tensorstore's are ValueErrors
        raise CheckpointError(
            f"the checkpoint of step {step} cannot be written in {checkpoints.directory} "
            f"({_brief(error)}): see that there is room; those before it stay"
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
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            return _read(
                checkpoints, step, functools.partial(_restore_step, checkpoints, like, step)
            )
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


def _restore_step(checkpoints: ocp.CheckpointManager, like: State, step: int) -> State:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    # Restoring onto other devices than the checkpoint's takes abstract arrays with a sharding.
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), like
    )
    # Of a checkpoint without arrays there is no metadata.
    _check_same_arrays(checkpoints.item_metadata(step)["state"].tree, _filled(like), step)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(_filled(target)))
    state: State = _with_empty(checkpoints.restore(step, args=items)["state"], target)
    _check_sums(state, _stored(checkpoints, step))
    return state


def _filled(tree: Any) -> Any:
    """The tree without its arrays of no elements, which Orbax refuses."""
    return jax.tree.map(lambda x: x if np.size(x) else None, tree)


def _with_empty(tree: Any, like: Any) -> Any:
    """The tree with those arrays of `like` again."""

    def or_empty(like: Any, x: Any) -> Any:
        if x is not None:
            return x
        if isinstance(like, np.ndarray):
            return like
        return jax.device_put(jnp.empty(like.shape, like.dtype), like.sharding)

    return jax.tree.map(or_empty, like, tree)


# What the system says of a file, or of memory, that may be there a moment later: tensorstore passes
# it on as the text of a ValueError. A file that is gone, or holds something else, is damage.
_PASSING = re.compile(
    r"os_error_code='(?P<code>\d+)'|OS error (?P<older>\d+)"
    "|UNAVAILABLE|RESOURCE_EXHAUSTED|Cannot allocate memory"
)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_WAITS = (0.2, 1.0, 3.0)  # seconds before each further try


def _read(checkpoints: ocp.CheckpointManager, step: int, read: Callable[[], Read]) -> Read:
    folder = Path(checkpoints.directory) / str(step)
    return _retried(read, folder, f"the checkpoint of step {step} in {checkpoints.directory}")


def _retried(read: Callable[[], Read], folder: Path, what: str) -> Read:
    """What `read` returns; errors that can pass are tried again, and never taken for damage.

    Raises:
      CheckpointError: such an error did not pass.
    """
    waits, damaged = iter(_WAITS), False
    while True:
        try:
            with _quiet(), _said_once():
                return read()
        except CheckpointError:
            raise
        except Exception as error:
            # Orbax passes over some errors of reading and misses what it has not read: what is
            # damaged is so twice, and can be read.
            cause = error if _can_pass(error) else _reading_error(folder)
            if cause is None and damaged:
                raise
            damaged = cause is None
            if damaged:
                continue
            if (wait := next(waits, None)) is None:
                raise CheckpointError(
                    f"{what} cannot be read now ({_brief(cause or error)}): try again; nothing was "
                    "changed"
                ) from error
            time.sleep(wait)


def _reading_error(folder: Path) -> Exception | None:
    """What can pass and keeps a file in the folder from being read."""

    def fail(error: OSError) -> None:
        raise error

    try:
        for parent, _, names in os.walk(folder, onerror=fail):
            for name in names:
                with (Path(parent) / name).open("rb") as file:
                    while file.read(2**20):
                        pass
    except OSError as error:
        return error if _can_pass(error) else None
    return None


def _can_pass(error: Exception) -> bool:
    if isinstance(error, OSError | MemoryError):
        return getattr(error, "errno", None) not in _GONE
    found = _PASSING.search(str(error))
    return found is not None and int(found["code"] or found["older"] or 0) not in _GONE


def set_aside(checkpoints: ocp.CheckpointManager, after: int) -> list[Path]:
    """Moves checkpoints of later steps, which `restore` has passed over, out of the manager's way.

    They would stand where the same steps' next ones go. None is deleted.

    Args:
      checkpoints: from `manager`.
      after: the step that was restored.

    Returns:
      Where they are now: in the folder `damaged` beside that of the checkpoints.

    Raises:
      CheckpointError: one cannot be moved.
    """
    folder = Path(checkpoints.directory)
    moved = []
    for step in sorted(checkpoints.all_steps()):
        if step > after:
            place = folder.with_name("damaged") / f"{step}-{time.time_ns()}"
            try:
                place.parent.mkdir(exist_ok=True)
                (folder / str(step)).rename(place)
            except OSError as error:
                raise CheckpointError(
                    f"{folder / str(step)} is damaged and cannot be moved to {place} "
                    f"({_brief(error)}): move it away"
                ) from error
            moved.append(place)
    if moved:
        checkpoints.reload()
    return moved


def restore_best(checkpoints: ocp.CheckpointManager, step: int, like: Any) -> Any:
    """The best epoch's parameters as they stand in the checkpoint of a step, on the host.

    Args:
      checkpoints: from `manager`.
      step: of the checkpoint.
      like: parameters of the same model, or their `jax.ShapeDtypeStruct`s.

    Returns:
      A pytree of NumPy arrays, or None where the checkpoint keeps none.
    """
    mixed = _stored(checkpoints, step).get("best")
    if mixed is None:
        return None
    target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)

    def read() -> Any:
        items = ocp.args.Composite(best=ocp.args.StandardRestore(_filled(target)))
        best = _with_empty(checkpoints.restore(step, args=items)["best"], target)
        _check(checksum.mixed(best) == mixed)
        return best

    try:
        return _read(checkpoints, step, read)
    except CheckpointError:
        raise
    except Exception as error:  # damage shows as errors of every type
        raise CheckpointError(
            f"the best parameters in the checkpoint of step {step} in {checkpoints.directory} are "
            f"damaged ({_brief(error)}): move that checkpoint away to go back to the one before"
        ) from error


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
    def read() -> dict[str, Any]:
        items = ocp.args.Composite(config=ocp.args.JsonRestore())
        stored: dict[str, Any] = checkpoints.restore(step, args=items)["config"]
        return stored

    return _read(checkpoints, step, read)


def _latest_step(checkpoints: ocp.CheckpointManager) -> int:
    step: int | None = checkpoints.latest_step()
    if step is None:
        raise CheckpointError(f"{checkpoints.directory} holds no checkpoint")
    return step


def _brief(error: Exception) -> str:
    """The error in a line; tensorstore's says its cause last, before its own settings."""
    first = f"{type(error).__name__}: {error}".partition("\n")[0]
    text = re.split(r" \[(?:os_error|source|tensorstore)", first)[0]
    return text if len(text) <= 120 else f"{text[:40]} ... {text[-75:]}"


def _check_sums(state: Any, stored: dict[str, Any]) -> None:
    if "mixed" in stored:
        equal = checksum.mixed(state) == stored["mixed"]
    else:  # written by version 0.1
        equal = checksum.plain(state) == stored["checksums"]
    _check(equal)


def _check(equal: bool) -> None:
    if not equal:
        raise ValueError("its values are not those that were saved")


def _check_same_arrays(saved: Any, like: _State, step: int) -> None:
    def arrays(tree: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path, simple=True, separator="."): (tuple(x.shape), x.dtype)
            for path, x in leaves
        }

    def with_words(x: Any) -> Any:  # a typed key is stored as the words behind it
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.eval_shape(jax.random.key_data, x) if is_key else x

    found, expected = arrays(saved), arrays(jax.tree.map(with_words, like))
    for name in sorted(found | expected, reverse=True):  # params before their moments
        there, here = found.get(name), expected.get(name)
        if there == here:
            continue
        if there is not None and here is not None and there[0] == here[0]:
            what = f"dtype {there[1]} there and {here[1]} here"
        else:
            shapes = ("absent" if of is None else of[0] for of in (there, here))
            what = "shape {} there and {} here".format(*shapes)
        raise CheckpointError(
            f"the checkpoint of step {step} is of another model or optimizer: {name} has {what}"
        )
