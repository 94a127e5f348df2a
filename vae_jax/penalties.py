"""What is subtracted from a bound to make an objective that is none; the reported bound stays.

Each takes values that are already computed and gives nats for each example, or a scalar of the
batch. A loss subtracts it, times any weight, and reports the bound as it is:

    def loss(params, key, x, step):  # a loss with a `step` is given the optimizer's, from 0
        posterior, prior = model.encode(params, x), model.prior(params)
        z = sample(key, posterior)
        bound = elbo(x, z, posterior, prior, model.decode(params, z))
        penalty = weighted_kl(bound.kl, beta(step))
        return -(bound.value - penalty).mean(), bound

`make_loss(model, penalty=...)` is this loss. A schedule is a function of the step: optax's serve,
`beta = optax.linear_schedule(0.0, 1.0, 1000)` for a warm-up (Bowman et al. 2016), and
`cyclical_schedule`.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import Normal
from vae_jax.distributions._pytree import accurate, check_key, check_positive

__all__ = [
    "cyclical_schedule",
    "dip_vae_i",
    "dip_vae_ii",
    "free_bits",
    "kl_capacity",
    "maximum_mean_discrepancy",
    "minibatch_stratified",
    "minibatch_weighted",
    "sliced_wasserstein",
    "total_correlation",
    "weighted_kl",
]


def weighted_kl(kl: Array, beta: ArrayLike) -> Array:
    """(beta - 1) KL: the bound less it is log p(x|z) - beta KL, beta-VAE (Higgins et al. 2017, 4).

    With beta from a schedule that rises from 0 to 1 it is a warm-up of the KL.

    Args:
      kl: [*b], such as `bound.kl`.
      beta: a number, or a schedule's value at the step.

    Returns:
      [*b].

    >>> from vae_jax import Bound
    >>> bound = Bound(jnp.array([-90.0]), jnp.array([-70.0]), jnp.array([20.0]))
    >>> loss = -(bound.value - weighted_kl(bound.kl, 4.0)).mean()
    >>> loss
    Array(150., dtype=float32)
    """
    return (jnp.asarray(beta, kl.dtype) - 1) * kl


def cyclical_schedule(
    num_steps: int, num_cycles: int = 4, ramp: float = 0.5
) -> Callable[[ArrayLike], Array]:
    """A weight of the KL that rises from 0 to 1, stays, and begins anew (Fu et al. 2019, eq. 6).

    Args:
      num_steps: of the training, T.
      num_cycles: M.
      ramp: share of a cycle in which the weight rises, R.

    Returns:
      step, from 0 -> the weight, float32; cycles go on after T.

    Raises:
      ValueError: a cycle has no step, or the ramp is not a share.

    >>> beta = cyclical_schedule(8, num_cycles=2, ramp=0.5)
    >>> beta(jnp.arange(8))
    Array([0. , 0.5, 1. , 1. , 0. , 0.5, 1. , 1. ], dtype=float32)

    In a loss: `bound.value - weighted_kl(bound.kl, beta(step))`.
    """
    if not 1 <= num_cycles <= num_steps:
        raise ValueError(f"num_cycles is {num_cycles}: it must be from 1 to num_steps, {num_steps}")
    if not 0 < ramp <= 1:
        raise ValueError(f"ramp is {ramp}: it must be a share of a cycle, in (0, 1]")

    def weight(step: ArrayLike) -> Array:
        in_cycle = jnp.asarray(step, jnp.int32) % math.ceil(num_steps / num_cycles)
        return jnp.minimum(in_cycle.astype(jnp.float32) * (num_cycles / num_steps / ramp), 1.0)

    return weight


def kl_capacity(kl: Array, capacity: ArrayLike, weight: float) -> Array:
    """weight |KL - C| - KL: the bound less it holds the KL at C (Burgess et al. 2018, eq. 8).

    Args:
      kl: [*b], such as `bound.kl`.
      capacity: C in nats, most often `optax.linear_schedule(0.0, 25.0, num_steps)(step)`.
      weight: gamma, such as 1000 in the paper.

    Returns:
      [*b].

    >>> from vae_jax import Bound
    >>> bound = Bound(jnp.array([-90.0]), jnp.array([-70.0]), jnp.array([20.0]))
    >>> loss = -(bound.value - kl_capacity(bound.kl, capacity=18.0, weight=10.0)).mean()
    >>> loss
    Array(90., dtype=float32)
    """
    return weight * jnp.abs(kl - jnp.asarray(capacity, kl.dtype)) - kl


def free_bits(kl: Array, nats: float) -> Array:
    """What the KL of each latent lacks to `nats`, so that none is worth closing.

    The bound less it has sum_j max(nats, KL_j) in the place of the KL, KL_j the mean over the batch
    (Kingma et al. 2016, appendix C.8): below `nats` a latent's KL has no gradient. Means are taken
    first, so one example may have less; the rule for each example alone is another objective.

    Args:
      kl: [*b, Z], of each latent, such as `kl_per_dimension(posterior, prior)`; or of each group of
        them, a ladder's layers say.
      nats: that are free, of each. The paper's are bits by name and nats in its equation, as here.

    Returns:
      A scalar: sum_j max(nats - KL_j, 0).

    Raises:
      ValueError: kl has no axis of the batch beside that of the latents, or nats is negative.

    >>> from vae_jax import Normal, kl_per_dimension
    >>> posterior = Normal(jnp.array([[1.0, 0.0], [1.0, 0.0]]), 1.0)
    >>> kl = kl_per_dimension(posterior, Normal(jnp.zeros(2), 1.0))  # 0.5 and 0 nats
    >>> free_bits(kl, nats=0.1)
    Array(0.1, dtype=float32)

    In a loss: `-(bound.value - free_bits(kl, 0.1)).mean()`.
    """
    if kl.ndim < 2:
        raise ValueError(
            f"kl has shape {kl.shape}: give that of each latent, [*b, Z], such as "
            "vae_jax.kl_per_dimension(posterior, prior)"
        )
    if not nats >= 0:
        raise ValueError(f"nats is {nats}: it must be 0 or more")
    mean = kl.mean(axis=tuple(range(kl.ndim - 1)))
    return jnp.maximum(nats - mean, 0).sum()


def minibatch_stratified(batch_size: int, num_examples: int) -> Array:
    """Logarithms of weights w with sum_j w_ij q(z_i|x_j) an unbiased estimate of q(z_i).

    z_i itself is of x_i, so its own component has weight 1/N and each other (N - 1) / (N (B - 1)).
    Chen et al. 2018 (appendix C.2) give one of the others, the last of the batch, a weight of its
    own; these are their weights averaged over which it is: the same expectation, less variance, and
    q(z) itself where the batch is the whole data set.

    Args:
      batch_size: B, 2 at least, drawn without replacement.
      num_examples: N.

    Returns:
      [B, B].

    Raises:
      ValueError: the batch size is not from 2 to N.

    >>> jnp.exp(minibatch_stratified(3, 9)).round(3)[0]
    Array([0.111, 0.444, 0.444], dtype=float32)
    """
    _check_batch(2, batch_size, num_examples)
    other = math.log((num_examples - 1) / (num_examples * (batch_size - 1)))
    return jnp.where(jnp.eye(batch_size, dtype=bool), -math.log(num_examples), other)


def minibatch_weighted(batch_size: int, num_examples: int) -> Array:
    """Logarithms of the weights 1 / (N B) of Chen et al. 2018 (equation 3): biased, and simple.

    As z_i comes from q(z|x_i), its own component weighs too much for an average over B; dividing by
    N too makes log q(z) a lower bound in expectation, log N too low where the batch is all data.

    Args:
      batch_size: B.
      num_examples: N.

    Returns:
      [B, B], all the same.

    Raises:
      ValueError: the batch size is not from 1 to N.

    >>> jnp.exp(minibatch_weighted(2, 5))[0]
    Array([0.1, 0.1], dtype=float32)
    """
    _check_batch(1, batch_size, num_examples)
    return jnp.full((batch_size, batch_size), -math.log(num_examples * batch_size), jnp.float32)


def total_correlation(
    z: Array,
    posterior: Normal,
    num_examples: int,
    weights: Callable[[int, int], Array] = minibatch_stratified,
) -> Array:
    """log q(z) - sum_j log q(z_j), q(z) = 1/N sum_n q(z|x_n): beta-TCVAE's term (Chen et al. 2018).

    Its mean over z ~ q(z) is the total correlation. Times beta - 1, the bound less it is their
    objective with alpha = gamma = 1 (equation 4). Of a whole data set, `aggregate_kl` measures it.

    Args:
      z: a draw for each example of the batch, [B, Z].
      posterior: q(z|x) of the batch, a diagonal Gaussian [B, Z].
      num_examples: N, of the training set.
      weights: `minibatch_stratified` or `minibatch_weighted`. Logarithms of densities are concave,
        so even the first, whose density is unbiased, gives a biased total correlation.

    Returns:
      [B], of either sign.

    Raises:
      TypeError: the posterior is no `Normal`.
      ValueError: shapes are not [B, Z], or the batch is larger than N.

    >>> from vae_jax import sample
    >>> posterior = Normal(jnp.zeros((4, 2)), 1.0)
    >>> z = sample(jax.random.key(0), posterior)
    >>> total_correlation(z, posterior, num_examples=100).round(3) + 0.0
    Array([0., 0., 0., 0.], dtype=float32)

    In a loss, with beta = 6: `bound.value - 5 * total_correlation(z, posterior, 60_000)`.
    """
    log_q = pairwise_log_prob(z, posterior)
    log_weight = weights(len(z), num_examples).astype(log_q.dtype)
    joint = jax.nn.logsumexp(log_weight + log_q.sum(-1), axis=1)
    each = jax.nn.logsumexp(log_weight[..., None] + log_q, axis=1)
    return joint - each.sum(-1)


def pairwise_log_prob(z: Array, posterior: Normal) -> Array:
    """log q(z_ik|x_j) of each draw and latent under each example, [A, N, Z] of z [A, Z].

    Raises:
      TypeError: the posterior is no `Normal`.
      ValueError: shapes are not [A, Z] and [N, Z].
    """
    if not isinstance(posterior, Normal):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}: pass a vae_jax.Normal, which has a "
            "density in each dimension"
        )
    if z.ndim != 2 or posterior.mean.ndim != 2 or z.shape[1] != posterior.mean.shape[1]:
        raise ValueError(
            f"z has shape {z.shape} and posterior {posterior.shape}: give [B, Z] of both, one draw "
            "an example"
        )
    each = jnp.broadcast_to(z[:, None], (len(z), *posterior.shape))
    return dataclasses.replace(posterior, event_ndims=0).log_prob(each)


def dip_vae_i(posterior: Normal, off_diagonal: float, diagonal: float) -> Array:
    """Draws the covariance of E_q[z|x] over the data to I: DIP-VAE-I (Kumar et al. 2018, eq. 6).

    Args:
      posterior: q(z|x) of a batch, its mean [B, Z]; batches smaller than Z make poor covariances.
      off_diagonal: weight of the squares of what is off the diagonal, lambda_od.
      diagonal: weight of the squares of what the diagonal lacks to 1, lambda_d.

    Returns:
      A scalar.

    Raises:
      ValueError: the mean is not [B, Z].

    >>> mean = jnp.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    >>> dip_vae_i(Normal(mean, 1.0), off_diagonal=10.0, diagonal=100.0)
    Array(20., dtype=float32)

    In a loss: `-(bound.value - dip_vae_i(posterior, 10.0, 100.0)).mean()`.
    """
    return _distance_to_identity(_covariance(posterior), off_diagonal, diagonal)


def dip_vae_ii(posterior: Normal, off_diagonal: float, diagonal: float) -> Array:
    """Draws the covariance of z ~ q(z) to I: DIP-VAE-II (Kumar et al. 2018, eq. 7).

    That is the covariance of the posteriors' means and the mean of their covariances.

    Args:
      posterior: q(z|x) of a batch, a diagonal Gaussian [B, Z].
      off_diagonal: as for `dip_vae_i`.
      diagonal: likewise.

    Returns:
      A scalar.

    Raises:
      ValueError: the mean is not [B, Z].

    >>> mean = jnp.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    >>> dip_vae_ii(Normal(mean, 1.0), off_diagonal=10.0, diagonal=100.0)
    Array(220., dtype=float32)

    In a loss: `-(bound.value - dip_vae_ii(posterior, 10.0, 10.0)).mean()`.
    """
    between = _covariance(posterior)
    within = jnp.diag(jnp.square(accurate(posterior.scale)).mean(axis=0))
    return _distance_to_identity(between + within, off_diagonal, diagonal)


def maximum_mean_discrepancy(z: Array, prior_z: Array, bandwidth: float | None = None) -> Array:
    """MMD^2 between q(z) and p(z) from draws of both: InfoVAE's divergence (Zhao et al. 2019).

    The unbiased estimate (Gretton et al. 2012, equation 3) under the kernel
    exp(-|a - b|^2 / (2 bandwidth^2)): where the two are the same, it is as often below 0 as above.

    Args:
      z: a draw from each posterior of the batch, [B, Z].
      prior_z: draws from the prior, [M, Z], such as `sample(key, prior, len(z))`.
      bandwidth: of the kernel; sqrt(Z) when not given, as draws of N(0, I) are sqrt(2 Z) apart.

    Returns:
      A scalar, without a unit.

    Raises:
      ValueError: shapes are not [B, Z] and [M, Z] with two draws at least of each.

    >>> z, prior_z = jnp.array([[0.0], [0.0]]), jnp.array([[2.0], [2.0]])
    >>> maximum_mean_discrepancy(z, prior_z, bandwidth=1.0).round(3)  # 1 + 1 - 2 exp(-2)
    Array(1.729, dtype=float32)

    In a loss, with InfoVAE's alpha and lambda:
    `bound.value + alpha * bound.kl - (alpha + lambda - 1) * maximum_mean_discrepancy(z, prior_z)`.
    """
    _check_draws(z, prior_z)
    bandwidth = math.sqrt(z.shape[-1]) if bandwidth is None else bandwidth
    check_positive("bandwidth", bandwidth)

    def kernel(a: Array, b: Array) -> Array:
        squares = jnp.square(accurate(a)[:, None] - accurate(b)[None]).sum(-1)
        return jnp.exp(squares / (-2 * bandwidth**2))

    def within(a: Array) -> Array:
        num = len(a)
        return (kernel(a, a).sum() - num) / (num * (num - 1))

    return within(z) + within(prior_z) - 2 * kernel(z, prior_z).mean()


def sliced_wasserstein(key: Array, z: Array, prior_z: Array, num_projections: int = 50) -> Array:
    """Mean squared Wasserstein distance of q(z) and p(z) along lines (Kolouri et al. 2019).

    On a line the best transport pairs the draws in their order, so a sort gives it. Of finitely
    many draws it is above that of the distributions, by what two samples of one differ.

    Args:
      key: a typed PRNG key, of the lines' directions.
      z: a draw from each posterior of the batch, [B, Z].
      prior_z: as many draws from the prior, [B, Z], such as `sample(key, prior, len(z))`.
      num_projections: lines.

    Returns:
      A scalar, in units of z squared.

    Raises:
      TypeError: the key is not typed.
      ValueError: shapes are not [B, Z], the same of both.

    >>> z, prior_z = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [2.0]])
    >>> sliced_wasserstein(jax.random.key(0), z, prior_z)
    Array(4., dtype=float32)

    In a loss, in the KL's place (the log p(x|z) of the bound alone):
    `bound.log_likelihood - 10 * sliced_wasserstein(key, z, prior_z)`.
    """
    check_key(key)
    _check_draws(z, prior_z)
    if len(z) != len(prior_z):
        raise ValueError(f"z has {len(z)} draws but prior_z has {len(prior_z)}: give as many")
    directions = jax.random.normal(key, (z.shape[-1], num_projections), accurate(z).dtype)
    directions /= jnp.linalg.norm(directions, axis=0, keepdims=True)
    ours, theirs = (jnp.sort(accurate(a) @ directions, axis=0) for a in (z, prior_z))
    return jnp.square(ours - theirs).mean()


def _covariance(posterior: Normal) -> Array:
    """Of the means over the batch, E[m m^T] - E[m] E[m]^T, [Z, Z]."""
    mean = accurate(posterior.mean)
    if mean.ndim != 2:
        raise ValueError(f"posterior has shape {mean.shape}: give that of a batch, [B, Z]")
    centred = mean - mean.mean(axis=0, keepdims=True)
    return centred.T @ centred / len(mean)


def _distance_to_identity(covariance: Array, off_diagonal: float, diagonal: float) -> Array:
    on = jnp.diagonal(covariance)
    off = covariance - jnp.diag(on)
    return off_diagonal * jnp.square(off).sum() + diagonal * jnp.square(on - 1).sum()


def _check_batch(least: int, batch_size: int, num_examples: int) -> None:
    if not least <= batch_size <= num_examples:
        raise ValueError(
            f"the batch has {batch_size} examples of num_examples, {num_examples}: it must have "
            f"from {least} to all of them"
        )


def _check_draws(z: Array, prior_z: Array) -> None:
    if (
        z.ndim != 2
        or prior_z.ndim != 2
        or z.shape[1] != prior_z.shape[1]
        or min(len(z), len(prior_z)) < 2
    ):
        raise ValueError(
            f"z has shape {z.shape} and prior_z {prior_z.shape}: give [B, Z] and [M, Z]"
        )
