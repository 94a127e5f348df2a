"""What a trained model is worth: log p(x), and how it uses its latents."""

from vae_jax.evaluation.batched import Evaluation, evaluate
from vae_jax.evaluation.latents import active_units, kl_per_dimension
from vae_jax.evaluation.likelihood import Estimate, log_likelihood

__all__ = [
    "Estimate",
    "Evaluation",
    "active_units",
    "evaluate",
    "kl_per_dimension",
    "log_likelihood",
]
