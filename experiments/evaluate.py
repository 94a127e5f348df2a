"""log p(x), or log p(x|c), of a trained run's test set, with as many draws as asked for."""

from vae_jax.run import main

if __name__ == "__main__":
    main.run("evaluate", "python -m experiments.evaluate")
