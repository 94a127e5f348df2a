"""What the machine allows: the products a step must form, and the rates at which it can."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


class Product(NamedTuple):
    """A matrix product or a convolution, which is counted as the matrix product it amounts to.

    Attributes:
      lhs: shape.
      rhs: shape.
      dimension_numbers: of `jax.lax.dot_general`.
      dtype: of the factors.
      flops: multiplications and additions.
    """

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    dimension_numbers: Any
    dtype: Any
    flops: int


def products(jaxpr: core.Jaxpr) -> list[Product]:
    """Every product that a program forms; those of a loop's body as often as it runs."""
    found: list[Product] = []
    for equation in jaxpr.eqns:
        avals = [v.aval for v in equation.invars]
        if equation.primitive.name == "dot_general":
            found.append(_dot(avals[0], avals[1], equation.params["dimension_numbers"]))
        elif equation.primitive.name == "matmul_bfloat16":  # vae_jax.networks.precision's, of one
            i, j = equation.params["contracting"]
            one, other = (jax.ShapeDtypeStruct(a.shape[1:], jnp.bfloat16) for a in avals)
            found.append(_dot(one, other, (((i - 1,), (j - 1,)), ((), ()))))
        elif equation.primitive.name == "conv_general_dilated":
            found.append(_convolution(avals[0], avals[1], equation))
        else:
            repeats = equation.params.get("length", 1)
            for inner in _inner(equation.params):
                found += repeats * products(inner)
    return found


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _dot(lhs: Any, rhs: Any, dimension_numbers: Any) -> Product:
    (_, contracted), (_, batch) = dimension_numbers
    free = [n for i, n in enumerate(rhs.shape) if i not in (*contracted, *batch)]
    flops = 2 * int(np.prod(lhs.shape)) * int(np.prod(free, dtype=int))
    return Product(lhs.shape, rhs.shape, dimension_numbers, lhs.dtype, flops)


def _convolution(lhs: Any, rhs: Any, equation: Any) -> Product:
    """As [B H W, taps x in] by [taps x in, out], less the zeros that dilation inserts."""
    numbers, out = equation.params["dimension_numbers"], equation.outvars[0].aval
    channels = rhs.shape[numbers.rhs_spec[0]]
    rows = int(np.prod(out.shape)) // channels
    zeros = int(np.prod(equation.params["lhs_dilation"]))
    inner = int(np.prod(rhs.shape)) // channels // zeros
    return Product(
        (rows, inner),
        (inner, channels),
        (((1,), (0,)), ((), ())),
        lhs.dtype,
        2 * rows * inner * channels,
    )


def step_products(loss: Any, params: Any, batch: Any) -> list[Product]:
    """The products of a loss and its gradient."""
    gradient = jax.value_and_grad(loss, has_aux=True)
    return products(jax.make_jaxpr(gradient)(params, jax.random.key(0), batch).jaxpr)


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call, after a pause in which the threads of the one before stop spinning."""
    time.sleep(0.2)
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def seconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of a call, the first one left out."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def product_loop(
    steps: list[Product], target_seconds: float = 0.3
) -> tuple[Callable[[], Any], int]:
    """A call that forms these products, one after another, and nothing else; how often it does.

    One number of each factor is taken from the product before: so no product can be moved out of
    the loop, or run beside another.
    """
    keys = jax.random.split(jax.random.key(0), 2 * len(steps))
    factors = [
        (
            jax.random.normal(keys[2 * i], p.lhs, jnp.float32).astype(p.dtype),
            jax.random.normal(keys[2 * i + 1], p.rhs, jnp.float32).astype(p.dtype),
        )
        for i, p in enumerate(steps)
    ]

    def form(factors: Any) -> Any:
        previous, results, touched = jnp.float32(1), [], []
        for (lhs, rhs), product in zip(factors, steps, strict=True):
            lhs = lhs.at[(0,) * lhs.ndim].set(jnp.sign(previous).astype(lhs.dtype))
            result = jax.lax.dot_general(
                lhs, rhs, product.dimension_numbers, preferred_element_type=jnp.float32
            )
            previous = result[(0,) * result.ndim]
            results.append(result)
            touched.append((lhs, rhs))
        return touched, results

    @jax.jit
    def loop(repeats: Any, factors: Any) -> Any:
        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(form, factors))
        return jax.lax.fori_loop(0, repeats, lambda _, carry: form(carry[0]), (factors, empty[1]))

    once = seconds(lambda: loop(10, factors), repeats=1) / 10
    repeats = max(1, int(target_seconds / once))
    return lambda: loop(repeats, factors), repeats


def bandwidth(num_bytes: int = 2**28) -> float:
    """Bytes per second, read and written, of an array far larger than any cache."""
    array = jnp.zeros(num_bytes // 4, jnp.float32)
    add = jax.jit(lambda a: a + 1)
    return 2 * num_bytes / seconds(lambda: add(array))


def num_bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
