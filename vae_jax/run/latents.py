"""The posterior and the prior that the options name."""

from typing import Any

import flax.linen as nn

from vae_jax import networks
from vae_jax.run.options import Model

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
