"""Gated and residual networks: their layers in NumPy, sizes that suit, a start that is healthy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import networks


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_params(network, x):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: (0.3 * rng.normal(size=a.shape)).astype(a.dtype), shapes)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def test_a_gated_mlp_in_numpy():
    network, x = networks.GatedMLP((3, 2), hidden=(6, 4)), noise(1, 5, 7)
    params = random_params(network, x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    h = np.asarray(x, np.float64)
    for i, width in enumerate((6, 4)):
        both = h @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"]
        h = both[:, :width] * sigmoid(both[:, width:])
    expected = (h @ p["Dense_2"]["kernel"]).reshape(5, 3, 2) + p["bias"]
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-5, atol=1e-5)


def test_a_residual_mlp_in_numpy():
    """The way around is dense where the width changes, and nothing else where it does not."""
    network, x = networks.ResidualMLP((3,), hidden=(6, 6, 4)), noise(1, 5, 7)
    params = random_params(network, x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])

    def dense(i, h):
        return h @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"]

    h = dense(0, np.asarray(x, np.float64))
    h = h + dense(2, silu(dense(1, silu(h))))
    h = h + dense(4, silu(dense(3, silu(h))))
    h = dense(5, h)
    h = h + dense(7, silu(dense(6, silu(h))))
    expected = silu(h) @ p["Dense_8"]["kernel"] + p["bias"]
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-5, atol=1e-5)


def test_blocks_whose_last_kernel_is_zero_change_nothing():
    """Then a residual convolution network is its strided convolutions alone."""
    shape, x = (9, 6, 2), noise(1, 4, 9, 6, 2)
    network = networks.ResidualConvEncoder((3,), channels=(4, 5), blocks=1, hidden=8)
    params = random_params(network, x)["params"]
    for i in (1, 3):  # the second of each pair
        params[f"Conv_{i}"] = jax.tree.map(jnp.zeros_like, params[f"Conv_{i}"])
    plain = networks.ConvEncoder((3,), channels=(4, 5), hidden=8, activation=nn.silu)
    assert shape == x.shape[1:]
    expected = plain.apply({"params": {k: v for k, v in params.items() if k[:5] != "Conv_"}}, x)
    np.testing.assert_allclose(network.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 8, 28, 32, 45, 64, 128])
def test_channels_for_any_size_end_at_a_small_image(size):
    channels = networks.channels_for((size, size, 3))
    small = -(-size // 2 ** len(channels))
    assert small <= 7
    assert size <= 14 or small > 3  # and not at a point, of what was larger
    assert max(channels) <= 256
    encoder, decoder = (
        networks.ResidualConvEncoder((6,)),
        networks.ResidualConvDecoder((size, size, 3)),
    )
    x, key = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), jax.random.key(0)
    code, _ = jax.eval_shape(encoder.init_with_output, key, x)
    image, _ = jax.eval_shape(decoder.init_with_output, key, jnp.zeros((1, 6)))
    assert (code.shape, image.shape) == ((1, 6), (1, size, size, 3))


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (networks.GatedMLP((4,), hidden=(16,) * 12), (30,)),
        (networks.ResidualMLP((4,), hidden=(16,) * 12), (30,)),
        (networks.ResidualConvEncoder((4,), channels=(8,), blocks=6, hidden=16), (6, 6, 1)),
        (networks.ResidualConvDecoder((6, 6, 1), channels=(8,), blocks=6, hidden=16), (10,)),
    ],
    ids=["gated", "residual", "encoder", "decoder"],
)
def test_deep_networks_start_finite_and_every_kernel_has_a_gradient(network, shape):
    x = noise(1, 16, *shape)
    params = jax.jit(network.init)(jax.random.key(0), x)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda params: jnp.square(network.apply(params, x)).mean())
    )(params)
    assert 1e-6 < value < 10
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
