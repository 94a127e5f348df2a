"""Laplace's and Student's distributions: far values cost less than a Gaussian's square."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    aligned,
    check_event_ndims,
    float_array,
    in_narrowest,
    in_widest,
    positive_like,
    pytree,
    sum_event,
)


@pytree
class Laplace:
    """Independent variables of density exp(-|x - mean| / scale) / (2 scale).

    Its log-likelihood is an absolute error, as a Gaussian's is a squared one.

    Args:
      mean: [*b, *event].
      scale: the mean absolute deviation, the shape of `mean` or a scalar.
      event_ndims: number of trailing axes that are one event; 3 for images [B, H, W, C].

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: shapes differ, or a known scale is not positive.

    >>> Laplace(jnp.zeros((2, 4)), 1.0).log_prob(jnp.ones((2, 4))).round(3)
    Array([-6.773, -6.773], dtype=float32)
    """

    mean: Array
    scale: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        mean = float_array("mean", self.mean)
        scale = positive_like("scale", self.scale, mean)
        check_event_ndims(mean, self.event_ndims)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "scale", scale)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws mean + scale * noise; differentiable."""
        mean, scale = in_widest(self.mean, self.scale)
        noise = jax.random.laplace(key, (*sample_shape, *self.shape), mean.dtype)
        mean, scale = (jnp.broadcast_to(a, noise.shape) for a in (mean, scale))
        return (mean + scale * noise).astype(self.mean.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, mean, scale = aligned(given, self, self.mean, self.scale)
        terms = -jnp.abs(value - mean) / scale - jnp.log(scale) - math.log(2)
        total = sum_event(terms, self.event_ndims)
        return in_narrowest(total, given, self.mean, self.scale)


@pytree
class StudentT:
    """Independent variables of Student's t distribution, moved and scaled.

    Its tails fall as |x|^-(df + 1), so one far value moves no scale; in the limit of a large `df`
    it is `Normal`.

    Args:
      mean: [*b, *event], the centre; the mean where df > 1.
      scale: the shape of `mean` or a scalar; the standard deviation is sqrt(df / (df - 2)) of it.
      df: degrees of freedom, the shape of `mean` or a scalar.
      event_ndims: number of trailing axes that are one event; 3 for images [B, H, W, C].

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: shapes differ, or a known scale or df is not positive.

    >>> StudentT(jnp.zeros((2, 4)), 1.0, 3.0).log_prob(jnp.ones((2, 4))).round(3)
    Array([-6.305, -6.305], dtype=float32)
    """

    mean: Array
    scale: Array
    df: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        mean = float_array("mean", self.mean)
        scale = positive_like("scale", self.scale, mean)
        df = positive_like("df", self.df, mean)
        check_event_ndims(mean, self.event_ndims)
        for name, value in ("mean", mean), ("scale", scale), ("df", df):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws mean + scale * normal / sqrt(gamma(df / 2) / (df / 2)); differentiable."""
        normal_key, gamma_key = jax.random.split(key)
        mean, scale, df = in_widest(self.mean, self.scale, self.df)
        shape = (*sample_shape, *self.shape)
        mean, scale, half = (jnp.broadcast_to(a, shape) for a in (mean, scale, df / 2))
        # As logarithms: at a small df the gamma variable itself is 0 in float32.
        log_gamma = jax.random.loggamma(gamma_key, half, dtype=mean.dtype)
        noise = jax.random.normal(normal_key, shape, mean.dtype)
        noise = noise * jnp.exp(0.5 * (jnp.log(half) - log_gamma))
        return (mean + scale * noise).astype(self.mean.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, mean, scale, df = aligned(given, self, self.mean, self.scale, self.df)
        standardised = jnp.abs(value - mean) / scale
        terms = (
            _log_normaliser(df) - jnp.log(scale) - 0.5 * (df + 1) * _log1p_share(standardised, df)
        )
        total = sum_event(terms, self.event_ndims)
        return in_narrowest(total, given, self.mean, self.scale, self.df)


def _log1p_share(standardised: Array, df: Array) -> Array:
    """log(1 + t^2 / df) for t >= 0, where t^2 may have no room in the dtype."""
    ratio = standardised / jnp.sqrt(df)
    far = ratio > 1
    ones = jnp.ones_like(ratio)
    outer, inner = jnp.where(far, ratio, ones), jnp.where(far, ones, ratio)
    return jnp.where(
        far, 2 * jnp.log(outer) + jnp.log1p(1 / jnp.square(outer)), jnp.log1p(inner * inner)
    )


def _log_normaliser(df: Array) -> Array:
    """log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(df pi) / 2.

    The difference of the logarithms is taken before they are: of two that are about df log df in
    size, float32 leaves nothing. Moved up by 8, Gamma(x + 1/2) / Gamma(x) has an expansion in 1 / x
    (NIST's Digital Library of Mathematical Functions, equation 5.11.13) with an error of 1e-14.
    """
    half = df / 2
    moved = half + 8
    inverse = 1 / moved
    square = inverse * inverse
    series = jnp.zeros_like(df)
    for coefficient in _GAMMA_RATIO[::-1]:
        series = series * square + coefficient
    ratio = jnp.ones_like(df)
    for step in range(8):
        ratio = ratio * ((half + step) / (half + step + 0.5))
    # (moved / half)^(1/2) is what the shift adds to the root that is divided by.
    return series * inverse + jnp.log(ratio) + 0.5 * (jnp.log1p(8 / half) - math.log(2 * math.pi))


# Of log Gamma(x + 1/2) - log Gamma(x) - log(x) / 2, in powers 1, 3, 5, ... of 1 / x.
_GAMMA_RATIO = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224)
