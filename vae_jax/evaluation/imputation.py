"""What is missing, given what was observed: by importance sampling of the latents."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vae_jax.bounds import elbo
from vae_jax.distributions import sample
from vae_jax.distributions._pytree import check_key
from vae_jax.distributions.drawn import draw_with_density, with_density
from vae_jax.evaluation.batched import each, joined, num_examples, rows_of
from vae_jax.model import VAE

# Of the draws of a batch, all of them at once; of one example whose draws are more, so many are
# decoded at a time.
_BYTES = 2**26


class Imputation(NamedTuple):
    """A data set whose missing entries are filled in; those that were observed stay as they are.

    Attributes:
      mean: E[x|observed], [N, *event].
      quantiles: of each missing entry given those observed, [Q, N, *event].
      draws: whole examples from p(x|observed), M of each, [M, N, *event]: for an analysis that is
        repeated over them (Rubin 1987), and for classes, of which a mean is none.
      effective_sample_size: of the S importance samples, [N], (sum w)^2 / sum w^2. Where it is near
        1 the rest cannot be trusted: take more samples.

    >>> one = np.ones((1, 2))
    >>> Imputation(one, one[None], one[None], np.array([20.0])).mean.shape
    (1, 2)
    """

    mean: np.ndarray
    quantiles: np.ndarray
    draws: np.ndarray
    effective_sample_size: np.ndarray


def impute(
    key: Array,
    model: VAE,
    params: Any,
    x: Any,
    label: Any = None,
    *,
    num_samples: int,
    quantiles: Sequence[float] = (),
    num_draws: int = 0,
    batch_size: int | None = None,
) -> Imputation:
    """Fills in what is missing, NaN, by p(missing|observed) (Mattei & Frellsen 2019).

    z_s ~ q(z|x), weighed by w_s ~ p(observed|z_s) p(z_s) / q(z_s|x) to a sum of 1. The mean is that
    of the likelihoods' means under the weights, or of draws where they have none; quantiles and
    draws are of x_s ~ p(x|z_s) under the weights. All are exact as S grows, whatever q is.

    Args:
      key: a typed PRNG key. Batch i draws from its i-th fold.
      model: the VAE, whose encoder takes an x with NaN, as `networks.ZeroFilled` does, and whose
        likelihood scores one: `Masked` or `Columns`.
      params: its parameters.
      x: [N, *event], floats, with NaN for what is missing.
      label: [N] or None.
      num_samples: S, at least 2; as many as make the mean trustworthy, 1,000 say.
      quantiles: in (0, 1), such as (0.05, 0.95) for intervals of 90 %.
      num_draws: M.
      batch_size: examples at a time; None for as many as have draws of 64 MB.

    Returns:
      An `Imputation`, of NumPy arrays.

    Raises:
      TypeError: the key is not typed, or x holds no floats.
      ValueError: a number or a quantile is out of its range, or the weights of an example are no
        numbers.

    >>> from vae_jax import VAE, Masked, Normal
    >>> encode = lambda params, x, label=None: Normal(jnp.zeros((len(x), 1)), 1.0)
    >>> prior = lambda params, label=None: Normal(jnp.zeros(1), 1.0)
    >>> decode = lambda params, z, label=None: Masked(Normal(jnp.repeat(z, 2, -1), 0.1))
    >>> x = np.array([[2.0, np.nan]], np.float32)  # two copies of z, nearly
    >>> model = VAE(None, encode, prior, decode)
    >>> filled = impute(jax.random.key(0), model, None, x, num_samples=500)
    >>> filled.mean.round(1)
    array([[2., 2.]], dtype=float32)
    """
    check_key(key)
    num = num_examples(x, label)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x has dtype {x.dtype}: pass floats, with NaN for what is missing")
    for name, value, least in ("num_samples", num_samples, 2), ("num_draws", num_draws, 0):
        if value < least:
            raise ValueError(f"{name} is {value}: give {least} or more")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give 1 or more")
    if any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"quantiles are {tuple(quantiles)}: give numbers between 0 and 1")
    batch_size = min(batch_size or at_once(x.shape[1:], num_samples), num)
    lower = partial(_imputed.lower, model, num_samples, num_draws, tuple(quantiles))
    parts = each(lower, params, key, (x, label), rows_of(num, batch_size))
    mean, of_quantiles, draws, effective = joined(list(parts), num)
    if not np.isfinite(effective).all():
        where = int(np.flatnonzero(~np.isfinite(effective))[0])
        raise ValueError(
            f"the weights of example {where} are no numbers: the encoder must take an x with NaN "
            "(networks.ZeroFilled) and the likelihood score one (Masked)"
        )
    return Imputation(mean, np.moveaxis(of_quantiles, 1, 0), np.moveaxis(draws, 1, 0), effective)


def at_once(event_shape: tuple[int, ...], num_samples: int) -> int:
    """Examples whose draws are of 64 MB, 1 at least."""
    return max(1, _BYTES // (4 * math.prod(event_shape) * num_samples))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _imputed(
    model: VAE,
    num_samples: int,
    num_draws: int,
    quantiles: tuple[float, ...],
    params: Any,
    key: Array,
    x: Any,
    label: Any,
) -> tuple[Array, ...]:
    """The fields of an `Imputation`, with the batch's axis first."""
    latent_key, value_key, which_key = jax.random.split(key, 3)
    posterior = model.encode(params, x, label)
    z, density = draw_with_density(latent_key, posterior, num_samples)
    prior = model.prior(params, label)

    def of_draws(key: Array, z: Any, density: Array | None) -> tuple[Array, Array, Array]:
        """log w, draws of x, and the means, of some z."""
        likelihood = model.decode(params, z, label)
        scored = with_density(posterior, z, density)
        bound = elbo(x, z, scored, prior, likelihood, analytic_kl=False)
        drawn = sample(key, likelihood).astype(x.dtype)
        mean = getattr(likelihood, "mean", None)
        return bound.value, drawn, mean.astype(x.dtype) if isinstance(mean, Array) else drawn

    most = max(1, _BYTES // (4 * x.size))
    size = max(d for d in range(1, min(most, num_samples) + 1) if num_samples % d == 0)
    if size == num_samples:
        log_weights, drawn, points = of_draws(value_key, z, density)
    else:  # of large pictures, whose activations are many times their values
        keys = jax.random.split(value_key, num_samples // size)
        parts = jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), (z, density))
        found = jax.lax.map(lambda part: of_draws(part[0], *part[1]), (keys, parts))
        log_weights, drawn, points = (a.reshape(num_samples, *a.shape[2:]) for a in found)
    weights = jax.nn.softmax(log_weights, axis=0)
    effective = 1 / jnp.square(weights).sum(0)
    missing = jnp.isnan(x)

    def filled(values: Array) -> Array:
        shape = (*values.shape[: values.ndim - x.ndim], *x.shape)
        hole, values, given = (jnp.broadcast_to(a, shape) for a in (missing, values, x))
        return jnp.where(hole, values, given)

    of_each = weights.reshape(*weights.shape, *[1] * (x.ndim - 1)).astype(x.dtype)
    average = (jnp.broadcast_to(of_each, points.shape) * points).sum(0)
    which = jax.random.categorical(which_key, log_weights, axis=0, shape=(num_draws, len(x)))
    which = which.reshape(num_draws, len(x), *[1] * (x.ndim - 1))
    again = jnp.take_along_axis(drawn, which, axis=0)
    return (
        filled(average),
        jnp.moveaxis(filled(_quantiles(drawn, of_each, quantiles)), 0, 1),
        jnp.moveaxis(filled(again), 0, 1),
        effective,
    )


def _quantiles(values: Array, weights: Array, quantiles: tuple[float, ...]) -> Array:
    """Of weighted values [S, ...]: the least value whose share from below reaches the quantile."""
    order = jnp.argsort(values, axis=0)
    ordered = jnp.take_along_axis(values, order, axis=0)
    weights = jnp.broadcast_to(weights, values.shape)
    share = jnp.cumsum(jnp.take_along_axis(weights, order, axis=0), axis=0)
    found = [
        jnp.take_along_axis(ordered, (share >= q * share[-1:]).argmax(0, keepdims=True), axis=0)
        for q in quantiles
    ]
    return jnp.concatenate([values[:0], *found])
