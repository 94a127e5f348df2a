"""A VAE on MNIST (or Fashion-MNIST, binarized MNIST, scikit-learn's digits), from data to results.

Expected, with the defaults on MNIST: test ELBO about -92 nats, test log p(x) about -88.1 with 500
importance samples; see docs/pages/evaluation.md.
"""

from vae_jax.run import main

if __name__ == "__main__":
    main.run("mnist", "python -m experiments.mnist")
