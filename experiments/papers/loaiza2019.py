"""Continuous Bernoulli (Loaiza-Ganem & Cunningham 2019): the constant that was left out.

    python -m experiments.papers.loaiza2019 --budget=10m

One network for grey images in [0, 1], trained with the cross-entropy (`bernoulli`), as is often
done, and with the density that it lacks the constant of (`continuous`). Both are measured by that
density, at the parameters they found. No number of the paper's stands beside these; it claims that
the second is the better model by far. What is reached stands on the page.
"""

from typing import Any

import flax.linen as nn
import jax

import vae_jax
from experiments.papers import study
from experiments.papers.study import Cell, Options, Part, Study, maximise
from vae_jax import networks
from vae_jax.run import command

PROTOCOL = (
    "negative log p(x) under the continuous Bernoulli of MNIST's test images, dequantised, in "
    "[0, 1], in nats, and bits per dimension of the bytes; trained on 60,000 images "
    "dequantised anew at every step"
)
LATENTS = 20


def make_model(mean: jax.Array) -> vae_jax.VAE:
    shared = {"hidden": (300, 300), "activation": nn.silu}
    decoder = networks.ContinuousBernoulliDecoder(networks.MLP(mean.shape, **shared))
    return vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * LATENTS,), **shared)), decoder, LATENTS
    )


def cross_entropy(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any) -> vae_jax.Bound:
    """What is no bound: that of a Bernoulli, of values that are no zeros and ones."""
    return vae_jax.elbo(x, z, posterior, prior, vae_jax.Bernoulli(likelihood.logits))


CELLS = {
    name: Cell({}, make_model, (Part(maximise(objective, observe=vae_jax.dequantize), 1, 400),))
    for name, objective in (("continuous", vae_jax.elbo), ("bernoulli", cross_entropy))
}


if __name__ == "__main__":
    about = Study("loaiza2019", "none", PROTOCOL, CELLS, Options(num_importance_samples=500))
    command.run(lambda: study.main(about._replace(observe=vae_jax.dequantize)))
