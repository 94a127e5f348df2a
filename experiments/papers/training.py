"""Replicas trained side by side, for a number of steps or for what a budget has time for."""

import contextlib
import math
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from vae_jax import run
from vae_jax.run.errors import UsageError
from vae_jax.run.schedule import rate_at

Params = Any


class Length(NamedTuple):
    """Of a training.

    Attributes:
      steps: None for as many as there is time for.
      seconds: not used where there are steps.
    """

    steps: int | None
    seconds: float

    @classmethod
    def of(cls, chosen: Any) -> "Length":
        """That of a program's options, `steps` and `budget`."""
        return cls(chosen.steps, seconds(chosen.budget))

    def part(self, share: float) -> "Length":
        steps = None if self.steps is None else max(1, round(share * self.steps))
        return Length(steps, share * self.seconds)


def seconds(budget: str) -> float:
    """Of a budget such as 90s, 30m or 2h.

    >>> seconds("30m")
    1800.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--budget is {budget}: give a time such as 90s, 30m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def side_by_side(one: Callable[..., Any]) -> Callable[..., Any]:
    """The sum of R replicas' losses, params [R, ...], whose gradient is each replica's own.

    They share the order of the examples, not the noise. What is reported is the mean over them.
    """

    def loss(params: Params, key: jax.Array, batch: Any, step: jax.Array | None = None) -> Any:
        keys = jax.random.split(key, len(jax.tree.leaves(params)[0]))
        losses, aux = jax.vmap(lambda *replica: one(*replica, batch, step))(params, keys)
        return losses.sum(), jax.tree.map(jnp.mean, aux)

    return loss


def make_optimizer(
    rate: float,
    num_steps: float,
    *,
    part: tuple[float, float] = (0.0, 1.0),
    constant: float = 0.5,
    warm_up: int = 500,
) -> optax.GradientTransformation:
    """Muon for replicas side by side, at a constant rate and then along a line to zero.

    The steps are those of a part of the training: see `rate_at`.

    Muon (Jordan et al. 2024) makes each weight matrix's step orthogonal. With 784-200-200-50 and
    the ELBO it has 86.9 nats after 30,000 steps of 400 images, NAdam 88.9 at its best rate.
    Everything but the kernels of dense layers has Adam, at a fifth of the rate.
    num_steps is in the state, not in the program, which need not be compiled anew for another.
    """
    muon = optax.contrib.muon(  # type: ignore[attr-defined]
        1.0, adam_learning_rate=0.2, muon_weight_dimension_numbers=_dense_kernels
    )

    def init(params: Params) -> Any:
        return jax.vmap(muon.init)(params), jnp.float32(num_steps), jnp.int32(0)

    def update(gradient: Params, state: Any, params: Params = None) -> Any:
        of_muon, total, count = state
        updates, of_muon = jax.vmap(muon.update)(gradient, of_muon, params)
        where = count.astype(jnp.float32), total, rate
        scale = rate_at(*where, part=part, constant=constant, warm_up=warm_up)
        return jax.tree.map(lambda u: scale * u, updates), (of_muon, total, count + 1)

    return optax.GradientTransformation(init, update)


def _dense_kernels(params: Params) -> Any:
    """Where Muon is: not at pseudo-inputs, say, whose rows have nothing to do with each other."""

    def numbers(path: Any, leaf: jax.Array) -> Any:
        dense = leaf.ndim == 2 and "kernel" in jax.tree_util.keystr(path[-1:])
        return optax.contrib.MuonDimensionNumbers() if dense else None  # type: ignore[attr-defined]

    return jax.tree_util.tree_map_with_path(numbers, params)


class _EnoughError(Exception):
    """Steps are timed."""


class _Clock:
    """A callback that times the steps of a run, without the first call.

    Args:
      seconds: after which it has seen enough, and ends the run by an `_EnoughError`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: list[tuple[int, float]] = []

    def start(self, progress: Any) -> None: ...

    def steps(self, progress: Any, metrics: Any) -> None:
        self._calls.append((progress.step, time.perf_counter()))
        if len(self._calls) > 1 and self._calls[-1][1] - self._calls[0][1] > self._seconds:
            raise _EnoughError

    def epoch(self, progress: Any, row: Any) -> None: ...

    @property
    def seconds_per_step(self) -> float:
        (first, start), (last, end) = self._calls[0], self._calls[-1]
        return (end - start) / (last - first)


_TIMED_STEPS = 301


def fit(
    key: jax.Array,
    loss: Callable[..., Any],
    params: Params,
    data: Any,
    length: Length,
    *,
    batch_size: int,
    optimizer: Callable[[float], optax.GradientTransformation],
    average: bool = True,
) -> tuple[Params, dict[str, Any]]:
    """Trains replicas for a number of steps, or for as many as a budget has time for.

    Args:
      key: of the order and the noise.
      loss: of `side_by_side`, or another sum over replicas.
      params: of each replica, [R, ...].
      data: what the loss takes batches of.
      length: where it is seconds, the clock of some first steps says for how many they are.
      batch_size: examples a step.
      optimizer: of the number of steps, such as a partial of `make_optimizer`.
      average: give the moving average of the parameters, as of the last part of a training.

    Returns:
      The parameters, and what the training was.
    """

    def run_for(num_steps: int, planned: float, *callbacks: Any) -> run.Fitted:
        plan = run.Plan(
            steps=num_steps, batch_size=batch_size, average_decay=0.999 if average else 0.0
        )
        return run.fit(
            *(key, loss, params, optimizer(planned), data, plan),
            callbacks=[*callbacks, run.ProgressBar(disable=bool(callbacks))],
        )

    steps = length.steps
    if steps is None:
        clock = _Clock(0.02 * length.seconds)
        with contextlib.suppress(_EnoughError):
            run_for(_TIMED_STEPS, math.inf, clock)
        steps = max(1, round(length.seconds / clock.seconds_per_step))
    start = time.perf_counter()
    fitted = run_for(steps, steps)
    return fitted.params, {
        "steps": steps,
        "epochs": steps * batch_size / len(jax.tree.leaves(data)[0]),
        "seconds": time.perf_counter() - start,
        "compile_seconds": fitted.compile_seconds,
        "loss": fitted.rows[-1]["train_loss"] / len(jax.tree.leaves(params)[0]),
    }
