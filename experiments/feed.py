"""How the training set reaches the devices: held by all of them, or read piece by piece.

Either way the order is that of `vae_jax.shuffle`, which follows from the seed and the epoch alone:
the same on any number of devices and hosts. The state of the reading is the step, which every
checkpoint has: the pieces of a run are numbered, and the number follows from the step.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vae_jax
from experiments.data import DataError

_PIECE_BYTES = 2**25
"""Of one piece of a stream; five are in memory at a time, and two more for each worker."""

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
    *,
    num_workers: int = 0,
) -> Iterator[Piece]:
    """The epochs from a step on in pieces: Grain reads ahead, and the next is already on its way.

    Args:
      images: an array, or anything that has its shape and gives images[rows] for an array of rows;
        with workers it must be picklable.
      labels: [N] or None.
      order_of: the order of an epoch.
      mesh: the devices. A process reads the examples of its own devices alone.
      step: where to start.
      num_epochs: where to end.
      num_workers: processes that read; 0 for threads of this one.

    Raises:
      DataError: an image cannot be read.
    """
    first = order_of(0)
    steps, batch = len(first), first.shape[1:]
    batch_bytes = images.dtype.itemsize * first[0].size * int(np.prod(images.shape[1:]))
    length = min(max(1, _PIECE_BYTES // batch_bytes), steps)
    sharding = _over_batch(mesh, 1 + len(batch))
    turn = jax.device_put(np.arange(length), NamedSharding(mesh, PartitionSpec()))
    indices = {
        _bounds(of): of
        for of in sharding.addressable_devices_indices_map((length, *batch)).values()
    }
    starts = range(0, steps, length)
    begin, end = step // steps * len(starts) + step % steps // length, num_epochs * len(starts)

    def source(orders: "Order | _OneOrder", begin: int, end: int) -> _Pieces:
        return _Pieces(images, labels, orders, starts, length, list(indices.values()), begin, end)

    def sources() -> Iterator[_Pieces]:
        if not num_workers:
            yield source(_Latest(order_of, first), begin, end)
            return
        # A worker is given the order of its epoch: to make one it would need JAX's backend.
        at = begin
        while at < end:
            epoch = at // len(starts)
            until = min((epoch + 1) * len(starts), end)
            yield source(_OneOrder(order_of(epoch)), at, until)
            at = until

    def on_devices(parts: list[np.ndarray]) -> jax.Array:
        of_devices = dict(zip(indices, parts, strict=True))
        shape = (length, *batch, *parts[0].shape[1 + len(batch) :])
        return jax.make_array_from_callback(
            shape, sharding, lambda of: of_devices[_bounds(of[: 1 + len(batch)])]
        )

    number = begin
    ahead: Piece | None = None
    for pieces in sources():
        with contextlib.closing(_read(pieces, num_workers)) as found:
            for read in found:
                epoch, start = number // len(starts), starts[number % len(starts)]
                dataset = vae_jax.Batch(
                    on_devices(read["images"]),
                    on_devices(read["labels"]) if read["labels"] else None,
                )
                number += 1
                if ahead is not None:
                    yield ahead
                ahead = Piece(epoch, start, min(start + length, steps), dataset, turn)
    if ahead is not None:
        yield ahead


class _Latest:
    """Orders as they are asked for, by several threads; the last two stay."""

    def __init__(self, order_of: Order, first: np.ndarray) -> None:
        self._order_of, self._orders, self._lock = order_of, {0: first}, threading.Lock()

    def __call__(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._orders:
                self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
                self._orders[epoch] = self._order_of(epoch)
            return self._orders[epoch]


class _OneOrder(NamedTuple):
    order: np.ndarray

    def __call__(self, epoch: int) -> np.ndarray:
        return self.order


class _Pieces(NamedTuple):
    """Pieces `begin` to `end` of a run on the host, as a random-access source of Grain's."""

    images: Any
    labels: np.ndarray | None
    order_of: Any
    starts: range
    length: int
    indices: list[tuple[slice, ...]]
    begin: int
    end: int

    def read(self, number: int) -> Any:
        """The examples of each of this process's devices, or what is wrong with them."""
        epoch, i = divmod(self.begin + number, len(self.starts))
        order = self.order_of(epoch)
        # The last piece is filled up with steps that are not taken, or it would compile anew.
        steps = np.arange(self.starts[i], self.starts[i] + self.length)
        rows = order[np.minimum(steps, len(order) - 1)]
        try:
            images = [self.images[rows[of]] for of in self.indices]
        except DataError as error:  # of a worker an exception would arrive as another
            return {"error": str(error)}
        labels = [] if self.labels is None else [self.labels[rows[of]] for of in self.indices]
        return {"images": images, "labels": labels}


def _read(pieces: _Pieces, num_workers: int) -> Iterator[Any]:
    import grain  # here, as it takes a second and resident data need none of it

    # One thread, or the pieces in memory would be as many as the threads.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    dataset = grain.MapDataset.range(pieces.end - pieces.begin).map(pieces.read)
    reading = dataset.to_iter_dataset(options)
    if num_workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain reads its own, which only absl's app.run parses
            flags.FLAGS.mark_as_parsed()
        reading = reading.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=1),
            worker_init_fn=_start_worker,
        )
    iterator = iter(reading)
    try:
        for read in iterator:
            if "error" in read:
                raise DataError(read["error"])
            yield read
    finally:
        iterator.close()


def _start_worker(worker: int, num_workers: int) -> None:
    """A worker is stopped by the run, not by the Ctrl-C that the run saves at; nor outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _bounds(index: tuple[slice, ...]) -> tuple[tuple[int | None, int | None], ...]:
    """Slices as what a dictionary can have for a key."""
    return tuple((of.start, of.stop) for of in index)


def _over_batch(mesh: Mesh, ndim: int) -> NamedSharding:
    """Arrays whose last of `ndim` leading axes is the batch's."""
    return NamedSharding(mesh, PartitionSpec(*[None] * (ndim - 1), "data"))
