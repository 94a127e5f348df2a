"""Flax Linen networks for vectors and images of any shape, and what makes distributions of them.

A network maps [*b, *event] to [*b, *output_shape]: `MLP`, `ConvEncoder`, `ConvDecoder`. `Encoder`,
`BernoulliDecoder` and `NormalDecoder` wrap one and return a distribution. Nothing else in vae_jax
imports flax.

A network whose `condition` is a `ClassCondition` or a `FloatCondition` takes a label beside its
input, and joins the two: flattened and concatenated before a dense layer, as channels before a
convolution. The label's batch axes are the input's, or the last of them: labels [B] stand for all
draws z [S, B, Z].
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import Bernoulli, Normal

__all__ = [
    "MLP",
    "BernoulliDecoder",
    "ClassCondition",
    "ConvDecoder",
    "ConvEncoder",
    "Encoder",
    "FloatCondition",
    "NormalDecoder",
    "StandardPrior",
    "StridedConv",
    "TransposedConv",
    "constant_bias",
    "logit",
    "matmul_bfloat16",
]

Initializer = Callable[..., Array]

_MAX_LOG_SCALE = 10.0


def logit(mean: ArrayLike, smoothing: float = 1e-3) -> Array:
    """log p - log(1 - p) with p kept inside [smoothing, 1 - smoothing], finite for pixels never on.

    >>> logit(jnp.array([0.0, 0.5])).round(2)
    Array([-6.91,  0.  ], dtype=float32)
    """
    p = jnp.clip(jnp.asarray(mean), smoothing, 1 - smoothing)
    return jnp.log(p) - jnp.log1p(-p)


def constant_bias(value: ArrayLike) -> Initializer:
    """An initializer that gives `value`, in the shape asked for.

    With the logit of the training mean as a decoder's output bias, training starts from the best
    model that ignores z (Burda et al. 2016, section 5).
    """

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)

    return init


@jax.custom_vjp
def matmul_bfloat16(x: Array, kernel: Array) -> Array:
    """x @ kernel with factors rounded to bfloat16 and sums in float32, in all three products.

    The gradient is written out because autodiff would multiply a float32 cotangent by a bfloat16
    factor, which runs at the speed of float32.

    Args:
      x: [*b, I].
      kernel: [I, O].

    Returns:
      float32 [*b, O].

    >>> matmul_bfloat16(jnp.ones((2, 3)), jnp.full((3, 1), 0.1)).dtype
    dtype('float32')
    """
    return _matmul_bfloat16_fwd(x, kernel)[0]


def _matmul_bfloat16_fwd(x: Array, kernel: Array) -> tuple[Array, Any]:
    low_x, low_kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _product(low_x, low_kernel, ((x.ndim - 1,), (0,))), (low_x, low_kernel)


def _matmul_bfloat16_bwd(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = factors
    cotangent = cotangent.astype(jnp.bfloat16)
    # Rows are flattened: XLA has no CPU kernel for a product over several axes in these dtypes.
    x_rows = x.reshape(-1, x.shape[-1])
    cotangent_rows = cotangent.reshape(-1, cotangent.shape[-1])
    return (
        _product(cotangent, kernel, ((x.ndim - 1,), (1,))),
        _product(x_rows, cotangent_rows, ((0,), (0,))),
    )


matmul_bfloat16.defvjp(_matmul_bfloat16_fwd, _matmul_bfloat16_bwd)


def _product(a: Array, b: Array, contracted: tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    product: Array = jax.lax.dot_general(
        a, b, (contracted, ((), ())), preferred_element_type=jnp.float32
    )
    return product


def _as_dot_general(matmul: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """For `nn.Dense`, which only ever contracts the last axis of x with the first of the kernel."""

    def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        return matmul(x, kernel)

    return dot_general


class ClassCondition(nn.Module):
    """A class, int [*b] from 0 to num_classes - 1, as a learned vector [*b, size].

    A class out of range is an error where it is known. Under `jax.jit` it is not, and becomes NaN:
    a plain gather would take the nearest class, or the last one for -1, and go on.

    Attributes:
      num_classes: how many there are.
      size: of the vector.

    >>> condition = ClassCondition(num_classes=10, size=3)
    >>> params = condition.init(jax.random.key(0), jnp.array([7]))
    >>> condition.apply(params, jnp.array([0, 9])).shape
    (2, 3)
    """

    num_classes: int
    size: int = 16

    event_ndims = 0

    @nn.compact
    def __call__(self, label: ArrayLike) -> Array:
        with jax.ensure_compile_time_eval():  # a constant stays one, to be looked at, under jit too
            label = jnp.asarray(label)
        if not jnp.issubdtype(label.dtype, jnp.integer):
            raise TypeError(
                f"label has dtype {label.dtype}: pass classes, integers from 0 to "
                f"{self.num_classes - 1}"
            )
        if not isinstance(label, jax.core.Tracer):
            # With NumPy: within a trace, jnp's comparisons of a constant are traced too.
            known = np.asarray(label)
            wrong = known[(known < 0) | (known >= self.num_classes)]
            if wrong.size:
                raise ValueError(
                    f"label has the value {wrong[0]}: pass classes from 0 to {self.num_classes - 1}"
                )
        table = self.param("embedding", nn.initializers.normal(1.0), (self.num_classes, self.size))
        vector: Array = table.at[label].get(
            mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
        )
        return vector


class FloatCondition(nn.Module):
    """A condition that goes into the network as it is: a vector, an image, a mask.

    Attributes:
      shape: of one condition: (C,), or (H, W, C) for the size of the images. Its values are
        floating-point or bool.
    """

    shape: Sequence[int]

    @property
    def event_ndims(self) -> int:
        return len(self.shape)

    @nn.compact
    def __call__(self, label: ArrayLike) -> Array:
        label = jnp.asarray(label)
        if not (jnp.issubdtype(label.dtype, jnp.floating) or label.dtype == jnp.bool_):
            raise TypeError(f"label has dtype {label.dtype}: pass floating-point values or bool")
        if label.shape[max(label.ndim - self.event_ndims, 0) :] != tuple(self.shape):
            raise ValueError(
                f"label has shape {label.shape} but one condition has {tuple(self.shape)}: "
                "give it those last axes"
            )
        return label


def _embed(condition: Any, label: Any, batch: tuple[int, ...], dtype: Any) -> Array | None:
    """The label as [*batch, *event] for a network's input; None where there is no condition."""
    if condition is None:
        if label is not None:
            raise TypeError(
                "a label was given but the network is unconditional: leave it out, or build the "
                "network with a condition, such as networks.ClassCondition"
            )
        return None
    if label is None:
        raise TypeError("label is None but the network is conditional: pass a label")
    embedded = condition(label)
    label_batch = jnp.shape(label)[: jnp.ndim(label) - condition.event_ndims]
    if batch[max(len(batch) - len(label_batch), 0) :] != label_batch:
        raise ValueError(
            f"label has batch shape {label_batch} but the input has {batch}: give one label for "
            "each example"
        )
    event = embedded.shape[len(label_batch) :]
    return jnp.broadcast_to(embedded.astype(dtype), (*batch, *event))


class MLP(nn.Module):
    """Dense layers over the flattened event.

    Attributes:
      output_shape: shape of one output.
      hidden: widths of the hidden layers.
      event_ndims: number of trailing axes of the input that are flattened.
      activation: between layers.
      bias_init: of the output layer's bias, in `output_shape`.
      matmul: of [*b, I] and [I, O]; `matmul_bfloat16` is the faster, and the less exact.
      condition: what the label is, None for no label; concatenated to the flattened event.
    """

    output_shape: Sequence[int]
    hidden: Sequence[int] = (500, 500)
    event_ndims: int = 1
    activation: Callable[[Array], Array] = nn.relu
    bias_init: Initializer = nn.initializers.zeros_init()
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, x: Array, label: Any = None) -> Array:
        """[*b, *event] -> [*b, *output_shape]."""
        batch = x.shape[: x.ndim - self.event_ndims]
        condition = _embed(self.condition, label, batch, x.dtype)
        x = x.reshape(*batch, -1)
        if condition is not None:
            x = jnp.concatenate([x, condition.reshape(*batch, -1)], axis=-1)
        dense = partial(nn.Dense, dot_general=_as_dot_general(self.matmul))
        for width in self.hidden:
            x = self.activation(dense(width)(x))
        x = dense(math.prod(self.output_shape), use_bias=False)(x)
        x = x.reshape(*batch, *self.output_shape)
        return x + _bias(self, x)


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
        condition = _embed(self.condition, label, x.shape[:-3], x.dtype)
        if condition is not None:
            x = jnp.concatenate([x, _as_channels(condition, x.shape)], axis=-1)
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
        return x + _bias(self, x)


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
        height, width, channels = x.shape[-3:]
        even = (*[(0, 0)] * (x.ndim - 3), (0, height % 2), (0, width % 2), (0, 0))
        shape = (3, 3, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        y = self.matmul(_patches(jnp.pad(x, even)), kernel.astype(x.dtype).reshape(-1, shape[-1]))
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
        channels = x.shape[-1]
        init = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        kernel = self.param("kernel", init, (3, 3, self.features, channels)).astype(x.dtype)
        y = _sum_patches(self.matmul(x, kernel.reshape(-1, channels).T))
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


# _patches and _sum_patches are each other's transpose. Their gradients are said to be so because
# autodiff's own, sums of nine dilated arrays, take several times as long on CPU.


@jax.custom_vjp
def _patches(x: Array) -> Array:
    """[*b, 2 H, 2 W, C] -> [*b, H, W, 9 C]: rows 2i to 2i + 2 and columns 2j to 2j + 2."""
    height, width, _ = x.shape[-3:]
    x = jnp.pad(x, (*[(0, 0)] * (x.ndim - 3), (0, 1), (0, 1), (0, 0)))
    rows, columns = ([slice(i, i + n - 1, 2) for i in range(3)] for n in (height, width))
    return jnp.concatenate([x[..., r, c, :] for r in rows for c in columns], axis=-1)


@jax.custom_vjp
def _sum_patches(patches: Array) -> Array:
    """[*b, H, W, 9 C] -> [*b, 2 H, 2 W, C]: what lies on the same pixel is summed."""
    x = patches.reshape(*patches.shape[:-1], 3, 3, -1)
    x = _overlap(x[..., 0, :, :], x[..., 1, :, :], x[..., 2, :, :], axis=x.ndim - 5)
    return _overlap(x[..., 0, :], x[..., 1, :], x[..., 2, :], axis=x.ndim - 3)


def _overlap(first: Array, second: Array, third: Array, axis: int) -> Array:
    """Windows of three at every second place of an axis, summed; the last place is cut off."""
    first += jnp.roll(third, 1, axis).at[(slice(None),) * axis + (0,)].set(0)
    interleaved = jnp.stack([first, second], axis + 1)
    return interleaved.reshape(*first.shape[:axis], -1, *first.shape[axis + 1 :])


_patches.defvjp(lambda x: (_patches(x), None), lambda _, cotangent: (_sum_patches(cotangent),))
_sum_patches.defvjp(lambda p: (_sum_patches(p), None), lambda _, cotangent: (_patches(cotangent),))


def _as_channels(condition: Array, shape: tuple[int, ...]) -> Array:
    """A vector [*b, C] or an image [*b, H, W, C] beside an image of shape [*b, H, W, _]."""
    *batch, height, width, _ = shape
    if condition.ndim == len(batch) + 1:
        condition = condition[..., None, None, :]
        condition = jnp.broadcast_to(condition, (*batch, height, width, condition.shape[-1]))
    if condition.shape[:-1] != shape[:-1]:
        raise ValueError(
            f"one condition has shape {condition.shape[len(batch) :]} but the image is "
            f"{height} x {width}: make the condition of that size, or a vector"
        )
    return condition


def _bias(module: MLP | ConvDecoder, x: Array) -> Array:
    bias: Array = module.param("bias", module.bias_init, tuple(module.output_shape))
    return jnp.broadcast_to(bias.astype(x.dtype), x.shape)


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
        return Normal(mean, jnp.exp(_bounded(log_scale)))


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
        scale = self.initial_scale * jnp.exp(_bounded(self.rate * log_scale))
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


def _bounded(log_scale: Array) -> Array:
    return _MAX_LOG_SCALE * jnp.tanh(log_scale / _MAX_LOG_SCALE)
