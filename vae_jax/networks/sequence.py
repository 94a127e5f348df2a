"""Networks of sequences: how latents go on, what they are given the data, a code for all steps."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Normal
from vae_jax.networks.condition import embed
from vae_jax.networks.heads import _apply, bounded
from vae_jax.networks.mlp import MLP


class GatedTransition(nn.Module):
    """p(z_t|z_(t-1)), between a linear step, which starts as none, and a network's.

    The gated transition of Krishnan et al. 2017, in which nothing that a draw grows by can grow
    with it: hidden layers and the log-scale are of tanh, and the linear step stays within
    (-1,000, 1,000). With ReLU, as there, the scale of a step is exponential in the step before: a
    chain that rolls on from a draw far out is at 1e5 within 30 steps.

    Attributes:
      hidden: width of the gate's and the network's hidden layer.
      condition: what the label is, None for no label; given to both beside z.
    """

    hidden: int = 200
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Normal:
        """[*b, Z] -> N(mean, diag(scale^2)), [*b, Z]; the scale starts at 1."""
        size, told = z.shape[-1], _told(self.condition, label, z)
        gate = nn.sigmoid(MLP((size,), (self.hidden,), activation=nn.tanh, name="gate")(told))
        proposed = MLP((size,), (self.hidden,), activation=nn.tanh, name="proposed")(told)
        straight = nn.Dense(size, kernel_init=_identity, name="linear")(z)
        straight = jnp.clip(straight, -_FAR, _FAR)
        log_scale = nn.Dense(size, kernel_init=nn.initializers.zeros_init(), name="log_scale")
        scale = jnp.exp(bounded(log_scale(nn.tanh(proposed))))
        return Normal((1 - gate) * straight + gate * proposed, scale)


_FAR = 1e3


def _told(condition: Any, label: Any, x: Array) -> Array:
    """x [*b, D], with the label beside it where there is a condition."""
    embedded = embed(condition, label, x.shape[:-1], x.dtype)
    return x if embedded is None else jnp.concatenate([x, embedded], axis=-1)


def _identity(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return jnp.eye(shape[0], shape[1], dtype=dtype)


class Smoother(nn.Module):
    """What x_t and all that comes after it say of z_t: a recurrent network from the end to t.

    Attributes:
      features: of each step.
      cell: of that many features, a Linen recurrent cell.
      condition: what the label of each step is, None for no label; given beside the step.
    """

    features: int = 200
    cell: Callable[..., Any] = nn.GRUCell
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, x: Array, length: Array, label: Any = None) -> Array:
        """x [*b, T, D] and how many of its steps are there, [*b] -> [*b, T, features]."""
        run = nn.RNN(self.cell(self.features), reverse=True, keep_order=True)
        states: Any = run(_told(self.condition, label, x), seq_lengths=length)
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


class Summary(nn.Module):
    """A network of what two recurrent ones keep of a sequence, read to its end and from it.

    Attributes:
      network: [*b, 2 features] -> output; of a label too, where there is one.
      features: of either.
      cell: of that many features, a Linen recurrent cell with one state, as a GRU has.

    >>> from vae_jax import networks
    >>> encoder = networks.Encoder(networks.Summary(networks.MLP((4,), hidden=(8,)), features=8))
    >>> x = jnp.ones((2, 5, 3)).at[1, 2:].set(jnp.nan)  # of 5 steps, and of 2
    >>> encoder.apply(encoder.init(jax.random.key(0), x), x).mean.shape
    (2, 2)
    """

    network: nn.Module
    features: int = 128
    cell: Callable[..., Any] = nn.GRUCell

    @nn.compact
    def __call__(self, x: Array, label: Any = None) -> Array:
        """x [*b, T, D] with NaN for what is missing, and from the end of a sequence."""
        filled, within = filled_steps(x)
        length = within.sum(axis=-1)
        kept = [
            nn.RNN(self.cell(self.features), return_carry=True, reverse=reverse)(
                filled, seq_lengths=length
            )[0]
            for reverse in (False, True)
        ]
        output: Array = _apply(self.network, jnp.concatenate(kept, axis=-1), label)
        return output


class Unrolled(nn.Module):
    """What a recurrent network makes of one code, step by step: `network` of each step's features.

    Attributes:
      network: [*b, T, features] -> output.
      length: T.
      features: of the recurrent network.
      cell: of that many features, a Linen recurrent cell.
      condition: what the label is, None for no label; given at every step beside the code.

    >>> from vae_jax import networks
    >>> of_steps = networks.Unrolled(networks.MLP((3,), hidden=()), length=5, features=8)
    >>> decoder = networks.BernoulliDecoder(of_steps, event_ndims=2)
    >>> z = jnp.ones((2, 4))
    >>> decoder.apply(decoder.init(jax.random.key(0), z), z).mean.shape
    (2, 5, 3)
    """

    network: nn.Module
    length: int
    features: int = 128
    cell: Callable[..., Any] = nn.GRUCell
    condition: nn.Module | None = None

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Array:
        z = _told(self.condition, label, z)
        steps = jnp.broadcast_to(z[..., None, :], (*z.shape[:-1], self.length, z.shape[-1]))
        states: Any = nn.RNN(self.cell(self.features))(steps)
        output: Array = self.network(jnp.asarray(states))
        return output


def filled_steps(x: Array) -> tuple[Array, Array]:
    """Values and whether each is there, [*b, T, 2 D]; the steps before the end, [*b, T]."""
    there = ~jnp.isnan(x)
    filled = jnp.where(there, x, jnp.zeros_like(x))
    steps = there.any(axis=-1)
    within = jax.lax.cummax(steps.astype(jnp.int32), axis=steps.ndim - 1, reverse=True)
    return jnp.concatenate([filled, there.astype(x.dtype)], axis=-1), within
