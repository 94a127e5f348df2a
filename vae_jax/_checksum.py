"""Checksums of arrays, by which a checkpoint is known to be what was saved."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def mixed(tree: Any) -> list[int]:
    """A checksum of each array, which tells its values and their places."""
    return [int(x) for x in _mixed_sums(jax.tree.leaves(tree))]


def plain(tree: Any) -> list[int]:
    """The sum of each array's words, as version 0.1 stored it."""
    return [int(x) for x in _plain_sums(jax.tree.leaves(tree))]


@jax.jit
def _mixed_sums(leaves: list[Array]) -> list[Array]:
    """The sum of mix(word xor mix(place)), modulo 2^32: the same however an array is split.

    The mix is the finaliser of MurmurHash3, under which a changed sign, or two words that change
    places, change the sum: of the plain words both can leave it as it is.
    """

    def total(leaf: Array) -> Array:
        words = _words(leaf).reshape(-1)
        place = jax.lax.iota(jnp.uint32, words.size)
        return _mix(words ^ _mix(place)).sum(dtype=jnp.uint32)

    return [total(leaf) for leaf in leaves]


def _mix(x: Array) -> Array:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


@jax.jit
def _plain_sums(leaves: list[Array]) -> list[Array]:
    return [_words(leaf).sum(dtype=jnp.uint32) for leaf in leaves]


def _words(leaf: Array) -> Array:
    """An array's bits as uint32, of narrower types one each, of wider ones several."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag])
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    width = 8 * leaf.dtype.itemsize
    return jax.lax.bitcast_convert_type(leaf, f"uint{min(width, 32)}").astype(jnp.uint32)
