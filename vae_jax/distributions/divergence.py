"""Kullback-Leibler divergences in closed form."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import Array

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import (
    accurate,
    broadcast_sum,
    in_narrowest,
    in_widest,
    longer,
    sum_event,
)
from vae_jax.distributions.bernoulli import Bernoulli, finite
from vae_jax.distributions.categorical import Categorical
from vae_jax.distributions.drawn import Drawn
from vae_jax.distributions.joint import Joint, is_ancestral
from vae_jax.distributions.markov import Steps
from vae_jax.distributions.normal import MultivariateNormal, Normal, diagonal_of
from vae_jax.distributions.sphere import PowerSpherical, SphericalUniform, entropy, log_area


class NoClosedFormError(TypeError):
    """Of a pair whose divergence must be estimated."""


def has_closed_form(posterior: Any, prior: Any, *, event_ndims: int | None = None) -> bool:
    """Whether `kl_divergence` knows the pair; nothing is computed."""
    try:
        jax.eval_shape(lambda: kl_divergence(posterior, prior, event_ndims=event_ndims))
    except NoClosedFormError:
        return False
    return True


def kl_divergence(posterior: Any, prior: Any, *, event_ndims: int | None = None) -> Array:
    """KL(posterior || prior) in closed form, in nats.

    Known pairs: Gaussians of either covariance in either place (Kingma & Welling 2014, appendix B,
    for the diagonal case against N(0, I)), of vae_jax, distrax, NumPyro and TFP in any mixture;
    Bernoulli, Categorical, a `PowerSpherical` to the uniform distribution, and ancestral Joints of
    such parts; and what another library knows of two of its own.

    Args:
      posterior: batch axes [*b].
      prior: the same event; the shorter of the two batches matches the last axes of the longer.
      event_ndims: how many last axes are one event, used only where neither distribution says so:
        both are of another library with an empty `event_shape`. By default 1, the last.

    Returns:
      [*b] of the longer batch, not negative but for rounding.

    Raises:
      TypeError: no closed form is known for the pair, or it is one of Joints that do not say that
        they are ancestral.
      ValueError: event or batch shapes do not match, or nothing says whether the only axis is the
        batch or the event.

    >>> kl_divergence(Normal(jnp.ones((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0))
    Array([1., 1., 1., 1.], dtype=float32)
    """
    posterior, prior = (d.distribution if isinstance(d, Drawn) else d for d in (posterior, prior))
    if isinstance(posterior, Steps) and isinstance(prior, Steps):
        return _kl_steps(posterior, prior)
    if isinstance(posterior, Joint) and isinstance(prior, Joint):
        return _kl_joint(posterior, prior)
    for pair in itertools.product(type(posterior).__mro__, type(prior).__mro__):
        if pair in _CLOSED_FORMS:  # of a subclass too
            result = _CLOSED_FORMS[pair](posterior, prior)
            return in_narrowest(result, *_arrays(posterior), *_arrays(prior))
    if not isinstance(posterior, Joint) and not isinstance(prior, Joint):
        shape = _check_pair(posterior, prior)
        event_ndims = _event_ndims_of_pair(posterior, prior, event_ndims)
        known = foreign.kl_divergence(posterior, prior)
        if known is not None:
            # [*b] from a library that knows the event, [*b, *event] from one that does not.
            return sum_event(accurate(known), known.ndim - (len(shape) - event_ndims))
        p, q = (_as_gaussian(d, shape, event_ndims) for d in (posterior, prior))
        if p is not None and q is not None:
            return kl_divergence(p, q)
    raise NoClosedFormError(
        f"no closed form is known for KL({type(posterior).__name__} || {type(prior).__name__}): "
        "estimate it from the draws, elbo(..., analytic_kl=False)"
    )


def _arrays(distribution: Any) -> list[Array]:
    # Not its leaves: a caller's subclass is no pytree.
    values = [getattr(distribution, field.name) for field in dataclasses.fields(distribution)]
    return [value for value in values if hasattr(value, "dtype")]  # NumPy's among them


def _event_ndims_of_pair(posterior: Any, prior: Any, default: int | None) -> int:
    for distribution in (posterior, prior):
        declared = foreign.event_ndims(distribution)
        if declared is not None:
            return declared
    shapes = foreign.shape(posterior), foreign.shape(prior)
    ndim = max(map(len, shapes))
    if default is None and ndim == 1:
        raise ValueError(
            f"posterior has shape {shapes[0]} and prior {shapes[1]}, and neither declares an "
            "event: for one vector pass event_ndims=1, for a batch of scalars event_ndims=0"
        )
    return min(ndim, 1) if default is None else default


def _as_gaussian(
    distribution: Any, shape: tuple[int, ...], event_ndims: int
) -> Normal | MultivariateNormal | None:
    """A Gaussian of another library as one of ours, of the shape; None for anything else."""
    if isinstance(distribution, Normal | MultivariateNormal):
        return distribution
    inner = foreign.innermost(distribution)
    match foreign.library(inner), type(inner).__name__:
        case str(), "Normal":
            mean, scale = inner.loc, inner.scale
        case (("distrax" | "tensorflow_probability"), "MultivariateNormalDiag"):
            mean, scale = inner.mean(), inner.stddev()
        case "numpyro", "MultivariateNormal":
            return MultivariateNormal(inner.loc, inner.scale_tril)
        case "distrax", "MultivariateNormalTri" if inner.is_lower:
            return MultivariateNormal(inner.loc, inner.scale_tri)
        case "tensorflow_probability", "MultivariateNormalTriL":
            return MultivariateNormal(inner.mean(), inner.scale.to_dense())
        case _:
            return None
    # Accurate, as NumPyro takes integers: Normal(0, 1).
    mean, scale = (accurate(jnp.broadcast_to(a, shape)) for a in (mean, scale))
    return Normal(mean, scale, event_ndims)


def _check_pair(posterior: Any, prior: Any) -> tuple[int, ...]:
    """The longer shape of the two, if they fit."""
    shapes = foreign.shape(posterior), foreign.shape(prior)
    events = foreign.event_ndims(posterior), foreign.event_ndims(prior)
    shape = longer(*shapes)
    if shape is None or (None not in events and events[0] != events[1]):
        raise ValueError(
            f"posterior has shape {shapes[0]} with {events[0]} event axes but prior has "
            f"shape {shapes[1]} with {events[1]}: the shorter must match the last axes of the "
            "longer, and the events must be the same"
        )
    return shape


def _matched(posterior: Any, prior: Any, *parameters: str) -> list[Array]:
    """The named parameters of both, in the widest dtype, broadcast over the batch axes."""
    _check_pair(posterior, prior)
    both = in_widest(*(getattr(d, name) for name in parameters for d in (posterior, prior)))
    matched = []
    for name, *pair in zip(parameters, both[::2], both[1::2], strict=True):
        shape = longer(pair[0].shape, pair[1].shape)
        if shape is None:
            raise ValueError(
                f"posterior has {name} of shape {pair[0].shape} but prior has {name} of shape "
                f"{pair[1].shape}: the shorter must match the last axes of the longer"
            )
        matched.append([jnp.broadcast_to(parameter, shape) for parameter in pair])
    p, q = zip(*matched, strict=True)
    return [*p, *q]


def _kl_normal(posterior: Normal, prior: Normal) -> Array:
    mean, scale, prior_mean, prior_scale = _matched(posterior, prior, "mean", "scale")
    excess = (scale - prior_scale) / prior_scale
    shift = (mean - prior_mean) / prior_scale
    terms = 0.5 * (jnp.square(excess) + jnp.square(shift))
    terms += _less_log(excess, jnp.log(scale / prior_scale))
    return sum_event(terms, posterior.event_ndims)


def _less_log(excess: Array, log_ratio: Array) -> Array:
    """excess - log(1 + excess), where log_ratio is that logarithm but for rounding.

    It is about excess^2 / 2 between Gaussians that are near each other, of which log_ratio, known
    to 1e-7, leaves nothing. Far from 0 log_ratio is the better one: at an excess of -1 + 1e-6 the
    sum has lost what the scales still tell.
    """
    near = jnp.abs(excess) < 0.5
    # Of 0 where it is not used, or the gradient there would be NaN.
    return excess - jnp.where(
        near, jnp.log1p(jnp.where(near, excess, jnp.zeros_like(excess))), log_ratio
    )


def _kl_multivariate_normal(
    posterior: Normal | MultivariateNormal, prior: Normal | MultivariateNormal
) -> Array:
    posterior = _with_factor(posterior)
    prior = _with_factor(prior)
    mean, factor, prior_mean, prior_factor = _matched(posterior, prior, "mean", "scale_tril")
    # E = L2^-1 (L1 - L2) and L2^-1 (m1 - m2) from one triangular solve, as in _kl_normal.
    differences = (jnp.tril(factor - prior_factor), (mean - prior_mean)[..., None])
    columns = jnp.concatenate(differences, axis=-1)
    solved = jax.scipy.linalg.solve_triangular(prior_factor, columns, lower=True)
    log_ratio = jnp.log(diagonal_of(factor) / diagonal_of(prior_factor))
    excess = diagonal_of(solved[..., :-1])
    return 0.5 * jnp.square(solved).sum((-2, -1)) + _less_log(excess, log_ratio).sum(-1)


def _kl_to_diagonal(posterior: MultivariateNormal, prior: Normal) -> Array:
    """Of a full covariance to a diagonal one: a solve against a diagonal is a division."""
    batch = _check_pair(posterior, prior)
    *vectors, factor = in_widest(posterior.mean, prior.mean, prior.scale, posterior.scale_tril)
    mean, prior_mean, scale = (jnp.broadcast_to(a, batch) for a in vectors)
    factor = jnp.broadcast_to(jnp.tril(factor), (*batch, batch[-1]))
    diagonal = diagonal_of(factor)
    excess = (diagonal - scale) / scale
    below = jnp.square(jnp.tril(factor, -1) / scale[..., None]).sum(-1)
    terms = 0.5 * (jnp.square(excess) + below + jnp.square((mean - prior_mean) / scale))
    return (terms + _less_log(excess, jnp.log(diagonal / scale))).sum(-1)


def _with_factor(distribution: Normal | MultivariateNormal) -> MultivariateNormal:
    if isinstance(distribution, MultivariateNormal):
        return distribution
    if distribution.event_ndims != 1:
        raise ValueError(
            f"a Normal with {distribution.event_ndims} event axes beside a MultivariateNormal, "
            "which has 1: flatten the event"
        )
    scale = distribution.scale
    identity = jnp.eye(scale.shape[-1], dtype=scale.dtype)
    scale_tril = jnp.einsum("...i,ij->...ij", scale, identity)
    return MultivariateNormal(distribution.mean, scale_tril)


def _kl_steps(posterior: Steps, prior: Steps) -> Array:
    within, q, p = posterior.within, posterior.distribution, prior.distribution
    if within is not None and isinstance(q, Normal) and isinstance(p, Normal):
        # Of 0 and 1 where they are not counted, or a scale of 0 there would be a gradient of NaN.
        q, p = (
            Normal(
                jnp.where(within[..., None], d.mean, jnp.zeros_like(d.mean)),
                jnp.where(within[..., None], d.scale, jnp.ones_like(d.scale)),
            )
            for d in (q, p)
        )
    each = kl_divergence(q, p)
    if within is not None:
        each = jnp.where(within, each, jnp.zeros_like(each))
    return each.sum(axis=-1)


def _kl_bernoulli(posterior: Bernoulli, prior: Bernoulli) -> Array:
    logits, prior_logits = (finite(a) for a in _matched(posterior, prior, "logits"))
    ones = _generalized(*map(jax.nn.log_sigmoid, (logits, prior_logits)))
    zeros = _generalized(*map(jax.nn.log_sigmoid, (-logits, -prior_logits)))
    return sum_event(ones + zeros, posterior.event_ndims)


def _kl_categorical(posterior: Categorical, prior: Categorical) -> Array:
    logits, prior_logits = _matched(posterior, prior, "logits")
    terms = _generalized(jax.nn.log_softmax(logits), jax.nn.log_softmax(prior_logits))
    return sum_event(terms, 1 + posterior.event_ndims)


def _generalized(log_p: Array, log_q: Array) -> Array:
    """p log(p / q) - p + q of each value, which over all values sum to the divergence.

    Each is at least 0, and about p (log p - log q)^2 / 2 where p and q are near each other; the
    terms p log(p / q) are larger and of both signs, and their rounding would be all that is left.
    """
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    # 0 log 0 = 0: the difference is made finite where p is zero, or its gradient would be NaN.
    difference = jnp.where(p > 0, log_p - log_q, jnp.zeros_like(p))
    near = jnp.abs(difference) < 0.5
    small = jnp.where(near, difference, jnp.zeros_like(p))
    # Of p = 0 the difference is not near, it is not known: q is what is left.
    return jnp.where(near & (p > 0), p * (jnp.expm1(-small) + small), q - p + p * difference)


def _kl_spherical(posterior: PowerSpherical, prior: SphericalUniform) -> Array:
    _check_pair(posterior, prior)
    return log_area(prior.size) - entropy(posterior)


def _kl_joint(posterior: Joint, prior: Joint) -> Array:
    if len(posterior.parts) != len(prior.parts):
        raise ValueError(
            f"posterior is a Joint of {len(posterior.parts)} parts but prior of "
            f"{len(prior.parts)}: give each part its counterpart"
        )
    if not (is_ancestral(posterior) and is_ancestral(prior)):
        raise NoClosedFormError(
            "a Joint that is not ancestral: where a part depends on a later one, the sum of the "
            "closed forms is not the KL. Estimate it from the draws with elbo, or pass "
            "ancestral=True to each Joint if every part depends on earlier ones alone, or on none"
        )
    pairs = zip(posterior.parts, prior.parts, strict=True)
    return broadcast_sum([kl_divergence(p, q) for p, q in pairs])


_CLOSED_FORMS: dict[tuple[type, type], Callable[[Any, Any], Array]] = {
    (Normal, Normal): _kl_normal,
    (Normal, MultivariateNormal): _kl_multivariate_normal,
    (MultivariateNormal, Normal): _kl_to_diagonal,
    (MultivariateNormal, MultivariateNormal): _kl_multivariate_normal,
    (Bernoulli, Bernoulli): _kl_bernoulli,
    (Categorical, Categorical): _kl_categorical,
    (PowerSpherical, SphericalUniform): _kl_spherical,
}
