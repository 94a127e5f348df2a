"""What is observed of bytes: drawn pixels, and bytes spread over what they stand for."""

import math

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax.pixels import _threefry


def test_binarize_is_exact_at_the_ends():
    key, other = jax.random.split(jax.random.key(0))
    size = 2**18  # four times as many as there are thresholds
    assert not vae_jax.binarize(key, jnp.zeros(size, jnp.uint8)).any()
    assert vae_jax.binarize(other, jnp.full(size, 255, jnp.uint8)).all()


def test_binarize_has_the_grey_value_as_frequency():
    num = 2000
    image = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8), (num, 256))
    x = vae_jax.binarize(jax.random.key(0), image)
    assert x.dtype == jnp.float32
    assert set(np.unique(x)) == {0.0, 1.0}
    p = np.arange(256) / 255
    z = (np.mean(x, axis=0) - p)[1:-1] / np.sqrt(p * (1 - p) / num)[1:-1]
    assert np.abs(z).max() <= 4.5  # the largest of 254
    # Their squares sum to a chi-squared of 254 degrees of freedom.
    assert abs(np.square(z).sum() - 254) <= 4 * math.sqrt(2 * 254)


def test_binarize_draws_pixels_independently_and_anew():
    image = jnp.full((2000, 4), 128, jnp.uint8)
    keys = jax.random.split(jax.random.key(0))
    x, y = (np.asarray(vae_jax.binarize(key, image)) for key in keys)
    bound = 4 / math.sqrt(2000)
    correlation = np.corrcoef(np.concatenate([x, y], axis=1).T)
    assert np.abs(correlation - np.eye(8)).max() <= bound


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_binarize_takes_bytes_only(dtype):
    for binarize in (vae_jax.binarize, jax.jit(vae_jax.binarize)):
        with pytest.raises(TypeError, match=f"image has dtype {dtype}: pass bytes, uint8"):
            binarize(jax.random.key(0), jnp.zeros(3, dtype))


def test_the_generator_of_binarize_is_threefry():
    key, first, second = (
        jax.random.bits(jax.random.key(i), (num,)) for i, num in enumerate((2, 500, 500))
    )
    oracle = jax.extend.random.threefry_2x32(key, jnp.concatenate([first, second]))
    words = jnp.concatenate(_threefry(key, first, second))
    np.testing.assert_array_equal(words, oracle)
    # The known answer that Random123 publishes for these digits of pi.
    key = jnp.array([0x13198A2E, 0x03707344], jnp.uint32)
    words = _threefry(key, jnp.uint32(0x243F6A88), jnp.uint32(0x85A308D3))
    assert [int(word) for word in words] == [0xC4923A9C, 0x483DF7A0]


def test_dequantized_bytes_stay_in_their_own_256th():
    image = jnp.repeat(jnp.arange(256, dtype=jnp.uint8), 2**15)
    x = np.asarray(vae_jax.dequantize(jax.random.key(0), image))
    np.testing.assert_array_equal(np.floor(256 * x), image)
    assert x.max() < 1


def test_dequantized_bytes_are_spread_evenly():
    image = jnp.full(10**5, 200, jnp.uint8)
    u = 256 * np.asarray(vae_jax.dequantize(jax.random.key(0), image), np.float64) - 200
    assert stats.kstest(u, stats.uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_dequantize_takes_bytes_only(dtype):
    with pytest.raises(TypeError, match=f"image has dtype {dtype}: pass bytes, uint8"):
        vae_jax.dequantize(jax.random.key(0), jnp.zeros(3, dtype))
