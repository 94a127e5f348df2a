"""Distributions of unit vectors, with densities over the sphere's surface."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    accurate,
    aligned,
    float_array,
    in_narrowest,
    in_widest,
    pytree,
)


@pytree
class PowerSpherical:
    """Unit vectors x with a density in proportion to (1 + direction x)^concentration.

    The power spherical distribution (De Cao & Aziz 2020): of the shape of a von
    Mises-Fisher, with exact draws that are differentiable, and a normaliser without Bessel
    functions. A concentration of 0 is the uniform distribution.

    Args:
      direction: unit vectors, [*b, D], D at least 2.
      concentration: [*b], not negative.

    Raises:
      TypeError: the parameters, or a value whose density is asked, are not floating-point.
      ValueError: shapes do not agree, or a known direction or value is no unit vector, or a known
        concentration is negative; of a value not known, under `jax.jit`, log_prob is NaN.

    >>> north = jnp.array([0.0, 0.0, 1.0])
    >>> PowerSpherical(north, jnp.array(3.0)).log_prob(north).round(3)
    Array(-1.145, dtype=float32)
    """

    direction: Array
    concentration: Array

    event_ndims = 1

    def __post_init__(self) -> None:
        direction = float_array("direction", self.direction)
        concentration = float_array("concentration", self.concentration)
        if direction.shape[:-1] != concentration.shape or direction.shape[-1:] < (2,):
            raise ValueError(
                f"direction has shape {direction.shape} and concentration {concentration.shape}: "
                "they must be [*b, D], D at least 2, and [*b]"
            )
        _check_unit("direction", direction)
        known = _known(concentration)
        if known is not None and not (known >= 0).all():
            raise ValueError(
                f"concentration has a least value of {known.min():g}: it must not be negative"
            )
        object.__setattr__(self, "direction", direction)
        object.__setattr__(self, "concentration", concentration)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.direction.shape

    @property
    def mean(self) -> Array:
        """Shorter than 1: (a - b) / (a + b) times the direction."""
        direction, concentration = in_widest(self.direction, self.concentration)
        a, b = _shapes(concentration, self.shape[-1])
        length = (concentration / (a + b))[..., None]
        mean = jnp.broadcast_to(length, direction.shape) * direction
        return mean.astype(self.direction.dtype)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws by a beta variable along the direction (algorithm 1); differentiable."""
        direction, concentration = in_widest(self.direction, self.concentration)
        shape = (*sample_shape, *direction.shape)
        along_key, across_key = jax.random.split(key)
        a, _ = _shapes(jnp.broadcast_to(concentration, shape[:-1]), shape[-1])
        along = jax.random.gamma(along_key, a, dtype=a.dtype)[..., None]
        across = jax.random.normal(across_key, (*shape[:-1], shape[-1] - 1), a.dtype)
        # The other gamma of the beta variable is half the squared length of the other coordinates.
        other = jnp.square(across).sum(-1, keepdims=True) / 2
        across = jnp.broadcast_to(jnp.sqrt(2 * along) / (along + other), across.shape) * across
        cosine = (along - other) / (along + other)
        drawn: Array = _reflected(jnp.concatenate([cosine, across], axis=-1), _unit(direction))
        return drawn.astype(self.direction.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, direction = aligned(given, self, self.direction)
        _check_unit("the value of a PowerSpherical", value)
        concentration = jnp.broadcast_to(self.concentration, value.shape[:-1])
        value, direction, concentration = in_widest(value, direction, concentration)
        # (1 + cosine) / 2 as a square, which does not cancel where the two are opposite.
        share = jnp.square(_unit(value) + _unit(direction)).sum(-1) / 4
        # 0 log 0 = 0: finite where the concentration is 0, or the gradient would be NaN.
        used = (share > 0) | (concentration > 0)
        power = concentration * jnp.log(jnp.where(used, share, jnp.ones_like(share)))
        total = power - _log_normalizer(concentration, self.shape[-1])
        total = jnp.where(_is_unit(value), total, jnp.full_like(total, jnp.nan))
        return in_narrowest(total, given, self.direction, self.concentration)


@pytree
class SphericalUniform:
    """Unit vectors of D coordinates, none likelier than another.

    Args:
      size: D, at least 2.
      dtype: of the draws.

    >>> SphericalUniform(3).log_prob(jnp.array([0.0, 0.0, 1.0])).round(3)  # 1 / (4 pi)
    Array(-2.531, dtype=float32)
    """

    size: int = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(default=jnp.float32, metadata={"static": True})

    event_ndims = 1

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"size is {self.size}: a sphere has 2 coordinates at least")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def mean(self) -> Array:
        return jnp.zeros(self.shape, self.dtype)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        drawn = jax.random.normal(key, (*sample_shape, *self.shape), dtype)
        return _unit(drawn).astype(self.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        (value,) = aligned(given, self)
        _check_unit("the value of a SphericalUniform", value)
        density = jnp.full(value.shape[:-1], -log_area(self.size), value.dtype)
        return jnp.where(_is_unit(value), density, jnp.full_like(density, jnp.nan))


def entropy(distribution: PowerSpherical) -> Array:
    """-E[log p(x)] over the sphere's surface, [*b] (De Cao & Aziz 2020)."""
    (concentration,) = in_widest(distribution.concentration)
    a, b = _shapes(concentration, distribution.shape[-1])
    # E[log((1 + cosine) / 2)] is -(digamma(a + b) - digamma(a)).
    slope: Array = jax.jvp(partial(_log_gamma_ratio, b), (a,), (jnp.ones_like(a),))[1]
    return _log_normalizer(concentration, distribution.shape[-1]) + concentration * slope


def log_area(size: int) -> float:
    """Of the unit sphere in `size` coordinates."""
    return math.log(2) + size / 2 * math.log(math.pi) - math.lgamma(size / 2)


def _shapes(concentration: Array, size: int) -> tuple[Array, float]:
    """Parameters of the beta variable (1 + cosine) / 2."""
    half = (size - 1) / 2
    return concentration + half, half


def _log_normalizer(concentration: Array, size: int) -> Array:
    """Of ((1 + cosine) / 2)^concentration."""
    a, b = _shapes(concentration, size)
    return b * math.log(4 * math.pi) - _log_gamma_ratio(b, a)


def _log_gamma_ratio(b: float, a: Array) -> Array:
    """log gamma(a + b) - log gamma(a), b a multiple of 1/2, to the last digits for any a.

    The difference of the two would have lost all of them at an a of 1e6. What is left of b after
    its whole steps is by Stirling's series where a is large.
    """
    whole, half = divmod(b, 1)
    total = jnp.zeros_like(a)
    for step in range(int(whole)):
        total = total + jnp.log(a + half + step)
    if half:
        large = a > 16
        near = jnp.where(large, jnp.ones_like(a), a)
        far = jnp.where(large, a, jnp.full_like(a, 16))
        series = 0.5 * jnp.log(far) - 1 / (8 * far) + 1 / (192 * far**3) - 1 / (640 * far**5)
        lgamma = jax.scipy.special.gammaln
        total = total + jnp.where(large, series, lgamma(near + 0.5) - lgamma(near))
    return total


def _reflected(value: Array, direction: Array) -> Array:
    """The value mirrored so that the first axis becomes the direction."""
    first = jnp.zeros(direction.shape[-1:], direction.dtype).at[0].set(1)
    normal = jnp.broadcast_to(first, direction.shape) - direction
    square = jnp.square(normal).sum(-1, keepdims=True)
    # Of the first axis itself nothing is mirrored.
    square = jnp.where(square > 0, square, jnp.ones_like(square))
    normal, square = (
        jnp.broadcast_to(a, (*value.shape[:-1], a.shape[-1])) for a in (normal, square)
    )
    along = (normal * value).sum(-1, keepdims=True) / square
    return value - 2 * jnp.broadcast_to(along, value.shape) * normal


# Of a length of 1: bfloat16 keeps 8 bits of each coordinate.
_TOLERANCE = 1e-2


def _unit(value: Array) -> Array:
    unit: Array = value / jnp.linalg.norm(value, axis=-1, keepdims=True)
    return unit


def _is_unit(value: Array) -> Array:
    return jnp.abs(jnp.linalg.norm(accurate(value), axis=-1) - 1) < _TOLERANCE


def _check_unit(name: str, value: Array) -> None:
    known = _known(value)
    if known is None or not known.size:
        return
    length = np.linalg.norm(known.astype(np.float64), axis=-1)
    furthest = length.ravel()[np.abs(length - 1).argmax()]
    if not abs(furthest - 1) < _TOLERANCE:
        raise ValueError(f"{name} has a length of {furthest:g}: it must be a unit vector, of 1")


def _known(array: Array) -> np.ndarray | None:
    return None if isinstance(array, jax.core.Tracer) else np.asarray(array)
