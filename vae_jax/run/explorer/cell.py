"""A cell as numbers that a page shows: the genes whose means differ the most among cells."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.networks import CellLabel

LOOKED_AT = 500
"""Cells, at most, by which the genes are chosen."""
_NUM_GENES = 30


def means(model: vae_jax.VAE, params: Any, library: float) -> Callable[..., jax.Array]:
    """(z [N, Z], category [N] where there are such) -> mean counts of cells of a total, [N, G]."""

    def of_codes(z: jax.Array, *category: jax.Array) -> jax.Array:
        columns = (of[:, None].astype(jnp.float32) for of in category)
        label = CellLabel(jnp.full(len(z), library, jnp.float32), *columns)
        mean: jax.Array = model.decode(params, z, label).mean
        return mean

    return of_codes


def telling(found: np.ndarray) -> np.ndarray:
    """Of means [N, G] the genes that differ the most, by the deviation of log(1 + mean)."""
    order: np.ndarray = np.argsort(-np.log1p(found).std(axis=0), kind="stable")[:_NUM_GENES]
    return order


def of_genes(
    means: Callable[..., jax.Array], genes: np.ndarray, num: int
) -> Callable[..., jax.Array]:
    """The means of some of the genes, by a product, as a page picks nothing by its number."""
    chosen = np.zeros((num, len(genes)), np.float32)
    chosen[genes, np.arange(len(genes))] = 1

    def shown(z: jax.Array, *category: jax.Array) -> jax.Array:
        return means(z, *category) @ chosen

    return shown


def columns_of(
    config: Mapping[str, Any], genes: np.ndarray, found: np.ndarray
) -> list[dict[str, Any]]:
    """The genes as the page has columns, from none to their largest mean."""
    names = [config["genes"][config["kept"][gene]] for gene in genes]
    of_all = {"kind": "count", "low": 0.0, "decimals": 2, "thousands": False}
    return [
        {"name": name, "start": i, "high": float(found[:, gene].max()), **of_all}
        for i, (name, gene) in enumerate(zip(names, genes, strict=True))
    ]
