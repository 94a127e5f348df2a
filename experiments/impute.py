"""A table whose holes are filled by a run on a table like it."""

from vae_jax.run import main

if __name__ == "__main__":
    main.run("impute", "python -m experiments.impute")
