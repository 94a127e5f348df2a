"""A distribution of values of which some are missing."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import pytree, sum_event
from vae_jax.distributions.masked import _terms as terms, entries_of
from vae_jax.distributions.protocol import sample


@pytree
class Incomplete:
    """A distribution over an event whose missing entries are NaN: those that are there are scored.

    Where `Masked` is told what was observed, this looks at the value: a decoder that knows nothing
    of its data can return it.

    Args:
      distribution: of independent entries, as for `Masked`.

    Raises:
      TypeError: the entries of the distribution have no density of their own.

    >>> from vae_jax import Normal
    >>> likelihood = Incomplete(Normal(jnp.zeros(3), 1.0))
    >>> likelihood.log_prob(jnp.array([0.0, jnp.nan, 0.0])).round(3)
    Array(-1.838, dtype=float32)
    """

    distribution: Any

    def __post_init__(self) -> None:
        entries_of(self.distribution)

    @property
    def shape(self) -> tuple[int, ...]:
        return foreign.shape(self.distribution)

    @property
    def event_ndims(self) -> int | None:
        return foreign.event_ndims(self.distribution)

    @property
    def mean(self) -> Array:
        """Of all entries, [*b, *event]."""
        mean: Array = self.distribution.mean
        return mean

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of all entries."""
        drawn: Array = sample(key, self.distribution, sample_shape)
        return drawn

    def log_prob(self, value: Array) -> Array:
        of_each = terms(self.distribution, ~jnp.isnan(value), value)
        return sum_event(of_each, self.event_ndims) if self.event_ndims else of_each
