"""Discrete bottlenecks: vectors as their nearest code, or as rounded coordinates.

With a uniform prior over K codes the KL of each vector is log K nats, whatever the encoder does
(van den Oord et al. 2017, section 3.1); what these functions give beside the quantised vectors is
an objective's, not the bound's.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vae_jax.distributions._pytree import check_key

__all__ = [
    "Codebook",
    "CodebookUse",
    "Quantized",
    "codebook_use",
    "finite_scalar",
    "finite_scalar_codes",
    "init_codebook",
    "quantize",
    "update_codebook",
]


class Quantized(NamedTuple):
    """Vectors of a codebook in the place of others.

    Attributes:
      value: the nearest codes, [*b, D], whose gradient goes to the vectors they stand for as if
        these had been left as they were.
      index: which codes, int32 [*b].
      commitment: squared distance of each vector to its code, [*b], with a gradient to the vector.
      codebook: the same number, with a gradient to the code; not used where the codebook follows
        the vectors by `update_codebook`.

    >>> quantized = quantize(jnp.array([[0.9]]), jnp.array([[0.0], [1.0]]))
    >>> loss = 0.25 * quantized.commitment + quantized.codebook  # beside -log p(x|z)
    """

    value: Array
    index: Array  # type: ignore[assignment]  # a tuple's method
    commitment: Array
    codebook: Array


def quantize(z: Array, codebook: Array) -> Quantized:
    """Each vector's nearest code, straight through (van den Oord et al. 2017, equations 1 to 3).

    Args:
      z: [*b, D].
      codebook: [K, D].

    Raises:
      ValueError: the vectors and the codes are of different lengths.

    >>> quantize(jnp.array([[0.9], [0.2]]), jnp.array([[0.0], [1.0]])).index
    Array([1, 0], dtype=int32)
    """
    _check_lengths(z, codebook)
    held_z, held_codes = jax.lax.stop_gradient((z, codebook))
    # |z - e|^2 / 2 without |z|^2: the differences themselves would be K times the size of z.
    product = jnp.matmul(held_z, held_codes.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.square(held_codes).sum(-1) / 2
    index = jnp.argmin(jnp.broadcast_to(squares, product.shape) - product, axis=-1)
    index = index.astype(jnp.int32)
    code = codebook[index]
    held = jax.lax.stop_gradient(code)
    return Quantized(
        # The second factor is zero; only its gradient is not.
        held + (z - held_z),
        index,
        jnp.square(z - held).sum(-1),
        jnp.square(held_z - code).sum(-1),
    )


class Codebook(NamedTuple):
    """Codes that are moving averages of the vectors they stood for.

    Attributes:
      codes: [K, D].
      counts: of the vectors of each code, a moving average of sums over batches, [K].
      sums: of the vectors themselves, likewise, [K, D].

    >>> Codebook(jnp.zeros((8, 2)), jnp.ones(8), jnp.zeros((8, 2))).codes.shape
    (8, 2)
    """

    codes: Array
    counts: Array
    sums: Array


def init_codebook(key: Array, z: Array, num_codes: int) -> Codebook:
    """Codes at vectors of a batch, drawn without repetition where there are enough.

    Args:
      key: a typed PRNG key.
      z: [*b, D], what the encoder gives at the start.
      num_codes: K.

    >>> init_codebook(jax.random.key(0), jnp.ones((100, 2)), 8).codes.shape
    (8, 2)
    """
    check_key(key)
    codes = _drawn(key, z, num_codes)
    return Codebook(codes, jnp.ones(num_codes, codes.dtype), codes)


def update_codebook(
    key: Array,
    book: Codebook,
    z: Array,
    index: Array,
    *,
    decay: float = 0.99,
    revive_below: float = 0.1,
) -> Codebook:
    """The codebook after a batch: each code the moving average of its vectors.

    Counts and sums decay and take on those of the batch (van den Oord et al. 2017, equations 6 to
    8). A code whose count has fallen below `revive_below` stands for next to nothing: it is put at
    a vector of the batch, with a count of 1 (Dhariwal et al. 2020, section 3.3).

    Args:
      key: a typed PRNG key, of the revived codes.
      book: as it was.
      z: [*b, D], the vectors that were quantised.
      index: their codes, int [*b], from `quantize`.
      decay: of the averages.
      revive_below: count of a code, in vectors a batch; 0 revives none.

    >>> z = jnp.array([[0.8], [1.0], [0.1]])
    >>> book = Codebook(jnp.array([[0.0], [1.0]]), jnp.ones(2), jnp.array([[0.0], [1.0]]))
    >>> index = quantize(z, book.codes).index
    >>> update_codebook(jax.random.key(0), book, z, index, decay=0.5).codes.round(2)
    Array([[0.05],
           [0.93]], dtype=float32)
    """
    check_key(key)
    _check_lengths(z, book.codes)
    num_codes, size = book.codes.shape
    vectors = jax.lax.stop_gradient(z).reshape(-1, size).astype(book.codes.dtype)
    places = index.reshape(-1)
    ones = jnp.ones(places.shape, book.counts.dtype)
    counts = jax.ops.segment_sum(ones, places, num_codes)
    sums = jax.ops.segment_sum(vectors, places, num_codes)
    counts = decay * book.counts + (1 - decay) * counts
    sums = decay * book.sums + (1 - decay) * sums
    dead = counts < revive_below
    counts = jnp.where(dead, jnp.ones_like(counts), counts)
    sums = jnp.where(_wide(dead, sums), _drawn(key, vectors, num_codes), sums)
    # Without revival a count may reach 0: such a code stays where it is.
    tiny = jnp.finfo(counts.dtype).tiny
    mean = sums / _wide(jnp.maximum(counts, tiny), sums)
    return Codebook(jnp.where(_wide(counts > tiny, mean), mean, book.codes), counts, sums)


class CodebookUse(NamedTuple):
    """How much of a codebook a data set uses.

    Attributes:
      share: of the codes that occur.
      perplexity: exp of the entropy of their frequencies, from 1 to K.

    >>> CodebookUse(jnp.float32(0.9), jnp.float32(350.0)).share
    Array(0.9, dtype=float32)
    """

    share: Array
    perplexity: Array


def codebook_use(index: Array, num_codes: int) -> CodebookUse:
    """How many of the codes occur, and how evenly.

    Args:
      index: int [*b], of a whole data set.
      num_codes: K.

    >>> use = codebook_use(jnp.array([0, 0, 1, 1]), num_codes=4)
    >>> use.share, use.perplexity.round(3)
    (Array(0.5, dtype=float32), Array(2., dtype=float32))
    """
    counts = jnp.bincount(index.reshape(-1), length=num_codes).astype(jnp.float32)
    shares = counts / counts.sum()
    entropy = jax.scipy.special.entr(shares).sum()
    return CodebookUse((counts > 0).astype(jnp.float32).mean(), jnp.exp(entropy))


def finite_scalar(z: Array, levels: Sequence[int]) -> tuple[Array, Array]:
    """Each coordinate rounded to one of a few levels, straight through: no codebook, no loss.

    Finite scalar quantisation (Mentzer et al. 2024, section 3.1): a coordinate is bounded by a
    tanh to just beyond its outer levels, and rounded.

    Args:
      z: [*b, D].
      levels: of each coordinate, 2 or more; the codes are all combinations, and 8, 5, 5, 5 make
        about as many as a codebook of 1024.

    Returns:
      The values, from -1 to 1, [*b, D], with the gradient of the bounded coordinates, and which of
      the codes each is, int32 [*b].

    Raises:
      ValueError: there are not as many levels as coordinates, or fewer than 2 of one, or more codes
        than int32 counts.

    >>> value, index = finite_scalar(jnp.array([[0.0, 9.0], [-9.0, 0.3]]), levels=(3, 5))
    >>> value, index
    (Array([[ 0. ,  1. ],
           [-1. ,  0.5]], dtype=float32), Array([13,  9], dtype=int32))
    """
    _check_levels(z.shape[-1], levels)
    num = np.asarray(levels)
    # A little beyond the outer levels, or these would be reached at infinity alone.
    reach = (num - 1) * (1 + 1e-3) / 2
    offset = np.where(num % 2 == 0, 0.5, 0.0)
    constants = (reach, offset, np.arctanh(offset / reach), num // 2)
    scale, down, shift, half = (
        jnp.broadcast_to(jnp.asarray(a, z.dtype), z.shape) for a in constants
    )
    bounded = jnp.tanh(z + shift) * scale - down
    rounded = jnp.round(jax.lax.stop_gradient(bounded))
    digits = (rounded + half).astype(jnp.int32)
    index = (digits * jnp.broadcast_to(jnp.asarray(_basis(levels)), z.shape)).sum(-1)
    return (rounded + (bounded - jax.lax.stop_gradient(bounded))) / half, index.astype(jnp.int32)


def finite_scalar_codes(index: Array, levels: Sequence[int]) -> Array:
    """The values that `finite_scalar` gives a code, float32 [*b, D].

    Args:
      index: int [*b].
      levels: of each coordinate.

    >>> finite_scalar_codes(jnp.array([13, 9]), levels=(3, 5))
    Array([[ 0. ,  1. ],
           [-1. ,  0.5]], dtype=float32)
    """
    _check_levels(len(levels), levels)
    shape = (*index.shape, len(levels))
    num, basis = (
        jnp.broadcast_to(jnp.asarray(a, jnp.int32), shape) for a in (levels, _basis(levels))
    )
    digits = jnp.broadcast_to(index[..., None].astype(jnp.int32), shape) // basis % num
    half = num // 2
    return (digits - half).astype(jnp.float32) / half.astype(jnp.float32)


def _basis(levels: Sequence[int]) -> np.ndarray:
    return np.cumprod([1, *levels[:-1]]).astype(np.int32)


def _check_levels(size: int, levels: Sequence[int]) -> None:
    if len(levels) != size or min(levels) < 2 or math.prod(levels) > 2**31:
        raise ValueError(
            f"levels is {tuple(levels)} for {size} coordinates: give one of 2 or more for each, "
            "and at most 2^31 codes"
        )


def _check_lengths(z: Array, codebook: Array) -> None:
    if codebook.ndim != 2 or z.shape[-1:] != codebook.shape[1:]:
        raise ValueError(
            f"z has shape {z.shape} but the codebook {codebook.shape}: give [*b, D] and [K, D]"
        )


def _drawn(key: Array, z: Array, num: int) -> Array:
    """Vectors of z, [num, D]."""
    rows = z.reshape(-1, z.shape[-1])
    return jax.random.choice(key, jax.lax.stop_gradient(rows), (num,), replace=num > len(rows))


def _wide(of_code: Array, like: Array) -> Array:
    return jnp.broadcast_to(of_code[:, None], like.shape)
