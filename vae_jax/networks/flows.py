"""Flows of a network's output as posteriors, and of parameters alone as priors."""

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Coupling, Flow, InverseAutoregressive, Normal, Planar
from vae_jax.networks.heads import _apply, bounded


class FlowEncoder(nn.Module):
    """q(z|x) as a `Flow` from a diagonal Gaussian, both of what a network says of x.

    Take z with `vae_jax.draw`, which gives its density too (Rezende & Mohamed 2015; Kingma et al.
    2016, algorithm 1).

    Attributes:
      network: [*b, *event] -> [*b, 2 Z + C], mean and log-scale, and C numbers, 1 or more, that
        each layer is given.
      latent_dim: Z.
      layers: of the flow, the first the nearest to the Gaussian, such as `PlanarLayer`.
    """

    network: nn.Module
    latent_dim: int
    layers: Sequence[nn.Module]

    def __call__(self, x: Array, label: Any = None) -> Flow:
        statistics = _apply(self.network, x, label)
        if statistics.shape[-1] <= 2 * self.latent_dim:
            raise ValueError(
                f"the network has {statistics.shape[-1]} outputs: a flow of {self.latent_dim} "
                f"latents takes more than {2 * self.latent_dim}, a context beside mean and scale"
            )
        splits = [self.latent_dim, 2 * self.latent_dim]
        mean, log_scale, context = jnp.split(statistics, splits, axis=-1)
        base = Normal(mean, jnp.exp(bounded(log_scale)))
        return Flow(base, tuple(layer(context) for layer in self.layers))


class FlowPrior(nn.Module):
    """p(z) as a `Flow` from N(0, I), learned; for `make_vae(..., prior=...)`.

    Attributes:
      latent_dim: Z.
      layers: of the flow; a prior scores draws of the posterior, so layers whose inverse is cheap,
        `CouplingLayer`.
    """

    latent_dim: int
    layers: Sequence[nn.Module]

    def __call__(self) -> Flow:
        base = Normal(jnp.zeros(self.latent_dim), jnp.ones(self.latent_dim))
        return Flow(base, tuple(layer() for layer in self.layers))


class PlanarLayer(nn.Module):
    """A `Planar` map for each context; at the start it changes nothing.

    Attributes:
      latent_dim: Z.
    """

    latent_dim: int

    @nn.compact
    def __call__(self, context: Array | None = None) -> Planar:
        zeros = nn.initializers.zeros_init()
        if context is None:
            weight = self.param("weight", nn.initializers.normal(1.0), (self.latent_dim,))
            direction = self.param("direction", zeros, (self.latent_dim,))
            return Planar(weight, direction, self.param("bias", zeros, ()))
        return Planar(
            nn.Dense(self.latent_dim, name="weight")(context),
            nn.Dense(self.latent_dim, name="direction", kernel_init=zeros)(context),
            nn.Dense(1, name="bias")(context)[..., 0],
        )


class AutoregressiveLayer(nn.Module):
    """An `InverseAutoregressive` map; at the start its gates are open and its shifts are 0.

    Attributes:
      latent_dim: Z.
      hidden: widths of the hidden layers, Z or more.
      reverse: the order of the latents; let neighbours differ.
    """

    latent_dim: int
    hidden: Sequence[int] = (256,)
    reverse: bool = False

    @nn.compact
    def __call__(self, context: Array | None = None) -> InverseAutoregressive:
        if min(self.hidden) < self.latent_dim:
            raise ValueError(
                f"hidden is {tuple(self.hidden)} but there are {self.latent_dim} latents, each of "
                "which wants a hidden unit of its own: make it as wide"
            )
        open_gates = jnp.repeat(jnp.array([0.0, 2.0]), self.latent_dim)
        layers = _layers(self, self.latent_dim, self.hidden, open_gates)
        return InverseAutoregressive(layers, _first(self.hidden, context), self.reverse)


class CouplingLayer(nn.Module):
    """A `Coupling` map; at the start it changes nothing.

    Attributes:
      latent_dim: Z, 2 or more.
      hidden: widths of the hidden layers.
      odd: which latents are kept; let neighbours differ.
    """

    latent_dim: int
    hidden: Sequence[int] = (256,)
    odd: bool = False

    @nn.compact
    def __call__(self, context: Array | None = None) -> Coupling:
        if self.latent_dim < 2:
            raise ValueError(f"latent_dim is {self.latent_dim}: a coupling keeps one and moves one")
        layers = _layers(self, self.latent_dim, self.hidden, jnp.zeros(2 * self.latent_dim))
        return Coupling(layers, _first(self.hidden, context), self.odd)


def _layers(
    module: nn.Module, latent_dim: int, hidden: Sequence[int], last_bias: Array
) -> tuple[tuple[Array, Array], ...]:
    """Kernels and biases of dense layers; the last kernel starts at 0."""
    sizes = [latent_dim, *hidden, 2 * latent_dim]
    layers = []
    for i, shape in enumerate(itertools.pairwise(sizes)):
        last = i == len(hidden)
        kernel_init = nn.initializers.zeros_init() if last else nn.initializers.lecun_normal()
        start = last_bias if last else jnp.zeros(shape[1])
        kernel = module.param(f"kernel_{i}", kernel_init, shape)
        layers.append((kernel, module.param(f"bias_{i}", lambda _, start=start: start)))
    return tuple(layers)


def _first(hidden: Sequence[int], context: Array | None) -> Array | None:
    """What the context adds to the first layer."""
    return None if context is None else nn.Dense(hidden[0], use_bias=False)(context)
