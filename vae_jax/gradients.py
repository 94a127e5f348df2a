"""Estimators of the gradient of an expectation, beside the reparameterised one."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

__all__ = ["score_function"]


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
