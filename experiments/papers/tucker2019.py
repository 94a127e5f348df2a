"""Doubly reparameterised gradients (Tucker et al. 2019): the IWAE's encoder keeps its signal.

    python -m experiments.papers.tucker2019 --budget=60m

The paper has curves. The published numbers here are those of a re-implementation of the networks of
Burda et al. 2016 with 100 latents (nbip/IWAE), of the IWAE by both gradients; the two are trained
for equal times.
"""

import functools
from typing import Any

import jax

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PARTS, PROTOCOL, iwae, one_layer
from experiments.papers.study import Cell, Model, Params, Part
from vae_jax.run import command


def plain(model: Model, params: Params, x: jax.Array, z: Any) -> jax.Array:
    densities = model.posterior(params, x, z), model.prior(params, z), model.decode(params, z)
    return vae_jax.iwae(x, z, *densities).value


CELLS = {
    f"{name}-{draws}": Cell(
        published,
        functools.partial(one_layer, latent_dim=100),
        tuple(Part(objective, *part) for part in PARTS[draws]),
    )
    for name, objective, row in (
        ("iwae", plain, {1: 86.35, 5: 85.18, 50: 84.59}),
        ("dreg", iwae, {1: 86.08, 5: 84.90, 50: 84.32}),
    )
    for draws, published in row.items()
}


if __name__ == "__main__":
    command.run(lambda: study.main("tucker2019", "nbip/IWAE's table", PROTOCOL, CELLS))
