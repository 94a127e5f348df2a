"""What is to be said of a run's measurements where they cannot be trusted, or show a fault."""

import math
from typing import Any

import jax
import numpy as np

import vae_jax
from vae_jax import networks
from vae_jax.evaluation import batched


def unused(active_units: int, latent_dim: int) -> list[str]:
    """What is to be said where the model ignores its latents."""
    if active_units:
        return []
    return [
        f"none of the {latent_dim} latents is used, so every reconstruction is the same: train "
        "for longer, with a --kl-warmup, or with a smaller --learning-rate or --beta"
    ]


def collapsed(kl: list[float]) -> list[str]:
    """What is to be said where some layers of a hierarchy, the top one first, carry noise alone."""
    closed = [str(i + 1) for i, of in enumerate(kl) if of < _NO_KL]
    if not closed:
        return []
    which = f"layer {closed[0]}" if len(closed) == 1 else f"layers {', '.join(closed)}"
    return [
        f"{which} of {len(kl)}, the top one being 1, collapsed: a KL below {_NO_KL} nats is noise "
        "alone; train with a --kl-warmup or --free-bits, or with fewer layers"
    ]


_NO_KL = 0.01


def unused_conditions(
    key: jax.Array, model: vae_jax.VAE, params: Any, x: Any, label: Any
) -> list[str]:
    """What is to be said where ELBOs are no better under the examples' own conditions than others'.

    Args:
      key: of the draws, the same for both, and of the order of the others'.
      model: the VAE.
      params: its parameters.
      x: [N, *event].
      label: [N, C], conditions, or a `CellLabel` of them, whose library sizes stay.
    """
    rows = np.arange(min(len(x), _COMPARED))
    x, own = batched.take((x, label), rows)
    order_key, draw_key = jax.random.split(key)
    order = jax.random.permutation(order_key, len(rows))
    others = (
        own._replace(condition=own.condition[order])
        if isinstance(own, networks.CellLabel)
        else own[order]
    )

    @jax.jit
    def elbo(draw_key: jax.Array, label: Any) -> jax.Array:
        posterior, prior = model.encode(params, x, label), model.prior(params, label)
        z, posterior = vae_jax.sample_scored(draw_key, posterior)
        likelihood = model.decode(params, z, label)
        return vae_jax.elbo(x, z, posterior, prior, likelihood, analytic_kl=None).value

    of_both = elbo(draw_key, own), elbo(jax.random.clone(draw_key), others)
    cost = np.subtract(*(np.asarray(of, np.float64) for of in of_both))
    error = batched.standard_error(cost)
    if not cost.mean() <= 2 * error:
        return []
    return [
        f"the conditions change nothing that can be seen: shuffled ones cost {cost.mean():.2f} +- "
        f"{error:.2f} nats; see that each example has its own, train for longer, or leave "
        "--condition out"
    ]


_COMPARED = 2_000


def uninformed(log_likelihood: float, image_shape: tuple[int, ...], num_levels: int) -> list[str]:
    """What is to be said of a model that codes images worse than one that knows nothing of them.

    That one is uniform: log 2 for each binary pixel, log 256 for each byte, a density of 1 on
    [0, 1], as of one level, for each other.
    """
    known = -math.log(num_levels) * math.prod(image_shape)
    if log_likelihood >= known:
        return []
    nats = "0 nats, a density of 1 on [0, 1]" if num_levels == 1 else f"{known:.0f} nats"
    return [
        f"the model codes the images worse than if it knew nothing of them ({nats}): "
        "train for longer, or with a smaller --learning-rate"
    ]


def untrusted(estimate: vae_jax.Estimate, num_samples: int) -> list[str]:
    """What is to be said of log p(x) where its draws are too few for its standard error to hold.

    It holds below a Pareto k of min(1 - 1 / log10 S, 0.7) (Vehtari et al. 2024, section 3.2.4), and
    the value is low by about half the inverse of the effective sample size.
    """
    threshold = min(1 - 1 / math.log10(num_samples), 0.7)
    heavy = float((estimate.pareto_k > threshold).mean())
    effective = float(np.median(estimate.effective_sample_size))
    if heavy <= _HEAVY and effective >= _EFFECTIVE:
        return []
    carried = (
        f", and for {heavy:.0%} of them a few draws carry all (Pareto k above {threshold:.2f})"
    )
    if threshold <= 0 or heavy <= _HEAVY:  # too few for their tail's shape, or none
        carried = ""
    return [
        f"log p(x) may be too low by more than its standard error: of {num_samples} draws an "
        f"example {effective:.1f} are effective (median){carried}; take more "
        "--num-importance-samples"
    ]


_HEAVY, _EFFECTIVE = 0.1, 10.0


def few_effective(effective: np.ndarray) -> list[str]:
    """What is to be said of values that were filled in by few effective draws, of some [N]."""
    few = float((effective < _EFFECTIVE).mean())
    if few <= _HEAVY:
        return []
    return [
        f"warning: for {few:.0%} of the examples fewer than {_EFFECTIVE:.0f} draws are effective: "
        "what was filled in are a few guesses' values; take more --num-samples"
    ]
