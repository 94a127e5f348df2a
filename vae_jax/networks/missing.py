"""Networks of what was observed in part, NaN where it was not, and of rows of a table."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Columns, Masked
from vae_jax.networks.heads import _apply


class ZeroFilled(nn.Module):
    """A network of x with NaN: given x with zeros for them, and beside it which were there.

    Of zeros alone a network cannot tell a value that is missing from one that is zero. Zero is to
    be a common value: standardise x.

    Attributes:
      network: [*b, *event, 2 D] -> output, of x [*b, *event, D].

    >>> import jax
    >>> from vae_jax import networks
    >>> encoder = networks.Encoder(networks.ZeroFilled(networks.MLP((2,), hidden=(4,))))
    >>> x = jnp.array([[1.0, jnp.nan, 0.5]])
    >>> encoder.apply(encoder.init(jax.random.key(0), x), x).mean.shape
    (1, 1)
    """

    network: nn.Module

    def __call__(self, x: Array, label: Any = None) -> Array:
        observed = ~jnp.isnan(x)
        filled = jnp.where(observed, x, jnp.zeros_like(x))
        both = jnp.concatenate([filled, observed.astype(x.dtype)], axis=-1)
        return _apply(self.network, both, label)


class MaskedDecoder(nn.Module):
    """Another decoder's p(x|z), of what was observed: `Masked`, where x is not NaN.

    Attributes:
      decoder: such as `NormalDecoder`.
    """

    decoder: nn.Module

    def __call__(self, z: Array, label: Any = None) -> Masked:
        return Masked(_apply(self.decoder, z, label))


class ColumnsDecoder(nn.Module):
    """p(x|z) of a row whose columns differ in kind, NaN where it was not observed: `Columns`.

    Attributes:
      network: [*b, Z] -> features [*b, F].
      parts: decoders of the features, each of some neighbouring columns, such as
        `NormalDecoder(nn.Dense(2 * D), per_entry=True)` and `ClassDecoder(5)`.

    >>> import jax
    >>> from vae_jax import networks
    >>> parts = networks.BernoulliDecoder(nn.Dense(2)), networks.ClassDecoder(5)
    >>> decoder = networks.ColumnsDecoder(networks.MLP((8,), hidden=()), parts)
    >>> z = jnp.zeros((3, 2))
    >>> decoder.apply(decoder.init(jax.random.key(0), z), z).shape
    (3, 3)
    """

    network: nn.Module
    parts: tuple[nn.Module, ...]

    def __call__(self, z: Array, label: Any = None) -> Columns:
        features = nn.relu(_apply(self.network, z, label))
        return Columns(tuple(part(features) for part in self.parts))
