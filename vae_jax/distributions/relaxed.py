"""Bits and classes made continuous, so that draws have gradients: Concrete, or Gumbel-softmax."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    aligned,
    check_event_ndims,
    check_positive,
    check_share,
    flat,
    float_array,
    in_narrowest,
    in_widest,
    pytree,
    sum_event,
)


@pytree
class RelaxedBernoulli:
    """Independent variables in (0, 1), near 0 or 1 where the temperature is low.

    The binary Concrete distribution, sigmoid((logits + Logistic(0, 1)) / temperature), with the
    density of Maddison et al. 2017, appendix B, equation 24. As the temperature falls to 0 it
    becomes `Bernoulli`; rounding a draw is a draw of that one at any temperature.

    Args:
      logits: [*b, *event], log p(1) - log p(0).
      temperature: one positive number for all; below 1 most draws are near an end.
      event_ndims: number of trailing axes that are one event.

    Raises:
      TypeError: logits, temperature, or a value whose density is asked, are not floating-point.
      ValueError: a known temperature is not positive or not a scalar, or a known value is not in
        [0, 1]; one not known, under `jax.jit`, has -inf. An end itself, which draws are rounded
        off, is scored as the nearest number inside.

    >>> RelaxedBernoulli(jnp.zeros(2), 0.5).log_prob(jnp.array([0.5, 0.9])).round(3)
    Array(-0.652, dtype=float32)
    """

    logits: Array
    temperature: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        _check_parameters(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.logits.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws in (0, 1); differentiable."""
        logits, temperature = in_widest(self.logits, self.temperature)
        noise = jax.random.logistic(key, (*sample_shape, *self.shape), logits.dtype)
        logits, temperature = (jnp.broadcast_to(a, noise.shape) for a in (logits, temperature))
        drawn = jax.nn.sigmoid((logits + noise) / temperature)
        return _inside(drawn.astype(self.logits.dtype))

    def sample_straight_through(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws zeros and ones, with the gradient of `sample`'s draws (Jang et al. 2017).

        They are a `Bernoulli`'s draws, and to be scored as such; their gradient is biased.
        """
        soft = self.sample(key, sample_shape)
        return _with_gradient_of(soft, (soft > 0.5).astype(soft.dtype))

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, logits, temperature = aligned(given, self, self.logits, self.temperature)
        check_share(value, "RelaxedBernoulli")
        outside = (value < 0) | (value > 1)
        value = _inside(value)
        log_value, log_rest = jnp.log(value), jnp.log1p(-value)
        noise = temperature * (log_value - log_rest) - logits
        terms = jax.nn.log_sigmoid(noise) + jax.nn.log_sigmoid(-noise) + jnp.log(temperature)
        terms = jnp.where(outside, jnp.full_like(terms, -jnp.inf), terms - log_value - log_rest)
        total = sum_event(terms, self.event_ndims)
        return in_narrowest(total, given, self.logits, self.temperature)


@pytree
class RelaxedCategorical:
    """Points of the simplex, near its corners where the temperature is low.

    The Concrete distribution, softmax((logits + Gumbel(0, 1)) / temperature), with the density of
    Maddison et al. 2017, equation 10, over the first K - 1 coordinates. As the temperature falls to
    0 it becomes the one-hot `Categorical`; the largest coordinate of a draw is a draw of that one
    at any temperature.

    Args:
      logits: [*b, *event], unnormalised; the classes are the last axis.
      temperature: one positive number for all; at 1 / (K - 1) or below the density has no peak
        inside.
      event_ndims: number of trailing axes that are one event, that of the classes among them.

    Raises:
      TypeError: logits, temperature, or a value whose density is asked, are not floating-point.
      ValueError: a known temperature is not positive or not a scalar, event_ndims is 0, or a known
        value is not in [0, 1]; one not known, under `jax.jit`, has -inf. Its sum is the caller's
        word. A coordinate of 0, which draws are rounded off, is scored as the least number above.

    >>> one = RelaxedCategorical(jnp.zeros(3), 0.5)
    >>> one.log_prob(jnp.array([0.2, 0.3, 0.5])).round(2)
    Array(-0.53, dtype=float32)
    """

    logits: Array
    temperature: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        if self.event_ndims < 1:
            raise ValueError(
                f"event_ndims is {self.event_ndims}: the axis of the classes is one of the event's"
            )
        _check_parameters(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.logits.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of positive numbers whose sum over the classes is 1; differentiable."""
        logits, temperature = in_widest(self.logits, self.temperature)
        noise = jax.random.gumbel(key, (*sample_shape, *self.shape), logits.dtype)
        logits, temperature = (jnp.broadcast_to(a, noise.shape) for a in (logits, temperature))
        drawn = jax.nn.softmax((logits + noise) / temperature)
        return _inside(drawn.astype(self.logits.dtype))

    def sample_straight_through(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws one-hot vectors, with the gradient of `sample`'s draws (Jang et al. 2017).

        They are a `Categorical`'s draws, and to be scored as such; their gradient is biased.
        """
        soft = self.sample(key, sample_shape)
        hard = jax.nn.one_hot(soft.argmax(-1), soft.shape[-1], dtype=soft.dtype)
        return _with_gradient_of(soft, hard)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, logits, temperature = aligned(given, self, self.logits, self.temperature)
        check_share(value, "RelaxedCategorical")
        outside = ((value < 0) | (value > 1)).any(axis=-1)
        log_value = jnp.log(_inside(value))
        num_classes, temperature = value.shape[-1], temperature[..., 0]
        noise = logits - temperature[..., None] * log_value
        terms = (noise - log_value).sum(-1) - num_classes * jax.nn.logsumexp(noise, axis=-1)
        terms = terms + (num_classes - 1) * jnp.log(temperature) + math.lgamma(num_classes)
        terms = jnp.where(outside, jnp.full_like(terms, -jnp.inf), terms)
        total = flat(terms, self.event_ndims - 1).sum(-1)
        return in_narrowest(total, given, self.logits, self.temperature)


def _check_parameters(distribution: RelaxedBernoulli | RelaxedCategorical) -> None:
    logits = float_array("logits", distribution.logits)
    temperature = float_array("temperature", distribution.temperature)
    if temperature.shape:
        raise ValueError(
            f"temperature has shape {temperature.shape}: pass one number for all variables"
        )
    check_positive("temperature", temperature)
    check_event_ndims(logits, distribution.event_ndims)
    # A number takes the logits' dtype; an array keeps the digits that it has.
    temperature = temperature.astype(logits.dtype) if temperature.weak_type else temperature
    object.__setattr__(distribution, "logits", logits)
    object.__setattr__(distribution, "temperature", temperature)


def _inside(x: Array) -> Array:
    """Off the ends of [0, 1], where a density is 0 or without bound, to the next numbers."""
    limits = jnp.finfo(x.dtype)
    return jnp.clip(x, limits.tiny, 1 - limits.epsneg)


def _with_gradient_of(soft: Array, hard: Array) -> Array:
    # The difference is 0, exactly: soft + (hard - soft) would be off by a rounding.
    return jax.lax.stop_gradient(hard) + (soft - jax.lax.stop_gradient(soft))
