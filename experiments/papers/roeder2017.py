"""Sticking the landing (Roeder, Wu & Duvenaud 2017): the ELBO's gradient without the score of q.

    python -m experiments.papers.roeder2017 --budget=30m

The network is that of Burda et al. 2016 with one layer, whose published numbers, by the whole
derivative, stand beside those cells. The same training with the path derivative alone is the
paper's: its cells have the difference, at equal budgets.
"""

import functools

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PROTOCOL, elbo, one_layer
from experiments.papers.study import Cell, Part, Study, maximise
from vae_jax.run import command

OBJECTIVES = {
    "total": functools.partial(vae_jax.elbo, analytic_kl=False),
    "analytic": vae_jax.elbo,
    "path": elbo,
}

CELLS = {
    f"{name}-{draws}": Cell(
        {"mnist": published} if name == "total" else {},
        one_layer,
        (Part(maximise(objective), draws, 400),),
    )
    for name, objective in OBJECTIVES.items()
    for draws, published in ((1, 86.76), (5, 86.47))
}


if __name__ == "__main__":
    command.run(lambda: study.main(Study("roeder2017", "its table on MNIST", PROTOCOL, CELLS)))
