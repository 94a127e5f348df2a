"""What a run of `fit` is of: what a resumed one must share with the one it goes on with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.run.data.dataset import digest_of
from vae_jax.run.plan import Plan


def made_of(plan: Plan, words: np.ndarray, data: Any) -> dict[str, Any]:
    """What a resumed run must share with the one that it goes on with."""
    return {
        "key": words.tolist(),
        "data": [_identity(leaf) for leaf in jax.tree.leaves(data)],
        "batch_size": plan.batch_size,
        "accumulate": plan.accumulate,
        "average_decay": plan.average_decay,
        "keep_best": plan.keep_best,
    }


def _identity(leaf: Any) -> list[Any]:
    """What a resumed run's data must share: shape, type, and the content of what is in memory."""
    kept = isinstance(leaf, np.ndarray | jax.Array) and not isinstance(leaf, np.memmap)
    numbers = kept and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    content = digest_of(np.asarray(leaf)) if numbers else None
    return [list(leaf.shape), str(leaf.dtype), content]


def check_lengths(data: Any, batch_size: int) -> None:
    """Raises ValueError for arrays of unlike lengths, or fewer examples than a batch has."""
    shapes = {np.shape(leaf) for leaf in jax.tree.leaves(data)}
    lengths = {shape[0] for shape in shapes if shape}
    if len(lengths) != 1 or () in shapes:
        raise ValueError(
            f"the data's arrays have shapes {', '.join(map(str, sorted(shapes)[:9]))}: give arrays "
            "[N, ...] of one length"
        )
    if batch_size > min(lengths):
        raise ValueError(f"batch_size is {batch_size} but there are {min(lengths)} examples")
