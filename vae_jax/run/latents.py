"""The posterior and the prior that the options name, and the codes of hierarchies."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax import networks
from vae_jax.run.options import HIERARCHIES, Model

Shapes = tuple[tuple[int, ...], ...]

# Of the flows' networks: what they are told of x, and the widths of their hidden layers.
_CONTEXT, _HIDDEN = 64, (256,)
NUM_COMPONENTS = 500


def num_statistics(options: Model) -> int:
    """What the encoder's network has to give."""
    assert options.latent_dim is not None
    size = options.latent_dim
    if options.posterior == "full":
        return size * (size + 3) // 2
    if options.posterior == "power_spherical":
        return size + 1
    return 2 * size + (0 if options.posterior == "normal" else _CONTEXT)


def encoder(options: Model, network: nn.Module) -> nn.Module:
    """q(z|x) from that network.

    Args:
      options: the networks.
      network: with `num_statistics` outputs.
    """
    assert options.latent_dim is not None
    match options.posterior:
        case "normal":
            return networks.Encoder(network)
        case "full":
            return networks.FullCovarianceEncoder(network, options.latent_dim)
        case "power_spherical":
            return networks.PowerSphericalEncoder(network, options.latent_dim)
    layers = _layers(options, options.posterior)
    return networks.FlowEncoder(network, options.latent_dim, layers)


def prior(options: Model) -> nn.Module | None:
    """p(z) of an unconditional model; None for N(0, I), or a VampPrior, which is no network."""
    assert options.latent_dim is not None
    if options.prior == "mixture":
        num = options.num_components or NUM_COMPONENTS
        return networks.MixturePrior(options.latent_dim, num)
    if options.prior == "flow":
        return networks.FlowPrior(options.latent_dim, _layers(options, "coupling"))
    if options.posterior == "power_spherical":
        return networks.SphericalPrior(options.latent_dim)
    return None


def as_vectors(z: Any) -> jax.Array:
    """Codes [N, Z]; of a hierarchy's (z_1, ..., z_L), each [N, *event], all in one, in turn."""
    if not isinstance(z, tuple):
        return z  # type: ignore[no-any-return]
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in z], axis=1)


def as_layers(z: jax.Array, shapes: Shapes | None) -> Any:
    """Codes [N, Z] as the model takes them: `as_vectors` undone."""
    if shapes is None:
        return z
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = jnp.split(z, ends, axis=1)
    return tuple(
        part.reshape(z.shape[0], *shape) for part, shape in zip(parts, shapes, strict=True)
    )


def layers(options: Model, model: vae_jax.VAE, params: Any) -> Shapes | None:
    """Of a hierarchy, the shape of each layer's part of a code, the top one first; else None."""
    if options.network not in HIERARCHIES:
        return None
    return tuple(part.shape for part in jax.eval_shape(lambda: model.prior(params).mean))


def latent_dim(options: Model, shapes: Shapes | None) -> int:
    """Of a code [N, Z], all layers together."""
    assert options.latent_dim is not None
    return options.latent_dim if shapes is None else sum(map(math.prod, shapes))


def _layers(options: Model, kind: str) -> list[nn.Module]:
    size: Any = options.latent_dim
    hidden = tuple(max(width, size) for width in _HIDDEN)
    layers: list[nn.Module] = []
    for i in range(options.num_transforms):
        flipped = i % 2 == 1
        if kind == "planar":
            layers.append(networks.PlanarLayer(size))
        elif kind == "iaf":
            layers.append(networks.AutoregressiveLayer(size, hidden, reverse=flipped))
        else:
            layers.append(networks.CouplingLayer(size, hidden, odd=flipped))
    return layers
