"""Training: a jitted step, and a whole epoch of them as one compiled loop, on 1 to N devices.

On which devices follows from where the arrays are: a state that `state_sharding` lays out on a mesh
and batches split over its axis `data` are all that many devices need. `jax.jit` then divides the
computation and inserts the sums between devices; noise and order stay those of one device.
"""

import functools
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from vae_jax._compiler import compiler_options
from vae_jax.distributions._pytree import accurate, check_key

__all__ = [
    "Batch",
    "Metrics",
    "TrainState",
    "alternate",
    "init_state",
    "make_train_epoch",
    "make_train_step",
    "shuffle",
    "state_sharding",
]

Params = Any

# Folded into the key of a run, so that order and noise never share a stream.
_ORDER, _NOISE = 0, 1

Loss = Callable[..., tuple[Array, Any]]
"""(params, key, batch) -> (scalar to minimise, pytree of arrays to report).

One that has a parameter `step` is given the steps taken before, int32: for schedules of its own.
"""


class Batch(NamedTuple):
    """Examples and their labels; labels are None where there are none.

    Attributes:
      image: [B, *event].
      label: [B] or None.

    >>> batch = Batch(jnp.zeros((4, 3), jnp.uint8), jnp.arange(4))
    >>> jax.tree.map(lambda array: array[:2].shape, batch)
    Batch(image=(2, 3), label=(2,))
    """

    image: Any
    label: Any = None


class TrainState(NamedTuple):
    """All that a run needs to go on as if it had never stopped.

    Attributes:
      step: int32 scalar, optimizer steps taken; the position in the data follows from it.
      key: typed key of the run; step n draws from fold_in of it.
      params: the model's parameters.
      opt_state: the optimizer's.
      average: exponential moving average of params, or None.

    >>> optimizer = optax.sgd(0.1)
    >>> state = init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optimizer)
    >>> state.step, state.average
    (Array(0, dtype=int32), None)
    """

    step: Array
    key: Array
    params: Params
    opt_state: optax.OptState
    average: Params | None = None


class Metrics(NamedTuple):
    """What a step reports.

    Attributes:
      loss: what was minimised.
      aux: what the loss returned beside it, such as a `Bound`, each leaf averaged over the batch.

    >>> metrics = Metrics(loss=jnp.float32(89.0), aux={"kl": jnp.float32(20.0)})
    >>> float(metrics.aux["kl"])
    20.0
    """

    loss: Array
    aux: Any


def init_state(
    key: Array, params: Params, optimizer: optax.GradientTransformation, *, average: bool = False
) -> TrainState:
    """The state before the first step.

    Args:
      key: typed key that all noise and shuffling of the run come from.
      params: from `VAE.init`.
      optimizer: the same one as is given to `make_train_step`.
      average: keep an exponential moving average of the parameters too.

    Raises:
      TypeError: the key is not typed.

    >>> init_state(jax.random.key(0), {"w": jnp.ones(2)}, optax.sgd(0.1)).params
    {'w': Array([1., 1.], dtype=float32)}
    """
    check_key(key)
    # In float32 at least: a share of 0.001 is less than a bfloat16 can be moved by.
    mean = jax.tree.map(accurate, params) if average else None
    state = TrainState(jnp.int32(0), key, params, optimizer.init(params), mean)
    # Copied, for a step donates it: the caller keeps what was passed, and no buffer is in it twice.
    own: TrainState = jax.tree.map(jnp.copy, state)
    return own


def state_sharding(state: TrainState, mesh: Mesh, *, shard_parameters: bool = False) -> TrainState:
    """Where on a mesh each array of a state lives, for `jax.device_put` or as `out_shardings`.

    Args:
      state: a state or its `jax.ShapeDtypeStruct`s.
      mesh: with an axis `data`, over which batches are split.
      shard_parameters: split each array too, along its longest axis that the devices divide, so
        that a device holds its share of the parameters and moments (Rajbhandari et al. 2020, ZeRO
        stage 3; PyTorch's FSDP). False holds all on every device.

    Returns:
      A state of `NamedSharding`.

    >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> state = init_state(jax.random.key(0), jnp.zeros((3, 8)), optax.sgd(0.1))
    >>> tuple(state_sharding(state, mesh, shard_parameters=True).params.spec)
    (None, 'data')
    """
    num_devices = mesh.shape["data"]

    def place(leaf: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % num_devices == 0]
        if not (shard_parameters and axes):
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))

    sharding: TrainState = jax.tree.map(place, state)
    return sharding


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    average_decay: float = 0.999,
    accumulate: int = 1,
    sharding: TrainState | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """A jitted step of the optimizer. The state passed in is donated: use the one returned.

    Args:
      loss: (params, key, batch) -> (scalar to minimise, pytree of arrays to report). One that has a
        parameter `step` too is given the steps taken before, int32.
      optimizer: any optax transformation; schedules and clipping are chained into it. Those that
        want the loss's `value`, `grad` or `value_fn` are given them.
      average_decay: of the moving average, where the state keeps one. The average is that of the
        parameters after each step alone (Kingma & Ba 2015, section 3): where it started from has no
        part in it.
      accumulate: how many parts a batch is computed in, one after the other, for batches that do
        not fit. More than 1 takes batches [accumulate, B / accumulate, ...]; each part has its own
        noise.
      sharding: from `state_sharding`, of the state that comes in and goes out; None for wherever
        it is.

    Returns:
      (state, batch) -> (state, metrics), each metric a scalar mean over the batch.

    >>> loss = lambda params, key, batch: (jnp.square(params - batch).mean(), batch)
    >>> step = make_train_step(loss, optax.sgd(0.5))
    >>> state, metrics = step(init_state(jax.random.key(0), 1.0, optax.sgd(0.5)), jnp.zeros(4))
    >>> state.params, metrics.loss
    (Array(0., dtype=float32), Array(1., dtype=float32))
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=_out_shardings(sharding))
    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return _step(loss, optimizer, average_decay, accumulate, state, batch)

    return train_step


def make_train_epoch(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    average_decay: float = 0.999,
    accumulate: int = 1,
    sharding: TrainState | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Many steps as one jitted loop over data that lives on the device.

    Equal to `make_train_step` on the same batches in turn, without its cost of a call per step. The
    state passed in is donated: use the one returned.

    Args:
      loss: as for `make_train_step`.
      optimizer: any optax transformation.
      average_decay: of the moving average, where the state keeps one.
      accumulate: parts of a batch, as for `make_train_step`; `order` is then [steps, accumulate,
        B / accumulate].
      sharding: of the state, as for `make_train_step`.

    Returns:
      (state, dataset, order, start=0, stop=steps) -> (state, metrics). `dataset` is a pytree of
      arrays [N, ...] and `order`, [steps, B], the examples of each step, such as an epoch from
      `shuffle`; batches are split over devices as `order` is, along B. Data that come in batches
      are a dataset [N, B, ...] with an order [steps] of whole batches. `start` and `stop` take a
      part of the order: however it is cut into calls, the steps are the same, bit for bit, and
      compiled once. Metrics are [steps], NaN (0 of integers) where no step was taken, and the loss
      is NaN of a step whose examples are not in the data.

    Raises:
      IndexError: when called: an order of NumPy's names examples that are not in the data.

    >>> loss = lambda params, key, batch: (jnp.square(params - batch).mean(), None)
    >>> epoch = make_train_epoch(loss, optax.sgd(0.25))
    >>> state = init_state(jax.random.key(0), jnp.array(1.0), optax.sgd(0.25))
    >>> state, metrics = epoch(state, jnp.zeros(4), jnp.array([[0, 1], [2, 3]]))
    >>> metrics.loss
    Array([1.  , 0.25], dtype=float32)
    """

    def take_steps(
        state: TrainState, dataset: Any, order: Array, start: Array, stop: Array
    ) -> tuple[TrainState, Metrics]:
        @partial(jax.jit, inline=True)  # traced once, for its shapes and for the loop
        def step(state: TrainState, dataset: Any, index: Array) -> tuple[TrainState, Metrics]:
            batch = jax.tree.map(lambda array: jnp.take(array, index, axis=0), dataset)
            state, metrics = _step(loss, optimizer, average_decay, accumulate, state, batch)
            for length in {len(array) for array in jax.tree.leaves(dataset)}:
                known = ((index >= 0) & (index < length)).all()
                metrics = metrics._replace(loss=jnp.where(known, metrics.loss, jnp.nan))
            return state, metrics

        def body(i: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = step(carry[0], dataset, order[i])
            return state, jax.tree.map(lambda all, one: all.at[i].set(one), carry[1], metrics)

        # A loop whose length the compiler does not know: lax.scan is compiled anew for each length,
        # and its last bits differ from one length to another.
        shapes = jax.eval_shape(step, state, dataset, order[0])[1]
        metrics = jax.tree.map(lambda x: _not_taken((len(order), *x.shape), x.dtype), shapes)
        trained: tuple[TrainState, Metrics]
        trained = jax.lax.fori_loop(start, stop, body, (state, metrics))
        return trained

    jitted = partial(jax.jit, take_steps, donate_argnums=0, out_shardings=_out_shardings(sharding))
    nested = jitted()

    @functools.cache  # not before its first call, by when the kind of device is settled
    def program() -> Any:
        return jitted(compiler_options=compiler_options())

    def train_epoch(
        state: TrainState, dataset: Any, order: ArrayLike, start: Any = 0, stop: Any = None
    ) -> tuple[TrainState, Metrics]:
        if isinstance(order, np.ndarray):
            _check_order(order, dataset)
        stop = np.shape(order)[0] if stop is None else stop
        args = state, dataset, order, _int32(start), _int32(stop)
        # Within another program, which has options of its own, even constants are traced.
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        trained: tuple[TrainState, Metrics] = (nested if traced else program())(*args)
        return trained

    def lower(*args: Any, **more: Any) -> Any:
        return program().lower(*args, **more)

    train_epoch.lower = lower  # type: ignore[attr-defined]
    return train_epoch


def _int32(number: Any) -> Array:
    """In one type, or each way to give a number would compile anew; a transfer that is meant."""
    number = number.astype(jnp.int32) if isinstance(number, jax.Array) else np.int32(number)
    scalar: Array = jax.device_put(number)
    return scalar


def _not_taken(shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.full(shape, jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else 0, dtype)


def _check_order(order: np.ndarray, dataset: Any) -> None:
    for length in {len(array) for array in jax.tree.leaves(dataset)}:
        wrong = order[(order < 0) | (order >= length)]
        if wrong.size:
            raise IndexError(
                f"order has the example {wrong[0]} but the data have {length}: give numbers from 0 "
                f"to {length - 1}"
            )


def _out_shardings(sharding: TrainState | None) -> Any:
    if sharding is None:
        return None
    return sharding, sharding.step  # metrics are on every device, as the step is


def alternate(
    optimizer: optax.GradientTransformation, *groups: str
) -> optax.GradientTransformation:
    """Steps that change one group of the parameters at a time, in turn.

    Coordinate ascent on the bound, as in variational EM: `alternate(adam, "decoder", "encoder")`
    takes a step in theta, then one in phi. Each group's optimizer counts its own steps only.

    Args:
      optimizer: any optax transformation; each group has its own state of it.
      groups: the keys of the parameters, in the order of their turns.

    Returns:
      A transformation for `init_state` and `make_train_step`, of params that are a dict with just
      these keys.

    Raises:
      ValueError: when initialised: params with other keys.

    >>> optimizer = alternate(optax.sgd(0.5), "theta", "phi")
    >>> step = make_train_step(lambda p, key, x: ((p["theta"] + p["phi"]) * x, None), optimizer)
    >>> state = init_state(jax.random.key(0), {"theta": 1.0, "phi": 1.0}, optimizer)
    >>> state, _ = step(state, 1.0)
    >>> state.params
    {'phi': Array(1., dtype=float32), 'theta': Array(0.5, dtype=float32)}
    """

    def groups_of(params: Params) -> dict[str, str]:
        if set(params) != set(groups):
            raise ValueError(
                f"the groups are {', '.join(groups)} but params has {', '.join(params)}: name "
                "each of its keys"
            )
        return {group: group for group in groups}

    def in_turn(turn: int) -> optax.GradientTransformation:
        return optax.conditionally_mask(optimizer, lambda step, **_: step % len(groups) == turn)

    return optax.partition({group: in_turn(turn) for turn, group in enumerate(groups)}, groups_of)


@partial(jax.jit, static_argnames=("num_examples", "batch_size"))
def shuffle(key: Array, epoch: ArrayLike, *, num_examples: int, batch_size: int) -> Array:
    """The order of an epoch: which examples each step sees, every example at most once.

    The num_examples % batch_size that are left over sit out, others in each epoch.

    Args:
      key: the key of the run, `TrainState.key`.
      epoch: counted from 0; a restart at any epoch sees what the unbroken run saw.
      num_examples: N.
      batch_size: B, at most N.

    Returns:
      int32 [N // B, B].

    Raises:
      TypeError: the key is not typed.
      ValueError: the batch size is not from 1 to N.

    >>> shuffle(jax.random.key(0), 0, num_examples=7, batch_size=3).shape
    (2, 3)
    """
    check_key(key)
    if not 0 < batch_size <= num_examples:
        raise ValueError(
            f"batch_size is {batch_size}: it must be from 1 to {num_examples} examples"
        )
    order_key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch)
    steps = num_examples // batch_size
    order = jax.random.permutation(order_key, jnp.arange(num_examples, dtype=jnp.int32))
    return order[: steps * batch_size].reshape(steps, batch_size)


def _step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    average_decay: float,
    accumulate: int,
    state: TrainState,
    batch: Any,
) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.fold_in(state.key, _NOISE), state.step)
    if "step" in inspect.signature(loss).parameters:
        loss = partial(loss, step=state.step)
    gradient_of = jax.value_and_grad(loss, has_aux=True)
    if accumulate == 1:
        (value, aux), gradient = gradient_of(state.params, key, batch)
    else:

        def add(total: Params, part: tuple[Array, Any]) -> tuple[Params, tuple[Array, Any]]:
            value, gradient = gradient_of(state.params, *part)
            return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradient), value

        parts = jax.random.split(key, accumulate), batch
        zeros = jax.tree.map(lambda x: jnp.zeros_like(accurate(x)), state.params)
        total, (value, aux) = jax.lax.scan(add, zeros, parts)
        value = value.mean()
        gradient = jax.tree.map(lambda x, p: (x / accumulate).astype(p.dtype), total, state.params)

    # Of a complex number JAX gives the conjugate of the way up, which optax takes it for.
    gradient = jax.tree.map(jnp.conj, gradient)

    def value_of(params: Params) -> Array:
        """The loss of this step elsewhere, for optimizers that search."""
        if accumulate == 1:
            return loss(params, key, batch)[0]
        of_parts: Array = jax.lax.map(lambda part: loss(params, *part)[0], parts)
        return of_parts.mean()

    # optax mixes dtypes (decay ** count): a caller's strict promotion must not reach into it.
    with jax.numpy_dtype_promotion("standard"):
        with_extra_args = optax.with_extra_args_support(optimizer)  # type: ignore[attr-defined]
        updates, opt_state = with_extra_args.update(
            gradient, state.opt_state, state.params, value=value, grad=gradient, value_fn=value_of
        )
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        steps = (state.step + 1).astype(jnp.float32)
        # At the first step 1, and so on that the start has no weight: Adam's debiased average.
        share = (1 - average_decay) / (1 - average_decay**steps)
        average = jax.tree.map(
            lambda mean, p: mean + share.astype(mean.dtype) * (p.astype(mean.dtype) - mean),
            average,
            params,
        )
    metrics = Metrics(value, jax.tree.map(jnp.mean, aux))
    return TrainState(state.step + 1, state.key, params, opt_state, average), metrics
