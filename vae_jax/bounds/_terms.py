"""The terms that every bound is made of, from values whose shapes are checked."""

import functools
from typing import Any

import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Joint, foreign, kl_divergence
from vae_jax.distributions._pytree import accurate, in_narrowest, in_widest
from vae_jax.distributions.divergence import has_closed_form

# The parts of one latent or several, z with its q(z|x) and p(z), and of x with its p(x|z).
_Latents = list[tuple[Array, Any, Any]]
_Observed = list[tuple[Array, Any]]


def log_likelihood(observed: _Observed, leading: tuple[int, ...]) -> Array:
    return total([_log_prob(p, x, leading) for x, p in observed])


def log_posterior(latents: _Latents, leading: tuple[int, ...]) -> Array:
    """log q(z|x)."""
    return total([_log_prob(q, z, leading) for z, q, _ in latents])


def log_ratio(latents: _Latents, leading: tuple[int, ...]) -> Array:
    """log q(z|x) - log p(z)."""
    ratios = ([_log_prob(q, z, leading), -_log_prob(p, z, leading)] for z, q, p in latents)
    return total([total(ratio) for ratio in ratios])


def kl(latents: _Latents, leading: tuple[int, ...]) -> Array:
    terms = [kl_divergence(q, p, event_ndims=z.ndim - len(leading)) for z, q, p in latents]
    return total([jnp.broadcast_to(term, leading) for term in terms])


def all_closed(latents: _Latents, leading: tuple[int, ...]) -> bool:
    """Whether the KL of every part has a closed form."""
    return all(has_closed_form(q, p, event_ndims=z.ndim - len(leading)) for z, q, p in latents)


def _log_prob(distribution: Any, value: Array, leading: tuple[int, ...]) -> Array:
    term = accurate(distribution.log_prob(value))
    # Where the library knows no event, its axes come back after the leading ones.
    summed: Array = term.sum(axis=tuple(range(len(leading), term.ndim)))
    return summed


def total(terms: list[Array]) -> Array:
    return in_narrowest(functools.reduce(jnp.add, in_widest(*terms)), *terms)


def checked(
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
