"""log p(x) by annealed importance sampling, and between two bounds on data from the model."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.bounds import elbo
from vae_jax.distributions import Joint, log_prob, sample
from vae_jax.distributions._pytree import accurate, check_key
from vae_jax.evaluation import pareto
from vae_jax.evaluation.likelihood import Estimate

# Leapfrog steps of a transition and the acceptance that its step size is adapted to, both as in
# Wu et al. 2017; where the size starts, how fast it follows, and how many chains find it.
_LEAPFROG_STEPS, _ACCEPTANCE = 10, 0.65
_FIRST_SIZE, _RATE, _MOST_TUNED = 0.1, 0.2, 8


class Sandwich(NamedTuple):
    """Two estimates with log p(x) between them, each of them in expectation on its side.

    Attributes:
      lower: by chains from the proposal to the posterior.
      upper: by chains from a draw of the posterior back to the proposal.

    >>> one = jnp.ones(2)
    >>> lower = Estimate(jnp.array([-86.1, -90.1]), 0.1 * one, 8 * one, 0.2 * one)
    >>> sandwich = Sandwich(lower, lower._replace(value=jnp.array([-86.0, -90.0])))
    >>> print(f"{(sandwich.upper.value - sandwich.lower.value).mean():.2f} nats wide")
    0.10 nats wide
    """

    lower: Estimate
    upper: Estimate


def annealed_log_likelihood(
    key: Array,
    x: Any,
    proposal: Any,
    prior: Any,
    decode: Callable[[Any], Any],
    *,
    num_chains: int = 16,
    num_temperatures: int = 500,
) -> Estimate:
    """log p(x) by annealed importance sampling (Neal 2001; for decoders, Wu et al. 2017).

    Chains begin at draws z of the proposal and end near the posterior p(z|x), through the densities
    q(z)^(1 - b) (p(z) p(x|z))^b, b from 0 to 1; a chain's weight is the product of
    (p(z) p(x|z) / q(z))^(b' - b) along it. Where b rises, z moves by Hamiltonian Monte Carlo. Sizes
    of its steps are adapted in a run before, of other chains: in a chain that adapts them itself,
    the expectation of the weight would not be p(x). It costs num_temperatures * 11 gradients of
    the decoder for each chain, and finds its way where no posterior is close, as `log_likelihood`
    does not. Call it inside `jax.jit`.

    Args:
      key: a typed PRNG key.
      x: [*b, *event].
      proposal: where chains begin, batch axes [*b]: q(z|x), or the prior, with x's batch axes, as
        Wu et al. do, which takes more temperatures.
      prior: p(z).
      decode: z [C, *b, Z] -> p(x|z), batch axes [C, *b], differentiable in z.
      num_chains: C, all at once.
      num_temperatures: steps of b from 0 to 1, close together at both ends.

    Returns:
      An `Estimate` with arrays [*b], of as many weights as chains.

    Raises:
      TypeError: the key is not typed, or z is not one array of floats.
      ValueError: there are fewer than 2 chains or 1 temperature; or shapes do not match.

    >>> from vae_jax import Bernoulli, Normal
    >>> normal = Normal(jnp.zeros(2), 1.0)
    >>> decode = lambda z: Bernoulli(jnp.zeros((*z.shape[:-1], 3)))
    >>> of = jnp.ones(3), normal, normal, decode
    >>> estimate = annealed_log_likelihood(jax.random.key(0), *of, num_chains=2, num_temperatures=5)
    >>> estimate.value, estimate.effective_sample_size
    (Array(-2.0794415, dtype=float32), Array(2., dtype=float32))
    """
    log_densities = _log_densities(x, proposal, prior, decode)
    key, path = _path(key, proposal, log_densities, num_chains, num_temperatures)
    return _estimate(_anneal(key, log_densities, *path)[0])


def bidirectional(
    key: Array,
    x: Any,
    z: Array,
    proposal: Any,
    prior: Any,
    decode: Callable[[Any], Any],
    *,
    num_chains: int = 16,
    num_temperatures: int = 500,
) -> Sandwich:
    """log p(x) from both sides, on data that the model has made (BDMC, Grosse et al. 2015).

    Of x ~ p(x|z), z ~ p(z), the z is an exact draw of the posterior p(z|x). A chain from it back to
    the proposal has a weight of expectation 1 / p(x), so minus its logarithm is above log p(x) on
    average, as `annealed_log_likelihood` is below. What stands between bounds the error of both,
    and tells how many temperatures real data take.

    Args:
      key: a typed PRNG key.
      x: [*b, *event], drawn from `decode(z)`.
      z: [*b, Z], which x was drawn from, drawn from the prior. No other z, not even of the encoder,
        gives an upper bound.
      proposal: as for `annealed_log_likelihood`, as all that follows.
      prior: likewise.
      decode: likewise.
      num_chains: likewise.
      num_temperatures: likewise.

    Returns:
      A `Sandwich` of two `Estimate`s with arrays [*b].

    Raises:
      TypeError: as `annealed_log_likelihood` does.
      ValueError: likewise, or z has not the proposal's shape.

    >>> from vae_jax import Normal, sample
    >>> normal, decode = Normal(jnp.zeros(2), 1.0), lambda z: Normal(2 * z, 1.0)
    >>> z_key, x_key, key = jax.random.split(jax.random.key(0), 3)
    >>> z = sample(z_key, normal)
    >>> x = sample(x_key, decode(z))
    >>> lower, upper = bidirectional(key, x, z, normal, normal, decode)
    >>> bool(lower.value - 0.1 < Normal(jnp.zeros(2), 5**0.5).log_prob(x) < upper.value + 0.1)
    True
    """
    log_densities = _log_densities(x, proposal, prior, decode)
    key, (start, betas, sizes) = _path(key, proposal, log_densities, num_chains, num_temperatures)
    if z.shape != start.shape[1:]:
        raise ValueError(
            f"z has shape {z.shape} but the proposal draws {start.shape[1:]}: give the z that x "
            "was drawn from"
        )
    end = jnp.broadcast_to(z, start.shape).astype(start.dtype)
    there_key, back_key = jax.random.split(key)
    there, _ = _anneal(there_key, log_densities, start, betas, sizes)
    back, _ = _anneal(back_key, log_densities, end, betas[::-1], sizes[::-1])
    upper = _estimate(back)
    return Sandwich(_estimate(there), upper._replace(value=-upper.value))


_LogDensities = Callable[[Array], tuple[Array, Array]]
"""z [C, *b, Z] -> log q(z) and log p(z) p(x|z) / q(z), [C, *b]."""


def _log_densities(
    x: Any, proposal: Any, prior: Any, decode: Callable[[Any], Any]
) -> _LogDensities:
    if isinstance(proposal, Joint):
        raise TypeError("proposal is a Joint, whose parts cannot move together: give one array's")

    def log_densities(z: Array) -> tuple[Array, Array]:
        if not jnp.issubdtype(z.dtype, jnp.floating):
            raise TypeError(f"z has dtype {z.dtype}: what is discrete has no gradient to move by")
        ratio = elbo(x, z, proposal, prior, decode(z), analytic_kl=False).value
        start = accurate(log_prob(proposal, z))
        # Another library's, where it knows no event.
        return start.sum(axis=tuple(range(ratio.ndim, start.ndim))).astype(ratio.dtype), ratio

    return log_densities


def _path(
    key: Array, proposal: Any, log_densities: _LogDensities, num_chains: int, num_temperatures: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    """A key, where chains begin [C, *b, Z], temperatures [T + 1] and step sizes [T, *b]."""
    check_key(key)
    if num_chains < 2 or num_temperatures < 1:
        raise ValueError(
            f"num_chains is {num_chains} and num_temperatures {num_temperatures}: give 2 chains "
            "and 1 temperature or more"
        )
    start_key, tune_start_key, tune_key, key = jax.random.split(key, 4)
    curve = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, num_temperatures + 1, dtype=jnp.float32))
    betas = (curve - curve[0]) / (curve[-1] - curve[0])  # Wu et al. 2017, section 4
    tuned = sample(tune_start_key, proposal, min(num_chains, _MOST_TUNED))
    _, sizes = _anneal(tune_key, log_densities, tuned, betas)
    return key, (sample(start_key, proposal, num_chains), betas, sizes)


def _anneal(
    key: Array, log_densities: _LogDensities, z: Array, betas: Array, sizes: Array | None = None
) -> tuple[Array, Array]:
    """Log-weights of chains, [C, *b], and their step sizes, [T, *b]: adapted, if not given."""

    def step(carry: Any, inputs: Any) -> tuple[Any, Array]:
        z, log_weight, size = carry
        key, beta, following, given = inputs
        size = size if given is None else given
        z, ratio, chance = _transition(key, log_densities, z, beta.astype(size.dtype), size)
        log_weight += (following - beta).astype(ratio.dtype) * ratio
        adapted = size * jnp.exp(_RATE * (chance.mean(axis=0) - _ACCEPTANCE))
        return (z, log_weight, adapted), size

    zeros = jnp.zeros_like(jax.eval_shape(log_densities, z)[1])
    start = z, zeros, jnp.full_like(zeros[0], _FIRST_SIZE)
    keys = jax.random.split(key, len(betas) - 1)
    (_, log_weight, _), used = jax.lax.scan(step, start, (keys, betas[:-1], betas[1:], sizes))
    return log_weight, used


def _transition(
    key: Array, log_densities: _LogDensities, z: Array, beta: Array, size: Array
) -> tuple[Array, Array, Array]:
    """One of Hamiltonian Monte Carlo (Neal 2011): z, its log-ratio, its chance of acceptance."""
    event = tuple(range(size.ndim + 1, z.ndim))
    reach = jnp.expand_dims(size[None], event).astype(z.dtype)

    @partial(jax.value_and_grad, has_aux=True)
    def density(z: Array) -> tuple[Array, tuple[Array, Array]]:
        start, ratio = log_densities(z)
        log_density = start + beta * ratio
        return log_density.sum(), (log_density, ratio)

    def leap(_: Any, at: Any) -> Any:
        z, momentum, (_, force) = at
        momentum = momentum + reach / 2 * force
        z = z + reach * momentum
        found = density(z)
        return z, momentum + reach / 2 * found[1], found

    momentum_key, accept_key = jax.random.split(key)
    begin = z, jax.random.normal(momentum_key, z.shape, z.dtype), density(z)
    end = jax.lax.fori_loop(0, _LEAPFROG_STEPS, leap, begin)
    before, after = (
        found[0][1][0] - jnp.square(momentum).sum(axis=event) / 2
        for _, momentum, found in (begin, end)
    )
    chance = jnp.nan_to_num(jnp.exp(jnp.minimum(after - before, 0)))  # never to where it is NaN
    accepted = jax.random.uniform(accept_key, chance.shape, chance.dtype) < chance
    z = jnp.where(jnp.expand_dims(accepted, event), end[0], z)
    return z, jnp.where(accepted, end[2][0][1][1], begin[2][0][1][1]), chance


def _estimate(log_weights: Array) -> Estimate:
    """Of the mean of weights [C, *b]; its error is by the delta method."""
    num = len(log_weights)
    shift = log_weights.max(axis=0)
    weights = jnp.exp(log_weights - shift[None])
    mean = weights.mean(axis=0)
    error = weights.std(axis=0, ddof=1) / (mean * math.sqrt(num))
    effective = num * jnp.square(mean) / jnp.square(weights).mean(axis=0)
    largest = jnp.sort(log_weights, axis=0)[-(pareto.tail_size(num) + 1) :]
    return Estimate(shift + jnp.log(mean), error, effective, pareto.shape(largest))
