"""Products in bfloat16, and the derivatives of networks in every mode, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import networks

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 4, 7)), jnp.float32)
KERNEL = jnp.asarray(RNG.normal(size=(7, 5)), jnp.float32)


def rounded(*arrays):
    """To bfloat16, in float64."""
    return [np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64) for a in arrays]


@pytest.mark.parametrize("leading", [(), (4,), (3, 4)], ids=str)
def test_the_product_is_that_of_rounded_factors(leading):
    x = X[(0,) * (2 - len(leading))]
    actual = networks.matmul_bfloat16(x, KERNEL)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, np.matmul(*rounded(x, KERNEL)), rtol=1e-5, atol=1e-5)


def test_the_product_without_jit():
    with jax.disable_jit():
        actual = networks.matmul_bfloat16(X, KERNEL)
    np.testing.assert_allclose(actual, np.matmul(*rounded(X, KERNEL)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_have_the_dtypes_of_the_factors(dtype):
    x = X.astype(dtype)
    gradient = jax.grad(lambda x, k: networks.matmul_bfloat16(x, k).sum(), (0, 1))(x, KERNEL)
    assert [g.dtype for g in gradient] == [x.dtype, KERNEL.dtype]


def test_all_three_products_have_factors_of_bfloat16_and_sums_of_float32():
    weights = jnp.asarray(RNG.normal(size=(3, 4, 5)), jnp.float32)
    _, pullback = jax.vjp(networks.matmul_bfloat16, X, KERNEL)
    x, kernel, w = rounded(X, KERNEL, weights)
    expected = w @ kernel.T, np.einsum("abi,abo->io", x, w)
    for actual, e in zip(pullback(weights), expected, strict=True):
        np.testing.assert_allclose(actual, e, rtol=1e-5, atol=1e-5)
    text = jax.jit(lambda x, k, w: jax.vjp(networks.matmul_bfloat16, x, k)[1](w)).lower(
        X, KERNEL, weights
    )
    products = [line for line in text.as_text().splitlines() if "dot_general" in line]
    assert len(products) == 2
    for line in products:
        assert line.count("xbf16>") == 2
        assert line.count("xf32>") == 1


def test_forward_mode_is_the_transpose_of_reverse_mode():
    tangents = [jnp.asarray(RNG.normal(size=a.shape), jnp.float32) for a in (X, KERNEL)]
    _, tangent = jax.jvp(networks.matmul_bfloat16, (X, KERNEL), tuple(tangents))
    x, kernel, dx, dk = rounded(X, KERNEL, *tangents)
    np.testing.assert_allclose(tangent, dx @ kernel + x @ dk, rtol=1e-4, atol=1e-4)
    _, linear = jax.linearize(networks.matmul_bfloat16, X, KERNEL)
    np.testing.assert_allclose(linear(*tangents), tangent, rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (0, 0), (2, 1)], ids=str)
def test_under_vmap(axes):
    shapes = [
        s if a is None else (*s[:a], 3, *s[a:]) for s, a in zip(((4, 7), (7, 5)), axes, strict=True)
    ]
    x, kernel = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in shapes)
    batched = jax.vmap(networks.matmul_bfloat16, axes)

    def loss(x, kernel):
        return jnp.sin(batched(x, kernel)).sum()

    def one_by_one(x, kernel):
        pick = [
            (lambda a, i: a) if axis is None else (lambda a, i, axis=axis: jnp.take(a, i, axis))
            for axis in axes
        ]
        parts = [networks.matmul_bfloat16(pick[0](x, i), pick[1](kernel, i)) for i in range(3)]
        return jnp.sin(jnp.stack(parts)).sum()

    for value in (lambda f: f, lambda f: jax.grad(f, (0, 1))):
        got, expected = (jax.tree.leaves(value(f)(x, kernel)) for f in (loss, one_by_one))
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)


IMAGE = (9, 6, 2)
MATMULS = {"float32": jnp.matmul, "bfloat16": networks.matmul_bfloat16}


def make(kind, precision):
    options = {"matmul": MATMULS[precision], "activation": jnp.tanh}
    decoder = {
        "mlp": networks.MLP(IMAGE, hidden=(8,), **options),
        "conv": networks.ConvDecoder(IMAGE, channels=(4, 3), hidden=8, **options),
    }[kind]
    encoder = {
        "mlp": networks.MLP((2,), hidden=(8,), event_ndims=3, **options),
        "conv": networks.ConvEncoder((2,), channels=(3, 4), hidden=8, **options),
    }[kind]
    return encoder, decoder


@pytest.mark.relax("numpy_rank_promotion")
@pytest.mark.parametrize("precision", MATMULS)
@pytest.mark.parametrize("kind", ["mlp", pytest.param("conv", marks=pytest.mark.long)])
def test_every_mode_of_differentiation(kind, precision):
    """The pullback metric J^T J of a decoder, and the Hessian of an encoder's mean."""
    encoder, decoder = make(kind, precision)
    z, x = jnp.array([0.3, -0.2]), jnp.asarray(RNG.normal(size=IMAGE), jnp.float32)
    theta = decoder.init(jax.random.key(0), z)
    phi = encoder.init(jax.random.key(1), x)
    exact = precision == "float32"
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if exact else {"rtol": 0.1, "atol": 0.05}

    def decode(z):
        return decoder.apply(theta, z).reshape(-1)

    forward, reverse = jax.jit(jax.jacfwd(decode))(z), jax.jit(jax.jacrev(decode))(z)
    np.testing.assert_allclose(forward, reverse, **tolerance)
    step = 1e-2
    numeric = [(decode(z + step * e) - decode(z - step * e)) / (2 * step) for e in jnp.eye(2)]
    if exact:
        np.testing.assert_allclose(forward, np.stack(numeric, axis=-1), rtol=0.02, atol=1e-3)
    tangent = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(jax.jvp(decode, (z,), (tangent,))[1], forward @ tangent, **tolerance)
    np.testing.assert_allclose(jax.linearize(decode, z)[1](tangent), forward @ tangent, **tolerance)
    hessian = jax.jit(jax.hessian(lambda x: encoder.apply(phi, x).sum()))(x)
    assert hessian.shape == (*IMAGE, *IMAGE)
    matrix = hessian.reshape(x.size, x.size)
    np.testing.assert_allclose(matrix, matrix.T, **tolerance)
    assert np.abs(matrix).max() > 1e-4


@pytest.mark.few(4)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
@pytest.mark.parametrize(
    "network",
    [
        networks.MLP((2,), hidden=(8,), event_ndims=3),
        networks.ConvEncoder((2,), channels=(3,)),
        networks.ConvEncoder((2,), channels=(3,), condition=networks.ClassCondition(3)),
        networks.StridedConv(3),
        networks.TransposedConv(3),
    ],
    ids=["mlp", "conv", "conditional", "strided", "transposed"],
)
def test_no_parameter_is_cut_to_integers(network, dtype):
    """A kernel as uint8 is 0, and q(z|x) no longer depends on x."""
    label = () if getattr(network, "condition", None) is None else (jnp.array([1]),)
    x = jnp.ones((1, *IMAGE), dtype)
    with pytest.raises(TypeError, match=f"the input of the network has dtype {dtype}: pass float"):
        network.init(jax.random.key(0), x, *label)
    params = network.init(jax.random.key(0), x.astype(jnp.float32), *label)
    with pytest.raises(TypeError, match=f"the input of the network has dtype {dtype}"):
        jax.jit(network.apply)(params, x, *label)
