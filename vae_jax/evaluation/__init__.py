"""What a trained model is worth: log p(x), and how it uses its latents."""

from vae_jax.evaluation.annealed import Sandwich, annealed_log_likelihood, bidirectional
from vae_jax.evaluation.batched import Evaluation, evaluate
from vae_jax.evaluation.latents import active_units, kl_per_dimension
from vae_jax.evaluation.likelihood import Estimate, log_likelihood

__all__ = [
    "Estimate",
    "Evaluation",
    "Sandwich",
    "active_units",
    "annealed_log_likelihood",
    "bidirectional",
    "evaluate",
    "kl_per_dimension",
    "log_likelihood",
]
