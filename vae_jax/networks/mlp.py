"""Dense layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vae_jax.networks.condition import embed
from vae_jax.networks.initializers import Initializer
from vae_jax.networks.precision import as_dot_general, check_floating


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
        x = flattened(self, x, label)
        for width in self.hidden:
            x = self.activation(dense(self, width)(x))
        return shaped(self, x)


class GatedMLP(nn.Module):
    """Dense layers over the flattened event, each gated: (W x + b) * sigmoid(V x + c).

    A gate lets a layer's linear part through or shuts it off, so gradients have a linear way down
    (Dauphin et al. 2017, equation 1). Tomczak & Welling 2018 use such layers of 300 throughout.

    Attributes:
      output_shape: shape of one output.
      hidden: widths of the hidden layers; each has twice the parameters of an `MLP`'s.
      event_ndims: number of trailing axes of the input that are flattened.
      bias_init: of the output layer's bias, in `output_shape`.
      matmul: see `MLP`.
      condition: see `MLP`.

    >>> import jax, jax.numpy as jnp
    >>> network = GatedMLP((3,), hidden=(8,))
    >>> params = network.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> network.apply(params, jnp.ones((4, 5))).shape
    (4, 3)
    """

    output_shape: Sequence[int]
    hidden: Sequence[int] = (300, 300)
    event_ndims: int = 1
    bias_init: Initializer = nn.initializers.zeros_init()
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, x: Array, label: Any = None) -> Array:
        """[*b, *event] -> [*b, *output_shape]."""
        x = flattened(self, x, label)
        for width in self.hidden:
            # Linear parts and gates in one product. A gate lets half through at the start: He et
            # al.'s variance of 2 makes up for it, as it does for a relu.
            x = nn.glu(dense(self, 2 * width, kernel_init=nn.initializers.he_normal())(x))
        return shaped(self, x)


class ResidualMLP(nn.Module):
    """Dense layers over the flattened event with a way around each pair: x + W f(V f(x)).

    The second kernel of every pair starts smaller by 1 / sqrt(pairs), so that the variance of x
    stays of the same order at any depth (Child 2021, section 3.2; pre-activation: He et al. 2016).

    Attributes:
      output_shape: shape of one output.
      hidden: width of each pair. Where it is not that of the pair before, the way around is dense.
      event_ndims: number of trailing axes of the input that are flattened.
      activation: f.
      bias_init: of the output layer's bias, in `output_shape`.
      matmul: see `MLP`.
      condition: see `MLP`.

    >>> import jax, jax.numpy as jnp
    >>> network = ResidualMLP((3,), hidden=(8, 8))
    >>> params = network.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> network.apply(params, jnp.ones((4, 5))).shape
    (4, 3)
    """

    output_shape: Sequence[int]
    hidden: Sequence[int] = (400, 400)
    event_ndims: int = 1
    activation: Callable[[Array], Array] = nn.silu
    bias_init: Initializer = nn.initializers.zeros_init()
    matmul: Callable[[Array, Array], Array] = jnp.matmul
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, x: Array, label: Any = None) -> Array:
        """[*b, *event] -> [*b, *output_shape]."""
        x = flattened(self, x, label)
        for i, width in enumerate(self.hidden):
            if i == 0 or width != x.shape[-1]:
                x = dense(self, width)(x)
            inner = self.activation(dense(self, width)(self.activation(x)))
            x = x + dense(self, width, kernel_init=scaled_down(len(self.hidden)))(inner)
        return shaped(self, self.activation(x))


def scaled_down(depth: int) -> Initializer:
    """Of the last kernel of each of `depth` residual parts: variance 1 / depth of the usual one."""
    return nn.initializers.variance_scaling(1 / depth, "fan_in", "truncated_normal")


def flattened(module: Any, x: Array, label: Any) -> Array:
    """[*b, *event] -> [*b, D], with the label where the module has a condition."""
    check_floating(x)
    batch = x.shape[: x.ndim - module.event_ndims]
    condition = embed(module.condition, label, batch, x.dtype)
    x = x.reshape(*batch, -1)
    if condition is None:
        return x
    return jnp.concatenate([x, condition.reshape(*batch, -1)], axis=-1)


def dense(module: Any, width: int, **options: Any) -> nn.Dense:
    """A layer with the module's matrix product."""
    return nn.Dense(width, dot_general=as_dot_general(module.matmul), **options)


def shaped(module: Any, x: Array) -> Array:
    """[*b, D] -> [*b, *output_shape] by a last dense layer with the output's bias."""
    batch = x.shape[:-1]
    x = dense(module, math.prod(module.output_shape), use_bias=False)(x)
    x = x.reshape(*batch, *module.output_shape)
    return x + output_bias(module, x)


def output_bias(module: Any, x: Array) -> Array:
    """A module's output bias, broadcast to x."""
    bias: Array = module.param("bias", module.bias_init, tuple(module.output_shape))
    return jnp.broadcast_to(bias.astype(x.dtype), x.shape)
