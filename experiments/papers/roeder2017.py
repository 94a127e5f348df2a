"""Sticking the landing (Roeder, Wu & Duvenaud 2017): the ELBO's gradient without the score of q.

    python -m experiments.papers.roeder2017 --budget=30m

The network is that of Burda et al. 2016 with one layer, whose published numbers, by the whole
derivative, stand beside those cells. The same training with the path derivative alone is the
paper's: its cells have the difference, at equal budgets.
"""

from typing import Any

import jax

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PROTOCOL, elbo, one_layer
from experiments.papers.study import Cell, Model, Params, Part
from vae_jax.run import command


def total(model: Model, params: Params, x: jax.Array, z: Any) -> jax.Array:
    densities = model.posterior(params, x, z), model.prior(params, z), model.decode(params, z)
    return vae_jax.elbo(x, z, *densities, analytic_kl=False).value


def analytic(model: Model, params: Params, x: jax.Array, z: Any) -> jax.Array:
    densities = model.posterior(params, x, z), model.prior(params, z), model.decode(params, z)
    return vae_jax.elbo(x, z, *densities).value


CELLS = {
    f"{name}-{draws}": Cell(
        published if name == "total" else None, one_layer, (Part(objective, draws, 400),)
    )
    for name, objective in (("total", total), ("analytic", analytic), ("path", elbo))
    for draws, published in ((1, 86.76), (5, 86.47))
}


if __name__ == "__main__":
    command.run(lambda: study.main("roeder2017", "its table on MNIST", PROTOCOL, CELLS))
