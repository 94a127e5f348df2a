"""What a model sees of bytes: zeros and ones drawn from greys, or greys with noise."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions._pytree import check_key

__all__ = ["binarize", "dequantize"]


def binarize(key: Array, image: Array) -> Array:
    """Draws each pixel on with its grey value as probability (Salakhutdinov & Murray 2008).

    Compares 16 random bits with the byte, three times as fast on CPU as `jax.random.bernoulli`. The
    probability of a pixel is byte / 255 to within 2^-16; 0 is never on and 255 always.

    Args:
      key: a typed PRNG key.
      image: uint8, any shape.

    Returns:
      float32 zeros and ones, the shape of `image`.

    Raises:
      TypeError: the image is not uint8, or the key not typed.

    >>> binarize(jax.random.key(0), jnp.array([0, 255], jnp.uint8))
    Array([0., 1.], dtype=float32)
    """
    check_key(key)
    if image.dtype != jnp.uint8:
        raise TypeError(f"image has dtype {image.dtype}: pass bytes, uint8 from 0 to 255")
    threshold = image.astype(jnp.float32) * (2**16 / 255)
    return (_random_uint16(key, image.shape).astype(jnp.float32) < threshold).astype(jnp.float32)


def dequantize(key: Array, image: Array) -> Array:
    """Spreads each byte evenly over the 256th of [0, 1) that it stands for: (byte + u) / 256.

    The density of the result bounds the probability of the bytes, log P(image) >= E[log p(x)] -
    D log 256 (Theis et al. 2016, section 3.1); a density of the bytes themselves has no bound.

    Args:
      key: a typed PRNG key.
      image: uint8, any shape.

    Returns:
      float32 in [0, 1), the shape of `image`.

    Raises:
      TypeError: the image is not uint8, or the key not typed.

    >>> x = dequantize(jax.random.key(0), jnp.array([0, 255], jnp.uint8))
    >>> jnp.floor(256 * x)
    Array([  0., 255.], dtype=float32)
    """
    check_key(key)
    if image.dtype != jnp.uint8:
        raise TypeError(f"image has dtype {image.dtype}: pass bytes, uint8 from 0 to 255")
    # Sixteen bits and a byte are exact in float32: no sum is rounded up to the next byte.
    noise = _random_uint16(key, image.shape).astype(jnp.float32) / 2**16
    return (image.astype(jnp.float32) + noise) / 256


def _random_uint16(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform integers below 2^16, as uint32, made in one loop with whatever they are used for.

    `jax.random.bits` costs seven times as much on CPU, where JAX compiles threefry to a loop of
    passes over memory. The key is only read through `jax.random`, so it can be of any generator
    and its reuse is still found.
    """
    size = math.prod(shape)
    if size > 2**32:
        raise ValueError(f"{size} random numbers of one key: at most {2**32}")
    count = jax.lax.iota(jnp.uint32, size)
    words = _threefry(jax.random.bits(key, (2,), jnp.uint32), count, jnp.zeros_like(count))
    return (words[0] >> 16).reshape(shape)


def _threefry(key: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): two random words for two counters."""
    parity = jnp.uint32(0x1BD11BDA) ^ key[0] ^ key[1]
    schedule = (key[0], key[1], parity)
    first, second = first + schedule[0], second + schedule[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            first = first + second
            second = first ^ (second << rotation | second >> (32 - rotation))
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return first, second
