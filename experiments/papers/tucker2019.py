"""Doubly reparameterised gradients (Tucker et al. 2019): the IWAE's encoder keeps its signal.

    python -m experiments.papers.tucker2019 --budget=60m

The paper has curves. The published numbers here are those of a re-implementation of the networks of
Burda et al. 2016 with 100 latents (nbip/IWAE), of the IWAE by both gradients; the two are trained
for equal times.
"""

import functools

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PARTS, PROTOCOL, elbo, one_layer
from experiments.papers.study import Cell, Part, Study, maximise
from vae_jax.run import command

# Of one draw, and of several: the bounds of one draw are the ELBO.
PLAIN = functools.partial(vae_jax.elbo, analytic_kl=False), vae_jax.iwae
DREG = elbo, vae_jax.doubly_reparameterized

CELLS = {
    f"{name}-{draws}": Cell(
        {"mnist": published},
        functools.partial(one_layer, latent_dim=100),
        tuple(Part(maximise(of[num > 1]), num, *part) for num, *part in PARTS[draws]),
    )
    for name, of, row in (
        ("iwae", PLAIN, {1: 86.35, 5: 85.18, 50: 84.59}),
        ("dreg", DREG, {1: 86.08, 5: 84.90, 50: 84.32}),
    )
    for draws, published in row.items()
}


if __name__ == "__main__":
    command.run(lambda: study.main(Study("tucker2019", "nbip/IWAE's table", PROTOCOL, CELLS)))
