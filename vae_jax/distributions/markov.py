"""Sequences of latents, each of which depends on the one before."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import check_key, pytree
from vae_jax.distributions.protocol import log_prob, sample


@pytree
class MarkovChain:
    """z_1, ..., z_T with p(z_1|z_0) p(z_2|z_1) ... p(z_T|z_(T-1)), as one distribution over [T, Z].

    The latents of a deep Markov model (Krishnan et al. 2017), of a prior without inputs and of a
    posterior whose steps see the data. A draw is a `jax.lax.scan`. The density of one is not: at
    draws z every step is known, and all of them are one call. `elbo` has the KL in closed form,
    step by step, given the draws before.

    Args:
      step: (z_before [*c, Z], inputs [*c, F]) -> the distribution of the next z, batch axes [*c]
        and one event axis. A `jax.tree_util.Partial` of a function and its parameters makes the
        chain a pytree of them.
      initial: z_0, [Z].
      inputs: what else a step sees, a pytree of arrays [*b, T, F]; or None.
      length: T, of the draws where there are no inputs to tell.
      within: [*b, T], whether a step is before the end of its sequence; or None, of all. From the
        end on a posterior's step is its prior's, and `elbo` takes the KL there for 0, as it is but
        for rounding.

    Raises:
      ValueError: neither inputs nor a length is given.

    >>> from vae_jax import Normal, log_prob, sample
    >>> walk = MarkovChain(lambda z, inputs: Normal(z, 1.0), jnp.zeros(2), length=7)
    >>> z = sample(jax.random.key(0), walk, 5)
    >>> z.shape, log_prob(walk, z).shape
    ((5, 7, 2), (5,))
    """

    step: Callable[[Array, Any], Any]
    initial: Array
    inputs: Any = None
    length: int | None = dataclasses.field(default=None, metadata={"static": True})
    within: Array | None = None

    def __post_init__(self) -> None:
        if self.length is None and not jax.tree.leaves(self.inputs):
            raise ValueError("no inputs and no length: a chain without inputs takes length=T")

    @property
    def shape(self) -> tuple[int, ...]:
        leaves = jax.tree.leaves(self.inputs)
        steps = leaves[0].shape[:-1] if leaves else (self.length,)
        return (*steps, *self.initial.shape)

    @property
    def event_ndims(self) -> int:
        return 2

    @property
    def mean(self) -> Array:
        """Of each step at the means of those before, [*b, T, Z]."""
        return self._walked(lambda step, _: step.mean, ())

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        check_key(key)
        # Of a step's number: the first are those of a shorter chain.
        return self._walked(lambda step, i: sample(jax.random.fold_in(key, i), step), sample_shape)

    def log_prob(self, value: Array) -> Array:
        return self.given(value).log_prob(value)

    def given(self, z: Array) -> "Steps":
        """The distributions of all steps at draws z [*s, *b, T, Z].

        Raises:
          ValueError: z is not of the shape of the chain.
        """
        *batch, length, size = self.shape
        if jax.tree.leaves(self.inputs):
            expected: tuple[int, ...] = (*batch, length, size)
        else:  # of any length
            expected = (size,)
        if z.ndim < 2 or z.shape[max(0, z.ndim - len(expected)) :] != expected:
            raise ValueError(
                f"z has shape {z.shape} but the chain {self.shape}: its last axes must be these"
            )
        first = jnp.broadcast_to(self.initial, (*z.shape[:-2], 1, size)).astype(z.dtype)
        before = jnp.concatenate([first, z[..., :-1, :]], axis=-2)
        # The draws' axes are of what is given, not of the chain.
        shape = (*batch, *z.shape[-2:])
        return Steps(self.step(before, _like(self.inputs, before)), shape, self.within)

    def _walked(self, choose: Callable[..., Array], sample_shape: tuple[int, ...]) -> Array:
        *batch, length, size = self.shape
        inputs = jax.tree.map(lambda a: jnp.moveaxis(a, -2, 0), self.inputs)
        start = jnp.broadcast_to(self.initial, (*sample_shape, *batch, size))

        def advance(z: Array, at: Any) -> tuple[Array, Array]:
            i, inputs = at
            z = choose(self.step(z, _like(inputs, z)), i).astype(z.dtype)
            return z, z

        steps = jnp.arange(length, dtype=jnp.int32)
        _, walked = jax.lax.scan(advance, start, (steps, inputs))
        return jnp.moveaxis(walked, 0, -2)


def _like(inputs: Any, z: Array) -> Any:
    """Inputs [*b, F] with the leading axes of z [*s, *b, Z]."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (*z.shape[:-1], a.shape[-1])), inputs)


@pytree
class Steps:
    """A chain whose steps are known: what `MarkovChain.given` gives.

    Args:
      distribution: of each step, [*s, *b, T, Z], with one event axis.
      shape: of the chain, [*b, T, Z].
      within: of the chain.
    """

    distribution: Any
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    within: Array | None = None

    @property
    def event_ndims(self) -> int:
        return 2

    def log_prob(self, value: Array) -> Array:
        if foreign.event_ndims(self.distribution) != 1:
            raise ValueError(
                f"a step is a {type(self.distribution).__name__} with "
                f"{foreign.event_ndims(self.distribution)} event axes: it must have one"
            )
        return log_prob(self.distribution, value).sum(axis=-1)
