"""A row of a table as numbers that a page shows: values, and probabilities of classes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.run.data import tables
from vae_jax.run.data.columns import Column


def columns_of(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Those that are learned, in the table's order, and where each is in what `shown` gives."""
    found, start = {}, 0
    for column in tables.learned(columns):
        of: dict[str, Any] = {"name": column.name, "kind": column.kind, "start": start}
        if column.num_classes:
            of["levels"] = [*map(str, column.levels), *["others"] * bool(column.rest)]
        else:
            for name in "centre", "spread", "low", "high", "decimals", "thousands":
                of[name] = getattr(column, name)
            of["day"] = column.date_format.startswith("%")
        start += column.num_classes if column.kind in _BY_PROBABILITIES else 1
        found[column.name] = of
    return [found[column.name] for column in columns if column.name in found]


def texts(rows: np.ndarray, columns: Sequence[Column]) -> dict[str, list[str]]:
    """Rows [N, D] as they are in the file, "" of what is missing, by the columns' names."""
    found = {}
    for column, values in zip(tables.learned(columns), rows.T, strict=True):
        missing = np.isnan(values)
        if column.num_classes:
            names = [*map(str, column.levels), "others"]
            each = [names[int(v)] for v in np.where(missing, 0, values)]
        else:  # beyond what training rows have too
            whole = dataclasses.replace(column, low=-np.inf, high=np.inf)
            each = [str(v) for v in whole.decode(values, np.random.default_rng(0))]
        found[column.name] = ["" if m else text for m, text in zip(missing, each, strict=True)]
    return found


_BY_PROBABILITIES = ("ordered", "category", "discrete")


def shown(likelihood: vae_jax.Columns) -> jax.Array:
    """Of each column in turn its median or mean, or the probability of each of its classes."""
    parts = []
    for part in likelihood.parts:
        match part:
            case vae_jax.Bernoulli():
                parts.append(jax.nn.sigmoid(part.logits))
            case vae_jax.Categorical():
                parts.append(jax.nn.softmax(part.logits)[..., 0, :])
            case vae_jax.OrderedLogistic():
                below = jax.nn.sigmoid(part.cutpoints.reshape(1, -1) - part.location)
                ends = jnp.zeros_like(below[..., :1]), jnp.ones_like(below[..., :1])
                below = jnp.concatenate([ends[0], below, ends[1]], axis=-1)
                parts.append(below[..., 1:] - below[..., :-1])
            case _:
                parts.append(part.mean)
    return jnp.concatenate(parts, axis=-1)
