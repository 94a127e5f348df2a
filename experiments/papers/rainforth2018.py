"""Tighter variational bounds are not necessarily better (Rainforth et al. 2018), dynamic MNIST.

    python -m experiments.papers.rainforth2018 --budget=60m

The network is that of Burda et al. 2016 with one layer. All bounds have 64 draws: MIWAE(8, 8) the
mean of eight IWAE bounds of eight draws; PIWAE(8, 8) that for the encoder, and the IWAE's of 64 for
the decoder; CIWAE(0.05) a twentieth of the ELBO beside the IWAE. Their gradients are the plain
reparameterised ones, which is what the paper is about.
"""

from typing import Any

import jax

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PROTOCOL, one_layer
from experiments.papers.study import Cell, Model, Params, Part
from vae_jax.run import command


def miwae(model: Model, params: Params, x: jax.Array, z: Any) -> jax.Array:
    groups = max(1, z.shape[0] // 8)
    densities = model.posterior(params, x, z), model.prior(params, z), model.decode(params, z)
    return vae_jax.miwae(x, z, *densities, num_groups=groups).value


def ciwae(model: Model, params: Params, x: jax.Array, z: Any) -> jax.Array:
    densities = model.posterior(params, x, z), model.prior(params, z), model.decode(params, z)
    return vae_jax.ciwae(x, z, *densities, beta=0.05).value


def piwae(model: Model, params: Params, x: jax.Array, z: Any) -> jax.Array:
    """Two bounds, of each the gradient of one network alone; the value is their mean."""
    held, still = jax.lax.stop_gradient((params, z))
    prior = model.prior(params, z)
    of_decoder, _ = vae_jax.piwae(
        x, still, model.posterior(held, x, still), prior, model.decode(params, still), num_groups=1
    )
    _, of_encoder = vae_jax.piwae(
        *(x, z, model.posterior(params, x, z), prior, model.decode(held, z)),
        num_groups=max(1, z.shape[0] // 8),
    )
    value = (of_decoder.value + of_encoder.value) / 2
    # Each network's own gradient, not half of it.
    return 2 * value - jax.lax.stop_gradient(value)


CELLS = {
    name: Cell(published, one_layer, (Part(objective, 8, 400, 0.7), Part(objective, 64, 100, 0.3)))
    for name, published, objective in (
        ("miwae-8-8", 84.97, miwae),
        ("piwae-8-8", 84.46, piwae),
        ("ciwae-0.05", 84.57, ciwae),
    )
}


if __name__ == "__main__":
    command.run(lambda: study.main("rainforth2018", "table 1", PROTOCOL, CELLS))
