"""What a trained model is worth: log p(x), and how it uses its latents."""

from vae_jax.evaluation.latents import active_units, kl_per_dimension
from vae_jax.evaluation.likelihood import Estimate, log_likelihood

__all__ = ["Estimate", "active_units", "kl_per_dimension", "log_likelihood"]
