"""Images or rows from a trained run: draws, draws of a class, test images in another class."""

from vae_jax.run import main

if __name__ == "__main__":
    main.run("generate", "python -m experiments.generate")
