"""log p(x) by importance sampling."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.bounds import elbo
from vae_jax.distributions import Ancestral, draw
from vae_jax.distributions._pytree import check_key
from vae_jax.distributions.drawn import draw_with_density, with_density
from vae_jax.evaluation import pareto


class Estimate(NamedTuple):
    """A Monte Carlo estimate by importance sampling, and whether it can be trusted.

    Attributes:
      value: the estimate, in nats.
      standard_error: its standard error over the draws, in nats. Seen through the weights that were
        drawn, it cannot tell of those that were not: read it beside the next two.
      effective_sample_size: of the draws, (sum w)^2 / sum w^2, from 1 to S (Kong 1992). The value
        is low by about half of its inverse.
      pareto_k: shape of the weights' tail. Below 0.7 the errors hold; above, a few weights carry
        all, and value and standard error are too small (Vehtari et al. 2024). NaN of fewer than 25
        draws.

    >>> one = jnp.ones(2)
    >>> estimate = Estimate(jnp.array([-86.0, -90.0]), jnp.array([0.3, 0.4]), 200 * one, 0.2 * one)
    >>> nll = -estimate.value.mean()
    >>> standard_error = jnp.sqrt((estimate.standard_error**2).sum()) / 2  # of the mean of two
    >>> print(f"{nll:.2f} +- {standard_error:.2f} nats")
    88.00 +- 0.25 nats
    """

    value: Array
    standard_error: Array
    effective_sample_size: Array
    pareto_k: Array


def log_likelihood(
    key: Array,
    x: Any,
    posterior: Any,
    prior: Any,
    decode: Callable[[Any], Any],
    *,
    num_samples: int,
    chunk_size: int = 1,
) -> Estimate:
    """log p(x) by importance sampling, with the posterior as the proposal.

    log mean_s p(x|z_s) p(z_s) / q(z_s|x), z_s ~ q(z|x) (Rezende et al. 2014, appendix E; Burda et
    al. 2016, equation 8). On average it is below log p(x), by about half its squared standard
    error. With a label-conditional posterior, prior and decoder it is log p(x|c). Call it inside
    `jax.jit`: memory does not grow with `num_samples`.

    Args:
      key: a typed PRNG key. Draw s comes from its s-th fold, so the chunk size changes the result
        by rounding only.
      x: [*b, *event].
      posterior: q(z|x), batch axes [*b]; encoded once.
      prior: p(z).
      decode: z [C, *b, Z] -> p(x|z), batch axes [C, *b].
      num_samples: S, at least 2.
      chunk_size: C, draws decoded at a time; must divide S.

    Returns:
      An `Estimate` with arrays [*b]. The standard error is by the delta method,
      std(w) / (mean(w) sqrt(S)), and never above 1: where a few of the weights carry all, it is
      too small, which a small effective sample size and a pareto_k above 0.7 tell. Where every
      weight is 0, the value is -inf, its error and its pareto_k infinite, and no draw effective.

    Raises:
      TypeError: the key is not typed.
      ValueError: num_samples is less than 2, or not a multiple of chunk_size; or shapes do not
        match, and the message names both.

    >>> from vae_jax import Bernoulli, Normal
    >>> normal = Normal(jnp.zeros(2), 1.0)
    >>> decode = lambda z: Bernoulli(jnp.zeros((*z.shape[:-1], 3)))
    >>> x = jnp.ones(3)
    >>> estimate = log_likelihood(jax.random.key(0), x, normal, normal, decode, num_samples=4)
    >>> estimate.value, estimate.standard_error, estimate.effective_sample_size
    (Array(-2.0794415, dtype=float32), Array(0., dtype=float32), Array(4., dtype=float32))
    """
    check_key(key)
    if num_samples < 2:
        raise ValueError(f"num_samples is {num_samples}: a standard error takes 2 at least")
    if chunk_size < 1 or num_samples % chunk_size:
        raise ValueError(f"chunk_size is {chunk_size}: it must divide num_samples, {num_samples}")

    def log_weights(index: Array) -> Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        if isinstance(posterior, Ancestral):  # all of a draw in one pass

            def log_weight(key: Array) -> Array:
                drawn = draw(key, posterior, prior, decode)
                return elbo(x, *drawn, analytic_kl=False).value

            weights: Array = jax.vmap(log_weight)(keys)
            return weights
        z, density = jax.vmap(lambda k: draw_with_density(k, posterior))(keys)
        scored = with_density(posterior, z, density)
        # Of one draw, the bound estimated from it is the logarithm of its weight.
        return elbo(x, z, scored, prior, decode(z), analytic_kl=False).value

    def add(sums: _Sums, index: Array) -> tuple[_Sums, None]:
        terms = log_weights(index)
        shift = jnp.maximum(sums.shift, terms.max(axis=0))
        rescale, weights = jnp.exp(sums.shift - shift), jnp.exp(terms - shift[None])
        first = _plus(sums.first, rescale, weights.sum(axis=0))
        second = _plus(sums.second, jnp.square(rescale), jnp.square(weights).sum(axis=0))
        largest, _ = jax.lax.scan(
            lambda kept, w: (pareto.insert(kept, w), None), sums.largest, terms
        )
        return _Sums(shift, first, second, largest), None

    chunks = jnp.arange(num_samples, dtype=jnp.int32).reshape(-1, chunk_size)
    shape = jax.eval_shape(log_weights, chunks[0])
    zeros = jnp.zeros(shape.shape[1:], shape.dtype)
    # The least finite number, not -inf: where every weight is 0, -inf - -inf would be NaN.
    shift = jnp.full_like(zeros, jnp.finfo(zeros.dtype).min)
    largest = jnp.full((pareto.tail_size(num_samples) + 1, *zeros.shape), -jnp.inf, zeros.dtype)
    sums, _ = jax.lax.scan(add, _Sums(shift, (zeros, zeros), (zeros, zeros), largest), chunks)
    first, second = sum(sums.first), sum(sums.second)
    effective = jnp.where(first > 0, jnp.square(first) / second, jnp.zeros_like(first))
    relative_variance = num_samples * second / jnp.square(first) - 1
    standard_error = jnp.sqrt(jnp.maximum(relative_variance, 0) / (num_samples - 1))
    return Estimate(
        sums.shift + jnp.log(first) - math.log(num_samples),
        jnp.where(first > 0, standard_error, jnp.inf),
        effective,
        jnp.where(first > 0, pareto.shape(sums.largest), jnp.inf),
    )


class _Sums(NamedTuple):
    """Of the draws so far, for weights divided by exp(shift).

    Attributes:
      shift: the largest log-weight.
      first: the sum of w, and what its rounding has lost.
      second: the sum of w^2, and what its rounding has lost.
      largest: the largest log-weights, for their tail.
    """

    shift: Array
    first: tuple[Array, Array]
    second: tuple[Array, Array]
    largest: Array


def _plus(total: tuple[Array, Array], rescale: Array, term: Array) -> tuple[Array, Array]:
    """A sum of many terms, exact to the last bits of one (Neumaier 1974)."""
    old, lost = total[0] * rescale, total[1] * rescale
    new = old + term
    larger, smaller = jnp.maximum(old, term), jnp.minimum(old, term)  # neither is negative
    return new, lost + ((larger - new) + smaller)
