"""Flows as posteriors (Rezende & Mohamed 2015, equation 10; Kingma et al. 2016, algorithm 1).

    python -m experiments.papers.rezende2015 --budget=30m

One network, that of Burda et al. 2016 with one layer, and three posteriors: diagonal, ten planar
maps, and two inverse autoregressive ones, all by the same gradient (the KL from the draws). The
papers' networks are others: no number of theirs stands beside these. What they claim is that a flow
is the better posterior; the aim is 0.3 nats. What is reached stands on the page.
"""

from functools import partial
from typing import Any

import jax

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PROTOCOL, network
from experiments.papers.study import Cell, Part, Study, maximise
from vae_jax import networks
from vae_jax.run import command

LATENTS, CONTEXT = 50, 50


def diagonal(mean: jax.Array) -> vae_jax.VAE:
    return _with(mean, networks.Encoder(network(2 * LATENTS, 200)))


def planar(mean: jax.Array, num_layers: int = 10) -> vae_jax.VAE:
    return _flow(mean, [networks.PlanarLayer(LATENTS) for _ in range(num_layers)])


def autoregressive(mean: jax.Array, num_layers: int = 2) -> vae_jax.VAE:
    layers = [
        networks.AutoregressiveLayer(LATENTS, (200,), reverse=i % 2 == 1) for i in range(num_layers)
    ]
    return _flow(mean, layers)


def _flow(mean: jax.Array, layers: list[Any]) -> vae_jax.VAE:
    of_x = network(2 * LATENTS + CONTEXT, 200)
    return _with(mean, networks.FlowEncoder(of_x, LATENTS, layers))


def _with(mean: jax.Array, encoder: networks.Encoder | networks.FlowEncoder) -> vae_jax.VAE:
    decoder = networks.BernoulliDecoder(network(len(mean), 200, mean))
    return vae_jax.make_vae(encoder, decoder, LATENTS)


PARTS = (Part(maximise(partial(vae_jax.elbo, analytic_kl=False)), 1, 400),)

CELLS = {
    "diagonal": Cell({}, diagonal, PARTS),
    "planar-10": Cell({}, planar, PARTS),
    "autoregressive-2": Cell({}, autoregressive, PARTS),
}


if __name__ == "__main__":
    command.run(lambda: study.main(Study("rezende2015", "none", PROTOCOL, CELLS)))
