"""Mixtures, and the aggregate posterior of pseudo-inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import (
    accurate,
    aligned_shape,
    float_array,
    in_narrowest,
    in_widest,
    pytree,
)
from vae_jax.distributions.protocol import log_prob, sample, sizes


@pytree
class Mixture:
    """K distributions, one of which each value comes of, with probabilities softmax(logits).

    Args:
      logits: [*b, K], unnormalised; -inf for a component that does not occur.
      components: one distribution of this library or another, with batch axes [*b, K].

    Raises:
      TypeError: the logits are not floating-point.
      ValueError: the components' batch axes are not the shape of the logits.

    A draw carries no gradient: the choice of its component has none. As a posterior it wants
    `vimco` or `score_function`, as a categorical one does.

    >>> from vae_jax import Normal
    >>> components = Normal(jnp.array([[-9.0], [9.0]]), 1.0)
    >>> Mixture(jnp.zeros(2), components).log_prob(jnp.array([9.0])).round(3)
    Array(-1.612, dtype=float32)
    """

    logits: Array
    components: Any

    def __post_init__(self) -> None:
        logits = float_array("logits", self.logits)
        object.__setattr__(self, "logits", logits)
        shape, event_ndims = foreign.shape(self.components), foreign.event_ndims(self.components)
        batch = shape[: len(shape) - (event_ndims or 0)]
        if not logits.ndim or batch != logits.shape:
            raise ValueError(
                f"logits have shape {logits.shape} but the components have shape {shape} with "
                f"{event_ndims or 0} event axes: their batch axes must be [*b, K], as the logits'"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        shape = foreign.shape(self.components)
        return (*self.logits.shape[:-1], *shape[self.logits.ndim :])

    @property
    def event_ndims(self) -> int:
        return foreign.event_ndims(self.components) or 0

    @property
    def mean(self) -> Array:
        """Of the components' means, [*b, *event]."""
        return self.averaged(self.components.mean)

    def averaged(self, points: Array) -> Array:
        """The mean of a point of each component, [*b, K, *event]."""
        shares, wide = in_widest(jax.nn.softmax(accurate(self.logits)), points)
        shares = jnp.expand_dims(shares, tuple(range(shares.ndim, wide.ndim)))
        total: Array = (jnp.broadcast_to(shares, wide.shape) * wide).sum(self.logits.ndim - 1)
        return total.astype(points.dtype)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of one component each, constant: the choice has no gradient."""
        which_key, value_key = jax.random.split(key)
        batch = (*sizes(sample_shape), *self.logits.shape[:-1])
        which = jax.random.categorical(which_key, accurate(self.logits), shape=batch)
        # Of all components: of another library's no other way is known to take one.
        drawn = sample(value_key, self.components, sample_shape)
        index = jnp.expand_dims(which, tuple(range(which.ndim, drawn.ndim)))
        chosen = jnp.take_along_axis(drawn, index, axis=len(batch))
        return jax.lax.stop_gradient(jnp.squeeze(chosen, len(batch)))

    def log_prob(self, value: ArrayLike) -> Array:
        """The logarithm of the sum of the components' densities, each times its share."""
        given = jnp.asarray(value)
        aligned_shape(given, self)
        place = given.ndim - self.event_ndims
        of_each = (*given.shape[:place], self.logits.shape[-1], *given.shape[place:])
        densities = log_prob(
            self.components, jnp.broadcast_to(jnp.expand_dims(given, place), of_each)
        )
        shares = jax.nn.log_softmax(accurate(self.logits))
        wide, shares = in_widest(densities, shares)
        total = jax.nn.logsumexp(wide + jnp.broadcast_to(shares, wide.shape), axis=-1)
        return in_narrowest(total, densities, self.logits)


def vamp_mixture(
    encode: Callable[[Array], Any], pseudo_inputs: Array, logits: Array | None = None
) -> Mixture:
    """The mixture of the posteriors of K pseudo-inputs, a VampPrior (Tomczak & Welling 2018).

    Args:
      encode: x -> q(z|x), of a batch.
      pseudo_inputs: [K, *event], learned with the encoder's own parameters (equation 9).
      logits: of the components' shares, [K]; None for equal ones.

    >>> from vae_jax import Normal
    >>> encode = lambda x: Normal(x[:, :2], 1.0)
    >>> vamp_mixture(encode, jnp.array([[-9.0, 0.0, 1.0], [9.0, 0.0, 1.0]])).mean
    Array([0., 0.], dtype=float32)
    """
    logits = jnp.zeros(pseudo_inputs.shape[0]) if logits is None else logits
    return Mixture(logits, encode(pseudo_inputs))
