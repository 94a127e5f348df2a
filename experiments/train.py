"""A VAE on one's own images: a .npy or .npz array, a folder of pictures, or tfds:NAME.

What is left in the folder of results, and every option but those of the data, is as for
`experiments.mnist`.
"""

from experiments import command, mnist, options

if __name__ == "__main__":
    command.run(lambda: mnist.main(options.OwnOptions, "python -m experiments.train"))
