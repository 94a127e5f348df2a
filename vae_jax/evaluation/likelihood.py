"""log p(x) by importance sampling."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.bounds import elbo
from vae_jax.distributions import sample
from vae_jax.distributions._pytree import check_key


class Estimate(NamedTuple):
    """A Monte Carlo estimate.

    Attributes:
      value: the estimate, in nats.
      standard_error: its standard error over the draws, in nats.

    >>> estimate = Estimate(jnp.array([-86.0, -90.0]), jnp.array([0.3, 0.4]))
    >>> nll = -estimate.value.mean()
    >>> standard_error = jnp.sqrt((estimate.standard_error**2).sum()) / 2  # of the mean of two
    >>> print(f"{nll:.2f} +- {standard_error:.2f} nats")
    88.00 +- 0.25 nats
    """

    value: Array
    standard_error: Array


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
      std(w) / (mean(w) sqrt(S)); where a few of the weights carry all, it is too small. Where
      every weight is 0, the value is -inf and its error infinite.

    Raises:
      TypeError: the key is not typed.
      ValueError: num_samples is less than 2, or not a multiple of chunk_size; or shapes do not
        match, and the message names both.

    >>> from vae_jax import Bernoulli, Normal
    >>> normal = Normal(jnp.zeros(2), 1.0)
    >>> decode = lambda z: Bernoulli(jnp.zeros((*z.shape[:-1], 3)))
    >>> log_likelihood(jax.random.key(0), jnp.ones(3), normal, normal, decode, num_samples=4)
    Estimate(value=Array(-2.0794415, dtype=float32), standard_error=Array(0., dtype=float32))
    """
    check_key(key)
    if num_samples < 2:
        raise ValueError(f"num_samples is {num_samples}: a standard error takes 2 at least")
    if chunk_size < 1 or num_samples % chunk_size:
        raise ValueError(f"chunk_size is {chunk_size}: it must divide num_samples, {num_samples}")

    def log_weights(index: Array) -> Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        z = jax.vmap(lambda k: sample(k, posterior))(keys)
        # Of one draw, the bound estimated from it is the logarithm of its weight.
        return elbo(x, z, posterior, prior, decode(z), analytic_kl=False).value

    def add(sums: _Sums, index: Array) -> tuple[_Sums, None]:
        terms = log_weights(index)
        shift = jnp.maximum(sums.shift, terms.max(axis=0))
        rescale, weights = jnp.exp(sums.shift - shift), jnp.exp(terms - shift[None])
        first = sums.first * rescale + weights.sum(axis=0)
        second = sums.second * jnp.square(rescale) + jnp.square(weights).sum(axis=0)
        return _Sums(shift, first, second), None

    chunks = jnp.arange(num_samples).reshape(-1, chunk_size)
    shape = jax.eval_shape(log_weights, chunks[0])
    zeros = jnp.zeros(shape.shape[1:], shape.dtype)
    # The least finite number, not -inf: where every weight is 0, -inf - -inf would be NaN.
    start = _Sums(jnp.full_like(zeros, jnp.finfo(zeros.dtype).min), zeros, zeros)
    sums, _ = jax.lax.scan(add, start, chunks)
    value = sums.shift + jnp.log(sums.first) - math.log(num_samples)
    relative_variance = num_samples * sums.second / jnp.square(sums.first) - 1
    standard_error = jnp.sqrt(jnp.maximum(relative_variance, 0) / (num_samples - 1))
    return Estimate(value, jnp.where(sums.first > 0, standard_error, jnp.inf))


class _Sums(NamedTuple):
    """Sums of w and w^2 over the draws so far, for weights divided by exp(shift)."""

    shift: Array
    first: Array
    second: Array
