"""Ladder VAE (Sonderby et al. 2016): inference that goes down as generation does.

    python -m experiments.papers.sonderby2016 --cells convolutions --budget=60m --num-test=2000

Published, in nats on statically binarised MNIST, of three convolutional layers with free bits:
-ELBO 82.14, -log p(x) by 1,000 draws 79.24 (addtt/ladder-vae-pytorch, a re-implementation).
What is reached on two cores stands on the page, minus the ELBO beside it.

`convolutions` is the library's small top-down VAE with three layers of latents, not their network;
`dense` is the paper's kind, layers of 64, 32 and 16 latents by precision-weighted inference, in
half its width.
"""

import math
from typing import Any

import flax.linen as nn
import jax

import vae_jax
from experiments.papers import study
from experiments.papers.study import Cell, Options, Part, Study, maximise
from vae_jax import networks
from vae_jax.run import command

PROTOCOL = (
    "negative log p(x) of the test images of statically binarised MNIST, in nats; "
    "trained on the 50,000 training images. Published by 1,000 draws, and -ELBO 82.14. Half a nat "
    "of each layer is free"
)
WIDTH, BLOCKS = 32, (0, 1, 2)


def dense(mean: jax.Array) -> vae_jax.VAE:
    latent_dims, hidden = (64, 32, 16), (256, 128, 64)
    bias = networks.constant_bias(networks.logit(mean))
    network = networks.MLP(mean.shape, (256, 256), activation=nn.silu, bias_init=bias)
    return vae_jax.make_top_down(
        networks.LadderEncoder(latent_dims, hidden),
        networks.LadderDecoder(networks.BernoulliDecoder(network), latent_dims, hidden),
    )


def convolutions(mean: jax.Array) -> vae_jax.VAE:
    """One layer of latents at half the size, two at a quarter."""
    side = math.isqrt(len(mean))
    shape = (side, side, 1)
    bias = networks.constant_bias(networks.logit(mean.reshape(shape)))
    return vae_jax.make_top_down(
        nn.Sequential(
            [lambda x: x.reshape(*x.shape[:-1], *shape), networks.BottomUp(WIDTH, BLOCKS)]
        ),
        networks.TopDown(
            shape,
            WIDTH,
            BLOCKS,
            likelihood=lambda image: vae_jax.Bernoulli(image.reshape(*image.shape[:-3], -1)),
            bias_init=bias,
        ),
    )


def free(bound: Any, z: Any, posterior: Any, prior: Any, step: Any) -> jax.Array:
    """A penalty: half a nat of each layer costs nothing."""
    return vae_jax.free_bits(vae_jax.kl_per_layer(posterior, prior), 0.5)


LOSS = maximise(vae_jax.elbo, penalty=free)

CELLS = {
    "dense": Cell({}, dense, (Part(LOSS, 1, 400),)),
    "convolutions": Cell({"binarized_mnist": 79.24}, convolutions, (Part(LOSS, 1, 100),)),
}


if __name__ == "__main__":
    defaults = Options(dataset="binarized_mnist", num_importance_samples=1000)
    command.run(
        lambda: study.main(
            Study("sonderby2016", "of 3 layers", PROTOCOL, CELLS, defaults, num_train=50_000)
        )
    )
