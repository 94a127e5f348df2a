"""How a trained model uses its latents."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Normal, kl_divergence


def active_units(posterior: Any, threshold: float = 0.01) -> Array:
    """Which latent dimensions the data moves: Var_x(E_q[z|x]) > threshold (Burda et al. 2016, 5.1).

    Args:
      posterior: q(z|x) of a whole data set, its mean [N, Z].
      threshold: in units of z squared.

    Returns:
      bool [Z].

    >>> from vae_jax import Normal
    >>> active_units(Normal(jnp.array([[1.0, 0.0], [-1.0, 0.0]]), 1.0))
    Array([ True, False], dtype=bool)
    """
    active: Array = jnp.var(posterior.mean, axis=0) > threshold
    return active


def kl_per_dimension(posterior: Normal, prior: Normal) -> Array:
    """KL(q(z_i|x) || p(z_i)) of each latent dimension, in nats, [*b, Z].

    Args:
      posterior: a diagonal Gaussian.
      prior: a diagonal Gaussian.

    Raises:
      TypeError: one of them is another distribution.

    >>> from vae_jax import Normal
    >>> kl_per_dimension(Normal(jnp.array([1.0, 0.0]), 1.0), Normal(jnp.zeros(2), 1.0))
    Array([0.5, 0. ], dtype=float32)
    """
    for name, distribution in ("posterior", posterior), ("prior", prior):
        if not isinstance(distribution, Normal):
            raise TypeError(
                f"{name} is a {type(distribution).__name__}: pass a vae_jax.Normal, whose KL is a "
                "sum over dimensions"
            )
    return kl_divergence(
        dataclasses.replace(posterior, event_ndims=0), dataclasses.replace(prior, event_ndims=0)
    )
