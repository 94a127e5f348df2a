"""How often: Poisson's distribution, the negative binomial, and what has more zeros than either.

Densities are in the form of deviances (Loader 2000): the difference of the logarithms of large
factorials, of which float32 would leave nothing, is taken before they are.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions._pytree import (
    aligned_shape,
    check_event_ndims,
    check_positive,
    float_array,
    in_narrowest,
    in_widest,
    positive_like,
    pytree,
    sum_event,
)
from vae_jax.distributions.protocol import sample


@pytree
class Poisson:
    """Independent counts of events that come at a rate, whose mean and variance it is.

    Args:
      rate: [*b, *event], positive; times an exposure, such as a cell's library size, where there
        is one.
      event_ndims: number of trailing axes that are one event.

    Raises:
      TypeError: the rate is not floating-point.
      ValueError: a known rate is not positive, or a known value is no count, an integer or a whole
        float from 0; one not known, under `jax.jit`, has -inf.

    >>> Poisson(jnp.array([1.0, 2.0])).log_prob(jnp.array([0, 2])).round(3)
    Array(-2.307, dtype=float32)
    """

    rate: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        rate = float_array("rate", self.rate)
        check_positive("rate", rate)
        check_event_ndims(rate, self.event_ndims)
        object.__setattr__(self, "rate", rate)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rate.shape

    @property
    def mean(self) -> Array:
        return self.rate

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws int32 counts."""
        (rate,) = in_widest(self.rate)
        return _poisson(key, jnp.broadcast_to(rate, (*sample_shape, *self.shape)))

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        value, inside, rate = _counts(given, self, self.rate)
        positive = value > 0
        count = jnp.where(positive, value, jnp.ones_like(value))
        at_least_one = -_stirling_error(count) - _deviance(count, rate) - _half_log(count)
        terms = jnp.where(positive, at_least_one, -rate)
        return _summed(terms, inside, self, given, self.rate)


@pytree
class NegativeBinomial:
    """Independent counts whose variance is above their mean: mean + mean^2 / concentration.

    A Poisson's whose rate is a gamma variable of that mean and concentration: the smaller the
    concentration, the wider; in the limit of a large one it is `Poisson`. Its inverse is often
    called the dispersion.

    Args:
      mean: [*b, *event], positive.
      concentration: positive; the shape of `mean`, a scalar, or that of mean's last axes, such as
        one for each entry of an event, whose density takes less time.
      event_ndims: number of trailing axes that are one event.

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: shapes differ, a known parameter is not positive, or a known value is no count, an
        integer or a whole float from 0; one not known, under `jax.jit`, has -inf.

    >>> NegativeBinomial(jnp.ones(2), 1.0).log_prob(jnp.array([0, 1])).round(3)
    Array(-2.079, dtype=float32)
    """

    mean: Array
    concentration: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        mean = float_array("mean", self.mean)
        check_positive("mean", mean)
        check_event_ndims(mean, self.event_ndims)
        concentration = float_array("concentration", self.concentration)
        if concentration.shape == mean.shape[-concentration.ndim or mean.ndim :]:
            check_positive("concentration", concentration)
        else:
            concentration = positive_like("concentration", self.concentration, mean)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "concentration", concentration)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws int32 counts, by a rate for each."""
        rate_key, count_key = jax.random.split(key)
        mean, r = in_widest(self.mean, self.concentration)
        shape = (*sample_shape, *self.shape)
        # As logarithms: at a small concentration the gamma variable itself is 0 in float32.
        log_gamma = jax.random.loggamma(rate_key, jnp.broadcast_to(r, shape), dtype=r.dtype)
        log_scale = jnp.log(mean) - jnp.broadcast_to(jnp.log(r), mean.shape)
        log_scale = jnp.broadcast_to(log_scale, shape)
        return _poisson(count_key, jnp.exp(log_scale + log_gamma))

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        if self.concentration.ndim < self.mean.ndim:
            return _of_shared(given, self)
        value, inside, mean, r = _counts(given, self, self.mean, self.concentration)
        positive = value > 0
        k = jnp.where(positive, value, jnp.ones_like(value))
        # k and r are what is expected of k + r, shared as mean to r; the rest is Stirling's.
        total = k + r
        expected = total * (mean / (mean + r)), total * (r / (mean + r))
        at_least_one = (
            _stirling_error(total)
            - _stirling_error(r)
            - _stirling_error(k)
            - _deviance(k, expected[0])
            - _deviance(r, expected[1])
            - _half_log(k)
            - 0.5 * jnp.log1p(k / r)
        )
        terms = jnp.where(positive, at_least_one, -r * jnp.log1p(mean / r))
        return _summed(terms, inside, self, given, self.mean, self.concentration)


def _of_shared(given: Array, distribution: NegativeBinomial) -> Array:
    """log_prob where the concentration has fewer axes than the mean."""
    _check_known(given, distribution)
    shape = aligned_shape(given, distribution)
    of = distribution.mean, distribution.concentration
    mean, r, *_ = in_widest(*of, *_floats(given))
    value = given.astype(mean.dtype)
    inside = (value >= 0) & (value == jnp.round(value))
    terms = _of_counts(jnp.where(inside, value, jnp.zeros_like(value)), mean, r)
    return _summed(terms, jnp.broadcast_to(inside, shape), distribution, given, *of)


@jax.custom_jvp
def _of_counts(value: Array, mean: Array, r: Array) -> Array:
    """log p of each count; what has no mean in it is of the value's and the concentration's shape.

    By hand it has derivatives in a fifth of the time: what JAX makes of log Gamma is digamma.
    """
    shape = jnp.broadcast_shapes(value.shape, mean.shape)
    k = jnp.where(value > 0, value, jnp.ones_like(value))
    own = jnp.broadcast_to(r, k.shape)
    of_count = (
        _stirling_error(k + own)
        - jnp.broadcast_to(_stirling_error(r), k.shape)
        - _stirling_error(k)
        - _half_log(k)
        - 0.5 * jnp.log1p(k / own)
    )
    positive = jnp.broadcast_to(value > 0, shape)
    mean, r, k, of_count = (jnp.broadcast_to(a, shape) for a in (mean, r, k, of_count))
    total = k + r
    expected = total * (mean / (mean + r)), total * (r / (mean + r))
    at_least_one = of_count - _deviance(k, expected[0]) - _deviance(r, expected[1])
    return jnp.where(positive, at_least_one, -r * jnp.log1p(mean / r))


@_of_counts.defjvp
def _of_counts_jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    """With u = (k - mean) / (mean + r) the derivative by the mean is r u / mean.

    That by r is log(1 + u) - u + e(k + r) - e(r), where e(x) = digamma(x) - log x.
    """
    value, mean, r = primals
    _, of_mean, of_r = tangents
    own = jnp.broadcast_to(r, value.shape)
    beyond = _digamma_error(value + own) - jnp.broadcast_to(_digamma_error(r), value.shape)
    shape = jnp.broadcast_shapes(value.shape, mean.shape)
    value, mean, r, of_mean, of_r, beyond = (
        jnp.broadcast_to(a, shape) for a in (value, mean, r, of_mean, of_r, beyond)
    )
    u = (value - mean) / (mean + r)
    # Near -1 the logarithm of 1 + u has no digits left, and far from 0 it needs none.
    near = jnp.abs(u) < 0.5
    log = jnp.where(
        near,
        jnp.log1p(jnp.where(near, u, jnp.zeros_like(u))),
        jnp.log(value + r) - jnp.log(mean + r),
    )
    return _of_counts(*primals), r * u / mean * of_mean + (log - u + beyond) * of_r


@pytree
class ZeroInflated:
    """Counts that are zero for a reason of its own, with probability sigmoid(logits).

    P(0) = s + (1 - s) p(0), else (1 - s) p(k), of each entry (Lambert 1992).

    Args:
      counts: a `Poisson` or a `NegativeBinomial`, [*b, *event].
      logits: of the further zeros, of its shape.

    Raises:
      TypeError: the logits are not floating-point, or counts is another distribution.
      ValueError: the shapes differ.

    >>> ZeroInflated(Poisson(jnp.ones(2)), jnp.zeros(2)).log_prob(jnp.array([0, 1])).round(3)
    Array(-2.073, dtype=float32)
    """

    counts: Any
    logits: Array

    def __post_init__(self) -> None:
        if not isinstance(self.counts, Poisson | NegativeBinomial):
            name = type(self.counts).__name__
            raise TypeError(f"counts is a {name}: pass a Poisson or a NegativeBinomial")
        logits = float_array("logits", self.logits)
        if logits.shape != self.counts.shape:
            raise ValueError(
                f"logits have shape {logits.shape} but the counts {self.counts.shape}: give one "
                "for each"
            )
        object.__setattr__(self, "logits", logits)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.logits.shape

    @property
    def event_ndims(self) -> int:
        events: int = self.counts.event_ndims
        return events

    @property
    def mean(self) -> Array:
        share, mean = in_widest(jax.nn.sigmoid(-self.logits), self.counts.mean)
        return (share * mean).astype(self.counts.mean.dtype)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws int32 counts."""
        zero_key, count_key = jax.random.split(key)
        drawn = sample(count_key, self.counts, sample_shape)
        (logits,) = in_widest(self.logits)
        share = jnp.broadcast_to(jax.nn.sigmoid(logits), drawn.shape)
        return jnp.where(jax.random.bernoulli(zero_key, share), jnp.zeros_like(drawn), drawn)

    def log_prob(self, value: ArrayLike) -> Array:
        given = jnp.asarray(value)
        each = dataclasses.replace(self.counts, event_ndims=0)
        of_counts, logits = in_widest(each.log_prob(given), self.logits)
        # Of zero by itself: its gradient then needs nothing of what other counts need.
        of_zero, _ = in_widest(each.log_prob(jnp.zeros_like(given)), self.logits)
        logits = jnp.broadcast_to(logits, of_counts.shape)
        zero = jnp.broadcast_to(given == 0, of_counts.shape)
        terms = jnp.where(zero, jnp.logaddexp(logits, of_zero), of_counts)
        terms = terms - jax.nn.softplus(logits)
        total = sum_event(terms, self.event_ndims) if self.event_ndims else terms
        return in_narrowest(total, *_floats(given), self.logits, *jax.tree.leaves(self.counts))


def _poisson(key: Array, rate: Array) -> Array:
    """int32 draws at rates of one array; a rate with no room in an int32 gives the largest."""
    most = float(2**31 - 2**16)
    return jax.random.poisson(key, jnp.minimum(rate, most), dtype=jnp.int32)


def _floats(given: Array) -> list[Array]:
    return [given] if jnp.issubdtype(given.dtype, jnp.floating) else []


def _counts(given: Array, distribution: Any, *parameters: Array) -> tuple[Array, ...]:
    """The value as floats, 0 where it is no count; where it is one; and the parameters.

    All of one shape, in the widest dtype, float32 at least.
    """
    _check_known(given, distribution)
    shape = aligned_shape(given, distribution)
    parameters = tuple(in_widest(*parameters, *_floats(given))[: len(parameters)])
    value, *parameters_ = (
        jnp.broadcast_to(a, shape) for a in (given.astype(parameters[0].dtype), *parameters)
    )
    inside = (value >= 0) & (value == jnp.round(value))
    return jnp.where(inside, value, jnp.zeros_like(value)), inside, *parameters_


def _check_known(given: Array, distribution: Any) -> None:
    """Raises ValueError for a value that is known and no count."""
    if isinstance(given, jax.core.Tracer):
        return
    known = np.asarray(given)
    wrong = known[(known < 0) | (known != np.round(known))]
    if wrong.size:
        name = type(distribution).__name__
        raise ValueError(f"the value of a {name} is {wrong[0]}: pass counts, 0, 1, 2, ...")


def _summed(terms: Array, inside: Array, distribution: Any, given: Array, *of: Array) -> Array:
    terms = jnp.where(inside, terms, jnp.full_like(terms, -jnp.inf))
    event_ndims = distribution.event_ndims
    total = sum_event(terms, event_ndims) if event_ndims else terms
    return in_narrowest(total, *_floats(given), *of)


def _half_log(x: Array) -> Array:
    return 0.5 * (jnp.log(x) + math.log(2 * math.pi))


def _deviance(x: Array, expected: Array) -> Array:
    """x log(x / expected) + expected - x, which is not negative, for x > 0 (Loader 2000).

    Near each other, as expected h((x - expected) / expected) with h(t) = (1 + t) log(1 + t) - t.
    """
    t = (x - expected) / expected
    near = jnp.abs(t) < 0.5
    close = jnp.where(near, t, jnp.zeros_like(t))
    far = x * (jnp.log(x) - jnp.log(expected)) + expected - x
    return jnp.where(near, expected * ((1 + close) * jnp.log1p(close) - close), far)


def _stirling_error(x: Array) -> Array:
    """log Gamma(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2, for x > 0.

    In inverse powers of x where that is large (NIST's Digital Library of Mathematical Functions,
    equation 5.11.1), with an error of 1e-16.
    """
    large = x > 8
    far, near = jnp.where(large, x, jnp.full_like(x, 8)), jnp.where(large, jnp.ones_like(x), x)
    inverse = 1 / far
    square = inverse * inverse
    series = jnp.zeros_like(x)
    for coefficient in _STIRLING[::-1]:
        series = series * square + coefficient
    exact = jax.scipy.special.gammaln(near + 1) - (near + 0.5) * jnp.log(near) + near
    return jnp.where(large, series * inverse, exact - 0.5 * math.log(2 * math.pi))


def _digamma_error(x: Array) -> Array:
    """digamma(x) - log x, for x > 0.

    By its asymptotic series where x is large, else by its value at x + 8: digamma(x) = digamma(x +
    8) - 1 / x - ... - 1 / (x + 7) (NIST's Digital Library of Mathematical Functions, equations
    5.11.2 and 5.5.2).
    """
    large = x > 8
    far, near = jnp.where(large, x, x + 8), jnp.where(large, jnp.ones_like(x), x)
    inverse = 1 / far
    square = inverse * inverse
    series = jnp.zeros_like(x)
    for n, coefficient in reversed(list(enumerate(_STIRLING))):
        series = series * square - (2 * n + 1) * coefficient
    error = series * square - 0.5 * inverse
    below = jnp.log1p(8 / near) - sum(1 / (near + i) for i in range(8))
    return jnp.where(large, error, error + below)


# B_2n / (2n (2n - 1)), of powers 1, 3, 5, ... of 1 / x.
_STIRLING = (
    *(1 / 12, -1 / 360, 1 / 1260, -1 / 1680),
    *(1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400),
)
