"""One of K classes."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    accurate,
    aligned_shape,
    check_event_ndims,
    float_array,
    integers_below,
    pytree,
    sum_event,
)


@pytree
class Categorical:
    """One of K classes with probabilities softmax(logits), or independent ones as one event.

    Args:
      logits: [*b, *event, K], unnormalised; -inf for a class that cannot happen.
      event_ndims: number of axes before the classes that are one event: 0 for one class, 3 for the
        bytes of images [B, H, W, C] under logits [B, H, W, C, 256].

    Raises:
      TypeError: the logits are not floating-point, or a value whose probability is asked is no
        integer.
      ValueError: a known value is not from 0 to K - 1; one not known, under `jax.jit`, has -inf.

    >>> Categorical(jnp.zeros(4)).log_prob(jnp.array(2)).round(3)
    Array(-1.386, dtype=float32)
    >>> Categorical(jnp.zeros((5, 4)), event_ndims=1).log_prob(jnp.arange(5) % 4).round(3)
    Array(-6.931, dtype=float32)
    """

    logits: Array
    event_ndims: int = dataclasses.field(default=0, metadata={"static": True})

    def __post_init__(self) -> None:
        logits = float_array("logits", self.logits)
        check_event_ndims(logits, 1 + self.event_ndims)
        object.__setattr__(self, "logits", logits)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.logits.shape[:-1]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws int32 classes 0..K-1."""
        return jax.random.categorical(
            key, accurate(self.logits), shape=(*sample_shape, *self.shape)
        )

    def log_prob(self, value: ArrayLike) -> Array:
        num_classes = self.logits.shape[-1]
        has = f"its logits have {num_classes} classes"
        value = integers_below(num_classes, value, "Categorical", has)
        log_probs = jax.nn.log_softmax(accurate(self.logits))
        shape = aligned_shape(value, self)
        log_probs = jnp.broadcast_to(log_probs, (*shape, num_classes))
        index = jnp.broadcast_to(value, shape)[..., None]
        taken = jnp.take_along_axis(log_probs, index, axis=-1, mode="clip")[..., 0]
        # Outside the support a probability is 0, as in scipy.stats.rv_discrete.logpmf; a plain
        # gather would score the last class for -1.
        inside = (index[..., 0] >= 0) & (index[..., 0] < num_classes)
        terms = jnp.where(inside, taken, jnp.full_like(taken, -jnp.inf))
        return sum_event(terms, self.event_ndims) if self.event_ndims else terms
