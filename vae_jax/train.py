"""Training: a jitted step, and a whole epoch of them as one compiled `lax.scan`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import _check_key

__all__ = [
    "Batch",
    "Metrics",
    "TrainState",
    "alternate",
    "binarize",
    "init_state",
    "make_train_epoch",
    "make_train_step",
    "shuffle",
]

Params = Any

# Folded into the key of a run, so that order and noise never share a stream.
_ORDER, _NOISE = 0, 1

Loss = Callable[[Params, Array, Any], tuple[Array, Any]]
"""(params, key, batch) -> (scalar to minimise, pytree of arrays to report)."""


class Batch(NamedTuple):
    """Examples and their labels; labels are None where there are none.

    Attributes:
      image: [B, *event].
      label: [B] or None.

    >>> batch = Batch(jnp.zeros((4, 3), jnp.uint8), jnp.arange(4))
    >>> jax.tree.map(lambda array: array[:2].shape, batch)
    Batch(image=(2, 3), label=(2,))
    """

    image: Array
    label: Array | None = None


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
    _check_key(key)
    state = TrainState(
        jnp.int32(0), key, params, optimizer.init(params), params if average else None
    )
    # Copied, for a step donates it: the caller keeps what was passed, and no buffer is in it twice.
    own: TrainState = jax.tree.map(jnp.copy, state)
    return own


def make_train_step(
    loss: Loss, optimizer: optax.GradientTransformation, *, average_decay: float = 0.999
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """A jitted step of the optimizer. The state passed in is donated: use the one returned.

    Args:
      loss: (params, key, batch) -> (scalar to minimise, pytree of arrays to report).
      optimizer: any optax transformation; schedules and clipping are chained into it.
      average_decay: of the moving average, where the state keeps one.

    Returns:
      (state, batch) -> (state, metrics), each metric a scalar mean over the batch.

    >>> loss = lambda params, key, batch: (jnp.square(params - batch).mean(), batch)
    >>> step = make_train_step(loss, optax.sgd(0.5))
    >>> state, metrics = step(init_state(jax.random.key(0), 1.0, optax.sgd(0.5)), jnp.zeros(4))
    >>> state.params, metrics.loss
    (Array(0., dtype=float32), Array(1., dtype=float32))
    """

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return _step(loss, optimizer, average_decay, state, batch)

    return train_step


def make_train_epoch(
    loss: Loss, optimizer: optax.GradientTransformation, *, average_decay: float = 0.999
) -> Callable[[TrainState, Any, Array], tuple[TrainState, Metrics]]:
    """Many steps as one jitted `lax.scan` over data that lives on the device.

    Equal to `make_train_step` on the same batches in turn, without its cost of a call per step. The
    state passed in is donated: use the one returned.

    Args:
      loss: (params, key, batch) -> (scalar to minimise, pytree of arrays to report).
      optimizer: any optax transformation.
      average_decay: of the moving average, where the state keeps one.

    Returns:
      (state, dataset, order) -> (state, metrics). `dataset` is a pytree of arrays [N, ...] and
      `order`, [steps, B], the examples of each step, such as an epoch from `shuffle`. Metrics are
      [steps]. Another number of steps or another batch size compiles anew.

    >>> loss = lambda params, key, batch: (jnp.square(params - batch).mean(), None)
    >>> epoch = make_train_epoch(loss, optax.sgd(0.25))
    >>> state = init_state(jax.random.key(0), jnp.array(1.0), optax.sgd(0.25))
    >>> state, metrics = epoch(state, jnp.zeros(4), jnp.array([[0, 1], [2, 3]]))
    >>> metrics.loss
    Array([1.  , 0.25], dtype=float32)
    """

    @partial(jax.jit, donate_argnums=0)
    def train_epoch(state: TrainState, dataset: Any, order: Array) -> tuple[TrainState, Metrics]:
        def step(state: TrainState, index: Array) -> tuple[TrainState, Metrics]:
            batch = jax.tree.map(lambda array: jnp.take(array, index, axis=0), dataset)
            return _step(loss, optimizer, average_decay, state, batch)

        return jax.lax.scan(step, state, order)

    return train_epoch


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


def binarize(key: Array, image: Array) -> Array:
    """Draws each pixel on with its grey value as probability (Salakhutdinov & Murray 2008).

    Compares 16 random bits with the byte, three times as fast on CPU as `jax.random.bernoulli`. The
    probability of a pixel is byte / 255 to within 2^-16; 0 is never on and 255 always.

    Args:
      key: a typed PRNG key.
      image: uint8, any shape.

    Returns:
      float32 zeros and ones, the shape of `image`.

    Raises:
      TypeError: the image is not uint8, or the key not typed.

    >>> binarize(jax.random.key(0), jnp.array([0, 255], jnp.uint8))
    Array([0., 1.], dtype=float32)
    """
    _check_key(key)
    if image.dtype != jnp.uint8:
        raise TypeError(f"image has dtype {image.dtype}: pass bytes, uint8 from 0 to 255")
    threshold = image.astype(jnp.float32) * (2**16 / 255)
    return (_random_uint16(key, image.shape).astype(jnp.float32) < threshold).astype(jnp.float32)


def _random_uint16(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform integers below 2^16, as uint32, made in one loop with whatever they are used for.

    `jax.random.bits` costs seven times as much on CPU, where JAX compiles threefry to a loop of
    passes over memory. The key is only read through `jax.random`, so it can be of any generator
    and its reuse is still found.
    """
    size = math.prod(shape)
    if size > 2**32:
        raise ValueError(f"{size} random numbers of one key: at most {2**32}")
    count = jax.lax.iota(jnp.uint32, size)
    words = _threefry(jax.random.bits(key, (2,), jnp.uint32), count, jnp.zeros_like(count))
    return (words[0] >> 16).reshape(shape)


def _threefry(key: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): two random words for two counters."""
    parity = jnp.uint32(0x1BD11BDA) ^ key[0] ^ key[1]
    schedule = (key[0], key[1], parity)
    first, second = first + schedule[0], second + schedule[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            first = first + second
            second = first ^ (second << rotation | second >> (32 - rotation))
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return first, second


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
    _check_key(key)
    if not 0 < batch_size <= num_examples:
        raise ValueError(
            f"batch_size is {batch_size}: it must be from 1 to {num_examples} examples"
        )
    order_key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch)
    steps = num_examples // batch_size
    order = jax.random.permutation(order_key, num_examples)
    return order[: steps * batch_size].reshape(steps, batch_size)


def _step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    average_decay: float,
    state: TrainState,
    batch: Any,
) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.fold_in(state.key, _NOISE), state.step)
    gradient_of = jax.value_and_grad(loss, has_aux=True)
    (value, aux), gradient = gradient_of(state.params, key, batch)
    # optax mixes dtypes (decay ** count): a caller's strict promotion must not reach into it.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        average = optax.incremental_update(params, average, 1 - average_decay)
    metrics = Metrics(value, jax.tree.map(jnp.mean, aux))
    return TrainState(state.step + 1, state.key, params, opt_state, average), metrics
