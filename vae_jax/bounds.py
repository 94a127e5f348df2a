"""Bounds on log p(x): per example, in nats, higher is better, from values already computed."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Joint, foreign, kl_divergence, sample
from vae_jax.distributions._pytree import accurate, in_narrowest, in_widest
from vae_jax.distributions.joint import is_ancestral

__all__ = ["Bound", "autoencode", "elbo", "iwae"]


class Bound(NamedTuple):
    """A lower bound on log p(x) and its two terms, in nats, nothing reduced.

    Attributes:
      value: the bound.
      log_likelihood: log p(x|z), under the draws.
      kl: KL(q(z|x) || p(z)), or log q(z|x) - log p(z) under the draws.

    >>> bound = Bound(jnp.array([-90.0, -88.0]), jnp.array([-70.0, -66.0]), jnp.array([20.0, 22.0]))
    >>> loss = -bound.value.mean()  # the one minus sign
    >>> loss
    Array(89., dtype=float32)
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

    The distributions may be of vae_jax, distrax, NumPyro and TFP in any mixture. What one of them
    says of its event (vae_jax's do; another library's non-empty `event_shape`) holds for all: those
    with an empty `event_shape` are summed down to the same leading axes. Where none says, the
    last axis of z is its event.

    Args:
      x: [*b, *event], what was observed; a tuple for a `Joint` likelihood.
      z: draws from the posterior, [*s, *b, Z]; a tuple for a `Joint` posterior.
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z.
      analytic_kl: the KL in closed form; False for its estimate log q(z|x) - log p(z) from z, which
        any pair with a `log_prob` has. Of Joints it is estimated in any case, unless both are
        ancestral: see `Joint`.

    Returns:
      A `Bound` with arrays of shape [*s, *b].

    Raises:
      TypeError: no closed form of the KL is known; pass analytic_kl=False. Or x holds integers and
        the likelihood is a Bernoulli.
      ValueError: shapes do not match, or leave open which axes are the batch; the message names
        both. Or the scale of another library's distribution is known not to be positive.

    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior)
    >>> elbo(jnp.ones((4, 3)), z, posterior, prior, Bernoulli(jnp.zeros((4, 3)))).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    latents, observed, leading, _ = _checked(x, z, posterior, prior, likelihood)
    log_likelihood = _log_likelihood(observed, leading)
    closed = analytic_kl and is_ancestral(posterior) and is_ancestral(prior)
    kl = (_kl if closed else _log_ratio)(latents, leading)
    return Bound(_total([log_likelihood, -kl]), log_likelihood, kl)


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
    latents, observed, leading, num_draw_axes = _checked(x, z, posterior, prior, likelihood)
    if not num_draw_axes:
        raise ValueError(
            "z has no axis of draws to reduce: draw it with vae_jax.sample(key, posterior, S)"
        )
    log_likelihood = _log_likelihood(observed, leading)
    log_ratio = _log_ratio(latents, leading)
    log_weights = _total([log_likelihood, -log_ratio])
    value = jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])
    return Bound(value, log_likelihood.mean(axis=0), log_ratio.mean(axis=0))


def autoencode(
    key: Array,
    x: Any,
    encode: Callable[[Any], Any],
    prior: Any,
    decode: Callable[[Any], Any],
    sample_shape: int | tuple[int, ...] = (),
) -> Bound:
    """The `elbo` of the plain VAE: encodes x, draws z, decodes it (Kingma & Welling 2014).

    Args:
      key: a typed PRNG key.
      x: [*b, *event].
      encode: x -> posterior q(z|x).
      prior: p(z).
      decode: z -> likelihood p(x|z).
      sample_shape: leading axes of the draws; an int S for (S,).

    Returns:
      A `Bound` with arrays of shape [*sample_shape, *b].

    >>> from vae_jax import Bernoulli, Normal
    >>> encode = lambda x: Normal(x @ jnp.ones((3, 2)), 1.0)
    >>> decode = lambda z: Bernoulli(z @ jnp.ones((2, 3)))
    >>> prior = Normal(jnp.zeros(2), 1.0)
    >>> autoencode(jax.random.key(0), jnp.zeros((4, 3)), encode, prior, decode, 5).value.shape
    (5, 4)
    """
    posterior = encode(x)
    z = sample(key, posterior, sample_shape)
    return elbo(x, z, posterior, prior, decode(z))


# The parts of one latent or several, z with its q(z|x) and p(z), and of x with its p(x|z).
_Latents = list[tuple[Array, Any, Any]]
_Observed = list[tuple[Array, Any]]


def _log_likelihood(observed: _Observed, leading: tuple[int, ...]) -> Array:
    return _total([_log_prob(p, x, leading) for x, p in observed])


def _log_ratio(latents: _Latents, leading: tuple[int, ...]) -> Array:
    """log q(z|x) - log p(z)."""
    ratios = ([_log_prob(q, z, leading), -_log_prob(p, z, leading)] for z, q, p in latents)
    return _total([_total(ratio) for ratio in ratios])


def _kl(latents: _Latents, leading: tuple[int, ...]) -> Array:
    terms = [kl_divergence(q, p, event_ndims=z.ndim - len(leading)) for z, q, p in latents]
    return _total([jnp.broadcast_to(term, leading) for term in terms])


def _log_prob(distribution: Any, value: Array, leading: tuple[int, ...]) -> Array:
    term = accurate(distribution.log_prob(value))
    # Where the library knows no event, its axes come back after the leading ones.
    total: Array = term.sum(axis=tuple(range(len(leading), term.ndim)))
    return total


def _total(terms: list[Array]) -> Array:
    return in_narrowest(functools.reduce(jnp.add, in_widest(*terms)), *terms)


def _checked(
    x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any
) -> tuple[_Latents, _Observed, tuple[int, ...], int]:
    """Parts of z and of x, the shape of the leading axes, and how many of these are draws'."""
    latents = _parts(z, posterior, prior)
    num_draw_axes = max(_num_draw_axes(z, q) for z, q, _ in latents)
    draw_axes = latents[0][0].shape[:num_draw_axes]
    observed = []
    for x_part, p in _parts(x, likelihood):
        shape, expected = foreign.shape(p), (*draw_axes, *x_part.shape)
        if shape != expected:
            raise ValueError(
                f"likelihood has shape {shape} but x of shape {x_part.shape} under draws of "
                f"leading shape {draw_axes} needs {expected}: decode z into the shape of x"
            )
        foreign.check(p, x_part)
        observed.append((jnp.broadcast_to(x_part, shape), p))
    for z_part, q, p in latents:
        shape = foreign.shape(p)
        if z_part.shape[z_part.ndim - len(shape) :] != shape:
            raise ValueError(
                f"z has shape {z_part.shape} but prior has shape {shape}: it must match the last "
                "axes of z"
            )
        foreign.check(q, z_part)
        foreign.check(p, z_part)
    ndim = _num_leading_axes(latents, observed, num_draw_axes)
    leading = observed[0][0].shape[:ndim]
    for value, *_ in (*latents, *observed):
        if value.shape[:ndim] != leading:
            raise ValueError(
                f"z has leading axes {value.shape[:ndim]} but likelihood {leading}: give all "
                "of them the same draws and batch"
            )
    return latents, observed, leading, num_draw_axes


def _parts(value: Any, *distributions: Any) -> list[tuple[Any, ...]]:
    """(value, *distributions), or those of every part where they are Joints."""
    if not any(isinstance(d, Joint) for d in distributions):
        if not hasattr(value, "shape"):
            names = ", ".join(type(d).__name__ for d in distributions)
            raise TypeError(f"a {type(value).__name__} for {names}: pass one array, or use a Joint")
        return [(value, *distributions)]
    parts = [getattr(d, "parts", None) for d in distributions]
    if not isinstance(value, list | tuple) or any(
        part is None or len(part) != len(value) for part in parts
    ):
        raise ValueError(
            f"values of type {type(value).__name__} for "
            f"{', '.join(type(d).__name__ for d in distributions)}: a Joint takes a tuple of as "
            "many values as it has parts, and its prior is a Joint too"
        )
    return [part for row in zip(value, *parts, strict=True) for part in _parts(*row)]


def _num_draw_axes(z: Array, posterior: Any) -> int:
    """How many axes of draws z has before the posterior's own shape."""
    shape = foreign.shape(posterior)
    num_draw_axes = z.ndim - len(shape)
    if num_draw_axes < 0 or z.shape[num_draw_axes:] != shape:
        raise ValueError(
            f"z has shape {z.shape} but posterior has shape {shape}: "
            "draw it with vae_jax.sample(key, posterior)"
        )
    return num_draw_axes


def _num_leading_axes(latents: _Latents, observed: _Observed, num_draw_axes: int) -> int:
    """How many axes, draws' and batch, stand before the event, by all that declare one."""
    named = [(name, z, d) for z, q, p in latents for name, d in (("posterior", q), ("prior", p))]
    named += [("likelihood", x, d) for x, d in observed]
    declared = {}
    for name, value, distribution in named:
        event_ndims = foreign.event_ndims(distribution)
        if event_ndims is not None:
            declared[value.ndim - event_ndims] = (name, value.shape, event_ndims)
    if len(declared) > 1:
        (name, shape, event_ndims), (other, other_shape, other_ndims), *_ = declared.values()
        raise ValueError(
            f"{name} has {event_ndims} event axes, of {shape}, but {other} has {other_ndims}, of "
            f"{other_shape}: both must leave the same draws and batch; set event_ndims "
            "(elsewhere: Independent's)"
        )
    if declared:
        return next(iter(declared))
    # Nobody says. The last axis of z is its event, if it cannot be another one of the batch's.
    z = latents[0][0]
    x = observed[0][0]
    batch = z.shape[num_draw_axes:]
    if batch and batch == x.shape[num_draw_axes : num_draw_axes + len(batch)]:
        raise ValueError(
            f"posterior has shape {batch} and x {x.shape[num_draw_axes:]}, and no distribution "
            "declares which axes are the event: wrap one in its library's Independent (NumPyro: "
            ".to_event(1))"
        )
    return max(z.ndim - 1, num_draw_axes)
