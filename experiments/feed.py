"""How the training set reaches the devices: held by all of them, or read piece by piece.

Either way the order is that of `vae_jax.shuffle`, which follows from the seed and the epoch alone:
the same on any number of devices and hosts, and nothing but the step needs to be kept of it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vae_jax

_PIECE_BYTES = 2**25
"""Of one piece of a stream; three are in memory at a time."""

Order = Callable[[int], np.ndarray]
"""epoch -> the examples of its steps, [steps, B], or [steps, accumulate, B / accumulate]."""


class Piece(NamedTuple):
    """Steps `start` to `stop` of an epoch, for `vae_jax.make_train_epoch`."""

    epoch: int
    start: int
    stop: int
    dataset: vae_jax.Batch
    order: jax.Array


def resident(
    images: Any,
    labels: np.ndarray | None,
    order_of: Order,
    mesh: Mesh,
    step: int,
    num_epochs: int,
) -> Iterator[Piece]:
    """The epochs from a step on, of a data set that every device holds."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    dataset = jax.device_put(vae_jax.Batch(np.asarray(images), labels), everywhere)
    steps = len(order_of(0))
    for epoch in range(step // steps, num_epochs):
        order = order_of(epoch)
        yield Piece(epoch, 0, steps, dataset, jax.device_put(order, _over_batch(mesh, order.ndim)))


def stream(
    images: Any,
    labels: np.ndarray | None,
    order_of: Order,
    mesh: Mesh,
    step: int,
    num_epochs: int,
) -> Iterator[Piece]:
    """The epochs from a step on in pieces, the next being read while one is trained on.

    Args:
      images: an array, or anything that has its shape and gives images[rows] for an array of rows.
      labels: [N] or None.
      order_of: the order of an epoch.
      mesh: the devices. A process reads the examples of its own devices alone.
      step: where to start.
      num_epochs: where to end.
    """
    first = order_of(0)
    steps, batch = len(first), first.shape[1:]
    batch_bytes = images.dtype.itemsize * first[0].size * int(np.prod(images.shape[1:]))
    length = min(max(1, _PIECE_BYTES // batch_bytes), steps)
    sharding = _over_batch(mesh, 1 + len(batch))
    turn = jax.device_put(np.arange(length), NamedSharding(mesh, PartitionSpec()))

    def piece(epoch: int, start: int, order: np.ndarray) -> Piece:
        # The last piece is filled up with steps that are not taken, or it would compile anew.
        rows = order[np.minimum(np.arange(start, start + length), steps - 1)]

        def on_devices(array: Any) -> jax.Array:
            return jax.make_array_from_callback(
                rows.shape + array.shape[1:], sharding, lambda of: array[rows[of[: rows.ndim]]]
            )

        dataset = vae_jax.Batch(on_devices(images), None if labels is None else on_devices(labels))
        return Piece(epoch, start, min(start + length, steps), dataset, turn)

    def pieces() -> Iterator[Piece]:
        for epoch in range(step // steps, num_epochs):
            order = order_of(epoch)
            skipped = step % steps if epoch == step // steps else 0
            for start in range(skipped // length * length, steps, length):
                yield piece(epoch, start, order)

    return _ahead(pieces())


def _ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, pieces, None)
        while (piece := following.result()) is not None:
            following = thread.submit(next, pieces, None)
            yield piece


def _over_batch(mesh: Mesh, ndim: int) -> NamedSharding:
    """Arrays whose last of `ndim` leading axes is the batch's."""
    return NamedSharding(mesh, PartitionSpec(*[None] * (ndim - 1), "data"))
