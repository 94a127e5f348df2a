"""How a trained model uses its latents."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Joint, Normal, kl_divergence
from vae_jax.distributions._pytree import in_narrowest, in_widest


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


def kl_per_layer(posterior: Any, prior: Any) -> Array:
    """KL(q(z_l|z_<l, x) || p(z_l|z_<l)) of each layer, in nats, [*s, *b, L].

    Of a hierarchy, given the draws of the layers before; their sum is the KL of `elbo`, and
    `free_bits` takes them as they are. A layer whose KL is 0 for
    every x is collapsed: it carries noise alone (Sonderby et al. 2016, section 3.1).

    Args:
      posterior: an ancestral `Joint`, such as `draw` gives it.
      prior: an ancestral `Joint`.

    Raises:
      TypeError: one of them is not an ancestral Joint, or a layer has no closed form.

    >>> import jax
    >>> from vae_jax import Ancestral, draw
    >>> def walk(choose):
    ...     z = choose(Normal(jnp.ones((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0))
    ...     choose(Normal(z, 1.0), Normal(z, 1.0))
    >>> drawn = draw(jax.random.key(0), Ancestral(walk), None, None)
    >>> kl_per_layer(drawn.posterior, drawn.prior).mean(axis=0)
    Array([1., 0.], dtype=float32)
    """
    for name, distribution in ("posterior", posterior), ("prior", prior):
        if not isinstance(distribution, Joint) or not distribution.ancestral:
            raise TypeError(
                f"{name} is a {type(distribution).__name__}, not an ancestral Joint: pass those of "
                "vae_jax.draw, of a model whose posterior has the order of its prior"
            )
    pairs = zip(posterior.parts, prior.parts, strict=True)
    layers = [kl_divergence(q, p) for q, p in pairs]
    longest = max((layer.shape for layer in layers), key=len)
    stacked = jnp.stack([jnp.broadcast_to(layer, longest) for layer in in_widest(*layers)], axis=-1)
    return in_narrowest(stacked, *layers)


def active_units_per_layer(
    posterior: Joint, prior: Joint, threshold: float = 0.01
) -> tuple[Array, ...]:
    """Which latents of each layer the data moves: Var_x(E_q[m]) > threshold, see `active_units`.

    m is where the mean of q(z_l|z_<l, x) stands in p(z_l|z_<l), in its standard deviations: what
    the layers above say of z_l is no use of the layer. Under N(0, I) it is the mean of q itself.

    Args:
      posterior: of a whole data set, Gaussian parts, their means [*s, N, *event].
      prior: Gaussian parts.
      threshold: in squared standard deviations of the prior.

    Returns:
      bool [*event] of each layer.

    >>> q = Normal(jnp.array([[1.0, 2.0], [-1.0, 2.0]]), 1.0)
    >>> p = Normal(jnp.zeros(2), 1.0)
    >>> active_units_per_layer(Joint((q, q)), Joint((p, q)))
    (Array([ True, False], dtype=bool), Array([False, False], dtype=bool))
    """
    return tuple(jnp.var(moved, axis=0) > threshold for moved in mean_shifts(posterior, prior))


def mean_shifts(posterior: Joint, prior: Joint) -> list[Array]:
    """(E[z] - m) / s of each Gaussian layer, p = N(m, s^2), over the draws' mean: [N, *event]."""
    shifts = []
    for q, p in zip(posterior.parts, prior.parts, strict=True):
        for name, part in ("posterior", q), ("prior", p):
            if not isinstance(part, Normal):
                raise TypeError(f"a {type(part).__name__} in the {name}: pass Normals")
        mean, scale = (jnp.broadcast_to(a, q.mean.shape) for a in (p.mean, p.scale))
        shift = (q.mean - mean) / scale
        shifts.append(shift.mean(axis=tuple(range(shift.ndim - 1 - q.event_ndims))))
    return shifts
