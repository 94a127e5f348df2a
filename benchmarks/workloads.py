"""The models that are timed, the data they are timed on, and what a training step computes."""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from vae_jax import networks
from vae_jax.run import options
from vae_jax.run.model import make_schedule

NUM_EXAMPLES = 60_000
LEARNING_RATE = 1e-3
PRECISIONS = ("float32", "bfloat16")


class Workload(NamedTuple):
    """A VAE on 28x28 images, one draw of z, trained by Adam.

    Attributes:
      description: as it stands in tables.
      latent_dim: Z.
      hidden: widths of the encoder's hidden layers, the decoder's in reverse.
      channels: of the strided convolutions before them; none for an MLP.
      activation: between layers.
      learning_rate: Adam's, at its peak.
      num_steps: of a training in which the rate warms up and falls as that of our programs; 0 for a
        constant one.
      num_pixels: of other images, for an MLP.
    """

    description: str
    latent_dim: int
    hidden: tuple[int, ...]
    channels: tuple[int, ...] = ()
    activation: str = "relu"
    learning_rate: float = LEARNING_RATE
    num_steps: int = 0
    num_pixels: int = 784


WORKLOADS = {
    "mlp": Workload("784-400-20", 20, (400,)),
    "large-mlp": Workload("784-512-512-128", 128, (512, 512)),
    "conv": Workload("conv 32-64, dense 256-20", 20, (256,), (32, 64)),
}


def make_model(workload: Workload, precision: str = "float32") -> vae_jax.VAE:
    """The workload as this library's model; images are [B, D], or [B, 28, 28, 1] for conv."""
    statistics = (2 * workload.latent_dim,)
    matmul = {"float32": jnp.matmul, "bfloat16": networks.matmul_bfloat16}[precision]
    if workload.channels:
        (hidden,) = workload.hidden
        return vae_jax.make_vae(
            networks.Encoder(
                networks.ConvEncoder(statistics, workload.channels, hidden, matmul=matmul)
            ),
            networks.BernoulliDecoder(
                networks.ConvDecoder((28, 28, 1), workload.channels[::-1], hidden, matmul=matmul),
                event_ndims=3,
            ),
            workload.latent_dim,
        )
    return vae_jax.make_vae(
        networks.Encoder(networks.MLP(statistics, workload.hidden, matmul=matmul)),
        networks.BernoulliDecoder(
            networks.MLP((workload.num_pixels,), workload.hidden[::-1], matmul=matmul)
        ),
        workload.latent_dim,
    )


def image_shape(workload: Workload) -> tuple[int, ...]:
    return (28, 28, 1) if workload.channels else (workload.num_pixels,)


def make_optimizer(workload: Workload) -> optax.GradientTransformation:
    """Adam at the workload's rate."""
    if not workload.num_steps:
        return optax.adam(workload.learning_rate)
    return optax.adam(_schedule(workload))


def rates(workload: Workload) -> np.ndarray:
    """The learning rate of each step, and that after the last, [num_steps + 1]."""
    return np.asarray(jax.vmap(_schedule(workload))(jnp.arange(workload.num_steps + 1)))


def _schedule(workload: Workload) -> optax.Schedule:
    training = options.Training(learning_rate=workload.learning_rate)
    return make_schedule(training, workload.num_steps)


def make_loss(model: vae_jax.VAE) -> Any:
    """Minus the mean ELBO of a freshly binarized batch."""
    return vae_jax.make_loss(model, observe=vae_jax.binarize)


def make_state(
    workload: Workload, precision: str
) -> tuple[vae_jax.TrainState, Any, optax.GradientTransformation]:
    """A fresh state, the loss and the optimizer."""
    model, optimizer = make_model(workload, precision), make_optimizer(workload)
    init_key, key = jax.random.split(jax.random.key(0))
    params = jax.jit(model.init)(init_key, jnp.zeros((1, *image_shape(workload))))
    return vae_jax.init_state(key, params, optimizer), make_loss(model), optimizer


def load_images(num_examples: int) -> tuple[np.ndarray, str]:
    """uint8 [N, 784] and what they are: MNIST where its file is at hand, else like it."""
    path = Path(__file__).parents[2] / "shared/data/mnist/train-images-idx3-ubyte.gz"
    if path.exists():
        raw = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
        images, source = raw.reshape(-1, 784), "MNIST"
    else:
        # Most pixels of MNIST are 0 or near 255; how many does not change what a step costs.
        generator = np.random.default_rng(0)
        grey = generator.integers(0, 256, (NUM_EXAMPLES, 784), np.uint8)
        images = np.where(generator.random(grey.shape, np.float32) < 0.19, grey, np.uint8(0))
        source = "synthetic bytes, 81 % zeros as in MNIST"
    return np.resize(images, (num_examples, 784)), source
