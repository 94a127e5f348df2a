"""A VAE on one's own images: a .npy or .npz array, a folder of pictures, or tfds:NAME."""

from collections.abc import Sequence

from vae_jax.run import options
from vae_jax.run.commands import mnist


def main(arguments: Sequence[str], prog: str) -> None:
    mnist.main(arguments, prog, options.OwnOptions)
