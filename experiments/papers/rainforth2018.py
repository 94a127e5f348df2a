"""Tighter variational bounds are not necessarily better (Rainforth et al. 2018), dynamic MNIST.

    python -m experiments.papers.rainforth2018 --budget=60m

The network is that of Burda et al. 2016 with one layer. All bounds have 64 draws: MIWAE(8, 8) the
mean of eight IWAE bounds of eight draws; PIWAE(8, 8) that for the encoder, and the IWAE's of 64 for
the decoder; CIWAE(0.05) a twentieth of the ELBO beside the IWAE. Their gradients are the plain
reparameterised ones, which is what the paper is about.
"""

import functools
from typing import Any

import jax

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PROTOCOL, one_layer
from experiments.papers.study import Cell, Part, Study, maximise
from vae_jax.run import command


def miwae(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any) -> vae_jax.Bound:
    """Of groups of eight draws."""
    groups = max(1, len(z) // 8)
    return vae_jax.miwae(x, z, posterior, prior, likelihood, num_groups=groups)


def piwae(model: vae_jax.VAE, num_draws: int) -> Any:
    """Two bounds of the same draws, of each the gradient of one network alone."""
    bounds = {"encoder": miwae, "decoder": vae_jax.iwae}
    losses = {name: maximise(bound)(model, num_draws) for name, bound in bounds.items()}

    def loss(params: Any, key: jax.Array, images: jax.Array, step: Any = None) -> Any:
        held = jax.lax.stop_gradient(params)
        values = {  # of the same noise, so that a network is passed through once
            name: of({**held, name: params[name]}, jax.random.clone(key), images)
            for name, of in losses.items()
        }
        # Each network's own gradient, and the mean of the values.
        both = sum(value for value, _ in values.values())
        return both - jax.lax.stop_gradient(both) / 2, values["decoder"][1]

    return loss


CELLS = {
    name: Cell({"mnist": published}, one_layer, (Part(loss, 8, 400, 0.7), Part(loss, 64, 100, 0.3)))
    for name, published, loss in (
        ("miwae-8-8", 84.97, maximise(miwae)),
        ("piwae-8-8", 84.46, piwae),
        ("ciwae-0.05", 84.57, maximise(functools.partial(vae_jax.ciwae, beta=0.05))),
    )
}


if __name__ == "__main__":
    command.run(lambda: study.main(Study("rainforth2018", "table 1", PROTOCOL, CELLS)))
