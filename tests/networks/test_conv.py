"""Convolutions as matrix products: those of Flax, in values and gradients of every mode."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import networks

LATENT_DIM = 3


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(network, x):
    """In the shapes of `network.init`, but no bias is zero and nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: 0.2 * rng.normal(size=a.shape).astype(a.dtype), shapes)


def test_decoder_image_is_cut_from_the_larger_one_at_its_far_edges():
    large, small = (networks.ConvDecoder(s, (5, 3), 8) for s in ((8, 8, 3), (7, 5, 3)))
    z = noise(0, 4, LATENT_DIM)
    variables = random_variables(large, z)
    cut = {"params": {**variables["params"], "bias": variables["params"]["bias"][:7, :5]}}
    expected = jax.jit(large.apply)(variables, z)[:, :7, :5]
    np.testing.assert_allclose(jax.jit(small.apply)(cut, z), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (
            networks.StridedConv(5),
            nn.Conv(5, (3, 3), strides=2, padding=((0, 1), (0, 1))),
            (2, 3, 14, 10, 4),
        ),
        (
            networks.StridedConv(5),
            nn.Conv(5, (3, 3), strides=2, padding=((0, 2), (0, 1))),
            (2, 7, 4, 1),
        ),
        (
            networks.TransposedConv(5),
            nn.ConvTranspose(5, (3, 3), strides=(2, 2), transpose_kernel=True),
            (2, 3, 7, 5, 4),
        ),
        (networks.Conv(5), nn.Conv(5, (3, 3)), (2, 3, 7, 6, 4)),
        (networks.Conv(5), nn.Conv(5, (3, 3)), (2, 1, 2, 4)),
    ],
    ids=["strided", "strided, odd", "transposed", "stride 1", "stride 1, a row"],
)
def test_convolutions_equal_those_of_flax(ours, theirs, shape):
    """Values, and gradients in input and parameters."""
    x, params = noise(0, *shape), ours.init(jax.random.key(1), jnp.zeros(shape))
    params = jax.tree.map(lambda p: p + noise(2, *p.shape), params)
    weights = noise(3, *ours.apply(params, x).shape)

    def gradients(module):
        return jax.value_and_grad(
            lambda params, x: (module.apply(params, x) * weights).sum(), (0, 1)
        )(params, x)

    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), 1e-4, 1e-4)
    chex.assert_trees_all_close(gradients(ours), gradients(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.few(2)
@pytest.mark.parametrize("shape", [(2, 8, 6, 32), (3, 1, 5, 2), (2, 4, 1, 4)], ids=str)
def test_stride_1_is_the_convolution_of_jax(shape):
    """Values, both gradients, and the one along a direction, of a kernel that has no symmetry."""
    x, kernel, weights = noise(0, *shape), noise(1, 3, 3, shape[-1], 7), noise(2, *shape[:-1], 7)

    def ours(kernel, x):
        return networks.Conv(7).apply({"params": {"kernel": kernel, "bias": jnp.zeros(7)}}, x)

    def theirs(kernel, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def differentiated(conv):
        gradients = jax.grad(lambda *of: (conv(*of) ** 2 * weights).sum(), (0, 1))
        return conv(kernel, x), jax.jvp(gradients, (kernel, x), (kernel**2, jnp.sin(x)))

    for a, b in zip(
        *(jax.tree.leaves(jax.jit(differentiated, static_argnums=0)(of)) for of in (ours, theirs)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("channels", [1, 6])
def test_stride_1_of_no_images_and_of_a_share_of_them_on_each_device(channels):
    conv = networks.Conv(6)
    params = conv.init(jax.random.key(0), jnp.ones((1, 5, 4, channels)))
    assert conv.apply(params, jnp.ones((0, 5, 4, channels))).shape == (0, 5, 4, 6)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("data")
    x = noise(0, 4, 5, 4, channels)
    shared = jax.shard_map(
        lambda x: conv.apply(params, x), mesh=mesh, in_specs=rows, out_specs=rows
    )
    np.testing.assert_allclose(shared(x), conv.apply(params, x), rtol=0, atol=1e-5)


@pytest.mark.long
def test_convolutions_in_bfloat16_have_float32_sums_and_gradients():
    x = noise(0, 3, 14, 14, 8)
    for module in (networks.StridedConv, networks.TransposedConv):
        low, full = module(16, networks.matmul_bfloat16), module(16)
        params = full.init(jax.random.key(1), x)

        def loss(params, module):
            return jnp.square(module.apply(params, x)).mean()

        for value in (lambda m, p: m.apply(p, x), lambda m, p: jax.grad(loss)(p, m)):
            got, expected = jax.jit(value, static_argnums=0)(low, params), value(full, params)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
                assert a.dtype == jnp.float32
                assert 0 < jnp.linalg.norm(a - b) < 0.01 * jnp.linalg.norm(b)
