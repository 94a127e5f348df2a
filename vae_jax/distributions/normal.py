"""Gaussians, of a diagonal and of a full covariance."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    aligned,
    check_event_ndims,
    check_positive,
    float_array,
    in_narrowest,
    in_widest,
    positive_like,
    pytree,
    sum_event,
)

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def diagonal_of(matrix: Array) -> Array:
    """[..., D, D] -> [..., D]."""
    diagonal: Array = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    return diagonal


@pytree
class Normal:
    """Gaussian with a diagonal covariance, N(mean, diag(scale^2)).

    Args:
      mean: [*b, *event].
      scale: standard deviations, the shape of `mean` or a scalar.
      event_ndims: number of trailing axes that are one event; 3 for images [B, H, W, C].

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: shapes differ, or a known scale is not positive.

    >>> Normal(jnp.zeros((2, 4)), 1.0).log_prob(jnp.zeros((2, 4)))
    Array([-3.6757541, -3.6757541], dtype=float32)
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
        """Draws mean + scale * noise (Kingma & Welling 2014, section 2.4); differentiable."""
        noise = jax.random.normal(key, (*sample_shape, *self.mean.shape), self.mean.dtype)
        mean, scale, noise = in_widest(self.mean, self.scale, noise)
        mean, scale = (jnp.broadcast_to(a, noise.shape) for a in (mean, scale))
        return (mean + scale * noise).astype(self.mean.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, mean, scale = aligned(given, self, self.mean, self.scale)
        standardised = (value - mean) / scale
        terms = -0.5 * jnp.square(standardised) - jnp.log(scale) - _HALF_LOG_2PI
        total = sum_event(terms, self.event_ndims)
        return in_narrowest(total, given, self.mean, self.scale)


def optimal_scale(x: ArrayLike, mean: ArrayLike, least: float = 1e-3) -> Array:
    """The one scale under which N(x; mean, scale^2) is largest: the root mean squared error.

    With it a reconstruction needs no weight beside the KL, and no scale that is learned (Rybkin et
    al. 2021, section 4.2, "optimal sigma-VAE"): the likelihood of a batch is
    `Normal(mean, optimal_scale(x, mean))`. It is of these x: data that are held out are scored
    under a scale that was known before them.

    Args:
      x: [*b, *event].
      mean: [*s, *b, *event], under as many draws as there are.
      least: what it never falls below, lest the density have no bound.

    Returns:
      A scalar.

    Raises:
      TypeError: x or mean are not floating-point.
      ValueError: the shape of x is not the last axes of the mean's.

    >>> x, mean = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, 2.0], [3.0, 2.0]])
    >>> optimal_scale(x, mean)
    Array(1., dtype=float32)
    """
    given = float_array("x", x)
    mean = float_array("mean", mean)
    if mean.shape[mean.ndim - given.ndim :] != given.shape:
        raise ValueError(
            f"x has shape {given.shape} but mean has shape {mean.shape}: it must be the last axes "
            "of the mean's"
        )
    error, mean = in_widest(given, mean)
    error = jnp.broadcast_to(error, mean.shape) - mean
    return jnp.sqrt(jnp.maximum(jnp.square(error).mean(), least**2))


@pytree
class MultivariateNormal:
    """Gaussian with a full covariance, N(mean, scale_tril scale_tril^T).

    Args:
      mean: [*b, D].
      scale_tril: [*b, D, D], the lower Cholesky factor of the covariance, positive diagonal.
        What stands above the diagonal is ignored.

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: shapes do not agree, or a known diagonal is not positive.

    >>> MultivariateNormal(jnp.zeros(2), jnp.eye(2)).log_prob(jnp.zeros(2)).round(3)
    Array(-1.838, dtype=float32)
    """

    mean: Array
    scale_tril: Array

    event_ndims = 1

    def __post_init__(self) -> None:
        mean = float_array("mean", self.mean)
        scale_tril = float_array("scale_tril", self.scale_tril)
        if mean.ndim < 1 or scale_tril.shape != (*mean.shape, mean.shape[-1]):
            raise ValueError(
                f"mean has shape {mean.shape} but scale_tril has shape {scale_tril.shape}: "
                "they must be [*b, D] and [*b, D, D]"
            )
        check_positive("the diagonal of scale_tril", diagonal_of(scale_tril))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "scale_tril", scale_tril)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws mean + scale_tril @ noise; differentiable."""
        noise = jax.random.normal(key, (*sample_shape, *self.mean.shape), self.mean.dtype)
        mean, factor, noise = in_widest(self.mean, self.scale_tril, noise)
        mean = jnp.broadcast_to(mean, noise.shape)
        drawn = mean + jnp.einsum("...ij,...j->...i", jnp.tril(factor), noise)
        return drawn.astype(self.mean.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, mean, factor = in_widest(*aligned(given, self, self.mean), self.scale_tril)
        # Draws are right-hand sides of one solve: a factor for each would be D times their size.
        batch = value.shape[value.ndim - factor.ndim + 1 :]
        factor = jnp.broadcast_to(factor, (*batch, batch[-1]))
        columns = jnp.moveaxis((value - mean).reshape(-1, *batch), 0, -1)
        solved = jax.scipy.linalg.solve_triangular(factor, columns, lower=True)
        standardised = jnp.moveaxis(solved, -1, 0).reshape(value.shape)
        log_scale = jnp.broadcast_to(jnp.log(diagonal_of(factor)), standardised.shape)
        total = (-0.5 * jnp.square(standardised) - log_scale - _HALF_LOG_2PI).sum(-1)
        return in_narrowest(total, given, self.mean, self.scale_tril)
