"""The models that are timed, the data they are timed on, and what a training step computes."""

import gzip
import math
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
    """A VAE on binarized images, one draw of z, trained by Adam.

    Attributes:
      description: as it stands in tables.
      latent_dim: Z.
      hidden: widths of the encoder's hidden layers, the decoder's in reverse.
      channels: of the strided convolutions before them; none for an MLP.
      activation: between layers.
      learning_rate: Adam's, at its peak.
      num_steps: of a training in which the rate warms up and falls as that of our programs; 0 for a
        constant one.
      image_shape: (D,), or (H, W, C) for convolutions, H and W even at each size but the last.
      blocks: residual pairs of 3x3 convolutions at each size.
    """

    description: str
    latent_dim: int
    hidden: tuple[int, ...]
    channels: tuple[int, ...] = ()
    activation: str = "relu"
    learning_rate: float = LEARNING_RATE
    num_steps: int = 0
    image_shape: tuple[int, ...] = (784,)
    blocks: int = 0


def _of_colours(side: int, kind: str = "conv", **more: Any) -> Workload:
    """What a run makes of one's own pictures of this size, but that their bytes are binarized."""
    shape = (side, side, 3)
    channels = networks.channels_for(shape)
    description = f"{side}x{side}x3, {kind} {'-'.join(map(str, channels))}, dense 256-128"
    return Workload(description, 128, (256,), channels, image_shape=shape, **more)


WORKLOADS = {
    "mlp": Workload("784-400-20", 20, (400,)),
    "large-mlp": Workload("784-512-512-128", 128, (512, 512)),
    "conv": Workload("conv 32-64, dense 256-20", 20, (256,), (32, 64), image_shape=(28, 28, 1)),
    "colour-32": _of_colours(32),
    "colour-64": _of_colours(64),
    "colour-128": _of_colours(128),
    "residual-32": _of_colours(32, "residual conv", blocks=1, activation="silu"),
}
OF_MNIST = ("mlp", "large-mlp", "conv")


def make_model(workload: Workload, precision: str = "float32") -> vae_jax.VAE:
    """The workload as this library's model; images are [B, *image_shape]."""
    statistics = (2 * workload.latent_dim,)
    layers: dict[str, Any] = {
        "activation": getattr(jax.nn, workload.activation),
        "matmul": {"float32": jnp.matmul, "bfloat16": networks.matmul_bfloat16}[precision],
    }
    encoder: Any
    decoder: Any
    if workload.channels:
        encoder, decoder = networks.ConvEncoder, networks.ConvDecoder
        (layers["hidden"],) = workload.hidden
        if workload.blocks:
            encoder, decoder = networks.ResidualConvEncoder, networks.ResidualConvDecoder
            layers["blocks"] = workload.blocks
    else:
        encoder = decoder = networks.MLP
    widths = workload.channels or workload.hidden
    return vae_jax.make_vae(
        networks.Encoder(encoder(statistics, widths, **layers)),
        networks.BernoulliDecoder(
            decoder(workload.image_shape, widths[::-1], **layers),
            event_ndims=len(workload.image_shape),
        ),
        workload.latent_dim,
    )


def smallest(workload: Workload) -> tuple[int, int, int]:
    """(H, W, C) of what lies between the dense layers and the convolutions."""
    height, width, _ = workload.image_shape
    shrink = 2 ** len(workload.channels)
    return height // shrink, width // shrink, workload.channels[-1]


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
    params = jax.jit(model.init)(init_key, jnp.zeros((1, *workload.image_shape)))
    return vae_jax.init_state(key, params, optimizer), make_loss(model), optimizer


def load_images(num_examples: int, image_shape: tuple[int, ...] = (784,)) -> tuple[np.ndarray, str]:
    """uint8 [N, D] and what they are: MNIST if of its size and at hand, else like it."""
    size = math.prod(image_shape)
    path = Path(__file__).parents[2] / "shared/data/mnist/train-images-idx3-ubyte.gz"
    if size == 784 and path.exists():
        raw = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
        return np.resize(raw.reshape(-1, size), (num_examples, size)), "MNIST"
    # Most pixels of MNIST are 0 or near 255; how many does not change what a step costs.
    generator = np.random.default_rng(0)
    few = min(num_examples, max(1, NUM_EXAMPLES * 784 // size))
    grey = generator.integers(0, 256, (few, size), np.uint8)
    images = np.where(generator.random(grey.shape, np.float32) < 0.19, grey, np.uint8(0))
    return np.resize(images, (num_examples, size)), "synthetic bytes, 81 % zeros as in MNIST"
