"""How the training set reaches the devices: held by all of them, or read piece by piece.

Either way the order is that of `vae_jax.shuffle`, which follows from the seed and the epoch alone:
the same on any number of devices and hosts. The state of the reading is the step, which every
checkpoint has: the pieces of a run are numbered, and the number follows from the step.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.run.errors import DataError

_PIECE_BYTES = 2**25
"""Of one piece of a stream; five are in memory at a time, and two more for each worker."""

Order = Callable[[int], np.ndarray]
"""epoch -> the examples of its steps, [steps, B], or [steps, accumulate, B / accumulate]."""


class Piece(NamedTuple):
    """Steps `start` to `stop` of an epoch, for `vae_jax.make_train_epoch`."""

    epoch: int
    start: int
    stop: int
    dataset: Any
    order: jax.Array


def resident(
    dataset: Any, order_of: Order, mesh: Mesh, step: int, num_epochs: int
) -> Generator[Piece]:
    """The epochs from a step on, of a data set that every device holds."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    # What is no array, but is read like one, is read here.
    dataset = jax.tree.map(lambda a: a if isinstance(a, jax.Array) else np.asarray(a), dataset)
    dataset = jax.device_put(dataset, everywhere)
    steps = len(order_of(0))
    for epoch in range(step // steps, num_epochs):
        order = order_of(epoch)
        yield Piece(epoch, 0, steps, dataset, jax.device_put(order, _over_batch(mesh, order.ndim)))


def stream(
    dataset: Any,
    order_of: Order,
    mesh: Mesh,
    step: int,
    num_epochs: int,
    *,
    num_workers: int = 0,
) -> Generator[Piece]:
    """The epochs from a step on in pieces: Grain reads ahead, and the next is already on its way.

    Args:
      dataset: a pytree of arrays, or of anything that has an array's shape and dtype and gives
        source[rows] for an array of rows; with workers it must be picklable.
      order_of: the order of an epoch.
      mesh: the devices. A process reads the examples of its own devices alone.
      step: where to start.
      num_epochs: where to end.
      num_workers: processes that read; 0 for threads of this one.

    Raises:
      DataError: an example cannot be read.
    """
    sources, structure = jax.tree.flatten(dataset)
    first = order_of(0)
    steps, batch = len(first), first.shape[1:]
    example_bytes = sum(a.dtype.itemsize * math.prod(a.shape[1:]) for a in sources)
    length = min(max(1, _PIECE_BYTES // (example_bytes * first[0].size)), steps)
    sharding = _over_batch(mesh, 1 + len(batch))
    turn = jax.device_put(np.arange(length), NamedSharding(mesh, PartitionSpec()))
    of_devices = sharding.addressable_devices_indices_map((length, *batch)).values()
    indices = {_bounds(of): of for of in of_devices if of is not None}
    starts = range(0, steps, length)
    begin, end = step // steps * len(starts) + step % steps // length, num_epochs * len(starts)

    def pieces_of(orders: "Order | _OneOrder", begin: int, end: int) -> _Pieces:
        return _Pieces(sources, orders, starts, length, list(indices.values()), begin, end)

    def all_pieces() -> Iterator[_Pieces]:
        if not num_workers:
            yield pieces_of(_Latest(order_of, first), begin, end)
            return
        # A worker is given the order of its epoch: to make one it would need JAX's backend.
        at = begin
        while at < end:
            epoch = at // len(starts)
            until = min((epoch + 1) * len(starts), end)
            yield pieces_of(_OneOrder(order_of(epoch)), at, until)
            at = until

    def on_devices(parts: list[np.ndarray]) -> jax.Array:
        read = dict(zip(indices, parts, strict=True))
        shape = (length, *batch, *parts[0].shape[1 + len(batch) :])
        return jax.make_array_from_callback(
            shape, sharding, lambda of: read[_bounds((of or ())[: 1 + len(batch)])]
        )

    number = begin
    ahead: Piece | None = None
    for pieces in all_pieces():
        with contextlib.closing(_read(pieces, num_workers)) as found:
            for read in found:
                epoch, start = number // len(starts), starts[number % len(starts)]
                dataset = jax.tree.unflatten(structure, map(on_devices, read["parts"]))
                number += 1
                if ahead is not None:
                    yield ahead
                ahead = Piece(epoch, start, min(start + length, steps), dataset, turn)
    if ahead is not None:
        yield ahead


def widths_of(lengths: np.ndarray, batch_size: int) -> np.ndarray | None:
    """What each sequence [N] is padded to: the longest's length, its half, quarter or eighth.

    So padding is less than half of most of them, and there are four programs to compile at most.
    Lengths of fewer sequences than a batch's are the next one's.

    Returns:
      [N], or None where it would spare less than a fifth of the steps.
    """
    bounds = np.unique(-(-int(lengths.max()) // 2 ** np.arange(_BUCKETS)))
    place = np.searchsorted(bounds, lengths)
    for i in range(len(bounds) - 1):
        if (place == i).sum() < batch_size:
            place[place == i] = i + 1
    widths: np.ndarray = bounds[place]
    return widths if widths.mean() <= _WORTH * lengths.max() else None


_BUCKETS, _WORTH = 4, 0.8


def by_width(order: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """An epoch's order [steps, B] with like widths [N] in a batch, and batches in any turn.

    >>> by_width(np.array([[0, 3], [2, 1]]), np.array([8, 4, 8, 4]))
    array([[3, 1],
           [0, 2]])
    """
    rows: np.ndarray = order.reshape(-1)
    rows = rows[np.argsort(widths[rows], kind="stable")]
    # The first column is as random as the order is.
    turned: np.ndarray = rows.reshape(order.shape)[np.argsort(order[:, 0])]
    return turned


def in_buckets(
    dataset: Any, widths: np.ndarray, order_of: Order, mesh: Mesh, step: int, num_epochs: int
) -> Generator[Piece]:
    """The epochs from a step on, each step's batch cut to the widest of its examples.

    Args:
      dataset: a `Batch` of images [N, T, ...], arrays on the host.
      widths: of each example [N], T at most, few different ones: a program each is compiled.
      order_of: the order of an epoch, from `by_width`.
      mesh: the devices.
      step: where to start.
      num_epochs: where to end.
    """
    sharding = _over_batch(mesh, 2)
    turn = jax.device_put(np.zeros(1, np.int64), NamedSharding(mesh, PartitionSpec()))
    steps = len(order_of(0))
    for epoch in range(step // steps, num_epochs):
        order = order_of(epoch)
        for i in range(step % steps if epoch == step // steps else 0, steps):
            rows = order[i]
            width = int(widths[rows].max())
            batch = jax.tree.map(lambda a, rows=rows: a[rows][None], dataset)
            batch = batch._replace(image=batch.image[:, :, :width])
            yield Piece(epoch, i, i + 1, jax.device_put(batch, sharding), turn)


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

    sources: list[Any]
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
            parts = [[source[rows[of]] for of in self.indices] for source in self.sources]
        except DataError as error:  # of a worker an exception would arrive as another
            return {"error": str(error)}
        return {"parts": parts}


def _read(pieces: _Pieces, num_workers: int) -> Generator[Any]:
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
