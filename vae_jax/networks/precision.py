"""Matrix products in bfloat16 with sums in float32."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def matmul_bfloat16(x: Array, kernel: Array) -> Array:
    """x @ kernel with factors rounded to bfloat16 and sums in float32, in all products.

    So are the products of its derivatives, of every mode and order: JAX's own would multiply a
    float32 cotangent by a bfloat16 factor, which runs at the speed of float32.

    Args:
      x: [*b, I].
      kernel: [I, O].

    Returns:
      float32 [*b, O].

    >>> matmul_bfloat16(jnp.ones((2, 3)), jnp.full((3, 1), 0.1)).dtype
    dtype('float32')
    """
    x, kernel = (factor.astype(jnp.float32) for factor in (x, kernel))
    rows: Array = _product.bind(x.reshape(1, -1, x.shape[-1]), kernel[None], contracting=(2, 1))
    return rows.reshape(*x.shape[:-1], kernel.shape[-1])


def as_dot_general(matmul: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """For `nn.Dense`, which only ever contracts the last axis of x with the first of the kernel."""

    def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        return matmul(x, kernel)

    return dot_general


def check_floating(x: Array) -> None:
    """Raises TypeError for integers and bool: parameters in their dtype would be cut to them."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"the input of the network has dtype {x.dtype}: pass floating-point values, bytes by "
            "way of vae_jax.binarize or x.astype(jnp.float32) / 255"
        )


# A primitive, as neither jax.custom_vjp nor jax.custom_jvp will do: the first forbids forward mode,
# and the second leaves the transposed product to autodiff. Its factors are float32, [G, M, K] and
# [G, K, N], or either with its last axes exchanged, as `contracting` says, the number of each
# factor's axis K; the product is [G, M, N]. Derivatives and batches of them are such products.
_product = Primitive("matmul_bfloat16")


def _multiply(x: Array, y: Array, *, contracting: tuple[int, int]) -> Array:
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    return _dot(x, y, contracting)


def _multiply_on_cpu(x: Array, y: Array, *, contracting: tuple[int, int]) -> Array:
    if len(x) == 1:
        x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
        if contracting[0] == 1:
            # x^T y, of which kernels' gradients are, has no kernel either, nor has what XLA takes
            # for the transposed layout of x: by way of a single axis its rows are in memory. Over
            # several devices that gathers x.
            shape, contracting = (1, x.shape[2], x.shape[1]), (2, contracting[1])
            x = jax.lax.optimization_barrier(x[0].T.reshape(-1)).reshape(shape)
        # Nor for every order of the axes: XLA must not exchange them, to save a transposition.
        x, y = jax.lax.optimization_barrier((x, y))
        product: Array = jax.lax.optimization_barrier(_dot(x, y, contracting))
        return product
    # XLA has no CPU kernel for many such products at once: the same numbers, at float32's speed.
    x, y = (jax.lax.reduce_precision(f, exponent_bits=8, mantissa_bits=7) for f in (x, y))
    return _dot(x, y, contracting)


def _dot(x: Array, y: Array, contracting: tuple[int, int]) -> Array:
    dot = partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    i, j = contracting
    if len(x) == 1:  # nor one for a single product with this axis
        return dot(x[0], y[0], (((i - 1,), (j - 1,)), ((), ())))[None]
    return dot(x, y, (((i,), (j,)), ((0,), (0,))))


def _shape(x: Any, y: Any, *, contracting: tuple[int, int]) -> Any:
    i, j = contracting
    return x.update(shape=(x.shape[0], x.shape[3 - i], y.shape[3 - j]))


def _transpose_x(cotangent: Array, x: Any, y: Array, *, contracting: tuple[int, int]) -> Any:
    i, j = contracting
    if i == 2:
        return _product.bind(cotangent, y, contracting=(2, 3 - j))
    return _product.bind(y, cotangent, contracting=(3 - j, 2))


def _transpose_y(cotangent: Array, x: Array, y: Any, *, contracting: tuple[int, int]) -> Any:
    i, j = contracting
    if j == 1:
        return _product.bind(x, cotangent, contracting=(3 - i, 1))
    return _product.bind(cotangent, x, contracting=(1, 3 - i))


def _batch(
    factors: Sequence[Array], axes: Sequence[int | None], *, contracting: tuple[int, int]
) -> tuple[Array, int]:
    x, y = (
        factor[None] if axis is None else jnp.moveaxis(factor, axis, 0)
        for factor, axis in zip(factors, axes, strict=True)
    )
    if contracting[0] == 2 and len(y) == 1 and y.shape[1] == 1:  # one y for all of x: more rows
        rows = _product.bind(x.reshape(1, -1, x.shape[-1]), y[0], contracting=contracting)
        return rows.reshape(*x.shape[:-1], rows.shape[-1]), 0
    batch = (max(len(x), len(y)), x.shape[1])
    x, y = (jnp.broadcast_to(f, (*batch, *f.shape[2:])).reshape(-1, *f.shape[2:]) for f in (x, y))
    product = _product.bind(x, y, contracting=contracting)
    return product.reshape(*batch, *product.shape[1:]), 0


@partial(jax.jit, static_argnames="contracting")
def _compiled(x: Array, y: Array, *, contracting: tuple[int, int]) -> Any:
    return _product.bind(x, y, contracting=contracting)


def _evaluated(x: Array, y: Array, *, contracting: tuple[int, int]) -> Any:
    with jax.disable_jit(False):  # or it would call itself
        return _compiled(x, y, contracting=contracting)


_product.def_impl(_evaluated)
_product.def_abstract_eval(_shape)
ad.defbilinear(_product, _transpose_x, _transpose_y)
batching.primitive_batchers[_product] = _batch
mlir.register_lowering(_product, mlir.lower_fun(_multiply, multiple_results=False))
mlir.register_lowering(
    _product, mlir.lower_fun(_multiply_on_cpu, multiple_results=False), platform="cpu"
)
