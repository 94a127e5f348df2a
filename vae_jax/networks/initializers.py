"""Initializers of a decoder's output bias, and the value it starts from."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Initializer = Callable[..., Array]


def logit(mean: ArrayLike, smoothing: float = 1e-3) -> Array:
    """log p - log(1 - p) with p kept inside [smoothing, 1 - smoothing], finite for pixels never on.

    >>> logit(jnp.array([0.0, 0.5])).round(2)
    Array([-6.91,  0.  ], dtype=float32)
    """
    p = jnp.clip(jnp.asarray(mean), smoothing, 1 - smoothing)
    return jnp.log(p) - jnp.log1p(-p)


def constant_bias(value: ArrayLike) -> Initializer:
    """An initializer that gives `value`, in the shape asked for.

    With the logit of the training mean as a decoder's output bias, training starts from the best
    model that ignores z (Burda et al. 2016, section 5).
    """

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)

    return init
