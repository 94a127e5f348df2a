"""What every distribution is made of: a frozen pytree, checked arrays, shapes that align."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def pytree(cls: type[_T]) -> type[_T]:
    """A frozen dataclass whose fields are pytree children, but for those marked static.

    Unflattening skips `__post_init__`: a transformation may put tracers, shardings or None where
    the arrays were, and only what a caller constructs is checked. Two are equal where they are one:
    of arrays == is not a bool.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    data = [f.name for f in fields if not f.metadata.get("static")]
    meta = [f.name for f in fields if f.metadata.get("static")]

    def flatten_with_keys(x: _T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(x, name)) for name in data]
        return children, tuple(getattr(x, name) for name in meta)

    def unflatten(aux: tuple[Any, ...], children: Iterable[Any]) -> _T:
        x = object.__new__(cls)
        for name, value in zip(data + meta, [*children, *aux], strict=True):
            object.__setattr__(x, name, value)
        return x

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


def float_array(name: str, value: ArrayLike) -> Array:
    with jax.ensure_compile_time_eval():  # a constant stays one, to be looked at, under jit too
        array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {array.dtype}: pass a floating-point array")
    return array


def check_positive(name: str, value: ArrayLike) -> None:
    """Raises ValueError where a value is known not to be positive."""
    # Only a concrete value can be looked at; a traced one is the caller's word.
    if isinstance(value, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():  # under jit even a comparison of constants is traced
        value = jnp.asarray(value)
        if not bool((value > 0).all()):
            raise ValueError(f"{name} has a least value of {value.min()}: it must be positive")


def positive_like(name: str, value: ArrayLike, mean: Array) -> Array:
    """A positive parameter that is one number for all of the mean's entries, or one for each."""
    array = float_array(name, value)
    if array.shape not in ((), mean.shape):
        raise ValueError(
            f"mean has shape {mean.shape} but {name} has shape {array.shape}: "
            f"give them the same shape, or a scalar {name}"
        )
    check_positive(name, array)
    if array.shape == mean.shape:
        return array
    # A number takes the mean's dtype; an array keeps the digits that it has.
    array = array.astype(mean.dtype) if array.weak_type else array
    return jnp.broadcast_to(array, mean.shape)


def integers_below(num: int, value: ArrayLike, name: str, has: str) -> Array:
    """An integer value, and where it is known, one from 0 to num - 1.

    Args:
      num: of the values that there are.
      value: what is scored.
      name: of the distribution, for the error.
      has: what of it has `num` values, such as "its logits have 10 classes".
    """
    with jax.ensure_compile_time_eval():  # a constant stays one, to be looked at, under jit too
        value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"the value of a {name} has dtype {value.dtype}: pass integers")
    if value.dtype.itemsize < 4:  # in uint8, 256 classes would be none
        value = value.astype(jnp.int32)
    if not isinstance(value, jax.core.Tracer):
        # With NumPy: within a trace, jnp's comparisons of a constant are traced too.
        known = np.asarray(value)
        wrong = known[(known < 0) | (known >= num)]
        if wrong.size:
            raise ValueError(
                f"the value of a {name} is {wrong[0]} but {has}: pass integers from 0 to {num - 1}"
            )
    return value


def check_share(value: Array, name: str) -> None:
    """Raises ValueError where a known value is not in [0, 1]."""
    if isinstance(value, jax.core.Tracer) or not value.size:
        return
    known = np.asarray(value)
    low, high = known.min(), known.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"the value of a {name} is from {low:g} to {high:g}: scale pixels to [0, 1], or "
            "binarise them"
        )


def check_key(key: Any) -> None:
    dtype = getattr(key, "dtype", type(key))
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(f"the key is {dtype}, not a typed key: make it with jax.random.key(seed)")


def accurate_dtype(*arrays: Array) -> Any:
    # Widening is meant here: a caller's strict promotion must not forbid it.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(jnp.float32, *(array.dtype for array in arrays))


def in_widest(*arrays: Array) -> list[Array]:
    """All in the widest of their dtypes, float32 at least: what is computed with."""
    dtype = accurate_dtype(*arrays)
    return [array.astype(dtype) for array in arrays]


def in_narrowest(result: Array, *arrays: Array) -> Array:
    """A result in the narrowest of the dtypes that it is of, float32 at least.

    It is no more exact than the least exact of them. A prior made in float64 beside a posterior in
    float32 gives float32, and a loss keeps its dtype in the carry of a scan.
    """
    dtypes = [accurate_dtype(array) for array in arrays]
    return result.astype(min(dtypes, key=lambda dtype: dtype.itemsize))


def accurate(x: Array) -> Array:
    """x in float32 at least: sums of hundreds of bfloat16 terms lose whole nats."""
    return x.astype(accurate_dtype(x))


def flat(x: Array, event_ndims: int) -> Array:
    """[*b, *event] -> [*b, D]; a sum over one axis is faster on CPU than one over several."""
    return x.reshape(*x.shape[: x.ndim - event_ndims], -1)


def sum_event(x: Array, event_ndims: int) -> Array:
    return flat(x, event_ndims).sum(-1)


def broadcast_sum(terms: Sequence[Array]) -> Array:
    """The sum over the parts of a Joint, whose batches must be the last axes of the longest."""
    longest = max((term.shape for term in terms), key=len)
    for term in terms:
        if longer(term.shape, longest) is None:
            raise ValueError(
                f"parts of a Joint have batches {term.shape} and {longest}: the shorter must match "
                "the last axes of the longer"
            )
    first, *rest = (jnp.broadcast_to(term, longest) for term in in_widest(*terms))
    return in_narrowest(sum(rest, start=first), *terms)


def check_event_ndims(parameter: Array, event_ndims: int) -> None:
    if parameter.ndim < event_ndims:
        raise ValueError(
            f"parameters of shape {parameter.shape} cannot have {event_ndims} event axes: "
            "add axes, or pass a smaller event_ndims"
        )


def longer(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """The longer shape if the shorter is its last axes, else None.

    Nothing but leading axes broadcasts here, so a [B, 1] never meets a [B, D] unseen.
    """
    short, long = sorted((one, other), key=len)
    return long if long[len(long) - len(short) :] == short else None


def _outer(
    one: tuple[int, ...], other: tuple[int, ...], event_ndims: int
) -> tuple[int, ...] | None:
    """The shape of every one with every other, where both ask for it; else None.

    Of equal rank, each has a batch axis of size 1 where the other's is longer. A batch of 1 that
    meets a batch of B is asked for by one side alone, and may be a mistake.
    """
    if len(one) != len(other) or one[len(one) - event_ndims :] != other[len(one) - event_ndims :]:
        return None
    unequal = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if any(1 not in pair for pair in unequal) or {pair.index(1) for pair in unequal} != {0, 1}:
        return None
    # Not max: an empty axis meets a 1 too.
    return tuple(b if a == 1 else a for a, b in zip(one, other, strict=True))


def aligned_shape(value: Array, distribution: Any) -> tuple[int, ...]:
    """The longer of the value's shape and the distribution's, no part of an event for the whole.

    Or of each value under each distribution, [S, 1, *event] and [1, K, *event]: see `_outer`.
    """
    shape: tuple[int, ...] = distribution.shape
    event_ndims = distribution.event_ndims
    long = longer(value.shape, shape)
    if long is None:
        long = _outer(value.shape, shape, event_ndims)
    if value.ndim < event_ndims or long is None:
        raise ValueError(
            f"the value has shape {value.shape} but {type(distribution).__name__} has shape "
            f"{shape} with {event_ndims} event axes: pass whole events, and let the shorter match "
            "the last axes of the longer (each under each: [S, 1, *event] and [1, K, *event])"
        )
    return long


def aligned(value: ArrayLike, distribution: Any, *parameters: Array) -> tuple[Array, ...]:
    """Value and parameters, accurate, in one dtype and with as many axes as the longest."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"the value of a {type(distribution).__name__} has dtype {value.dtype}: "
            "pass floats, x.astype(float), after scaling pixels to [0, 1]"
        )
    long = aligned_shape(value, distribution)
    return tuple(jnp.broadcast_to(a, long) for a in in_widest(value, *parameters))
