"""log p(x) of a whole data set: in batches, by one compiled program, in bounded memory."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vae_jax._compiler import compiler_options
from vae_jax.distributions import sample
from vae_jax.distributions._pytree import check_key
from vae_jax.evaluation.likelihood import Estimate, log_likelihood
from vae_jax.model import VAE

Params = Any

# Decoded at a time. A CPU is fastest where it fits a cache, unless the parameters do not: they are
# read for every batch, and 16 MB of images to 500 MB of them took 0.4 of the time that 2 MB did. An
# accelerator wants more in flight.
_CPU_BYTES, _MOST_CPU_BYTES, _ACCELERATOR_BYTES = 2**21, 2**24, 2**27
_MOST_EXAMPLES, _MOST_DRAWS = 500, 50
_MOST_WORKERS, _TEMPORARY_BYTES = 8, 2**30


class Evaluation(NamedTuple):
    """log p(x) of a data set, of each example and on average.

    Attributes:
      estimate: of each example, with NumPy arrays [N].
      mean: of its values, in nats.
      standard_error_of_draws: of the mean, as an estimate of these examples' mean log p(x): how
        much other draws of z would change it.
      standard_error_over_examples: of the mean, as an estimate of log p(x) of the distribution that
        the examples come from: how much other examples would change it. NaN of one.

    >>> one = np.ones(2)
    >>> evaluation = summarize(Estimate(np.array([-86.0, -90.0]), 0.5 * one, 200 * one, 0.2 * one))
    >>> print(f"{evaluation.mean:.2f} +- {evaluation.standard_error_of_draws:.2f}")
    -88.00 +- 0.35
    >>> print(f"{evaluation.standard_error_over_examples:.2f}")
    2.00
    """

    estimate: Estimate
    mean: float
    standard_error_of_draws: float
    standard_error_over_examples: float


def evaluate(
    key: Array,
    model: VAE,
    params: Params,
    x: Any,
    label: Any = None,
    *,
    num_samples: int,
    batch_size: int | None = None,
) -> Evaluation:
    """log p(x) of a whole data set by importance sampling; see `log_likelihood`.

    In memory are `params` and a batch of it for each of at most eight cores, with temporary arrays
    of a gigabyte at most, or two on an accelerator, whatever N and S. Over the devices that
    `params` lie on a batch's rows are dealt out. It is compiled once for a model, a batch's shape
    and S, whatever the key and the parameters. With a label it is log p(x|c).

    Args:
      key: a typed PRNG key. Batch i draws from its i-th fold, so another batch size is other noise.
      model: the VAE; its four functions are hashable, as functions are.
      params: its parameters.
      x: [N, *event], of NumPy, JAX, or anything with `shape` and `x[rows]`, rows an int array.
      label: [N], likewise, or None.
      num_samples: S, draws for each example, at least 2.
      batch_size: examples at a time. None for as many as decode to 2 MB a draw on a CPU (up to 16
        MB, where the parameters are much larger) and 128 MB elsewhere, 500 at most.

    Returns:
      An `Evaluation`.

    Raises:
      TypeError: the key is not typed.
      ValueError: no example; as many labels as examples are not there; num_samples is less than 2
        or batch_size less than 1.

    >>> from vae_jax import Normal
    >>> encode = lambda params, x, label=None: Normal(x / 2, 0.5**0.5)  # exact, so no error
    >>> prior = lambda params, label=None: Normal(jnp.zeros(1), 1.0)
    >>> decode = lambda params, z, label=None: Normal(z * params, 1.0)
    >>> model = VAE(None, encode, prior, decode)
    >>> result = evaluate(jax.random.key(0), model, 1.0, np.zeros((7, 1), "f"), num_samples=10)
    >>> round(result.mean, 3), result.estimate.value.shape
    (-1.266, (7,))
    """
    check_key(key)
    num, mesh = num_examples(x, label), _mesh(params)
    size, chunk_size = split(
        key, model, params, x, label, num_samples=num_samples, batch_size=batch_size
    )
    if batch_size is None and mesh is not None and size > mesh.size:
        size -= size % mesh.size  # which the devices can share
    lower = partial(_estimate.lower, model, num_samples, chunk_size)
    parts = each(lower, params, key, (x, label), rows_of(num, size))
    return summarize(joined(list(parts), num))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _estimate(
    model: VAE, num_samples: int, chunk_size: int, params: Params, key: Array, x: Any, label: Any
) -> Estimate:
    return log_likelihood(
        key,
        x,
        model.encode(params, x, label),
        model.prior(params, label),
        lambda z: model.decode(params, z, label),
        num_samples=num_samples,
        chunk_size=chunk_size,
    )


def summarize(estimate: Estimate) -> Evaluation:
    """The mean over the examples, with both of its errors."""
    value = np.asarray(estimate.value, np.float64)
    errors = np.asarray(estimate.standard_error, np.float64)
    return Evaluation(
        estimate,
        float(value.mean()),
        float(np.sqrt(np.square(errors).sum()) / len(errors)),
        standard_error(value),
    )


def standard_error(values: Any) -> float:
    """Of the mean of independent values, by their spread; NaN of one."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def split(
    key: Array,
    model: VAE,
    params: Params,
    x: Any,
    label: Any,
    *,
    num_samples: int,
    batch_size: int | None = None,
) -> tuple[int, int]:
    """How many examples, and how many draws of each, are decoded at a time.

    Args:
      key: a typed PRNG key, of which no more than the type is looked at.
      model: the VAE.
      params: its parameters.
      x: [N, *event], of which no more than the shape is looked at.
      label: likewise, or None.
      num_samples: S, which the draws divide.
      batch_size: examples, where that is settled.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give 1 or more")
    one = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), jax.dtypes.canonicalize_dtype(a.dtype)),
        (x, label),
    )

    def decoded(params: Params, key: Array, x: Any, label: Any) -> list[Array]:
        z = sample(key, model.encode(params, x, label))
        leaves = jax.tree.leaves(model.decode(params, z, label))
        return [leaf for leaf in leaves if isinstance(leaf, Array)]

    shapes = jax.eval_shape(decoded, params, key, *one)
    # As many values as x has where the likelihood, of another library, is no pytree.
    values = max(math.prod(leaf.shape) for leaf in [*shapes, *jax.tree.leaves(one[0])])
    if jax.default_backend() == "cpu":
        of_params = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params)) * 4
        budget = max(_CPU_BYTES, min(of_params // 32, _MOST_CPU_BYTES))
    else:
        budget = _ACCELERATOR_BYTES
    at_once = max(1, budget // (4 * values))
    if batch_size is None:
        batch_size = min(at_once, _MOST_EXAMPLES)
    batch_size = min(batch_size, num_examples(x, label))
    most = min(_MOST_DRAWS, max(1, at_once // batch_size))
    return batch_size, max(d for d in range(1, most + 1) if num_samples % d == 0)


def each(
    lower: Callable[..., Any],
    params: Params,
    key: Array,
    arrays: Any,
    batches: Iterable[np.ndarray],
) -> Iterator[Any]:
    """What a program gives of each batch, in their order, as NumPy arrays; see `in_turn`.

    Args:
      lower: of the program (params, key, *batch) -> arrays.
      params: of it. Over all devices that they lie on a batch's rows are dealt out.
      key: of which batch i has the i-th fold.
      arrays: each [N, ...], or None, read here, one batch after the other.
      batches: the rows of each, always as many.
    """
    params = jax.tree.map(jnp.asarray, params)
    calls = (
        (params, jax.random.fold_in(key, i), *_dealt_out(take(arrays, rows), params))
        for i, rows in enumerate(batches)
    )
    return in_turn(lower, calls)


def in_turn(lower: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """What a program gives of each call's arguments, in their order, as NumPy arrays.

    A CPU works at a call for each of its cores, as far as memory goes: of one alone the cores share
    the matrix products and little else. An accelerator is given the next while it is at one. Of
    programs over several devices, which wait for each other, one runs alone.

    Args:
      lower: `lower` of a jitted program. It is compiled here and called in threads, so that what a
        `with` has set for this thread holds for it.
      calls: arguments, JAX arrays, all of the same shapes.
    """
    workers = min(num_cores(), _MOST_WORKERS) if jax.default_backend() == "cpu" else 2
    compiled: Any = None

    def result(given: tuple[Any, ...]) -> Any:
        return jax.device_get(compiled(*given))

    running = deque[Future[Any]]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for given in calls:
                if compiled is None:
                    compiled = lower(*given).compile(compiler_options=compiler_options())
                    workers = _at_once(compiled, workers) if _mesh(given) is None else 1
                running.append(pool.submit(result, given))
                if len(running) >= workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _at_once(compiled: Any, most: int) -> int:
    """Calls whose temporary arrays are of a gigabyte together."""
    of_one = getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0)
    return max(1, min(most, _TEMPORARY_BYTES // max(1, of_one)))


def _dealt_out(batch: Any, params: Params) -> Any:
    """The rows over the devices of the parameters, where there are several and it can be done."""
    mesh = _mesh(params)
    size = len(jax.tree.leaves(batch)[0])
    if mesh is None or size % mesh.size or mesh.is_multi_process:
        return batch
    rows = jax.sharding.PartitionSpec(mesh.axis_names)
    return jax.device_put(batch, jax.sharding.NamedSharding(mesh, rows))


def _mesh(arrays: Any) -> Any:
    """Of the first array that lies on several devices; else None."""
    for leaf in jax.tree.leaves(arrays):
        laid = getattr(leaf, "sharding", None)
        if isinstance(laid, jax.sharding.NamedSharding) and laid.mesh.size > 1:
            return laid.mesh
    return None


def num_examples(x: Any, label: Any) -> int:
    """N, of all arrays the same and not 0."""
    sizes = set()
    for name, given in ("x", x), ("label", label):
        for array in jax.tree.leaves(given):
            if not getattr(array, "shape", ()):
                raise TypeError(
                    f"{name} is or holds a {type(array).__name__}: pass arrays of N examples"
                )
            sizes.add(int(array.shape[0]))
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(
            f"x and label have {' and '.join(map(str, sorted(sizes)))} examples: give as many of "
            "each, and 1 at least"
        )
    return sizes.pop()


def rows_of(num_examples: int, batch_size: int) -> Iterator[np.ndarray]:
    """The rows of each batch. The last is filled up with the first, or it would compile anew."""
    for start in range(0, num_examples, batch_size):
        yield np.arange(start, start + batch_size) % num_examples


def take(arrays: Any, rows: np.ndarray) -> Any:
    """These rows of each array, on the device."""
    return jax.tree.map(lambda array: jnp.asarray(array[rows]), arrays)


def joined(parts: list[Any], num_examples: int) -> Any:
    """What the batches gave, as one, without what the last was filled up with."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_examples], *parts)
