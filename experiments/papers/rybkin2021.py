"""sigma-VAE (Rybkin et al. 2021, section 4): the scale of the likelihood, learned or optimal.

    python -m experiments.papers.rybkin2021 --budget=10m

One network and four Gaussian likelihoods of grey images: `fixed`, of scale 1, which is the squared
error; `learned`, one scale; `optimal`, the root mean squared error of the batch (equation 6);
`per-pixel`, from the network. The paper's numbers are Frechet distances of colour pictures: none
stands beside these. What it claims is that a learned or optimal scale beats a fixed one, and that
the optimal one is as good. What is reached stands on the page.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import vae_jax
from experiments.papers import study
from experiments.papers.study import Cell, Options, Part, Study, maximise
from vae_jax import networks
from vae_jax.run import command

PROTOCOL = (
    "negative log p(x) of dequantised test images in [0, 1], in nats, and bits per "
    "dimension of the bytes; trained on 60,000 images dequantised anew at every step"
)
LATENTS = 40


class Fixed(nn.Module):
    """N(mean(z), 1)."""

    network: nn.Module

    def __call__(self, z: jax.Array) -> vae_jax.Normal:
        mean = self.network(z)
        return vae_jax.Normal(mean, jnp.ones_like(mean))


HEADS: dict[str, Any] = {
    "fixed": Fixed,
    "learned": partial(networks.NormalDecoder, initial_scale=0.25, rate=10.0),
    "per-pixel": partial(networks.NormalDecoder, initial_scale=0.25, per_entry=True),
}
HEADS["optimal"] = HEADS["learned"]  # whose scale the test images are measured with


def make_model(mean: jax.Array, name: str) -> vae_jax.VAE:
    bias = mean if name != "per-pixel" else jnp.concatenate([mean, jnp.zeros_like(mean)])
    shared = {"hidden": (300, 300), "activation": nn.silu}
    decoder = networks.MLP(bias.shape, **shared, bias_init=networks.constant_bias(bias))
    encoder = networks.Encoder(networks.MLP((2 * LATENTS,), **shared))
    return vae_jax.make_vae(encoder, HEADS[name](decoder), LATENTS)


def optimal(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any) -> vae_jax.Bound:
    """The ELBO under the best scale of the batch, which the learned one follows."""
    mean = likelihood.mean
    best = vae_jax.Normal(mean, jnp.broadcast_to(vae_jax.optimal_scale(x, mean), mean.shape))
    bound = vae_jax.elbo(x, z, posterior, prior, best)
    follows = vae_jax.Normal(jax.lax.stop_gradient(mean), likelihood.scale).log_prob(x)
    return bound._replace(value=bound.value + follows - jax.lax.stop_gradient(follows))


CELLS = {
    name: Cell(
        {},
        partial(make_model, name=name),
        (Part(maximise(objective, observe=vae_jax.dequantize), 1, 400),),
    )
    for name, objective in (
        ("fixed", vae_jax.elbo),
        ("learned", vae_jax.elbo),
        ("optimal", optimal),
        ("per-pixel", vae_jax.elbo),
    )
}


if __name__ == "__main__":
    about = Study(
        "rybkin2021",
        "none",
        PROTOCOL,
        CELLS,
        Options(dataset="fashion_mnist", num_importance_samples=500),
    )
    command.run(lambda: study.main(about._replace(observe=vae_jax.dequantize)))
