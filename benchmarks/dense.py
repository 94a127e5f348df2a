"""The dense VAE of any library as a model of ours, so that all are measured alike."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import vae_jax

Layer = tuple[np.ndarray, np.ndarray]
"""Kernel [I, O] and bias [O]; each layer is x @ kernel + bias."""


class Weights(NamedTuple):
    """Of a VAE whose q(z|x) is a diagonal Gaussian and whose p(x|z) is Bernoulli.

    Attributes:
      encoder: hidden layers, then the mean and the log-variance of z side by side, [H, 2 Z].
      decoder: hidden layers, then the logits.
    """

    encoder: list[Layer]
    decoder: list[Layer]


def weights(encoder: Sequence[Any], decoder: Sequence[Any]) -> Weights:
    """Copies as NumPy arrays, the encoder's last two layers being mean and log-variance."""
    *hidden, mean, log_variance = [tuple(map(np.array, layer)) for layer in encoder]
    last = tuple(np.concatenate(pair, axis=-1) for pair in zip(mean, log_variance, strict=True))
    return Weights([*hidden, last], [tuple(map(np.array, layer)) for layer in decoder])


@functools.cache  # the same functions each time, so that measuring compiles once
def model(activation: str) -> vae_jax.VAE:
    """With params `Weights` and x [*b, D]; `activation` is one of `flax.linen`'s."""

    def network(layers: list[Layer], x: jax.Array) -> jax.Array:
        for i, (kernel, bias) in enumerate(layers):
            x = (getattr(nn, activation)(x) if i else x) @ kernel + bias
        return x

    def encode(params: Weights, x: jax.Array, label: Any = None) -> vae_jax.Normal:
        mean, log_variance = jnp.split(network(params.encoder, x), 2, axis=-1)
        return vae_jax.Normal(mean, jnp.exp(0.5 * log_variance))

    def prior(params: Weights, label: Any = None) -> vae_jax.Normal:
        return vae_jax.Normal(jnp.zeros(params.decoder[0][0].shape[0]), 1.0)

    def decode(params: Weights, z: jax.Array, label: Any = None) -> vae_jax.Bernoulli:
        return vae_jax.Bernoulli(network(params.decoder, z))

    return vae_jax.VAE(None, encode, prior, decode)
