"""What a network is given beside its input: a class, a vector, an image."""

import contextlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class ClassCondition(nn.Module):
    """A class, int [*b] from 0 to num_classes - 1, as a learned vector [*b, size].

    A class out of range is an error where it is known. Under `jax.jit` it is not, and becomes NaN:
    a plain gather would take the nearest class, or the last one for -1, and go on.

    Attributes:
      num_classes: how many there are.
      size: of the vector.

    >>> condition = ClassCondition(num_classes=10, size=3)
    >>> params = condition.init(jax.random.key(0), jnp.array([7]))
    >>> condition.apply(params, jnp.array([0, 9])).shape
    (2, 3)
    """

    num_classes: int
    size: int = 16

    event_ndims = 0

    @nn.compact
    def __call__(self, label: ArrayLike) -> Array:
        with jax.ensure_compile_time_eval():  # a constant stays one, to be looked at, under jit too
            label = jnp.asarray(label)
        if not jnp.issubdtype(label.dtype, jnp.integer):
            raise TypeError(
                f"label has dtype {label.dtype}: pass classes, integers from 0 to "
                f"{self.num_classes - 1}"
            )
        if not isinstance(label, jax.core.Tracer):
            # With NumPy: within a trace, jnp's comparisons of a constant are traced too.
            known = np.asarray(label)
            wrong = known[(known < 0) | (known >= self.num_classes)]
            if wrong.size:
                raise ValueError(
                    f"label has the value {wrong[0]}: pass classes from 0 to {self.num_classes - 1}"
                )
        table = self.param("embedding", nn.initializers.normal(1.0), (self.num_classes, self.size))
        vector: Array = table.at[label].get(
            mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
        )
        return vector


class ColumnsCondition(nn.Module):
    """Columns of a table, each of numbers or of classes, [*b, C], as one vector [*b, E].

    Numbers go in as they are: standardise them. A class is a number from 0, for which
    `ClassCondition` holds; each column of classes has an embedding of its own.

    Attributes:
      num_classes: of each column; 0 of one of numbers.
      size: of a class's vector.

    >>> condition = ColumnsCondition(num_classes=(0, 3), size=4)  # an age and one of three sites
    >>> label = jnp.array([[0.7, 2.0], [-1.1, 0.0]])
    >>> condition.apply(condition.init(jax.random.key(0), label), label).shape
    (2, 5)
    """

    num_classes: tuple[int, ...]
    size: int = 16

    event_ndims = 1

    @nn.compact
    def __call__(self, label: ArrayLike) -> Array:
        known = not isinstance(label, jax.core.Tracer)
        # A constant stays one, whose classes are looked at.
        with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
            label = jnp.asarray(label)
            if not jnp.issubdtype(label.dtype, jnp.floating):
                raise TypeError(f"label has dtype {label.dtype}: pass floats")
            if label.shape[-1:] != (len(self.num_classes),):
                raise ValueError(
                    f"label has shape {label.shape} but there are {len(self.num_classes)} columns: "
                    "let them be its last axis"
                )
            columns = [label[..., i] for i in range(label.shape[-1])]
            classes = [_whole(column) for column in columns]
        parts = [
            ClassCondition(num, self.size, name=f"column_{i}")(classes[i]).astype(label.dtype)
            if num
            else columns[i][..., None]
            for i, num in enumerate(self.num_classes)
        ]
        return jnp.concatenate(parts, axis=-1)


def _whole(values: Array) -> Array:
    """Numbers of classes; -1, which is none, for what is no whole number, NaN too."""
    whole = jnp.where(values == jnp.floor(values), values, -jnp.ones_like(values))
    return whole.astype(jnp.int32)


class FloatCondition(nn.Module):
    """A condition that goes into the network as it is: a vector, an image, a mask.

    Attributes:
      shape: of one condition: (C,), or (H, W, C) for the size of the images. Its values are
        floating-point or bool.
    """

    shape: Sequence[int]

    @property
    def event_ndims(self) -> int:
        return len(self.shape)

    @nn.compact
    def __call__(self, label: ArrayLike) -> Array:
        label = jnp.asarray(label)
        if not (jnp.issubdtype(label.dtype, jnp.floating) or label.dtype == jnp.bool_):
            raise TypeError(f"label has dtype {label.dtype}: pass floating-point values or bool")
        if label.shape[max(label.ndim - self.event_ndims, 0) :] != tuple(self.shape):
            raise ValueError(
                f"label has shape {label.shape} but one condition has {tuple(self.shape)}: "
                "give it those last axes"
            )
        return label


def embed(condition: Any, label: Any, batch: tuple[int, ...], dtype: Any) -> Array | None:
    """The label as [*batch, *event] for a network's input; None where there is no condition."""
    if condition is None:
        if label is not None:
            raise TypeError(
                "a label was given but the network is unconditional: leave it out, or build the "
                "network with a condition, such as networks.ClassCondition"
            )
        return None
    if label is None:
        raise TypeError("label is None but the network is conditional: pass a label")
    embedded = condition(label)
    label_batch = jnp.shape(label)[: jnp.ndim(label) - condition.event_ndims]
    if batch[max(len(batch) - len(label_batch), 0) :] != label_batch:
        raise ValueError(
            f"label has batch shape {label_batch} but the input has {batch}: give one label for "
            "each example"
        )
    event = embedded.shape[len(label_batch) :]
    return jnp.broadcast_to(embedded.astype(dtype), (*batch, *event))


def as_channels(condition: Array, shape: tuple[int, ...]) -> Array:
    """A vector [*b, C] or an image [*b, H, W, C] beside an image of shape [*b, H, W, _]."""
    *batch, height, width, _ = shape
    if condition.ndim == len(batch) + 1:
        condition = condition[..., None, None, :]
        condition = jnp.broadcast_to(condition, (*batch, height, width, condition.shape[-1]))
    if condition.shape[:-1] != shape[:-1]:
        raise ValueError(
            f"one condition has shape {condition.shape[len(batch) :]} but the image is "
            f"{height} x {width}: make the condition of that size, or a vector"
        )
    return condition
