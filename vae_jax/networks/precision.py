"""Matrix products in bfloat16 with sums in float32."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def matmul_bfloat16(x: Array, kernel: Array) -> Array:
    """x @ kernel with factors rounded to bfloat16 and sums in float32, in all three products.

    The gradient is written out because autodiff would multiply a float32 cotangent by a bfloat16
    factor, which runs at the speed of float32.

    Args:
      x: [*b, I].
      kernel: [I, O].

    Returns:
      float32 [*b, O].

    >>> matmul_bfloat16(jnp.ones((2, 3)), jnp.full((3, 1), 0.1)).dtype
    dtype('float32')
    """
    return _matmul_bfloat16_fwd(x, kernel)[0]


def _matmul_bfloat16_fwd(x: Array, kernel: Array) -> tuple[Array, Any]:
    low_x, low_kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _product(low_x, low_kernel, ((x.ndim - 1,), (0,))), (low_x, low_kernel)


def _matmul_bfloat16_bwd(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = factors
    cotangent = cotangent.astype(jnp.bfloat16)
    # Rows are flattened: XLA has no CPU kernel for a product over several axes in these dtypes.
    x_rows = x.reshape(-1, x.shape[-1])
    cotangent_rows = cotangent.reshape(-1, cotangent.shape[-1])
    return (
        _product(cotangent, kernel, ((x.ndim - 1,), (1,))),
        _product(x_rows, cotangent_rows, ((0,), (0,))),
    )


matmul_bfloat16.defvjp(_matmul_bfloat16_fwd, _matmul_bfloat16_bwd)


def _product(a: Array, b: Array, contracted: tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    product: Array = jax.lax.dot_general(
        a, b, (contracted, ((), ())), preferred_element_type=jnp.float32
    )
    return product


def as_dot_general(matmul: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """For `nn.Dense`, which only ever contracts the last axis of x with the first of the kernel."""

    def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        return matmul(x, kernel)

    return dot_general
