"""Dense layers."""

import math
from collections.abc import Callable, Sequence
from functools import partial
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
        check_floating(x)
        batch = x.shape[: x.ndim - self.event_ndims]
        condition = embed(self.condition, label, batch, x.dtype)
        x = x.reshape(*batch, -1)
        if condition is not None:
            x = jnp.concatenate([x, condition.reshape(*batch, -1)], axis=-1)
        dense = partial(nn.Dense, dot_general=as_dot_general(self.matmul))
        for width in self.hidden:
            x = self.activation(dense(width)(x))
        x = dense(math.prod(self.output_shape), use_bias=False)(x)
        x = x.reshape(*batch, *self.output_shape)
        return x + output_bias(self, x)


def output_bias(module: Any, x: Array) -> Array:
    """A module's output bias, broadcast to x."""
    bias: Array = module.param("bias", module.bias_init, tuple(module.output_shape))
    return jnp.broadcast_to(bias.astype(x.dtype), x.shape)
