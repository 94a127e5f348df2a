"""The VAE of a table: what a row is to its networks, and its likelihood by the columns' kinds."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

import vae_jax
from vae_jax import networks
from vae_jax.run.data.columns import Column
from vae_jax.run.data.tables import learned
from vae_jax.run.model import conditional_prior

_NUMBERS = ("number", "positive", "date")
_CLASSES = ("ordered", "category", "discrete")


class RowInput(nn.Module):
    """A network of rows [*b, D], NaN where a value is missing.

    It is given numbers with zeros for what is missing, the logarithm of counts, a one for each
    class, zeros where that is missing, and beside these which values were there.

    Attributes:
      network: of what it is given.
      kinds: of the columns, "number" for all that are.
      num_classes: of each, 0 where it has none.
    """

    network: nn.Module
    kinds: tuple[str, ...]
    num_classes: tuple[int, ...]

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        observed = ~jnp.isnan(x)
        filled = jnp.where(observed, x, jnp.zeros_like(x))
        parts = [observed.astype(x.dtype)]
        for i, (kind, num) in enumerate(zip(self.kinds, self.num_classes, strict=True)):
            value, there = filled[..., i], observed[..., i]
            if kind in _CLASSES:
                index = jnp.where(there, value, jnp.full_like(value, -1)).astype(jnp.int32)
                parts.append(jax.nn.one_hot(index, num, dtype=x.dtype))
            else:
                parts.append((jnp.log1p(value) if kind == "count" else value)[..., None])
        joined = jnp.concatenate(parts, axis=-1)
        output: Array = self.network(joined, *(() if label is None else (label,)))
        return output


def make_model(
    columns: Sequence[Column],
    latent_dim: int,
    hidden: tuple[int, ...],
    told: tuple[int, ...] = (),
) -> vae_jax.VAE:
    """The VAE of a table's rows, whose likelihood is `Columns`.

    Numbers have Student's t distribution once transformed, each with a scale of its own; counts a
    negative binomial; an order is a logistic variable's; classes and numbers of few values are
    categorical.

    Args:
      columns: of the table.
      latent_dim: Z.
      hidden: widths of the encoder's layers; the decoder has them in reverse.
      told: numbers of classes of the columns that it is conditional on, as
        `networks.ColumnsCondition` has them.
    """
    of = learned(columns)
    kinds = tuple("number" if column.kind in _NUMBERS else column.kind for column in of)
    num_classes = tuple(c.num_classes if c.kind in _CLASSES else 0 for c in of)
    parts: list[nn.Module] = []
    if num := kinds.count("number"):
        parts.append(networks.StudentTDecoder(nn.Dense(2 * num), per_entry=True))
    if num := kinds.count("count"):
        means = tuple(column.centre for column in of if column.kind == "count")
        parts.append(networks.NegativeBinomialDecoder(nn.Dense(num), means))
    if num := kinds.count("boolean"):
        parts.append(networks.BernoulliDecoder(nn.Dense(num)))
    for kind, num in zip(kinds, num_classes, strict=True):
        if kind in _CLASSES:
            head = networks.OrderedLogisticDecoder if kind == "ordered" else networks.ClassDecoder
            parts.append(head(num))
    condition = networks.ColumnsCondition(told) if told else None
    mlp = networks.MLP((2 * latent_dim,), hidden, condition=condition)
    encoder = networks.Encoder(RowInput(mlp, kinds, num_classes))
    backwards = tuple(reversed(hidden[1:]))
    features = networks.MLP((hidden[0],), backwards, condition=condition)
    decoder = networks.ColumnsDecoder(features, tuple(parts))
    prior = None if condition is None else conditional_prior(condition.clone(), latent_dim)
    return vae_jax.make_vae(encoder, decoder, latent_dim, prior)
