"""Networks of counts, of which as many are expected as were seen: their total is observed."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Poisson, ZeroInflated
from vae_jax.networks.heads import _apply, bounded


class CellLabel(NamedTuple):
    """What is known of a cell beside its counts.

    Attributes:
      library: [B], its total of counts, positive floats.
      condition: what it is conditional on, a batch of the laboratory's say, as the networks'
        condition has it: int [B] of a `ClassCondition`, [B, C] of a `ColumnsCondition`; or None.
    """

    library: Any
    condition: Any = None


class CountsInput(nn.Module):
    """A network of counts [*b, D] under a `CellLabel`: given log(1 + x) and the log library size.

    Attributes:
      network: [*b, D + 1] -> output; of a condition too, where the label has one.
      typical: a library size, of which the network is given the logarithm's difference.

    >>> import jax
    >>> from vae_jax import networks
    >>> encoder = networks.Encoder(networks.CountsInput(networks.MLP((2,), hidden=(4,))))
    >>> x, label = jnp.array([[3.0, 0.0, 1.0]]), networks.CellLabel(jnp.array([4.0]))
    >>> encoder.apply(encoder.init(jax.random.key(0), x, label), x, label).mean.shape
    (1, 1)
    """

    network: nn.Module
    typical: float = 1.0

    def __call__(self, x: Array, label: CellLabel) -> Array:
        library = jnp.log(jnp.asarray(label.library, x.dtype) / self.typical)
        library = jnp.broadcast_to(library, x.shape[:-1])[..., None]
        joined = jnp.concatenate([jnp.log1p(x), library], axis=-1)
        return _apply(self.network, joined, label.condition)


class LibraryDecoder(nn.Module):
    """p(x|z) of counts whose means are shares of a `CellLabel`'s library size (Lopez et al. 2018).

    The shares are a softmax: what `counts` has for means, over their sum.

    Attributes:
      network: [*b, Z] -> features [*b, F]; of a condition too, where the label has one.
      counts: decoder of the features, such as `NegativeBinomialDecoder(nn.Dense(D))`.

    >>> import jax
    >>> from vae_jax import networks
    >>> counts = networks.PoissonDecoder(nn.Dense(3))
    >>> decoder = networks.LibraryDecoder(networks.MLP((8,), hidden=()), counts)
    >>> z, label = jnp.zeros((1, 2)), networks.CellLabel(jnp.array([600.0]))
    >>> decoder.apply(decoder.init(jax.random.key(0), z, label), z, label).mean.round(1)
    Array([[200., 200., 200.]], dtype=float32)
    """

    network: nn.Module
    counts: nn.Module

    def __call__(self, z: Array, label: CellLabel) -> Any:
        features = nn.relu(_apply(self.network, z, label.condition))
        return _of_total(self.counts(features), jnp.asarray(label.library, z.dtype))


def _of_total(counts: Any, total: Array) -> Any:
    """The same shares, of another total [*b] of the means."""
    if isinstance(counts, ZeroInflated):
        return dataclasses.replace(counts, counts=_of_total(counts.counts, total))
    mean = counts.mean
    whole = mean.sum(axis=-1)
    scale = jnp.broadcast_to(total, whole.shape) / whole
    mean = mean * jnp.broadcast_to(scale[..., None], mean.shape)
    name = "rate" if isinstance(counts, Poisson) else "mean"
    return dataclasses.replace(counts, **{name: mean})


class PoissonDecoder(nn.Module):
    """p(x|z) = Poisson(rate(z)), for counts.

    Attributes:
      network: [*b, Z] -> log of the rate over `initial_mean`, [*b, D].
      initial_mean: where the rates start, a number, or one for each entry.
    """

    network: nn.Module
    initial_mean: float | tuple[float, ...] = 1.0

    def __call__(self, z: Array, label: Any = None) -> Poisson:
        log_rate = _apply(self.network, z, label)
        initial = jnp.broadcast_to(jnp.asarray(self.initial_mean, log_rate.dtype), log_rate.shape)
        return Poisson(initial * jnp.exp(bounded(log_rate)))


class ZeroInflatedDecoder(nn.Module):
    """p(x|z) = ZeroInflated(counts(z), logits(z)): zeros that the counts do not explain.

    Attributes:
      counts: decoder of the counts, such as `NegativeBinomialDecoder`.
      network: [*b, Z] -> logits of a zero for a reason of its own, [*b, D].
    """

    counts: nn.Module
    network: nn.Module

    def __call__(self, z: Array, label: Any = None) -> ZeroInflated:
        counts: Any = _apply(self.counts, z, label)
        return ZeroInflated(counts, bounded(_apply(self.network, z, label)))
