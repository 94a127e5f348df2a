"""The tail of importance weights: how heavy it is, from the largest of them."""

import math

import jax
import jax.numpy as jnp
from jax import Array

MOST = 512
"""Weights that are kept at most, so that memory does not grow with the draws."""


def tail_size(num_samples: int) -> int:
    """How many of the weights are the tail: min(S / 5, 3 sqrt(S)) (Vehtari et al. 2024, 3.2)."""
    return min(num_samples // 5, math.ceil(3 * math.sqrt(num_samples)), MOST)


def insert(largest: Array, value: Array) -> Array:
    """Puts a value in and takes the least out.

    Args:
      largest: [M, *b], the largest values so far, ascending.
      value: [*b].
    """
    above = jnp.concatenate([largest[1:], jnp.full_like(largest[:1], jnp.inf)])
    return jnp.clip(jnp.broadcast_to(value, largest.shape), largest, above)


def shape(largest: Array) -> Array:
    """k-hat: the shape of the generalised Pareto distribution of weights above the least of these.

    Weights have as many finite moments as 1 / k: from 0.7 on, no number of draws that can be had is
    enough. By the empirical Bayes estimate of Zhang & Stephens (2009), with the weak prior of
    Vehtari et al. (2024, appendix C) that draws it to 0.5 where there are few weights.

    Args:
      largest: logarithms of the M + 1 largest weights, [M + 1, *b], ascending.

    Returns:
      [*b]; NaN of fewer than 5 above the least, as nothing can be said of them; -inf where all are
      the same to 0.1 %, or to what rounding leaves of their difference, which is no tail.
    """
    num = largest.shape[0] - 1
    if num < 5:
        return jnp.full(largest.shape[1:], jnp.nan, largest.dtype)
    # Excesses over the least, as shares of the largest weight: ascending, none below 0.
    weights = jnp.exp(largest - largest[-1:])
    excess = weights[1:] - weights[:1]
    eps, tiny = jnp.finfo(excess.dtype).eps, 16 * jnp.finfo(excess.dtype).tiny
    spread = excess[-1] > jnp.maximum(1e-3, 16 * eps * jnp.abs(largest[-1]))
    excess = jnp.where(spread[None], excess, jnp.ones_like(excess))
    quartile = jnp.maximum(excess[int(num / 4 + 0.5) - 1], tiny)
    num_points = 30 + math.isqrt(num)

    def at(point: Array) -> tuple[Array, Array]:
        """theta and the logarithm of its profile likelihood, Zhang & Stephens' equation 6."""
        theta = 1 / excess[-1] + (1 - jnp.sqrt(num_points / (point - 0.5))) / (3 * quartile)
        k = jnp.log1p(-theta[None] * excess).mean(axis=0)
        return theta, num * (jnp.log(-theta / k) - k - 1)

    theta, log_likelihood = jax.lax.map(at, jnp.arange(1, num_points + 1, dtype=excess.dtype))
    theta = (theta * jax.nn.softmax(log_likelihood, axis=0)).sum(axis=0)
    k = jnp.log1p(-theta[None] * excess).mean(axis=0)
    k = (num * k + 10 * 0.5) / (num + 10)
    return jnp.where(spread, k, -jnp.inf)
