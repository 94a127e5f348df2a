"""Bounds of several draws, by their importance weights."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.bounds import _terms
from vae_jax.bounds.evidence import Bound
from vae_jax.distributions import given


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
    log_weights, *terms = weighed(x, z, posterior, prior, likelihood)
    return Bound(log_mean_exp(log_weights), *terms)


def miwae(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any, *, num_groups: int) -> Bound:
    """The mean of M importance-weighted bounds, each of its own S / M draws.

    With M = 1 it is the IWAE's bound, with M = S the ELBO of S draws. M fewer draws in each bound
    make it looser and the gradient of the encoder less noisy (Rainforth et al. 2018).

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z].
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z, batch axes [S, *b].
      num_groups: M, which divides S.

    Returns:
      A `Bound` as that of `iwae`.

    Raises:
      ValueError: as `iwae` does, or the draws do not make M equal groups.

    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior, 6)
    >>> likelihood = Bernoulli(jnp.zeros((6, 4, 3)))
    >>> miwae(jnp.ones((4, 3)), z, posterior, prior, likelihood, num_groups=2).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    log_weights, *terms = weighed(x, z, posterior, prior, likelihood)
    num_draws, *batch = log_weights.shape
    if num_groups < 1 or num_draws % num_groups:
        raise ValueError(
            f"num_groups is {num_groups} but z has {num_draws} draws: let it divide their number"
        )
    groups = log_weights.reshape(num_groups, -1, *batch)
    return Bound(jax.vmap(log_mean_exp)(groups).mean(axis=0), *terms)


def ciwae(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any, *, beta: float) -> Bound:
    """The ELBO and the importance-weighted bound of the same S draws, beta and 1 - beta of each.

    A little of the ELBO keeps the signal of the encoder's gradient, which the IWAE loses as S grows
    (Rainforth et al. 2018).

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z].
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z, batch axes [S, *b].
      beta: the share of the ELBO, from 0 to 1.

    Returns:
      A `Bound` as that of `iwae`.

    Raises:
      ValueError: as `iwae` does, or beta is not in [0, 1], beyond which this need be no bound.

    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior, 5)
    >>> likelihood = Bernoulli(jnp.zeros((5, 4, 3)))
    >>> ciwae(jnp.ones((4, 3)), z, posterior, prior, likelihood, beta=0.05).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta}: give the ELBO's share, from 0 to 1")
    log_weights, *terms = weighed(x, z, posterior, prior, likelihood)
    return Bound(beta * log_weights.mean(axis=0) + (1 - beta) * log_mean_exp(log_weights), *terms)


def piwae(
    x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any, *, num_groups: int
) -> tuple[Bound, Bound]:
    """Two objectives for two networks: the IWAE's bound, and the MIWAE's of the same draws.

    The first is for the generative network (decoder and prior), for which a tighter bound is better
    throughout; the second for the encoder, whose gradient it makes less noisy (Rainforth et al.
    2018, section 5). Take of each the gradient of its own network only: the gradient of their sum
    is neither's.

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z].
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z, batch axes [S, *b].
      num_groups: M of the encoder's `miwae`, which divides S.

    Returns:
      The `Bound` for the generative network and that for the encoder.

    Raises:
      ValueError: as `miwae` does.

    >>> from vae_jax import Normal, sample
    >>> prior, x = Normal(jnp.zeros(2), 1.0), jnp.ones((4, 2))
    >>> def losses(decoder, encoder):
    ...     posterior = Normal(x * encoder, 1.0)
    ...     z = sample(jax.random.key(0), posterior, 6)
    ...     bounds = piwae(x, z, posterior, prior, Normal(z * decoder, 1.0), num_groups=2)
    ...     return tuple(-bound.value.mean() for bound in bounds)
    >>> _, pullback = jax.vjp(losses, 1.0, 0.0)  # of the decoder, of the encoder
    >>> (decoder_gradient, _), (_, encoder_gradient) = pullback((1.0, 0.0)), pullback((0.0, 1.0))
    """
    of = x, z, posterior, prior, likelihood
    return iwae(*of), miwae(*of, num_groups=num_groups)


def renyi(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any, *, alpha: float) -> Bound:
    """Renyi's variational bound of S draws, log mean_s w_s^(1 - alpha) / (1 - alpha).

    w_s is the importance weight of `iwae`, whose bound is that of alpha = 0; alpha = 1 gives the
    ELBO of S draws. With many draws it tends to log p(x) - D_alpha(q(z|x) || p(z|x)); for alpha < 0
    that is above log p(x), and no lower bound (Li & Turner 2016, theorem 1).

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z].
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z, batch axes [S, *b].
      alpha: the order of the divergence, any finite number; it must be known under jit.

    Returns:
      A `Bound` as that of `iwae`.

    Raises:
      ValueError: as `iwae` does, or alpha is not finite.

    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior, 5)
    >>> likelihood = Bernoulli(jnp.zeros((5, 4, 3)))
    >>> renyi(jnp.ones((4, 3)), z, posterior, prior, likelihood, alpha=0.5).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}: give a finite order")
    log_weights, *terms = weighed(x, z, posterior, prior, likelihood)
    if alpha == 1:
        return Bound(log_weights.mean(axis=0), *terms)
    order = 1 - alpha
    top = log_weights.max(axis=0) if order > 0 else log_weights.min(axis=0)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    # Not logsumexp, which loses digits as 1 / (1 - alpha) grows.
    excess = jnp.expm1(order * (log_weights - top[None])).mean(axis=0)
    return Bound(top + jnp.log1p(excess) / order, *terms)


def tvo(
    x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any, *, betas: Sequence[float]
) -> Bound:
    """The thermodynamic variational objective of S draws.

    log p(x) is the integral over beta from 0 to 1 of the mean of log w under
    pi_beta ~ q(z|x)^(1 - beta) p(x, z)^beta. It rises with beta, so that its left Riemann sum is a
    lower bound (Masrani et al. 2019). The means are estimated from the draws,
    with the weights w^beta: the expectation of the sum is at most log p(x) only where S is large
    enough for these.

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z].
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z, batch axes [S, *b].
      betas: where the integrand is taken: 0, then rising, below 1. (0.0,) gives the ELBO.

    Returns:
      A `Bound` as that of `iwae`.

    Raises:
      ValueError: as `iwae` does, or betas do not rise from 0 to below 1.

    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior, 5)
    >>> likelihood = Bernoulli(jnp.zeros((5, 4, 3)))
    >>> tvo(jnp.ones((4, 3)), z, posterior, prior, likelihood, betas=(0.0, 0.3)).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    steps = [end - start for start, end in itertools.pairwise((*betas, 1.0))]
    if not steps or betas[0] != 0 or not all(step > 0 for step in steps):
        raise ValueError(f"betas is {betas}: let it rise from 0 to below 1")
    log_weights, *terms = weighed(x, z, posterior, prior, likelihood)

    def strip(step: Array, beta: Array) -> Array:
        return step * (jax.nn.softmax(beta * log_weights, axis=0) * log_weights).sum(axis=0)

    strips = jax.vmap(strip)(*(jnp.asarray(a, log_weights.dtype) for a in (steps, betas)))
    return Bound(strips.sum(axis=0), *terms)


def weighed(
    x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any
) -> tuple[Array, Array, Array]:
    """log w of each draw, [S, *b], and the other terms of a `Bound`, meant over the draws."""
    posterior, prior = given(posterior, z), given(prior, z)
    latents, observed, leading, num_draw_axes = _terms.checked(x, z, posterior, prior, likelihood)
    if not num_draw_axes:
        raise ValueError(
            "z has no axis of draws to reduce: draw it with vae_jax.sample(key, posterior, S)"
        )
    log_likelihood = _terms.log_likelihood(observed, leading)
    log_ratio = _terms.log_ratio(latents, leading)
    log_weights = _terms.total([log_likelihood, -log_ratio])
    return log_weights, log_likelihood.mean(axis=0), log_ratio.mean(axis=0)


def log_mean_exp(log_weights: Array) -> Array:
    """Over the first axis."""
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])
