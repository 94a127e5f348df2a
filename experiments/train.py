"""A VAE on one's own data: a table, a .npy or .npz array, a folder of pictures, or tfds:NAME.

What is left in the folder of results, and every option but those of the data, is as for
`experiments.mnist`.
"""

from vae_jax.run import main

if __name__ == "__main__":
    main.run("train", "python -m experiments.train")
