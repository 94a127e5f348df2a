"""The loop of a run: epochs, progress, checkpoints, and the ways in which it can end early."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import vae_jax
from experiments import folder
from experiments.command import Interrupted, RunError, StopRequest
from experiments.options import Training, UsageError
from vae_jax import checkpoint

# An epoch of more steps is cut into calls of at most so many, so that a stop need not wait long.
_MAX_STEPS_PER_CALL = 500


def make_optimizer(options: Training, total_steps: int) -> optax.GradientTransformation:
    """Adam with a warm-up and a cosine decay, behind gradient clipping."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=options.learning_rate,
        warmup_steps=min(500, total_steps // 10),
        decay_steps=total_steps,
        end_value=options.learning_rate / 100,
    )
    # identity and clipping have the same (empty) state: clipping can change at a resume.
    clip = (
        optax.clip_by_global_norm(options.clip_norm)
        if np.isfinite(options.clip_norm)
        else optax.identity()
    )
    return optax.chain(clip, optax.adam(schedule))


def split_epoch(num_examples: int, batch_size: int) -> tuple[int, int]:
    """(calls, steps per call) of an epoch.

    The calls are of one length, so that they compile once; the up to calls - 1 steps that do not
    fit sit out, other examples in each epoch.
    """
    steps = num_examples // batch_size
    calls = -(-steps // _MAX_STEPS_PER_CALL)
    return calls, steps // calls


@dataclass(frozen=True)
class Trained:
    """What training leaves: the state, its rows of metrics, and its times in seconds."""

    state: vae_jax.TrainState
    rows: list[dict[str, Any]]
    compile_seconds: float


def train(
    state: vae_jax.TrainState,
    loss: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    dataset: vae_jax.Batch,
    validate: Callable[[Any], vae_jax.Bound],
    options: Training,
    config: Mapping[str, Any],
    run: Path,
    *,
    resume: bool,
    keep: int,
    checkpoint_seconds: float,
    continue_command: str,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Trained:
    """Trains to the last epoch, leaving a checkpoint and a row of metrics for each.

    Args:
      state: a fresh one; with `resume` its values are replaced by the newest checkpoint's.
      loss: for `vae_jax.make_train_epoch`; its second result a `Bound`.
      optimizer: for the same.
      dataset: on the device.
      validate: params -> scalar Bound of the validation set.
      options: epochs and batch size.
      config: stored in each checkpoint.
      run: the folder.
      resume: start from the newest checkpoint in it.
      keep: checkpoints that stay.
      checkpoint_seconds: least time between two, but at the end and at a stop.
      continue_command: named in messages.
      on_epoch: called with each row.

    Raises:
      Interrupted: SIGINT or SIGTERM came; the state is saved.
      RunError: a loss was not finite; the last good checkpoint stays.
    """
    assert options.epochs is not None
    num_examples = len(dataset.image)
    calls, steps = split_epoch(num_examples, options.batch_size)
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, float]] = []  # of the epoch under way, one for each call
    with checkpoint.manager(run / "checkpoints", keep=keep) as checkpoints:
        # A run that was killed before its first checkpoint starts over.
        if resume and checkpoints.latest_step() is not None:
            state = checkpoint.restore(checkpoints, state)
            parts = checkpoint.restore_config(checkpoints)["parts"]
            if int(state.step) > options.epochs * calls * steps:
                raise UsageError(
                    f"--epochs is {options.epochs} but the run has made "
                    f"{int(state.step) // (calls * steps)}: give as many or more"
                )
            rows = folder.read_metrics(run, int(state.step) // (calls * steps))
            folder.write_metrics(run, rows)

        def order_of(epoch: int) -> jax.Array:
            order = vae_jax.shuffle(
                state.key, epoch, num_examples=num_examples, batch_size=options.batch_size
            )
            return order[: calls * steps].reshape(calls, steps, options.batch_size)

        start = time.perf_counter()
        train_epoch = (
            vae_jax.make_train_epoch(loss, optimizer, average_decay=options.average_decay)
            .lower(state, dataset, order_of(0)[0])
            .compile()
        )
        compile_seconds = time.perf_counter() - start

        done = int(state.step) * options.batch_size
        total = options.epochs * calls * steps * options.batch_size
        bar = tqdm(total=total, initial=done, unit="example", unit_scale=True, disable=None)
        saved_at = time.monotonic()
        with bar, StopRequest() as stop:
            for epoch in range(int(state.step) // (calls * steps), options.epochs):
                bar.set_description(f"epoch {epoch + 1}/{options.epochs}")
                order = order_of(epoch)
                for call in range(len(parts), calls):
                    start = time.perf_counter()
                    first_step = epoch * calls * steps + call * steps
                    state, metrics = train_epoch(state, dataset, order[call])
                    _check_finite(metrics.loss, state.params, first_step, run, continue_command)
                    means = {k: float(v.mean()) for k, v in _terms(metrics.aux).items()}
                    parts.append({**means, "seconds": time.perf_counter() - start})
                    bar.update(steps * options.batch_size)
                    if stop.signum and call + 1 < calls:
                        break
                else:
                    row = _row(epoch, state, parts, calls * steps * options.batch_size, validate)
                    parts = []
                    rows.append(row)
                    folder.append_metrics(run, row)
                    on_epoch(row)
                    bar.set_postfix(
                        ELBO=f"{row['validation_elbo']:.2f}", KL=f"{row['validation_kl']:.2f}"
                    )
                finished = epoch + 1 == options.epochs and not parts
                if finished or stop.signum or time.monotonic() - saved_at >= checkpoint_seconds:
                    checkpoint.save(checkpoints, state, {**config, "parts": parts})
                    saved_at = time.monotonic()
                if stop.signum and not finished:
                    bar.close()
                    raise Interrupted(
                        stop.signum,
                        f"stopped and saved at step {int(state.step)}; go on with\n"
                        f"  {continue_command}",
                    )
    return Trained(state, rows, compile_seconds)


def _terms(bound: vae_jax.Bound) -> dict[str, Any]:
    return {"elbo": bound.value, "log_likelihood": bound.log_likelihood, "kl": bound.kl}


def _row(
    epoch: int,
    state: vae_jax.TrainState,
    parts: list[dict[str, float]],
    num_examples: int,
    validate: Callable[[Any], vae_jax.Bound],
) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl: bounds in nats, means over its training steps."""
    seconds = sum(part["seconds"] for part in parts)
    terms = ("elbo", "log_likelihood", "kl")
    validation = _terms(validate(evaluation_params(state)))
    return {
        "epoch": epoch + 1,
        "step": int(state.step),
        **{f"train_{k}": float(np.mean([part[k] for part in parts])) for k in terms},
        **{f"validation_{k}": float(validation[k]) for k in terms},
        "examples_per_second": num_examples / seconds,
        "seconds": seconds,
    }


def evaluation_params(state: vae_jax.TrainState) -> Any:
    """The parameters that are judged: the moving average where the run keeps one."""
    return state.params if state.average is None else state.average


@jax.jit
def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _check_finite(
    loss: jax.Array, params: Any, first_step: int, run: Path, continue_command: str
) -> None:
    losses = np.asarray(loss)
    infinite = np.flatnonzero(~np.isfinite(losses))
    if infinite.size:
        what = f"the loss of step {first_step + infinite[0] + 1} is {losses[infinite[0]]}"
    elif not _finite(params):  # a finite loss can have a gradient that is not
        what = f"the parameters after step {first_step + len(losses)} are not finite"
    else:
        return
    raise RunError(
        f"{what}; the checkpoints in "
        f"{run / 'checkpoints'} are from before it. Go on from the newest with a smaller step:\n"
        f"  {continue_command} --learning-rate=... --clip-norm=..."
    )
