"""What a trained model is worth: log p(x), and how it uses its latents."""

from vae_jax.evaluation.aggregate import AggregateKL, aggregate_kl
from vae_jax.evaluation.annealed import Sandwich, annealed_log_likelihood, bidirectional
from vae_jax.evaluation.batched import Evaluation, evaluate
from vae_jax.evaluation.disentanglement import (
    DCI,
    dci,
    mutual_information_gap,
    separated_attribute_predictability,
)
from vae_jax.evaluation.imputation import Imputation, impute
from vae_jax.evaluation.latents import (
    active_units,
    active_units_per_layer,
    kl_per_dimension,
    kl_per_layer,
)
from vae_jax.evaluation.likelihood import Estimate, log_likelihood
from vae_jax.evaluation.samples import PrecisionRecall, frechet_distance, precision_and_recall

__all__ = [
    "DCI",
    "AggregateKL",
    "Estimate",
    "Evaluation",
    "Imputation",
    "PrecisionRecall",
    "Sandwich",
    "active_units",
    "active_units_per_layer",
    "aggregate_kl",
    "annealed_log_likelihood",
    "bidirectional",
    "dci",
    "evaluate",
    "frechet_distance",
    "impute",
    "kl_per_dimension",
    "kl_per_layer",
    "log_likelihood",
    "mutual_information_gap",
    "precision_and_recall",
    "separated_attribute_predictability",
]
