"""Residual convolutions for images of any size."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vae_jax.networks.condition import as_channels, embed
from vae_jax.networks.conv import Conv, StridedConv, TransposedConv
from vae_jax.networks.initializers import Initializer
from vae_jax.networks.mlp import MLP, output_bias, scaled_down


def channels_for(image_shape: Sequence[int]) -> tuple[int, ...]:
    """Channels that suit a size: one more halving until the longer side is 7 or less.

    28 x 28 has (32, 64), 32 x 32 (32, 64, 128), and 128 x 128 ends at 4 x 4 with 256.

    >>> channels_for((28, 28, 1)), channels_for((64, 64, 3))
    ((32, 64), (32, 64, 128, 256))
    """
    longer, channels = max(image_shape[:2]), [32]
    while (longer := -(-longer // 2)) > 7:
        channels.append(min(2 * channels[-1], 256))
    return tuple(channels)


class ResidualConvEncoder(nn.Module):
    """Strided 3x3 convolutions, residual 3x3 convolutions at each size, then a dense layer.

    Attributes:
      output_shape: shape of one output.
      channels: of each size; each halves height and width. None for `channels_for` the image.
      blocks: residual pairs of convolutions at each size.
      hidden: width of the dense layer.
      activation: between layers.
      matmul: of all layers; see `MLP`.
      condition: as `ConvEncoder` has it.

    >>> import jax, jax.numpy as jnp
    >>> network = ResidualConvEncoder((6,), channels=(4, 8), hidden=8)
    >>> x = jnp.ones((2, 10, 9, 3))
    >>> output, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> output.shape
    (2, 6)
    """

    output_shape: Sequence[int]
    channels: Sequence[int] | None = None
    blocks: int = 1
    hidden: int = 256
    activation: Callable[[Array], Array] = nn.silu
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, x: Array, label: Any = None) -> Array:
        """[*b, H, W, C] -> [*b, *output_shape]."""
        condition = embed(self.condition, label, x.shape[:-3], x.dtype)
        sizes = channels_for(x.shape[-3:]) if self.channels is None else tuple(self.channels)
        if condition is not None:
            x = jnp.concatenate([x, as_channels(condition, x.shape)], axis=-1)
        for i, channels in enumerate(sizes):
            x = StridedConv(channels, self.matmul)(x if i == 0 else self.activation(x))
            x = _blocks(self, x, len(sizes))
        dense = MLP(
            self.output_shape,
            (self.hidden,),
            event_ndims=3,
            activation=self.activation,
            matmul=self.matmul,
        )
        return dense(self.activation(x))


class ResidualConvDecoder(nn.Module):
    """The mirror of `ResidualConvEncoder`: dense layers, then convolutions that double the size.

    Attributes:
      output_shape: (H, W, C) of one image; H and W need not be even.
      channels: of each size, the smallest first. None for `channels_for` the image, reversed.
      blocks: residual pairs of convolutions at each size.
      hidden: width of the dense layer.
      activation: between layers.
      bias_init: of the output's bias, in `output_shape`.
      matmul: of all layers; see `MLP`.
      condition: as `ConvDecoder` has it.

    >>> import jax, jax.numpy as jnp
    >>> network = ResidualConvDecoder((10, 9, 3), channels=(8, 4), hidden=8)
    >>> output, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.ones((2, 6)))
    >>> output.shape
    (2, 10, 9, 3)
    """

    output_shape: Sequence[int]
    channels: Sequence[int] | None = None
    blocks: int = 1
    hidden: int = 256
    activation: Callable[[Array], Array] = nn.silu
    bias_init: Initializer = nn.initializers.zeros_init()
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Array:
        """[*b, Z] -> [*b, *output_shape]."""
        height, width, output_channels = self.output_shape
        sizes = self.channels
        sizes = channels_for(self.output_shape)[::-1] if sizes is None else tuple(sizes)
        shrink = 2 ** len(sizes)
        dense = MLP(
            (-(-height // shrink), -(-width // shrink), sizes[0]),
            (self.hidden,),
            activation=self.activation,
            matmul=self.matmul,
            condition=self.condition,
        )
        x = dense(z, label)
        for i, channels in enumerate(sizes):
            if i > 0:
                x = TransposedConv(channels, self.matmul)(self.activation(x))
            x = _blocks(self, x, len(sizes))
        x = TransposedConv(output_channels, self.matmul, use_bias=False)(self.activation(x))
        x = x[..., :height, :width, :]
        return x + output_bias(self, x)


def _blocks(module: Any, x: Array, num_sizes: int) -> Array:
    """Pairs of convolutions with a way around each: see `ResidualMLP`."""
    init = scaled_down(num_sizes * module.blocks)
    for _ in range(module.blocks):
        inner = Conv(x.shape[-1], module.matmul)(module.activation(x))
        x = x + Conv(x.shape[-1], module.matmul, init)(module.activation(inner))
    return x
