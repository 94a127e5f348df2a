"""What makes a distribution of a network's output."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import Bernoulli, Normal

_MAX_LOG_SCALE = 10.0


class Encoder(nn.Module):
    """q(z|x) = N(mean(x), diag(scale(x)^2)) from a network with twice as many outputs as latents.

    A conditional prior p(z|c) is an encoder of the condition alone, such as
    `Encoder(nn.Sequential([ClassCondition(10), MLP((2 * Z,))]))` for classes and
    `Encoder(MLP((2 * Z,), event_ndims=3))` for images.

    The log-scale is bounded smoothly, to (-10, 10): exp of an unbounded one overflows, and a hard
    clip would end its gradient.

    Attributes:
      network: [*b, *event] -> [*b, 2 Z].
    """

    network: nn.Module

    def __call__(self, x: Array, label: Any = None) -> Normal:
        mean, log_scale = jnp.split(_apply(self.network, x, label), 2, axis=-1)
        return Normal(mean, jnp.exp(bounded(log_scale)))


class BernoulliDecoder(nn.Module):
    """p(x|z) = Bernoulli(logits(z)), for binary x.

    Attributes:
      network: [*b, Z] -> [*b, *event].
      event_ndims: number of axes of one x.
    """

    network: nn.Module
    event_ndims: int = 1

    def __call__(self, z: Array, label: Any = None) -> Bernoulli:
        return Bernoulli(_apply(self.network, z, label), event_ndims=self.event_ndims)


class NormalDecoder(nn.Module):
    """p(x|z) = N(mean(z), scale^2 I), for real x, with one learned scale for all of x.

    Learning the scale replaces the guess of a weight between squared error and KL (Rybkin et al.
    2021, "sigma-VAE").

    Attributes:
      network: [*b, Z] -> [*b, *event].
      event_ndims: number of axes of one x.
      initial_scale: where the scale starts; the standard deviation of x about its mean is the best
        for a decoder that ignores z. Far above it the KL weighs too much, and z is not used.
      rate: how many times as fast as another parameter the scale's logarithm moves under Adam.
    """

    network: nn.Module
    event_ndims: int = 1
    initial_scale: float = 1.0
    rate: float = 1.0

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Normal:
        log_scale = self.param("log_scale", nn.initializers.zeros_init(), ())
        mean = _apply(self.network, z, label)
        scale = self.initial_scale * jnp.exp(bounded(self.rate * log_scale))
        scale = scale.astype(mean.dtype)
        return Normal(mean, scale, event_ndims=self.event_ndims)


class StandardPrior(nn.Module):
    """p(z|c) = N(0, I) for every label, with the label's batch axes.

    Attributes:
      latent_dim: Z.
      label_ndims: number of axes of one label, 0 for a class.
    """

    latent_dim: int
    label_ndims: int = 0

    def __call__(self, label: ArrayLike) -> Normal:
        batch = jnp.shape(label)[: jnp.ndim(label) - self.label_ndims]
        return Normal(jnp.zeros((*batch, self.latent_dim)), jnp.ones(()))


def _apply(network: Any, x: Array, label: Any) -> Array:
    """Gives the label only where there is one: a network without labels need not know of them."""
    output: Array = network(x) if label is None else network(x, label)
    return output


def bounded(log_scale: Array) -> Array:
    """Smoothly within (-10, 10), and as it is near 0."""
    return _MAX_LOG_SCALE * jnp.tanh(log_scale / _MAX_LOG_SCALE)
