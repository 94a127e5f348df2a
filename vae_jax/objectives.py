"""Bounds on log p(x): per example, in nats, higher is better, from values already computed."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Joint, kl_divergence, log_prob

__all__ = ["Bound", "elbo", "iwae"]


class Bound(NamedTuple):
    """A lower bound on log p(x) and its two terms, in nats, nothing reduced.

    Attributes:
      value: the bound.
      log_likelihood: log p(x|z), under the draws.
      kl: KL(q(z|x) || p(z)), or log q(z|x) - log p(z) under the draws.
    """

    value: Array
    log_likelihood: Array
    kl: Array


def elbo(
    x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any, *, analytic_kl: bool = True
) -> Bound:
    """The evidence lower bound, log p(x|z) - KL(q(z|x) || p(z)).

    Its expectation over z ~ q(z|x) is log p(x) - KL(q(z|x) || p(z|x)) (Kingma & Welling 2014,
    equations 2 and 3). Leading axes of z, one draw [B] or many [S, B], are kept: take
    `.value.mean()` for the objective.

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [*s, *b, Z].
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z.
      analytic_kl: the KL in closed form; False for its estimate log q(z|x) - log p(z) from z, which
        any pair with a `log_prob` has.

    Returns:
      A `Bound` with arrays of shape [*s, *b].

    Raises:
      TypeError: no closed form of the KL is known; pass analytic_kl=False.
      ValueError: shapes do not match; the message names both.

    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior)
    >>> elbo(jnp.ones((4, 3)), z, posterior, prior, Bernoulli(jnp.zeros((4, 3)))).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    draw_axes = _check_draw(z, posterior)
    log_likelihood = _log_likelihood(x, likelihood, draw_axes)
    kl = kl_divergence(posterior, prior) if analytic_kl else _log_ratio(z, posterior, prior)
    kl = jnp.broadcast_to(kl, log_likelihood.shape)
    return Bound(log_likelihood - kl, log_likelihood, kl)


def iwae(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any) -> Bound:
    """The importance-weighted bound of S draws, log mean_s p(x|z_s) p(z_s) / q(z_s|x).

    It lies between the ELBO and log p(x) and rises to it with S (Burda et al. 2016, equation 8).
    The first axis of z, the draws', is the one that is reduced.

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z].
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z, batch axes [S, *b].

    Returns:
      A `Bound` with arrays of shape [*b]; its log_likelihood and kl are the plain means over the
      draws, so `value - (log_likelihood - kl)`, not negative, is what the importance weights gain.

    Raises:
      ValueError: shapes do not match, or z has no axis of draws.

    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior, 5)
    >>> iwae(jnp.ones((4, 3)), z, posterior, prior, Bernoulli(jnp.zeros((5, 4, 3)))).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    draw_axes = _check_draw(z, posterior)
    log_likelihood = _log_likelihood(x, likelihood, draw_axes)
    log_ratio = jnp.broadcast_to(_log_ratio(z, posterior, prior), log_likelihood.shape)
    if not draw_axes:
        raise ValueError(
            "z has no axis of draws to reduce: draw it with vae_jax.sample(key, posterior, S)"
        )
    log_weights = log_likelihood - log_ratio
    value = jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])
    return Bound(value, log_likelihood.mean(axis=0), log_ratio.mean(axis=0))


def _log_ratio(z: Any, posterior: Any, prior: Any) -> Array:
    return log_prob(posterior, z) - log_prob(prior, z)


def _check_draw(z: Any, posterior: Any) -> tuple[int, ...]:
    """The draws' axes that z has before the posterior's own shape."""
    if isinstance(posterior, Joint):
        if len(z) != len(posterior.parts):
            raise ValueError(
                f"z has {len(z)} parts but posterior has {len(posterior.parts)}: "
                "draw it with vae_jax.sample(key, posterior)"
            )
        # A later part may depend on an earlier draw and so have the draws' axes in its batch.
        return max((_check_draw(*pair) for pair in zip(z, posterior.parts, strict=True)), key=len)
    num_draw_axes = z.ndim - len(posterior.shape)
    if num_draw_axes < 0 or z.shape[num_draw_axes:] != posterior.shape:
        raise ValueError(
            f"z has shape {z.shape} but posterior has shape {posterior.shape}: "
            "draw it with vae_jax.sample(key, posterior)"
        )
    draw_axes: tuple[int, ...] = z.shape[:num_draw_axes]
    return draw_axes


def _log_likelihood(x: Any, likelihood: Any, draw_axes: tuple[int, ...]) -> Array:
    """log p(x|z); x must have the likelihood's shape but for the draws' axes before it."""
    expected = (*draw_axes, *x.shape)
    if likelihood.shape != expected:
        raise ValueError(
            f"likelihood has shape {likelihood.shape} but x of shape {x.shape} under draws of "
            f"leading shape {draw_axes} needs {expected}: decode z into the shape of x"
        )
    return log_prob(likelihood, x)
