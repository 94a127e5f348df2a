"""Images from a trained run: draws from the prior, of a class, or test images in another class."""

from vae_jax.run import main

if __name__ == "__main__":
    main.run("generate", "python -m experiments.generate")
