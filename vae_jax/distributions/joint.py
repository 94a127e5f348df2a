"""Several distributions as one."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import Array

from vae_jax.distributions._pytree import broadcast_sum, pytree
from vae_jax.distributions.protocol import log_prob, sample


@pytree
class Joint:
    """Independent distributions as one, over tuples of values: a ladder's layers, say.

    `sample` gives a tuple of draws; `log_prob` of a tuple and `kl_divergence` sum over the parts,
    whose batch axes broadcast. A part may depend on an earlier draw, as in q(z1|x) q(z2|z1, x):
    the caller has drawn it already.

    Args:
      parts: distributions, of this library or another.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal
    >>> joint = Joint((Normal(jnp.zeros(2), 1.0), Normal(jnp.zeros(3), 1.0)))
    >>> [z.shape for z in sample(jax.random.key(0), joint)]
    [(2,), (3,)]
    """

    parts: tuple[Any, ...]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(self.parts))
        return tuple(
            sample(k, part, sample_shape) for k, part in zip(keys, self.parts, strict=True)
        )

    def log_prob(self, value: Sequence[Any]) -> Array:
        if len(value) != len(self.parts):
            raise ValueError(
                f"{len(value)} values for a Joint of {len(self.parts)} parts: pass one for each"
            )
        terms = [log_prob(part, v) for part, v in zip(self.parts, value, strict=True)]
        return broadcast_sum(terms)
