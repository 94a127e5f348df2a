"""The keys of a run, each by what it is for: no two of them have the same words."""

import zlib

import jax

_NAMES = (
    "validation",
    "evaluation",
    "classes",
    "pictures",
    "evaluate again",
    "generate",
    "codes",
    "impute",
    "validation pixels",
    "test pixels",
    "train pixels",
    "diagnosis",
    "judge",
)


def of_run(seed: int) -> dict[str, jax.Array]:
    """The typed keys that a seed stands for, by name.

    init and train, of which order and noise are folds, are as in version 0.1, so that its runs
    train to the same parameters. They are the first folds of the seed; the others are its folds by
    the name's CRC-32, far from any that a number makes.
    """
    key = jax.random.key(seed)
    init, train = jax.random.split(key, 4)[:2]
    folds = {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in _NAMES}
    return {"init": init, "train": train, **folds}
