"""MNIST without autoregression (NVAE, Vahdat & Kautz 2020, table 1), in an hour of one core.

    python -m experiments.papers.vahdat2020 --steps=22000

Published, -log p(x) of dynamically binarised MNIST in nats: 78.01, after 42 hours of V100. What is
reached stands on the page. Nothing here is NVAE but the question: gated layers of 300 and 40
latents, a prior of four coupling layers, and, once the ELBO has brought most of the way, bounds of
5 and of 20 draws, under which the posterior need not be Gaussian.
"""

import vae_jax
from experiments.papers import study
from experiments.papers.burda2016 import PROTOCOL, elbo
from experiments.papers.study import Cell, Part, Study, maximise
from experiments.papers.tomczak2018 import with_flow
from vae_jax.run import command

DREG = maximise(vae_jax.doubly_reparameterized)

CELLS = {
    "flow-prior-iwae": Cell(
        {"mnist": 78.01},
        with_flow,
        (Part(maximise(elbo), 1, 1000, 0.6), Part(DREG, 5, 1000, 0.25), Part(DREG, 20, 250, 0.15)),
    )
}


if __name__ == "__main__":
    protocol = PROTOCOL.partition(". ")[0] + ". Published of a deep hierarchy, after 42 GPU hours"
    command.run(lambda: study.main(Study("vahdat2020", "table 1", protocol, CELLS)))
