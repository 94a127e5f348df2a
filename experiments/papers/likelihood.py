"""log p(x) of a test set by importance sampling, bounds of the same draws, and active units."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.distributions.location import location
from vae_jax.evaluation import batched
from vae_jax.run.callbacks import counted

Params = Any

CHUNK = 50
"""Draws at a time, of which the bounds of fewer are made."""

_BOUNDS = {"elbo": 1, "iwae_5": 5, "iwae_50": 50}


@partial(jax.jit, static_argnums=(0, 1))
def log_weights(
    model: vae_jax.VAE, num_chunks: int, params: Params, key: jax.Array, x: jax.Array
) -> tuple[jax.Array, ...]:
    """Of draws in chunks of 50: log sum_s w_s, log sum_s w_s^2, [B]; bounds of fewer, [3, B]."""
    posterior, prior = model.encode(params, x), model.prior(params)

    def of_chunk(carry: Any, i: jax.Array) -> Any:
        decode = partial(model.decode, params)
        drawn = vae_jax.draw(jax.random.fold_in(key, i), posterior, prior, decode, CHUNK)
        # Of one draw, the bound estimated from it is the logarithm of its weight.
        log_w = vae_jax.elbo(x, *drawn, analytic_kl=False).value
        sums = [jax.nn.logsumexp(order * log_w, axis=0) for order in (1, 2)]
        first, second = map(jnp.logaddexp, carry[:2], sums)
        groups = (log_w.reshape(num, -1, len(x)) for num in _BOUNDS.values())
        bounds = [(jax.nn.logsumexp(g, axis=0) - math.log(len(g))).mean(axis=0) for g in groups]
        return (first, second, carry[2] + jnp.stack(bounds) / num_chunks), None

    nothing = jnp.full(len(x), -jnp.inf)
    start = nothing, nothing, jnp.zeros((len(_BOUNDS), len(x)))
    sums: tuple[jax.Array, ...]
    sums, _ = jax.lax.scan(of_chunk, start, jnp.arange(num_chunks, dtype=jnp.int32))
    return sums


def log_likelihood(
    key: jax.Array, model: vae_jax.VAE, params: Params, x: jax.Array, num_samples: int
) -> dict[str, float]:
    """Mean log p(x) of images [N, D] by importance sampling, with its errors, and lower bounds."""
    rows = min(len(x), 10 if jax.default_backend() == "cpu" else 500)
    first, second = np.zeros((2, len(x)))
    bounds = np.zeros((len(_BOUNDS), len(x)))
    # The last rows again, where the number does not divide: all batches have one shape.
    starts = (min(start, len(x) - rows) for start in range(0, len(x), rows))
    batches = [np.arange(start, start + rows) for start in starts]
    calls = ((params, jax.random.fold_in(key, here[0]), x[here]) for here in batches)
    found = batched.in_turn(partial(log_weights.lower, model, num_samples // CHUNK), calls)
    told = counted(batches, len(x), f"log p(x), {num_samples} draws")
    for here, part in zip(told, found, strict=True):
        first[here], second[here], bounds[:, here] = part
    value = first - math.log(num_samples)
    effective = np.exp(2 * first - second)
    errors = np.sqrt(np.maximum(1 / effective - 1 / num_samples, 0))
    return {
        "value": float(value.mean()),
        "standard_error_of_draws": float(np.sqrt(np.square(errors).sum()) / len(x)),
        "standard_error_over_images": batched.standard_error(value),
        "effective_sample_size": float(np.median(effective)),
        **{name: float(of.mean()) for name, of in zip(_BOUNDS, bounds, strict=True)},
    }


class Use(NamedTuple):
    """Of each layer of latents.

    Attributes:
      active_units: whose mean varies: Var_x(E_q[z]) > 0.01 (Burda et al. 2016, 5.1).
      kl: log q - log p, mean over images and draws, nats; of a collapsed layer 0.
    """

    active_units: list[int]
    kl: list[float]


def use_of_latents(key: jax.Array, model: vae_jax.VAE, params: Params, x: jax.Array) -> Use:
    """By 20 draws of each image [N, D]."""

    @jax.jit
    def of_batch(key: jax.Array, x: jax.Array) -> Any:
        posterior = model.encode(params, x)
        decode = partial(model.decode, params)
        drawn = vae_jax.draw(key, posterior, model.prior(params), decode, 20)
        layers = (drawn.z, drawn.posterior, drawn.prior)
        if isinstance(drawn.posterior, vae_jax.Joint):
            rows = list(zip(drawn.z, drawn.posterior.parts, drawn.prior.parts, strict=True))
            means = [location(q) for _, q, _ in rows]
        else:
            rows, means = [layers], [location(posterior)]
        # The means of a layer below are those at the draws above it.
        means = [
            mean if mean.ndim == z.ndim - 1 else mean.mean(axis=0)
            for (z, *_), mean in zip(rows, means, strict=True)
        ]
        return means, [q.log_prob(z).mean(axis=0) - p.log_prob(z).mean(axis=0) for z, q, p in rows]

    batches = [
        of_batch(jax.random.fold_in(key, start), x[start : start + 500])
        for start in range(0, len(x), 500)
    ]
    means, kls = (zip(*of, strict=True) for of in zip(*batches, strict=True))
    return Use(
        [int((np.concatenate(of_layer).var(axis=0) > 0.01).sum()) for of_layer in means],
        [float(np.concatenate(of_layer).mean()) for of_layer in kls],
    )
