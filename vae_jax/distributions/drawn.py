"""Draws that come with their density."""

from typing import Any

import jax
from jax import Array

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import check_key, pytree
from vae_jax.distributions.joint import Joint
from vae_jax.distributions.protocol import sample, sizes


@pytree
class Drawn:
    """A distribution beside draws of it, whose log-density their making has told already.

    `log_prob` of these very draws, the object itself, is `density`; of any other value, one that is
    equal too, it is the distribution's own. So it is right of whatever it is asked, and cheap where
    nothing came between the draw and the question: a draw that was held constant, scaled, or taken
    through `jax.jit` is another object.

    Args:
      distribution: with batch axes [*b].
      value: draws of it, [*s, *b, *event].
      density: log q(value) in nats, [*s, *b], with the gradient that it has through the draws.
    """

    distribution: Any
    value: Array
    density: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return foreign.shape(self.distribution)

    @property
    def event_ndims(self) -> int | None:
        return foreign.event_ndims(self.distribution)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        return sample(key, self.distribution, sample_shape)

    def log_prob(self, value: Any) -> Array:
        if value is self.value:
            return self.density
        result: Array = self.distribution.log_prob(value)
        return result


def sample_scored(key: Array, distribution: Any, sample_shape: int | tuple[int, ...] = ()) -> Any:
    """Draws, and the distribution that knows the density of them.

    Of a `Flow`, whose inverse is dear, the density of a draw comes with its making: what is given
    back beside the draws scores them at no cost, and any other value as the flow itself does. Most
    distributions score a draw as cheaply as anything, and are given back as they are. So it may
    stand, with its two results, wherever `sample(key, posterior)` does.

    Args:
      key: a typed PRNG key, from jax.random.key.
      distribution: of this library, or any that `sample` takes; a `Joint` part by part. One of
        flowjax, or of your own, gives the density with the draws where it has a
        `sample_and_log_prob(key, sample_shape)`.
      sample_shape: leading axes of the draws; an int S for (S,).

    Returns:
      The draws, those of `sample` with this key, and the distribution.

    Raises:
      TypeError: the key is not typed.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Flow, Normal, Planar
    >>> planar = Planar(jnp.ones(2), jnp.ones(2), jnp.zeros(()))
    >>> z, posterior = sample_scored(
    ...     jax.random.key(0), Flow(Normal(jnp.zeros(2), 1.0), (planar,)), 5
    ... )
    >>> z.shape, posterior.log_prob(z).shape
    ((5, 2), (5,))
    """
    check_key(key)
    if isinstance(distribution, Joint):
        keys = jax.random.split(key, len(distribution.parts))
        parts = zip(keys, distribution.parts, strict=True)
        values, scored = zip(
            *(sample_scored(k, part, sample_shape) for k, part in parts), strict=True
        )
        return values, Joint(scored, distribution.ancestral)
    value, density = draw_with_density(key, distribution, sample_shape)
    return value, with_density(distribution, value, density)


def draw_with_density(
    key: Array, distribution: Any, sample_shape: int | tuple[int, ...] = ()
) -> tuple[Any, Array | None]:
    """The halves of what `sample_scored` joins, for `jax.vmap` or a scan: draws, their density.

    The density is None where the distribution scores any value as cheaply.
    """
    # What distrax and its like have by that name scores the draw as log_prob does.
    if not hasattr(distribution, "sample_and_log_prob") or foreign.library(distribution):
        return sample(key, distribution, sample_shape), None
    value, density = distribution.sample_and_log_prob(key, sizes(sample_shape))
    return value, density


def with_density(distribution: Any, value: Any, density: Array | None) -> Any:
    """The distribution, `Drawn` where the density of the draws is known."""
    return distribution if density is None else Drawn(distribution, value, density)
