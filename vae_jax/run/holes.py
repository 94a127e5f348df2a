"""Holes in data of any kind, filled by a run: of the examples that have some, a batch at a time."""

from typing import Any

import jax
import numpy as np

import vae_jax
from vae_jax.evaluation import batched, imputation
from vae_jax.run import cautions
from vae_jax.run.callbacks import counted
from vae_jax.run.errors import DataError


def imputed(
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    batch: tuple[Any, Any],
    rows: np.ndarray,
    *,
    source: str,
    **how: Any,
) -> vae_jax.Imputation:
    """What `vae_jax.impute` makes of those examples which have holes; a bar shows it.

    Args:
      key: of the draws.
      model: the VAE.
      params: its parameters.
      batch: x [N, *event] with NaN, and the label of each, or None.
      rows: of the examples with holes.
      source: where they are from.
      how: num_samples, quantiles and num_draws.

    Raises:
      DataError: there are no such examples.
    """
    if not len(rows):
        raise DataError(
            f"nothing is missing in {source} of what the run has learned: there is nothing to "
            "impute"
        )
    x, label = batch
    size = min(imputation.at_once(x.shape[1:], how["num_samples"]), len(rows))
    parts = []
    batches = batched.rows_of(len(rows), size)
    for i, places in enumerate(counted(batches, len(rows), "impute", "example")):
        of = batched.take((x, label), rows[places])
        parts.append(vae_jax.impute(jax.random.fold_in(key, i), model, params, *of, **how))
    mean, quantiles, draws, effective = zip(*parts, strict=True)
    num = len(rows)
    return vae_jax.Imputation(
        np.concatenate(mean)[:num],
        np.concatenate(quantiles, axis=1)[:, :num],
        np.concatenate(draws, axis=1)[:, :num],
        np.concatenate(effective)[:num],
    )


def said(num: int, total: int, num_samples: int, effective: np.ndarray, one: str) -> list[str]:
    """Of `num` filled values of `total` missing ones, and of how many draws they are.

    Args:
      num: of values.
      total: likewise.
      num_samples: of each example.
      effective: of them, [N].
      one: what an example is called.
    """
    return [
        f"{num:,} of {total:,} missing values filled, in {len(effective):,} {one}s; of "
        f"{num_samples} draws {'an' if one[0] in 'aeiou' else 'a'} {one} {effective.mean():.0f} "
        "are effective",
        *cautions.few_effective(effective),
    ]
