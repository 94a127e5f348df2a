"""The parameters that a run starts from, and those of it that are its result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import vae_jax
from vae_jax.run import overwritten
from vae_jax.run.errors import UsageError
from vae_jax.run.training import Fitted

_ENDED_BY = {"plan": "epochs", "EarlyStopping": "patience"}  # others by their names


def described(fitted: Fitted, select: str | None) -> dict[str, Any]:
    """Which epoch is a run's result and why it ended, for results.json.

    Args:
      fitted: what training left, with a validation_elbo in each row.
      select: which epoch was asked for, best or last.
    """
    row, last = fitted.row, fitted.rows[-1]
    assert row is not None
    return {
        "select": select,
        "ended_by": _ENDED_BY.get(fitted.ended_by, fitted.ended_by),
        "last_epoch": last["epoch"],
        "last_validation_elbo": last["validation_elbo"],
        "selected_epoch": row["epoch"],
        "selected_validation_elbo": row["validation_elbo"],
    }


def summary(results: dict[str, Any]) -> str:
    """`described` in a line."""
    epoch, last = results["selected_epoch"], results["last_epoch"]
    elbo, by = results["selected_validation_elbo"], results["ended_by"].replace("_", "-")
    ended = f"training ended in epoch {last} by --{by}"
    if (compiling := results.get("compile_seconds", 0.0)) > 10 and by == "max-minutes":
        ended += f", {compiling:.0f} seconds of which went into compiling"
    if epoch == last:
        return f"{ended}; the result is that epoch, validation ELBO {elbo:.2f} nats"
    return (
        f"{ended}; the result is epoch {epoch}, validation ELBO {elbo:.2f} nats, where the last "
        f"has {results['last_validation_elbo']:.2f}"
    )


def begun(
    init_from: Path | None,
    restore: Callable[[Path], Any],
    state: vae_jax.TrainState,
    run: Any,
    output: Path,
) -> vae_jax.TrainState:
    """The state that a run begins with: with another's parameters, where it asked for them.

    A resumed run that has a checkpoint has no use of them; one that was ended before its first has.

    Args:
      init_from: the other run's folder, or None.
      restore: of such a folder.
      state: a fresh one.
      run: the options of where the run lies, with `resume`.
      output: its folder. What cannot begin leaves no run there to resume, but the one that it was
        to overwrite; what begins deletes that.

    Raises:
      UsageError: as `start_from`, or there is no such run.
    """
    leader = jax.process_index() == 0
    saved = (path.name for path in (output / "checkpoints").glob("*"))
    try:
        if init_from is not None and not (run.resume and any(map(str.isdigit, saved))):
            state = start_from(init_from, restore(init_from).params, state)
    except Exception:
        if leader and not run.resume and not overwritten.put_back(output):
            (output / "config.json").unlink(missing_ok=True)
        raise
    if leader:
        overwritten.gone(output)
    return state


def start_from(run: Path, params: Any, state: vae_jax.TrainState) -> vae_jax.TrainState:
    """The state with another run's parameters.

    Args:
      run: its folder, for messages.
      params: what is judged of it: those of the best epoch, or the average, where it has such.
      state: a fresh one.

    Raises:
      UsageError: they are of another model; the first difference is named.
    """
    theirs, ours = (
        {
            jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape
            for path, leaf in leaves
        }
        for leaves in map(jax.tree_util.tree_leaves_with_path, (params, state.params))
    )
    for name in sorted(theirs | ours):
        if theirs.get(name) != ours.get(name):
            raise UsageError(
                f"--init-from={run} is of another model: {name} has shape "
                f"{theirs.get(name, 'absent')} there and {ours.get(name, 'absent')} here"
            )
    params = jax.tree.map(
        lambda ours, theirs: jax.device_put(theirs, ours.sharding), state.params, params
    )
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return state._replace(params=params, average=average)
