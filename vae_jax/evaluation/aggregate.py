"""The KL of a whole data set, split into what it pays for."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Normal
from vae_jax.penalties import pairwise_log_prob


class AggregateKL(NamedTuple):
    """The three terms of the KL, of each draw; their means over the draws are the terms.

    Attributes:
      mutual_information: log q(z|x) - log q(z), [A]; on average from 0 to log N.
      total_correlation: log q(z) - sum_k log q(z_k), [A].
      dimension_wise_kl: log q(z_k) - log p(z_k) of each latent, [A, Z].

    >>> split = AggregateKL(jnp.array([2.0]), jnp.array([0.5]), jnp.array([[1.0, 0.0]]))
    >>> split.mutual_information + split.total_correlation + split.dimension_wise_kl.sum(-1)
    Array([3.5], dtype=float32)
    """

    mutual_information: Array
    total_correlation: Array
    dimension_wise_kl: Array


def aggregate_kl(
    z: Array, posterior: Normal, prior: Normal, *, batch_size: int = 64
) -> AggregateKL:
    """The mean KL(q(z|x) || p(z)) of a data set as I(x; z) + TC + sum_k KL(q(z_k) || p(z_k)).

    q(z) = 1/N sum_n q(z|x_n) is the aggregate posterior of these N examples, enumerated (Hoffman &
    Johnson 2016; Chen et al. 2018, equation 2). Means over draws of z are unbiased for them. What
    is small in the first and large in the last term is a q(z) that is not the prior.

    Args:
      z: a draw of each of the first A posteriors, [A, Z], A at most N: `sample(key, posterior)` for
        all. The cost is A N Z; the examples' order must not matter if A is less than N.
      posterior: q(z|x) of the data set, a diagonal Gaussian [N, Z].
      prior: a diagonal Gaussian, [Z].
      batch_size: draws compared with all examples at a time.

    Returns:
      An `AggregateKL` of arrays [A] and [A, Z]; for each draw they add up to
      log q(z|x) - log p(z).

    Raises:
      TypeError: a distribution is no `Normal`.
      ValueError: shapes do not match, or there are more draws than examples.

    >>> from vae_jax import sample
    >>> posterior = Normal(jnp.array([[-9.0, 0.0], [9.0, 0.0]]), 1.0)
    >>> z = sample(jax.random.key(0), posterior)
    >>> aggregate_kl(z, posterior, Normal(jnp.zeros(2), 1.0)).mutual_information  # log 2
    Array([0.693, 0.693], dtype=float32)
    """
    if not isinstance(prior, Normal):
        raise TypeError(f"prior is a {type(prior).__name__}: pass a vae_jax.Normal")
    if z.ndim != 2 or prior.shape != z.shape[1:] or len(z) > posterior.shape[0]:
        raise ValueError(
            f"z has shape {z.shape}, posterior {posterior.shape} and prior {prior.shape}: give "
            "[A, Z], [N, Z] and [Z], A at most N"
        )

    def densities(row: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        z, index = row
        each = pairwise_log_prob(z[None], posterior)[0]  # [N, Z]
        joint = each.sum(-1)
        log_num = math.log(len(each))
        aggregate = jax.nn.logsumexp(joint) - log_num
        return joint[index], aggregate, jax.nn.logsumexp(each, axis=0) - log_num

    rows = z, jnp.arange(len(z), dtype=jnp.int32)
    own, aggregate, marginal = jax.lax.map(densities, rows, batch_size=batch_size)
    scored = Normal(prior.mean[None], prior.scale[None], event_ndims=0).log_prob(z[:, None])[:, 0]
    return AggregateKL(own - aggregate, aggregate - marginal.sum(-1), marginal - scored)
