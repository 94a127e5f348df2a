"""One of K classes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    accurate,
    aligned_shape,
    check_event_ndims,
    float_array,
    pytree,
)


@pytree
class Categorical:
    """One of K classes with probabilities softmax(logits).

    Args:
      logits: [*b, K], unnormalised; -inf for a class that cannot happen.

    Raises:
      TypeError: the logits are not floating-point, or a value whose probability is asked is no
        integer.
      ValueError: a known value is not from 0 to K - 1; one not known, under `jax.jit`, has -inf.

    >>> Categorical(jnp.zeros(4)).log_prob(jnp.array(2)).round(3)
    Array(-1.386, dtype=float32)
    """

    logits: Array

    event_ndims = 0

    def __post_init__(self) -> None:
        logits = float_array("logits", self.logits)
        check_event_ndims(logits, 1)
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
        with jax.ensure_compile_time_eval():  # a constant stays one, to be looked at, under jit too
            value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"the value of a Categorical has dtype {value.dtype}: pass integers")
        if value.dtype.itemsize < 4:  # in uint8, 256 classes would be none
            value = value.astype(jnp.int32)
        num_classes = self.logits.shape[-1]
        if not isinstance(value, jax.core.Tracer):
            # With NumPy: within a trace, jnp's comparisons of a constant are traced too.
            known = np.asarray(value)
            wrong = known[(known < 0) | (known >= num_classes)]
            if wrong.size:
                raise ValueError(
                    f"the value of a Categorical is {wrong[0]} but its logits have {num_classes} "
                    f"classes: pass integers from 0 to {num_classes - 1}"
                )
        log_probs = jax.nn.log_softmax(accurate(self.logits))
        shape = aligned_shape(value, self)
        log_probs = jnp.broadcast_to(log_probs, (*shape, num_classes))
        index = jnp.broadcast_to(value, shape)[..., None]
        taken = jnp.take_along_axis(log_probs, index, axis=-1, mode="clip")[..., 0]
        # Outside the support a probability is 0, as in scipy.stats.rv_discrete.logpmf; a plain
        # gather would score the last class for -1.
        inside = (index[..., 0] >= 0) & (index[..., 0] < num_classes)
        return jnp.where(inside, taken, jnp.full_like(taken, -jnp.inf))
