"""Estimators of the gradient of a bound, beside the reparameterised one.

Those that take values already computed, as `elbo` does, need one pass of the networks; those that
say when z is constant, or is scaled, take `decode`, z -> p(x|z), instead. The value of each is that
of its bound; only the gradient is another.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vae_jax.bounds import Bound, elbo, iwae
from vae_jax.bounds._terms import checked, log_posterior
from vae_jax.bounds.weighted import log_mean_exp, weighed
from vae_jax.distributions import Joint, given
from vae_jax.distributions.drawn import Drawn

__all__ = [
    "doubly_reparameterized",
    "leave_one_out",
    "reweighted_wake_sleep",
    "score_function",
    "sticking_the_landing",
    "vimco",
]


def score_function(value: ArrayLike, log_prob: Array, baseline: ArrayLike = 0.0) -> Array:
    """`value`, with the score-function estimate of the gradient of its expectation.

    The gradient of the mean over draws z ~ q is that of value itself plus (value - baseline) times
    the gradient of log q(z), which needs no gradient of value with respect to z (Williams 1992,
    REINFORCE; Mohamed et al. 2020, section 4). z must be constant, jax.lax.stop_gradient(z), or
    what it carries is counted twice. A baseline that does not depend on the draw leaves the
    expectation as it is and makes the variance smaller.

    Args:
      value: the cost or reward of each draw, [*s, *b].
      log_prob: log q(z) of the same draws, [*s, *b].
      baseline: broadcastable to value; the mean over the other draws, say.

    Returns:
      [*s, *b], equal to value.

    Raises:
      ValueError: the shapes of value and log_prob differ.

    The gradient of E[z], z ~ N(mean, 1), is 1:

    >>> from vae_jax import Normal, sample
    >>> z = sample(jax.random.key(0), Normal(jnp.zeros(1), 1.0), 10_000)
    >>> estimate = lambda mean: score_function(z[:, 0], Normal(mean, 1.0).log_prob(z)).mean()
    >>> jax.grad(estimate)(jnp.zeros(1)).round(1)
    Array([1.], dtype=float32)
    """
    value = jnp.asarray(value)
    if value.shape != log_prob.shape:
        raise ValueError(
            f"value has shape {value.shape} but log_prob has shape {log_prob.shape}: give both one "
            "number for each draw"
        )
    weight = jax.lax.stop_gradient(value - baseline)
    # The second factor is zero; only its gradient is not.
    return value + weight * (log_prob - jax.lax.stop_gradient(log_prob))


def leave_one_out(value: Array) -> Array:
    """The mean of the other draws' values: a baseline for `score_function`.

    It does not depend on the draw itself and so adds no bias (Mnih & Rezende 2016;
    Kool et al. 2019).

    Args:
      value: the reward of each draw, [S, *b].

    Returns:
      [S, *b], constant.

    Raises:
      ValueError: there are fewer than two draws.

    The score-function gradient of the ELBO, here of a discrete latent:

    >>> from vae_jax import Categorical, Normal, elbo, log_prob, sample
    >>> x, prior, means = jnp.ones((4, 1)), Categorical(jnp.zeros(3)), jnp.arange(3.0)[:, None]
    >>> def loss(logits, key):
    ...     posterior = Categorical(logits)
    ...     z = jax.lax.stop_gradient(sample(key, posterior, 5))
    ...     bound = elbo(x, z, posterior, prior, Normal(means[z], 1.0), analytic_kl=False).value
    ...     return -score_function(bound, log_prob(posterior, z), leave_one_out(bound)).mean()
    >>> jax.grad(loss)(jnp.zeros((4, 3)), jax.random.key(0)).shape
    (4, 3)
    """
    if value.ndim == 0 or value.shape[0] < 2:
        raise ValueError(
            f"value has shape {value.shape}: give two draws or more, on the first axis"
        )
    return jax.lax.stop_gradient((value.sum(axis=0)[None] - value) / (value.shape[0] - 1))


def sticking_the_landing(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any) -> Bound:
    """The ELBO, whose gradient goes to q(z|x) through z alone.

    The score of q has expectation zero and is left out: where q is the exact posterior, the
    gradient of every draw is zero (Roeder et al. 2017). The gradient is unbiased for
    the ELBO of any number of draws; for `iwae` of more than one it would not be (Tucker et al.
    2019): that is `doubly_reparameterized`.

    Args:
      x: [*b, *event], what was observed.
      z: reparameterised draws from the posterior, [*s, *b, Z].
      posterior: q(z|x), a pytree; or z -> q(z|x) made from constant parameters, which a Joint needs
        whose parts depend on one another's draws, and an `Ancestral` does for itself.
      prior: p(z).
      likelihood: p(x|z), decoded from z.

    Returns:
      The `Bound` of `elbo(..., analytic_kl=False)`.

    Raises:
      TypeError: z is not reparameterised, or the posterior is not a pytree of its parameters.
      ValueError: as `elbo` does; or the posterior is a Joint, which says what to do.

    >>> from vae_jax import Normal, sample
    >>> x, prior = jnp.ones((4, 2)), Normal(jnp.zeros(2), 1.0)
    >>> def loss(params, key):
    ...     posterior = Normal(x * params["encoder"], 0.7)
    ...     z = sample(key, posterior)
    ...     likelihood = Normal(z * params["decoder"], 1.0)
    ...     return -sticking_the_landing(x, z, posterior, prior, likelihood).value.mean()
    >>> params = {"encoder": jnp.float32(0.5), "decoder": jnp.float32(1.0)}
    >>> gradient = jax.grad(loss)(params, jax.random.key(0))
    """
    return elbo(x, z, _held(posterior, z), prior, likelihood, analytic_kl=False)


def doubly_reparameterized(
    x: Any, z: Any, posterior: Any, prior: Any, decode: Callable[[Any], Any]
) -> Bound:
    """The importance-weighted bound of S draws, whose encoder's gradient keeps its signal.

    The score of q is reparameterised once more, which leaves sum_s w_s^2 d log w_s / dz_s
    dz_s / d phi with normalised weights w (DReG; Tucker et al. 2019). As S grows the
    signal-to-noise ratio of this gradient rises as sqrt(S), where that of `iwae` falls as
    1 / sqrt(S). Both are limits, of weights with a finite variance: while a few of them are nearly
    all of the sum, this one may fall too. The gradient of prior and decoder is that of `iwae`.

    decode is called twice with equal values, for the weights that scale the gradient of z and for
    the bound; under jit XLA computes them once.

    Args:
      x: [*b, *event], what was observed.
      z: reparameterised draws from the posterior, [S, *b, Z].
      posterior: q(z|x), a pytree; or z -> q(z|x) made from constant parameters, which a Joint needs
        whose parts depend on one another's draws.
      prior: p(z); or z -> p(z), where its parts depend on draws.
      decode: z -> p(x|z), batch axes [S, *b]; deterministic.

    Returns:
      The `Bound` of `iwae`.

    Raises:
      TypeError: z is not reparameterised, or the posterior is not a pytree of its parameters.
      ValueError: as `iwae` does; or the posterior is a Joint.

    >>> from vae_jax import Normal, sample
    >>> x, prior = jnp.ones((4, 2)), Normal(jnp.zeros(2), 1.0)
    >>> def loss(params, key):
    ...     posterior = Normal(x * params["encoder"], 0.7)
    ...     z = sample(key, posterior, 5)
    ...     decode = lambda z: Normal(z * params["decoder"], 1.0)
    ...     return -doubly_reparameterized(x, z, posterior, prior, decode).value.mean()
    >>> params = {"encoder": jnp.float32(0.5), "decoder": jnp.float32(1.0)}
    >>> gradient = jax.grad(loss)(params, jax.random.key(0))
    """
    log_weights, *_ = weighed(x, z, _held(posterior, z), _at(z, prior), decode(z))
    weights = jax.nn.softmax(log_weights, axis=0)
    z = jax.tree.map(lambda part: _scale_tangent(part, weights), z)
    return iwae(x, z, _held(posterior, z), _at(z, prior), decode(z))


def vimco(x: Any, z: Any, posterior: Any, prior: Any, decode: Callable[[Any], Any]) -> Bound:
    """The importance-weighted bound of S draws, by a score function with a baseline for each draw.

    For latents of any kind, discrete ones too: nothing is differentiated with respect to z. The
    baseline of a draw is the bound with its weight replaced by the geometric mean of the others'
    (Mnih & Rezende 2016).

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z]; held constant.
      posterior: q(z|x).
      prior: p(z).
      decode: z -> p(x|z), batch axes [S, *b].

    Returns:
      The `Bound` of `iwae`.

    Raises:
      ValueError: as `iwae` does, or there are fewer than two draws.

    >>> from vae_jax import Categorical, Normal, sample
    >>> x, prior = jnp.ones((4, 1)), Categorical(jnp.zeros(3))
    >>> def loss(params, key):
    ...     posterior = Categorical(params["logits"])
    ...     z = sample(key, posterior, 5)
    ...     decode = lambda z: Normal(params["means"][z], 1.0)
    ...     return -vimco(x, z, posterior, prior, decode).value.mean()
    >>> params = {"logits": jnp.zeros((4, 3)), "means": jnp.arange(3.0)[:, None]}
    >>> gradient = jax.grad(loss)(params, jax.random.key(0))
    """
    log_weights, score, terms = _scored(x, z, posterior, prior, decode)
    held = jax.lax.stop_gradient(log_weights)
    without = _log_mean_exp_replacing(held, leave_one_out(held))
    signal = log_mean_exp(held)[None] - without
    return Bound(log_mean_exp(log_weights) + (signal * score).sum(axis=0), *terms)


def reweighted_wake_sleep(
    x: Any, z: Any, posterior: Any, prior: Any, decode: Callable[[Any], Any]
) -> Bound:
    """The importance-weighted bound of S draws, with the wake phases' gradients.

    Prior and decoder get the gradient of the bound. The posterior does not: it is drawn to the
    exact one by sum_s w_s d log q(z_s|x) with normalised weights w, minus the gradient of
    KL(p(z|x) || q(z|x)) where S is large (Bornschein & Bengio 2015). The sleep
    phase is the mean of log q(z|x) under z and x of the model's own, and may be added.

    Args:
      x: [*b, *event], what was observed.
      z: draws from the posterior, [S, *b, Z]; held constant.
      posterior: q(z|x).
      prior: p(z).
      decode: z -> p(x|z), batch axes [S, *b].

    Returns:
      The `Bound` of `iwae`.

    Raises:
      ValueError: as `iwae` does.

    >>> from vae_jax import Categorical, Normal, sample
    >>> x, prior = jnp.ones((4, 1)), Categorical(jnp.zeros(3))
    >>> def loss(params, key):
    ...     posterior = Categorical(params["logits"])
    ...     z = sample(key, posterior, 5)
    ...     decode = lambda z: Normal(params["means"][z], 1.0)
    ...     return -reweighted_wake_sleep(x, z, posterior, prior, decode).value.mean()
    >>> params = {"logits": jnp.zeros((4, 3)), "means": jnp.arange(3.0)[:, None]}
    >>> gradient = jax.grad(loss)(params, jax.random.key(0))
    """
    log_weights, score, terms = _scored(x, z, posterior, prior, decode)
    weights = jax.lax.stop_gradient(jax.nn.softmax(log_weights, axis=0))
    # log w contains -log q; with the score, which is zero, the bound has no gradient of it.
    value = log_mean_exp(log_weights + score)
    return Bound(value + (weights * score).sum(axis=0), *terms)


def _scored(
    x: Any, z: Any, posterior: Any, prior: Any, decode: Callable[[Any], Any]
) -> tuple[Array, Array, list[Array]]:
    """log w of constant draws, a zero with the gradient of log q(z|x), a `Bound`'s other terms."""
    z = jax.lax.stop_gradient(z)
    values = x, z, given(posterior, z), given(prior, z), decode(z)
    log_weights, *terms = weighed(*values)
    latents, _, leading, _ = checked(*values)
    log_q = log_posterior(latents, leading).astype(log_weights.dtype)
    return log_weights, log_q - jax.lax.stop_gradient(log_q), terms


def _log_mean_exp_replacing(log_weights: Array, replacement: Array) -> Array:
    """For each draw, the log-mean-exp of all with its own replaced, [S, *b].

    The sums over those before and those after it, as nothing is left of a difference where one
    weight is nearly all of the sum.
    """
    edge = jnp.full_like(log_weights[:1], -jnp.inf)
    before = jax.lax.cumlogsumexp(log_weights[:-1], axis=0)
    after = jax.lax.cumlogsumexp(log_weights[1:], axis=0, reverse=True)
    others = jnp.logaddexp(jnp.concatenate([edge, before]), jnp.concatenate([after, edge]))
    return jnp.logaddexp(others, replacement) - math.log(len(log_weights))


def _at(z: Any, prior: Any) -> Any:
    """The prior, or what it is at z."""
    return prior if hasattr(prior, "log_prob") else prior(z)


def _held(posterior: Any, z: Any) -> Any:
    """The posterior with constant parameters, where its gradient is known to go through z."""
    for part in jax.tree.leaves(z):
        if not jnp.issubdtype(part.dtype, jnp.floating):
            raise TypeError(
                f"z has dtype {part.dtype} and no gradient goes through it: use vimco or "
                "score_function"
            )
    if not hasattr(posterior, "log_prob") and callable(posterior):
        return posterior(z)
    if isinstance(posterior, Joint):
        raise ValueError(
            "the posterior is a Joint, whose parts may depend on one another's draws: pass a "
            "function that makes it of z from jax.lax.stop_gradient(params)"
        )
    if isinstance(posterior, Drawn):  # whose density has the gradient of its making
        posterior = posterior.distribution
    leaves = jax.tree.leaves(posterior)
    if not leaves or not all(isinstance(leaf, _ARRAY) for leaf in leaves):
        raise TypeError(
            f"the posterior, a {type(posterior).__name__}, is no pytree of its parameters, which "
            "are to be held constant: register it, or use a distribution that is one"
        )
    return jax.lax.stop_gradient(posterior)


_ARRAY = jax.Array | np.ndarray | np.number | float | int


@jax.custom_jvp
def _scale_tangent(z: Array, weights: Array) -> Array:
    """z, whose tangent and so cotangent are scaled by weights of its leading axes."""
    return z


@_scale_tangent.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    z, weights = primals
    # Not z + weights * (z - z), which XLA would have to decode once more.
    return z, tangents[0] * jnp.expand_dims(weights, tuple(range(weights.ndim, z.ndim))).astype(
        z.dtype
    )
