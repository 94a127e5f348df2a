"""A distribution changed by invertible maps."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import accurate_dtype, aligned_shape, in_narrowest, pytree
from vae_jax.distributions.protocol import log_prob, sample, sizes


@pytree
class Flow:
    """The distribution of a draw from `base` that goes through `transforms`, the first one first.

    log p(y) = log base(z) - sum log|det| of the transforms at z (Rezende & Mohamed 2015, equation
    7). A draw's density is known from its making: take both with `vae_jax.draw`, as the library's
    losses and evaluations do. `log_prob` of any value goes through the inverses, which are exact
    but for rounding, magnified where the flow squeezes; some are slow: that of an
    `InverseAutoregressive` of Z coordinates takes Z passes of its network.
    Draws and densities are in float32 at least.

    Args:
      base: a distribution over vectors, [*b, Z], of this library or another.
      transforms: `Planar`, `InverseAutoregressive`, `Coupling`, or any object with their two
        methods, such as a bijector of distrax.

    Raises:
      ValueError: base is not over vectors, or a transform changes their shape.

    >>> from vae_jax import Normal, Planar
    >>> planar = Planar(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array(0.0))
    >>> Flow(Normal(jnp.zeros(2), 1.0), (planar,)).log_prob(jnp.zeros(2)).round(1)
    Array(-2.8, dtype=float32)
    """

    base: Any
    transforms: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))
        shape, event_ndims = foreign.shape(self.base), foreign.event_ndims(self.base)
        if event_ndims != 1:
            raise ValueError(
                f"base has {event_ndims or 'no'} event axes, of {shape}: give a distribution over "
                "vectors, of 1"
            )
        z = jax.ShapeDtypeStruct(shape, self._dtype())
        for transform in self._wide(z.dtype).transforms:
            try:
                made = jax.eval_shape(transform.forward_and_log_det, z)
            except ValueError as error:
                raise ValueError(_misfit(shape, transform, "nothing")) from error
            shapes = tuple(array.shape for array in made)
            if shapes != (shape, shape[:-1]):
                raise ValueError(_misfit(shape, transform, f"{shapes[0]} and {shapes[1]}"))

    @property
    def shape(self) -> tuple[int, ...]:
        return foreign.shape(self.base)

    @property
    def event_ndims(self) -> int:
        return 1

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws base and transforms them; differentiable where the base's draws are."""
        return self.sample_and_log_prob(key, sample_shape)[0]

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Draws, and their log-density, which no inverse is needed for."""
        drawn = sample(key, self.base, sizes(sample_shape))
        wide = self.widest()
        z = drawn.astype(self._dtype())
        total = log_prob(wide.base, z)
        for transform in wide.transforms:
            z, log_det = transform.forward_and_log_det(z)
            total = total - log_det
        return z.astype(accurate_dtype(drawn)), in_narrowest(total, *self._arrays())

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        if not jnp.issubdtype(given.dtype, jnp.floating):
            raise TypeError(f"the value of a Flow has dtype {given.dtype}: pass floats")
        dtype = accurate_dtype(given, *self._arrays())
        wide, z = self._wide(dtype), jnp.broadcast_to(given, aligned_shape(given, self))
        z, total = z.astype(dtype), jnp.zeros(z.shape[:-1], dtype)
        for transform in reversed(wide.transforms):
            z, log_det = transform.inverse_and_log_det(z)
            total = total + log_det
        return in_narrowest(log_prob(wide.base, z) + total, given, *self._arrays())

    def _arrays(self) -> list[Array]:
        leaves = map(jnp.asarray, jax.tree.leaves((self.base, self.transforms)))
        return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def _dtype(self) -> Any:
        return accurate_dtype(*self._arrays())

    def widest(self) -> "Flow":
        """The flow with all of its parameters in the widest of their dtypes."""
        return self._wide(self._dtype())

    def _wide(self, dtype: Any) -> "Flow":
        """The flow with all of its parameters in one dtype."""

        def widen(leaf: Any) -> Any:
            floats = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            return jnp.asarray(leaf, dtype) if floats else leaf

        wide: Flow = jax.tree.map(widen, self)
        return wide


def _misfit(shape: tuple[int, ...], transform: Any, made: str) -> str:
    return (
        f"base has shape {shape} but of such values a {type(transform).__name__} makes {made}, and "
        "not as many, with a log-determinant for each vector: its parameters' batch axes must be "
        "the last of the base's, or none"
    )
