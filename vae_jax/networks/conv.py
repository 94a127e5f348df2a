"""Convolutions as matrix products, and networks for images of any size made of them."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions._pytree import accurate
from vae_jax.networks.condition import as_channels, embed
from vae_jax.networks.initializers import Initializer
from vae_jax.networks.mlp import MLP, output_bias
from vae_jax.networks.precision import check_floating


class ConvEncoder(nn.Module):
    """Strided 3x3 convolutions, each halving height and width, then a dense layer.

    Attributes:
      output_shape: shape of one output.
      channels: of each convolution.
      hidden: width of the dense layer.
      activation: between layers.
      matmul: of all layers; see `MLP`.
      condition: what the label is, None for no label; concatenated to the image as channels, a
        vector the same at every pixel.
    """

    output_shape: Sequence[int]
    channels: Sequence[int] = (32, 64)
    hidden: int = 256
    activation: Callable[[Array], Array] = nn.relu
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, x: Array, label: Any = None) -> Array:
        """[*b, H, W, C] -> [*b, *output_shape]."""
        condition = embed(self.condition, label, x.shape[:-3], x.dtype)
        if condition is not None:
            x = jnp.concatenate([x, as_channels(condition, x.shape)], axis=-1)
        for channels in self.channels:
            x = self.activation(StridedConv(channels, self.matmul)(x))
        dense = MLP(
            self.output_shape,
            (self.hidden,),
            event_ndims=3,
            activation=self.activation,
            matmul=self.matmul,
        )
        return dense(x)


class ConvDecoder(nn.Module):
    """Dense layers, then transposed 3x3 convolutions, each doubling height and width.

    Attributes:
      output_shape: (H, W, C) of one image; H and W need not be even.
      channels: of the image that the dense layers make, and of each convolution but the last.
      hidden: width of the dense layer.
      activation: between layers.
      bias_init: of the output's bias, in `output_shape`.
      matmul: of all layers; see `MLP`.
      condition: what the label is, None for no label; concatenated to z, an image flattened.
    """

    output_shape: Sequence[int]
    channels: Sequence[int] = (64, 32)
    hidden: int = 256
    activation: Callable[[Array], Array] = nn.relu
    bias_init: Initializer = nn.initializers.zeros_init()
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Array:
        """[*b, Z] -> [*b, *output_shape]."""
        height, width, output_channels = self.output_shape
        shrink = 2 ** len(self.channels)
        low = (-(-height // shrink), -(-width // shrink), self.channels[0])
        dense = MLP(
            low,
            (self.hidden,),
            activation=self.activation,
            matmul=self.matmul,
            condition=self.condition,
        )
        x = dense(z, label)
        for channels in self.channels[1:]:
            x = TransposedConv(channels, self.matmul)(self.activation(x))
        x = TransposedConv(output_channels, self.matmul, use_bias=False)(self.activation(x))
        x = x[..., :height, :width, :]
        return x + output_bias(self, x)


class StridedConv(nn.Module):
    """A 3x3 convolution of stride 2, as a matrix product of 3x3 patches.

    It is `nn.Conv` with padding ((0, 1), (0, 1)), and its parameters are that layer's. Within a
    scan XLA's convolutions fall back to plain loops on CPU, a gradient's above all: this form takes
    a tenth of their time there.

    Attributes:
      features: output channels.
      matmul: see `MLP`.

    >>> conv = StridedConv(features=8)
    >>> params = conv.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> conv.apply(params, jnp.ones((5, 28, 28, 1))).shape
    (5, 14, 14, 8)
    """

    features: int
    matmul: Callable[[Array, Array], Array] = jnp.matmul

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[*b, H, W, C] -> [*b, ceil(H / 2), ceil(W / 2), features]."""
        check_floating(x)
        height, width, channels = x.shape[-3:]
        even = (*[(0, 0)] * (x.ndim - 3), (0, height % 2), (0, width % 2), (0, 0))
        shape = (3, 3, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        y = self.matmul(_patches(jnp.pad(x, even)), kernel.astype(x.dtype).reshape(-1, shape[-1]))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


class Conv(nn.Module):
    """A 3x3 convolution of stride 1, `nn.Conv` with padding "SAME" and that layer's parameters.

    On CPU it is a matrix product, for the reason given in `StridedConv`. Where few channels go to
    many, of 3x3 patches; else of a pixel with those to its left and right, by the three rows of the
    kernel, whose results are then summed from above and below, in half of the time. Elsewhere it is
    XLA's convolution, which writes no patches.

    Attributes:
      features: output channels.
      matmul: of that product; another than `jnp.matmul` is used on every device.
      kernel_init: of the kernel, [3, 3, C, features].

    >>> conv = Conv(features=8)
    >>> params = conv.init(jax.random.key(0), jnp.ones((1, 7, 5, 3)))
    >>> conv.apply(params, jnp.ones((4, 7, 5, 3))).shape
    (4, 7, 5, 8)
    """

    features: int
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[*b, H, W, C] -> [*b, H, W, features]."""
        check_floating(x)
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(x.dtype)
        if self.matmul is jnp.matmul and jax.default_backend() != "cpu":
            images = x.reshape(-1, *x.shape[-3:])
            y = jax.lax.conv_general_dilated(
                images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ).reshape(*x.shape[:-1], self.features)
        elif 2 * x.shape[-1] < self.features:
            patches = _with_neighbours(_with_neighbours(x, x.ndim - 2), x.ndim - 3)
            y = self.matmul(patches, kernel.reshape(-1, self.features))
        else:
            rows = _with_neighbours(x, x.ndim - 2)
            by_row = kernel[::-1].transpose(1, 2, 0, 3).reshape(rows.shape[-1], -1)
            # Flat: of [*b, H, W, 3 C] the product and its gradients take half as long again on CPU.
            parts = self.matmul(rows.reshape(-1, rows.shape[-1]), by_row)
            y = _sum_neighbours(parts.reshape(*x.shape[:-1], 3 * self.features), x.ndim - 3)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


class TransposedConv(nn.Module):
    """A transposed 3x3 convolution of stride 2, as a matrix product to 3x3 patches that are summed.

    It is `nn.ConvTranspose` with padding "SAME" and `transpose_kernel=True`, and its parameters are
    that layer's; faster on CPU for the reason given in `StridedConv`.

    Attributes:
      features: output channels.
      matmul: see `MLP`.
      use_bias: add one number for each of them.

    >>> conv = TransposedConv(features=1)
    >>> params = conv.init(jax.random.key(0), jnp.ones((1, 7, 7, 8)))
    >>> conv.apply(params, jnp.ones((5, 7, 7, 8))).shape
    (5, 14, 14, 1)
    """

    features: int
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[*b, H, W, C] -> [*b, 2 H, 2 W, features]."""
        check_floating(x)
        channels = x.shape[-1]
        init = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        kernel = self.param("kernel", init, (3, 3, self.features, channels)).astype(x.dtype)
        y = _sum_patches(self.matmul(x, kernel.reshape(-1, channels).T))
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


def _patches(x: Array) -> Array:
    """[*b, 2 H, 2 W, C] -> [*b, H, W, 9 C]: rows 2i to 2i + 2 and columns 2j to 2j + 2."""
    axis = x.ndim - 3
    parts = [part for row in _thirds(x, axis) for part in _thirds(row, axis + 1)]
    return jnp.concatenate(parts, axis=-1)


def _with_neighbours(x: Array, axis: int) -> Array:
    """[..., C] -> [..., 3 C]: the one before it on an axis, itself, the one after; zeros beyond."""
    return jnp.concatenate([_moved(x, axis, 1), x, _moved(x, axis, -1)], axis=-1)


def _sum_neighbours(parts: Array, axis: int) -> Array:
    """[..., 3 C] -> [..., C]: the transpose of `_with_neighbours`, in float32 at least."""
    before, here, after = jnp.split(accurate(parts), 3, axis=-1)
    return (_moved(before, axis, -1) + here + _moved(after, axis, 1)).astype(parts.dtype)


def _moved(x: Array, axis: int, by: int) -> Array:
    """One place along an axis, onwards or back; zeros where there was none."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (max(by, 0), max(-by, 0))
    start, stop = padding[axis][::-1]
    kept = jax.lax.slice_in_dim(x, start, x.shape[axis] - stop, axis=axis)
    return jnp.pad(kept, padding)


def _sum_patches(patches: Array) -> Array:
    """[*b, H, W, 9 C] -> [*b, 2 H, 2 W, C]: what lies on the same pixel is summed.

    It is the transpose of `_patches`, and derived from it: on CPU that takes half the time of the
    same sums written out, for whose gradient XLA would dilate arrays.
    """
    *batch, height, width, channels = patches.shape
    image = jax.ShapeDtypeStruct((*batch, 2 * height, 2 * width, channels // 9), patches.dtype)
    summed: Array = jax.linear_transpose(_patches, image)(patches)[0]
    return summed


def _thirds(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Places 2i, 2i + 1 and 2i + 2 of an axis of even length; behind its end are zeros."""
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    even, odd = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    rest = jax.lax.slice_in_dim(even, 1, None, axis=axis)
    padding = [(0, int(i == axis)) for i in range(x.ndim)]
    return even, odd, jnp.pad(rest, padding)
