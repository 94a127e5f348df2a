"""The loop of a run: epochs, progress, checkpoints, and the ways in which it can end early."""

import contextlib
import functools
import itertools
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

import vae_jax
from experiments import feed, folder
from experiments.command import Interrupted, RunError, StopRequest
from experiments.options import Training, UsageError
from vae_jax import checkpoint

# A call makes as many steps as take about so long: a stop, or a checkpoint, waits for its end.
_CALL_SECONDS = 1.0


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


@dataclass(frozen=True)
class Trained:
    """What training leaves: the state, its rows of metrics, and the run's times in seconds.

    The times are of all processes that worked on the run, up to the last checkpoint of each.
    """

    state: vae_jax.TrainState
    rows: list[dict[str, Any]]
    compile_seconds: float
    seconds_before: float


def train(
    state: vae_jax.TrainState,
    sharding: vae_jax.TrainState,
    loss: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    images: Any,
    labels: np.ndarray | None,
    validate: Callable[[Any], vae_jax.Bound],
    options: Training,
    config: Mapping[str, Any],
    run: Path,
    *,
    start: float,
    stream: bool,
    num_workers: int = 0,
    resume: bool,
    keep: int,
    checkpoint_seconds: float,
    continue_command: str,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Trained:
    """Trains to the last epoch, leaving a row of metrics for each and checkpoints.

    Args:
      state: a fresh one; with `resume` its values are replaced by the newest checkpoint's.
      sharding: of the state, from `vae_jax.state_sharding`.
      loss: for `vae_jax.make_train_epoch`; its second result a `Bound`.
      optimizer: for the same.
      images: [N, ...] on the host; see `feed.stream`.
      labels: [N], or None.
      validate: params on one device -> scalar Bound of the validation set.
      options: epochs and batch size.
      config: stored in each checkpoint.
      run: the folder.
      start: when this process started, by time.perf_counter.
      stream: read the images while training; False holds them on every device.
      num_workers: processes that read a stream; see `feed.stream`.
      resume: start from the newest checkpoint in the folder.
      keep: checkpoints that stay.
      checkpoint_seconds: least time between two, but at the end and at a stop.
      continue_command: named in messages.
      on_epoch: called with each row.

    Raises:
      Interrupted: SIGINT or SIGTERM came; the state is saved.
      RunError: a loss was not finite; the last good checkpoint stays.
    """
    assert options.epochs is not None
    steps = len(images) // options.batch_size
    leader = jax.process_index() == 0
    rows: list[dict[str, Any]] = []
    progress: dict[str, Any] = {
        "sums": {},  # of the metrics over the steps of the epoch under way
        "epoch_seconds": 0.0,  # of the same
        "compile_seconds": 0.0,  # of the run, as the next
        "total_seconds": 0.0,
    }
    with checkpoint.manager(run / "checkpoints", keep=keep) as checkpoints:
        # A run that was killed before its first checkpoint starts over.
        if resume and checkpoints.latest_step() is not None:
            state = checkpoint.restore(checkpoints, state)
            at = int(state.step)
            progress = checkpoint.restore_config(checkpoints, at)["progress"]
            if at > options.epochs * steps:
                raise UsageError(
                    f"--epochs is {options.epochs} but the run has made {at // steps}: give as "
                    "many or more"
                )
            for step in checkpoints.all_steps():
                if step > at:  # damaged, and in the way of the same step's next one
                    checkpoints.delete(step)
            rows = folder.read_metrics(run, at // steps)
            if leader:
                folder.write_metrics(run, rows)
        seconds_before = progress["total_seconds"]

        # The same key on this process's device alone.
        key = jax.random.wrap_key_data(np.asarray(jax.random.key_data(state.key)))

        def order_of(epoch: int) -> np.ndarray:
            order = vae_jax.shuffle(
                key, epoch, num_examples=len(images), batch_size=options.batch_size
            )
            parts = () if options.accumulate == 1 else (options.accumulate,)
            return np.asarray(order).reshape(steps, *parts, -1)

        at = int(state.step)
        mesh = sharding.step.mesh
        make_feed = (
            functools.partial(feed.stream, num_workers=num_workers) if stream else feed.resident
        )
        pieces = make_feed(images, labels, order_of, mesh, at, options.epochs)
        first = next(pieces, None)
        if first is None:  # the run was finished
            return Trained(state, rows, progress["compile_seconds"], seconds_before)

        compile_start = time.perf_counter()
        train_epoch = (
            vae_jax.make_train_epoch(
                loss,
                optimizer,
                average_decay=options.average_decay,
                accumulate=options.accumulate,
                sharding=sharding,
            )
            .lower(state, first.dataset, first.order, np.int32(0), np.int32(1))
            .compile()
        )
        progress["compile_seconds"] += time.perf_counter() - compile_start

        bar = tqdm(
            total=options.epochs * steps * options.batch_size,
            initial=at * options.batch_size,
            unit="example",
            unit_scale=True,
            disable=None if leader else True,
        )
        saved_at = time.monotonic()
        num = 1  # steps of a call
        clock = time.perf_counter()  # runs while a piece is waited for too
        with bar, StopRequest() as stop, contextlib.closing(pieces):
            for piece in itertools.chain([first], pieces):
                bar.set_description(f"epoch {piece.epoch + 1}/{options.epochs}")
                while (position := at - piece.epoch * steps) < piece.stop:
                    num = min(num, piece.stop - position)
                    part = slice(position - piece.start, position - piece.start + num)
                    state, metrics = train_epoch(
                        state, piece.dataset, piece.order, np.int32(part.start), np.int32(part.stop)
                    )
                    metrics = jax.device_get(metrics)
                    _check_finite(metrics.loss[part], state.params, at, run, continue_command)
                    at, position = at + num, position + num
                    for name, values in _terms(metrics.aux).items():
                        # One by one: the sum must not depend on how the epoch is cut into calls.
                        progress["sums"][name] = functools.reduce(
                            operator.add, values[part].tolist(), progress["sums"].get(name, 0.0)
                        )
                    seconds = time.perf_counter() - clock
                    progress["epoch_seconds"] += seconds
                    bar.update(num * options.batch_size)

                    if position == steps:
                        row = _row(piece.epoch, state, progress, steps, options, validate)
                        progress |= {"sums": {}, "epoch_seconds": 0.0}
                        rows.append(row)
                        if leader:
                            folder.append_metrics(run, row)
                            on_epoch(row)
                        bar.set_postfix(
                            ELBO=f"{row['validation_elbo']:.2f}", KL=f"{row['validation_kl']:.2f}"
                        )
                    finished = at == options.epochs * steps
                    step_seconds, signum, age = _agreed(
                        seconds / num, stop.signum, time.monotonic() - saved_at
                    )
                    num = max(1, int(_CALL_SECONDS / step_seconds))
                    if finished or signum or age >= checkpoint_seconds:
                        progress["total_seconds"] = seconds_before + time.perf_counter() - start
                        checkpoint.save(checkpoints, state, {**config, "progress": progress})
                        saved_at = time.monotonic()
                    if signum:
                        bar.close()
                        raise Interrupted(
                            int(signum),
                            f"stopped and saved at step {at}; go on with\n  {continue_command}",
                        )
                    clock = time.perf_counter()
    return Trained(state, rows, progress["compile_seconds"], seconds_before)


def _agreed(*values: float) -> np.ndarray:
    """The largest of each value over all processes, which must all do the same next."""
    if jax.process_count() == 1:
        return np.array(values)
    return multihost_utils.process_allgather(np.array(values, np.float32)).max(axis=0)


def _terms(bound: vae_jax.Bound) -> dict[str, Any]:
    return {"elbo": bound.value, "log_likelihood": bound.log_likelihood, "kl": bound.kl}


def _row(
    epoch: int,
    state: vae_jax.TrainState,
    progress: dict[str, Any],
    steps: int,
    options: Training,
    validate: Callable[[Any], vae_jax.Bound],
) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl: bounds in nats, means over its training steps."""
    validation = _terms(validate(evaluation_params(state)))
    return {
        "epoch": epoch + 1,
        "step": int(state.step),
        **{f"train_{k}": total / steps for k, total in progress["sums"].items()},
        **{f"validation_{k}": float(v) for k, v in validation.items()},
        "examples_per_second": steps * options.batch_size / progress["epoch_seconds"],
        "seconds": progress["epoch_seconds"],
    }


def evaluation_params(state: vae_jax.TrainState) -> Any:
    """The parameters that are judged: the moving average where the run keeps one.

    Whole, and on one device of this process.
    """
    params = state.params if state.average is None else state.average
    everywhere = NamedSharding(state.step.sharding.mesh, PartitionSpec())
    return jax.tree.map(lambda x: x.addressable_data(0), jax.device_put(params, everywhere))


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
