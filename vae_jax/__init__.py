"""Variational autoencoders in JAX: pure functions, per example, in nats.

>>> import jax, jax.numpy as jnp, vae_jax
>>> posterior = vae_jax.Normal(jnp.zeros((4, 2)), 1.0)
>>> prior = vae_jax.Normal(jnp.zeros(2), 1.0)
>>> z = vae_jax.sample(jax.random.key(0), posterior)
>>> likelihood = vae_jax.Bernoulli(jnp.zeros((4, 3)))
>>> bound = vae_jax.elbo(jnp.ones((4, 3)), z, posterior, prior, likelihood)
>>> bound.value.round(3)
Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax import networks as networks
    from vae_jax.bounds import Bound, autoencode, ciwae, elbo, iwae, miwae, piwae, renyi, tvo
    from vae_jax.distributions import (
        Ancestral,
        Bernoulli,
        Categorical,
        ContinuousBernoulli,
        DiscretizedLogistic,
        Distribution,
        Draw,
        Joint,
        Laplace,
        MixtureOfDiscretizedLogistics,
        MultivariateNormal,
        Normal,
        RelaxedBernoulli,
        RelaxedCategorical,
        StudentT,
        draw,
        given,
        kl_divergence,
        log_prob,
        optimal_scale,
        sample,
    )
    from vae_jax.evaluation import (
        DCI,
        AggregateKL,
        Estimate,
        Evaluation,
        Sandwich,
        active_units,
        active_units_per_layer,
        aggregate_kl,
        annealed_log_likelihood,
        bidirectional,
        dci,
        evaluate,
        kl_per_dimension,
        kl_per_layer,
        log_likelihood,
        mutual_information_gap,
        separated_attribute_predictability,
    )
    from vae_jax.gradients import (
        doubly_reparameterized,
        leave_one_out,
        reweighted_wake_sleep,
        score_function,
        sticking_the_landing,
        vimco,
    )
    from vae_jax.hierarchy import make_chain, make_top_down
    from vae_jax.loss import make_loss
    from vae_jax.model import VAE, generate, interpolate, make_vae, reconstruct, transfer, traverse
    from vae_jax.penalties import (
        cyclical_schedule,
        dip_vae_i,
        dip_vae_ii,
        free_bits,
        kl_capacity,
        maximum_mean_discrepancy,
        minibatch_stratified,
        minibatch_weighted,
        sliced_wasserstein,
        total_correlation,
        weighted_kl,
    )
    from vae_jax.pixels import binarize, dequantize
    from vae_jax.train import (
        Batch,
        Metrics,
        TrainState,
        alternate,
        init_state,
        make_train_epoch,
        make_train_step,
        shuffle,
        state_sharding,
    )

__version__ = "0.2.0"

# Loaded when they are used, so that a shell that asks for help waits for neither JAX nor flax.
_ROOMS = {
    "bounds": (
        "Bound",
        "autoencode",
        "ciwae",
        "elbo",
        "iwae",
        "miwae",
        "piwae",
        "renyi",
        "tvo",
    ),
    "distributions": (
        "Ancestral",
        "Bernoulli",
        "Categorical",
        "ContinuousBernoulli",
        "DiscretizedLogistic",
        "Distribution",
        "Draw",
        "Joint",
        "Laplace",
        "MixtureOfDiscretizedLogistics",
        "MultivariateNormal",
        "Normal",
        "RelaxedBernoulli",
        "RelaxedCategorical",
        "StudentT",
        "draw",
        "given",
        "kl_divergence",
        "log_prob",
        "optimal_scale",
        "sample",
    ),
    "evaluation": (
        "DCI",
        "AggregateKL",
        "Estimate",
        "Evaluation",
        "Sandwich",
        "active_units",
        "active_units_per_layer",
        "aggregate_kl",
        "annealed_log_likelihood",
        "bidirectional",
        "dci",
        "evaluate",
        "kl_per_dimension",
        "kl_per_layer",
        "log_likelihood",
        "mutual_information_gap",
        "separated_attribute_predictability",
    ),
    "gradients": (
        "doubly_reparameterized",
        "leave_one_out",
        "reweighted_wake_sleep",
        "score_function",
        "sticking_the_landing",
        "vimco",
    ),
    "hierarchy": ("make_chain", "make_top_down"),
    "loss": ("make_loss",),
    "model": (
        "VAE",
        "generate",
        "interpolate",
        "make_vae",
        "reconstruct",
        "transfer",
        "traverse",
    ),
    "penalties": (
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
    ),
    "pixels": ("binarize", "dequantize"),
    "train": (
        "Batch",
        "Metrics",
        "TrainState",
        "alternate",
        "init_state",
        "make_train_epoch",
        "make_train_step",
        "shuffle",
        "state_sharding",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "DCI",
    "VAE",
    "AggregateKL",
    "Ancestral",
    "Batch",
    "Bernoulli",
    "Bound",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Distribution",
    "Draw",
    "Estimate",
    "Evaluation",
    "Joint",
    "Laplace",
    "Metrics",
    "MixtureOfDiscretizedLogistics",
    "MultivariateNormal",
    "Normal",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "Sandwich",
    "StudentT",
    "TrainState",
    "active_units",
    "active_units_per_layer",
    "aggregate_kl",
    "alternate",
    "annealed_log_likelihood",
    "autoencode",
    "bidirectional",
    "binarize",
    "ciwae",
    "cyclical_schedule",
    "dci",
    "dequantize",
    "dip_vae_i",
    "dip_vae_ii",
    "doubly_reparameterized",
    "draw",
    "elbo",
    "evaluate",
    "free_bits",
    "generate",
    "given",
    "init_state",
    "interpolate",
    "iwae",
    "kl_capacity",
    "kl_divergence",
    "kl_per_dimension",
    "kl_per_layer",
    "leave_one_out",
    "log_likelihood",
    "log_prob",
    "make_chain",
    "make_loss",
    "make_top_down",
    "make_train_epoch",
    "make_train_step",
    "make_vae",
    "maximum_mean_discrepancy",
    "minibatch_stratified",
    "minibatch_weighted",
    "miwae",
    "mutual_information_gap",
    "networks",
    "optimal_scale",
    "piwae",
    "reconstruct",
    "renyi",
    "reweighted_wake_sleep",
    "sample",
    "score_function",
    "separated_attribute_predictability",
    "shuffle",
    "sliced_wasserstein",
    "state_sharding",
    "sticking_the_landing",
    "total_correlation",
    "transfer",
    "traverse",
    "tvo",
    "vimco",
    "weighted_kl",
]


def __getattr__(name: str) -> Any:
    if name == "networks":
        return importlib.import_module("vae_jax.networks")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value  # the next use costs nothing
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
