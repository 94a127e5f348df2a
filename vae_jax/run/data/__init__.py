"""Data sets from their names, from files and folders, and as streams."""

from vae_jax.run.data.dataset import Dataset, Split
from vae_jax.run.data.own import load

__all__ = ["Dataset", "Split", "load"]
