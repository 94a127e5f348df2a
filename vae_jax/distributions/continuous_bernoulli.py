"""Independent variables in [0, 1] with an exponential density, which grey pixels may be."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    accurate,
    aligned,
    check_event_ndims,
    check_share,
    float_array,
    in_narrowest,
    pytree,
    sum_event,
)
from vae_jax.distributions.bernoulli import finite

# The cumulants of a uniform variable, B_2n / (2n (2n)!): of powers 2, 4, ... of the logit. Where
# |logits| < 1/2 what is left out is below 1e-16.
_SERIES = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600, -691 / 15692092416000)
_NEAR = 0.5


@pytree
class ContinuousBernoulli:
    """Independent variables in [0, 1] of density C exp(x logits) (Loaiza-Ganem & Cunningham 2019).

    The likelihood that a Bernoulli of grey pixels lacks to be one: their cross-entropy and the
    normaliser, log C = log(logits / (exp(logits) - 1)) (its equations 5 to 7, for lambda / (1 -
    lambda) = exp(logits)).

    Args:
      logits: [*b, *event].
      event_ndims: number of trailing axes that are one event; 3 for images [B, H, W, C].

    Raises:
      TypeError: logits, or a value whose density is asked, are not floating-point.
      ValueError: a known value is not in [0, 1]; one not known, under `jax.jit`, has -inf.

    >>> ContinuousBernoulli(jnp.array([0.0, 5.0])).log_prob(jnp.array([0.3, 1.0])).round(3)
    Array(1.616, dtype=float32)
    """

    logits: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        logits = float_array("logits", self.logits)
        check_event_ndims(logits, self.event_ndims)
        object.__setattr__(self, "logits", logits)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.logits.shape

    @property
    def mean(self) -> Array:
        """1 / (1 - exp(-logits)) - 1 / logits, which is not sigmoid(logits)."""
        logits = accurate(self.logits)
        near, small, far = _split(logits)
        series = 0.5 + small * _even_polynomial(
            small, tuple(2 * (n + 1) * c for n, c in enumerate(_SERIES))
        )
        mean = jnp.where(near, series, 1 / -jnp.expm1(-far) - 1 / far)
        return mean.astype(self.logits.dtype)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws by the inverse of the distribution function; differentiable."""
        logits = finite(accurate(self.logits))
        uniform = jax.random.uniform(key, (*sample_shape, *self.shape), logits.dtype)
        logits = jnp.broadcast_to(logits, uniform.shape)
        # log(1 + u (exp(logits) - 1)) / logits; where that is positive, of the mirror image.
        near = jnp.abs(logits) < 1e-2
        slope = jnp.abs(jnp.where(near, jnp.ones_like(logits), logits))
        drawn = -jnp.log1p(uniform * jnp.expm1(-slope)) / slope
        drawn = jnp.where(logits > 0, 1 - drawn, drawn)
        # It is the cumulant generating function of a Bernoulli(u), over the logit.
        small = jnp.where(near, logits, jnp.zeros_like(logits))
        variance = uniform * (1 - uniform)
        third, fourth = variance * (1 - 2 * uniform), variance * (1 - 6 * variance)
        series = uniform + small * (variance / 2 + small * (third / 6 + small * fourth / 24))
        drawn = jnp.clip(jnp.where(near, series, drawn), 0, 1)
        return drawn.astype(self.logits.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, logits = aligned(given, self, self.logits)
        check_share(value, "ContinuousBernoulli")
        logits = finite(logits)
        near, small, far = _split(logits)
        series = small * (value - 0.5) - small * small * _even_polynomial(small, _SERIES)
        # From the end where the density is highest, so that no large terms cancel there.
        slope = jnp.abs(far)
        below = jnp.where(logits > 0, 1 - value, value)
        exact = jnp.log(slope) - jnp.log(-jnp.expm1(-slope)) - slope * below
        terms = jnp.where(near, series, exact)
        outside = (value < 0) | (value > 1)
        terms = jnp.where(outside, jnp.full_like(terms, -jnp.inf), terms)
        return in_narrowest(sum_event(terms, self.event_ndims), given, self.logits)


def _split(logits: Array) -> tuple[Array, Array, Array]:
    """Whether logits are near 0; themselves where they are, else 0; where they are not, else 1.

    Neither formula sees what it is not for, or its gradient there would be NaN.
    """
    near = jnp.abs(logits) < _NEAR
    zeros, ones = jnp.zeros_like(logits), jnp.ones_like(logits)
    return near, jnp.where(near, logits, zeros), jnp.where(near, ones, logits)


def _even_polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """c0 + c1 x^2 + c2 x^4 + ..."""
    square, result = x * x, jnp.zeros_like(x)
    for coefficient in coefficients[::-1]:
        result = result * square + coefficient
    return result
