"""Classes that have an order."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    aligned_shape,
    check_event_ndims,
    float_array,
    in_narrowest,
    in_widest,
    integers_below,
    longer,
    pytree,
    sum_event,
)


@pytree
class OrderedLogistic:
    """Independent classes 0 to K - 1 in an order, of logistic variables cut at K - 1 places.

    P(class <= k) = sigmoid(cutpoints[k] - location), the proportional-odds model (McCullagh
    1980): what moves the location moves all of the shares up or down the order.

    Args:
      location: [*b, *event].
      cutpoints: [K - 1], increasing, or one such row for each of the last axes of the location, as
        [*event, K - 1].
      event_ndims: number of trailing axes of the location that are one event.

    Raises:
      TypeError: the parameters are not floating-point, or a value whose probability is asked is no
        integer.
      ValueError: the shapes do not match, known cutpoints do not increase, or a known value is not
        from 0 to K - 1; one not known, under `jax.jit`, has -inf.

    >>> OrderedLogistic(jnp.zeros(2), jnp.array([-1.0, 1.0])).log_prob(jnp.array([0, 1])).round(3)
    Array(-2.085, dtype=float32)
    """

    location: Array
    cutpoints: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        location = float_array("location", self.location)
        cutpoints = float_array("cutpoints", self.cutpoints)
        if not cutpoints.ndim or longer(cutpoints.shape[:-1], location.shape) != location.shape:
            raise ValueError(
                f"cutpoints have shape {cutpoints.shape} but the location has {location.shape}: "
                "give [K - 1], or as many rows of it as the location's last axes have entries"
            )
        if not isinstance(cutpoints, jax.core.Tracer):
            steps = np.diff(np.asarray(cutpoints, np.float64))
            if not (steps > 0).all():
                raise ValueError(f"cutpoints have a step of {steps.min()}: they must increase")
        check_event_ndims(location, self.event_ndims)
        object.__setattr__(self, "location", location)
        object.__setattr__(self, "cutpoints", cutpoints)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.location.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws int32 classes 0..K-1."""
        location, cutpoints = in_widest(self.location, self.cutpoints)
        shape = (*sample_shape, *self.shape)
        noise = jax.random.logistic(key, shape, location.dtype)
        place, cutpoints = _beside(jnp.broadcast_to(location, shape) + noise, cutpoints)
        drawn: Array = (place > cutpoints).sum(-1, dtype=jnp.int32)
        return drawn

    def log_prob(self, value: ArrayLike) -> Array:
        num = self.cutpoints.shape[-1] + 1
        value = integers_below(num, value, "OrderedLogistic", f"its cutpoints make {num} classes")
        shape = aligned_shape(value, self)
        location, cutpoints = in_widest(self.location, self.cutpoints)
        index = jnp.broadcast_to(value, shape)
        location, cutpoints = _beside(jnp.broadcast_to(location, shape), cutpoints)
        margins = cutpoints - location

        def margin(k: Array) -> Array:
            found = jnp.take_along_axis(margins, k[..., None], axis=-1, mode="clip")
            return found[..., 0]

        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), without a difference of
        # what is near 0 or 1. At the ends of the order one of the two is not there.
        upper, lower = margin(index), margin(index - 1)
        first, last = index == 0, index == num - 1
        inner = ~first & ~last
        step = jnp.where(inner, upper - lower, jnp.ones_like(upper))
        zeros = jnp.zeros_like(upper)
        terms = (
            jnp.where(last, zeros, jax.nn.log_sigmoid(upper))
            + jnp.where(first, zeros, jax.nn.log_sigmoid(-lower))
            + jnp.where(inner, jnp.log(-jnp.expm1(-step)), zeros)
        )
        inside = (index >= 0) & (index < num)
        terms = jnp.where(inside, terms, jnp.full_like(terms, -jnp.inf))
        total = sum_event(terms, self.event_ndims) if self.event_ndims else terms
        return in_narrowest(total, self.location, self.cutpoints)


def _beside(location: Array, cutpoints: Array) -> tuple[Any, Any]:
    """Both with the classes' axis, [*s, *b, *event, K - 1]."""
    shape = (*location.shape, cutpoints.shape[-1])
    return jnp.broadcast_to(location[..., None], shape), jnp.broadcast_to(cutpoints, shape)
