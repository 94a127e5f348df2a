"""Networks of a deep Markov model: how latents go on, and what they are given the data ahead."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Normal
from vae_jax.networks.heads import bounded
from vae_jax.networks.mlp import MLP


class GatedTransition(nn.Module):
    """p(z_t|z_(t-1)), between a linear step, which starts as none, and a network's.

    The gated transition of Krishnan et al. 2017.

    Attributes:
      hidden: width of the gate's and the network's hidden layer.
    """

    hidden: int = 200

    @nn.compact
    def __call__(self, z: Array) -> Normal:
        """[*b, Z] -> N(mean, diag(scale^2)), [*b, Z]."""
        size = z.shape[-1]
        gate = nn.sigmoid(MLP((size,), (self.hidden,), name="gate")(z))
        proposed = MLP((size,), (self.hidden,), name="proposed")(z)
        straight = nn.Dense(size, kernel_init=_identity, name="linear")(z)
        log_scale = nn.Dense(size, name="log_scale")(nn.relu(proposed))
        return Normal((1 - gate) * straight + gate * proposed, jnp.exp(bounded(log_scale)))


def _identity(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return jnp.eye(shape[0], shape[1], dtype=dtype)


class Smoother(nn.Module):
    """What x_t and all that comes after it say of z_t: a recurrent network from the end to t.

    Attributes:
      features: of each step.
      cell: of that many features, a Linen recurrent cell.
    """

    features: int = 200
    cell: Callable[..., Any] = nn.GRUCell

    @nn.compact
    def __call__(self, x: Array, length: Array) -> Array:
        """x [*b, T, D] and how many of its steps are there, [*b] -> [*b, T, features]."""
        run = nn.RNN(self.cell(self.features), reverse=True, keep_order=True)
        states: Any = run(x, seq_lengths=length)
        return jnp.asarray(states)


class Combiner(nn.Module):
    """q(z_t|z_(t-1), x_t, ..., x_T) of the latent before and what a `Smoother` says.

    Half of tanh(W z + b) and half of the smoother's features (Krishnan et al. 2017).
    """

    @nn.compact
    def __call__(self, z: Array, features: Array) -> Normal:
        """[*b, Z] and [*b, features] -> N(mean, diag(scale^2)), [*b, Z]."""
        both = 0.5 * (jnp.tanh(nn.Dense(features.shape[-1])(z)) + features)
        mean, log_scale = jnp.split(nn.Dense(2 * z.shape[-1])(both), 2, axis=-1)
        return Normal(mean, jnp.exp(bounded(log_scale)))
