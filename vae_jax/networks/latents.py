"""Posteriors of a network's output beside the diagonal Gaussian, and priors that are learned."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from vae_jax.distributions import (
    Mixture,
    MultivariateNormal,
    Normal,
    PowerSpherical,
    SphericalUniform,
)
from vae_jax.networks.heads import _apply, bounded


class FullCovarianceEncoder(nn.Module):
    """q(z|x), a Gaussian with a full covariance, from a network with Z (Z + 3) / 2 outputs.

    The outputs are the mean, the logarithm of the Cholesky factor's diagonal, bounded smoothly, and
    what stands below the diagonal (Kingma & Welling 2019, section 2.5.1).

    Attributes:
      network: [*b, *event] -> [*b, Z (Z + 3) / 2].
      latent_dim: Z.
    """

    network: nn.Module
    latent_dim: int

    def __call__(self, x: Array, label: Any = None) -> MultivariateNormal:
        size = self.latent_dim
        statistics = _checked(_apply(self.network, x, label), size * (size + 3) // 2, self)
        mean, log_scale, below = jnp.split(statistics, [size, 2 * size], axis=-1)
        places = np.arange(size)
        factor = jnp.zeros((*mean.shape, size), mean.dtype)
        factor = factor.at[..., places, places].set(jnp.exp(bounded(log_scale)))
        return MultivariateNormal(mean, factor.at[..., *np.tril_indices(size, -1)].set(below))


class PowerSphericalEncoder(nn.Module):
    """q(z|x), a `PowerSpherical` over unit vectors, from a network with Z + 1 outputs.

    The outputs are the direction, of any length, and what the concentration is made of,
    1 + Z softplus(c): at a concentration of 0 a direction would have no gradient (Davidson et al.
    2018, appendix, of the von Mises-Fisher), and in units of Z the mean is as long in any number of
    dimensions. Give the decoder sqrt(Z) z, whose coordinates have the variance that layers start
    for.

    Attributes:
      network: [*b, *event] -> [*b, Z + 1].
      latent_dim: Z.
    """

    network: nn.Module
    latent_dim: int

    def __call__(self, x: Array, label: Any = None) -> PowerSpherical:
        statistics = _checked(_apply(self.network, x, label), self.latent_dim + 1, self)
        direction, concentration = statistics[..., :-1], statistics[..., -1]
        tiny = jnp.finfo(direction.dtype).tiny
        length = jnp.sqrt(jnp.square(direction).sum(-1, keepdims=True) + tiny)
        return PowerSpherical(direction / length, 1 + self.latent_dim * nn.softplus(concentration))


class SphericalPrior(nn.Module):
    """p(z), uniform over unit vectors; for `make_vae(..., prior=...)`.

    Attributes:
      latent_dim: Z.
    """

    latent_dim: int

    def __call__(self) -> SphericalUniform:
        return SphericalUniform(self.latent_dim)


class MixturePrior(nn.Module):
    """p(z), a mixture of K diagonal Gaussians, learned; for `make_vae(..., prior=...)`.

    Attributes:
      latent_dim: Z.
      num_components: K.
    """

    latent_dim: int
    num_components: int

    @nn.compact
    def __call__(self) -> Mixture:
        shape = (self.num_components, self.latent_dim)
        zeros = nn.initializers.zeros_init()
        mean = self.param("mean", nn.initializers.normal(1.0), shape)
        log_scale = self.param("log_scale", zeros, shape)
        logits = self.param("logits", zeros, shape[:1])
        return Mixture(logits, Normal(mean, jnp.exp(bounded(log_scale))))


def _checked(statistics: Array, num: int, head: Any) -> Array:
    if statistics.shape[-1] != num:
        raise ValueError(
            f"the network has {statistics.shape[-1]} outputs but a {type(head).__name__} of "
            f"{head.latent_dim} latents takes {num}"
        )
    return statistics
