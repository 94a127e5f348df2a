"""Several distributions as one."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax import Array

from vae_jax.distributions._pytree import broadcast_sum, pytree
from vae_jax.distributions.protocol import log_prob, sample


@pytree
class Joint:
    """Several distributions as one, over tuples of values: a ladder's layers, say.

    `sample` gives a tuple of draws; `log_prob` of a tuple and `kl_divergence` sum over the parts.
    A part may depend on the draw of another, which the caller has drawn already. Then the sum of
    the parts' closed forms need not be the KL: with q(z1|x) q(z2|z1) and p(z2) p(z1|z2), p(z1|z2)
    is known only at a z2 that was drawn from z1. So `elbo` estimates the KL of Joints from the
    draws, and `kl_divergence`, which has no draws, refuses it, unless both say that they are
    ancestral.

    Args:
      parts: distributions, of this library or another.
      ancestral: whether each part depends on the parts before it alone: q(z2|x) q(z1|z2, x) beside
        p(z2) p(z1|z2), in this order, or parts that depend on none. Then the closed forms hold, in
        expectation over the earlier draws.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal
    >>> joint = Joint((Normal(jnp.zeros(2), 1.0), Normal(jnp.zeros(3), 1.0)))
    >>> [z.shape for z in sample(jax.random.key(0), joint)]
    [(2,), (3,)]
    """

    parts: tuple[Any, ...]
    ancestral: bool = dataclasses.field(default=False, metadata={"static": True})

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


def is_ancestral(distribution: Any) -> bool:
    """Whether closed forms of the parts add up; a Joint within a Joint must say so too."""
    if not isinstance(distribution, Joint):
        return True
    return distribution.ancestral and all(map(is_ancestral, distribution.parts))
