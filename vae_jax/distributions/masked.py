"""Distributions of what was observed in part, and of rows whose columns differ in kind."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import (
    aligned_shape,
    broadcast_sum,
    in_widest,
    longer,
    pytree,
    sum_event,
)
from vae_jax.distributions.categorical import Categorical
from vae_jax.distributions.counts import ZeroInflated
from vae_jax.distributions.discretized_logistic import DiscretizedLogistic
from vae_jax.distributions.ordered import OrderedLogistic
from vae_jax.distributions.protocol import log_prob, sample


@pytree
class Masked:
    """A distribution over an event of which some entries were not observed.

    log p of the observed entries alone: where the entries are independent, the sum over them
    (Nazabal et al. 2020). What stands behind the mask, NaN too, changes neither the value nor a
    gradient. A draw has every entry: those that are missing are drawn as well.

    Args:
      distribution: of independent entries, [*b, *event], such as `Normal`, `Bernoulli` or an event
        of `Categorical`; of another library too. A `Mixture` with no event axes is a batch of
        entries, and masked one by one.
      observed: whether each entry was, of bool; the distribution's shape or its last axes. None
        where the value says it itself: what is NaN was not.

    Raises:
      TypeError: observed is not of bool, or the entries of the distribution have no density of
        their own, as a `MultivariateNormal`'s.
      ValueError: the shapes do not match.

    >>> from vae_jax import Normal
    >>> likelihood = Masked(Normal(jnp.zeros(3), 1.0), jnp.array([True, False, True]))
    >>> likelihood.log_prob(jnp.array([0.0, jnp.nan, 0.0])).round(3)
    Array(-1.838, dtype=float32)
    """

    distribution: Any
    observed: Array | None = None

    def __post_init__(self) -> None:
        entries_of(self.distribution)
        if self.observed is None:
            return
        observed = jnp.asarray(self.observed)
        if observed.dtype != jnp.bool_:
            raise TypeError(
                f"observed has dtype {observed.dtype}: pass bool, True of what is known"
            )
        shape = foreign.shape(self.distribution)
        if longer(observed.shape, shape) != shape:
            raise ValueError(
                f"observed has shape {observed.shape} but {type(self.distribution).__name__} has "
                f"shape {shape}: it must be that, or the last axes of it"
            )
        object.__setattr__(self, "observed", observed)

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

    def log_prob(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        observed = ~jnp.isnan(value) if self.observed is None else self.observed
        terms = _terms(self.distribution, observed, value)
        return sum_event(terms, self.event_ndims) if self.event_ndims else terms


def _terms(distribution: Any, observed: Array, value: Array) -> Array:
    """log p of each entry, 0 of those that were not observed."""
    shape = aligned_shape(value, distribution)
    observed, value = (jnp.broadcast_to(a, shape) for a in (observed, value))
    # Filled before the density, not after: of a NaN times 0 the gradient is NaN.
    filled = jnp.where(observed, value, jnp.zeros_like(value))
    terms = log_prob(entries_of(distribution), filled)
    return jnp.where(observed, terms, jnp.zeros_like(terms))


def entries_of(distribution: Any) -> Any:
    """The same distribution with no event axes: what gives each entry's log-density.

    Raises:
      TypeError: it has none of an entry alone.
    """
    if foreign.library(distribution) is not None:
        distribution = foreign.innermost(distribution)
    if not foreign.event_ndims(distribution):
        return distribution
    if isinstance(distribution, ZeroInflated):
        return dataclasses.replace(distribution, counts=entries_of(distribution.counts))
    fields = getattr(distribution, "__dataclass_fields__", {})
    if "event_ndims" in fields:
        try:
            return dataclasses.replace(distribution, event_ndims=0)
        except ValueError:  # of one whose last axes, as channels, go together
            pass
    name = type(distribution).__name__
    raise TypeError(
        f"a {name} has no density of an entry alone: mask one of independent entries, as a Normal"
    )


@pytree
class Columns:
    """A row of a table: distributions over its columns, as one over x [*b, D].

    The columns may differ in kind: numbers beside counts beside classes. Each value of the row is a
    float; those of a part over integers are whole. NaN is a missing value, not observed, as in
    `Masked`.

    Args:
      parts: distributions over [*b, D_i] with event_ndims=1, of independent entries, from the first
        columns to the last; D is the sum of the D_i.

    Raises:
      ValueError: a part has another number of event axes, or other batch axes than the first.
      TypeError: there is no part, or one whose entries have no density of their own; or a value
        whose density is asked is no array of floats.

    >>> from vae_jax import Categorical, Normal
    >>> row = Columns((Normal(jnp.zeros(2), 1.0), Categorical(jnp.zeros((1, 4)), event_ndims=1)))
    >>> row.log_prob(jnp.array([0.0, jnp.nan, 3.0])).round(3)  # a number and a class
    Array(-2.305, dtype=float32)
    """

    parts: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise TypeError("there is no part: give a distribution for each group of columns")
        first = foreign.shape(self.parts[0])[:-1]
        for part in self.parts:
            shape, event_ndims = foreign.shape(part), foreign.event_ndims(part)
            if event_ndims != 1 or shape[:-1] != first:
                raise ValueError(
                    f"a part, {type(part).__name__}, has shape {shape} with {event_ndims} event "
                    f"axes: all must be [*b, D_i] with one, and *b is {first} of the first"
                )
            entries_of(part)

    @property
    def shape(self) -> tuple[int, ...]:
        shapes = [foreign.shape(part) for part in self.parts]
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    @property
    def event_ndims(self) -> int:
        return 1

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of whole rows, float32 at least; integers as whole numbers."""
        keys = jax.random.split(key, len(self.parts))
        drawn = [sample(k, part, sample_shape) for k, part in zip(keys, self.parts, strict=True)]
        floats = (d if jnp.issubdtype(d.dtype, jnp.floating) else d.astype(float) for d in drawn)
        return jnp.concatenate(in_widest(*floats), axis=-1)

    def log_prob(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"the value of Columns has dtype {value.dtype}: pass floats")
        aligned_shape(value, self)
        parts = zip(self.parts, self._split(value), strict=True)
        return broadcast_sum([_of_part(part, of_part) for part, of_part in parts])

    def _split(self, value: Array) -> list[Array]:
        """The columns of each part, [*s, *b, D_i]."""
        ends = itertools.accumulate(foreign.shape(part)[-1] for part in self.parts)
        return jnp.split(value, list(ends)[:-1], axis=-1)


_OVER_INTEGERS = (Categorical, DiscretizedLogistic, OrderedLogistic)


def _of_part(part: Any, value: Array) -> Array:
    """log p of the values that are there, of floats where the part is over integers too."""
    observed = ~jnp.isnan(value)
    if not isinstance(part, _OVER_INTEGERS):
        return sum_event(_terms(part, observed, value), 1)
    filled = jnp.where(observed, value, jnp.zeros_like(value))
    terms = _terms(part, observed, filled.astype(jnp.int32))
    whole = jnp.broadcast_to(filled == jnp.round(filled), terms.shape)
    return sum_event(jnp.where(whole, terms, jnp.full_like(terms, -jnp.inf)), 1)
