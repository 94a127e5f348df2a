"""Bounds on log p(x): per example, in nats, higher is better, from values already computed."""

from vae_jax.bounds.evidence import Bound, autoencode, elbo
from vae_jax.bounds.weighted import ciwae, iwae, miwae, piwae, renyi, tvo

__all__ = ["Bound", "autoencode", "ciwae", "elbo", "iwae", "miwae", "piwae", "renyi", "tvo"]
