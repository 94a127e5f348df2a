"""Invertible maps of vectors, with the logarithm of their Jacobian's determinant.

A transform has `forward_and_log_det(z) -> (y, log|det dy/dz|)` and
`inverse_and_log_det(y) -> (z, log|det dz/dy|)`, of [*s, *b, Z], the determinants of [*s, *b]; the
bijectors of distrax have them too. Its own parameters have batch axes [*b], or none.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vae_jax.distributions._pytree import float_array, pytree

Layers = tuple[tuple[Array, Array], ...]
"""Kernels [I, O] and biases [O] of dense layers, the first to the last."""

# So that a planar map with u = 0 leaves every z where it is.
_SHIFT = float(np.log(np.e - 1))


@pytree
class Planar:
    """y = z + u tanh(w z + b), which bends the space along one plane (Rezende & Mohamed 2015).

    It is invertible where w u > -1. As in their appendix A.1, u is moved along w to where this
    holds, by log(1 + exp(w u + log(e - 1))) - 1 for w u, which leaves u = 0 as it is. The inverse
    is the root of one monotone equation, and exact to rounding.

    Args:
      weight: w, [*b, Z].
      direction: u, the shape of `weight`.
      bias: b, [*b].

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: their shapes do not agree.

    >>> planar = Planar(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array(0.0))
    >>> y, log_det = planar.forward_and_log_det(jnp.array([0.5, 3.0]))
    >>> planar.inverse_and_log_det(y)[0].round(4)
    Array([0.5, 3. ], dtype=float32)
    """

    weight: Array
    direction: Array
    bias: Array

    def __post_init__(self) -> None:
        weight, direction = (float_array(n, getattr(self, n)) for n in ("weight", "direction"))
        bias = float_array("bias", self.bias)
        if not weight.ndim or direction.shape != weight.shape or bias.shape != weight.shape[:-1]:
            raise ValueError(
                f"weight has shape {weight.shape}, direction {direction.shape} and bias "
                f"{bias.shape}: they must be [*b, Z], [*b, Z] and [*b]"
            )
        for name, array in ("weight", weight), ("direction", direction), ("bias", bias):
            object.__setattr__(self, name, array)

    def forward_and_log_det(self, z: Array) -> tuple[Array, Array]:
        weight, direction, slope, bias = self._against(z)
        bent = jnp.tanh((weight * z).sum(-1) + bias)
        return z + direction * bent[..., None], _planar_log_det(bent, slope)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        weight, direction, slope, bias = self._against(y)
        along = _along((weight * y).sum(-1), slope - 1, bias)
        bent = jnp.tanh(along + bias)
        return y - direction * bent[..., None], -_planar_log_det(bent, slope)

    def _against(self, z: Array) -> tuple[Array, Array, Array, Array]:
        """w, the moved u, 1 + w u of it, which is positive, and b, for each z."""
        along = (self.weight * self.direction).sum(-1)
        slope = jax.nn.softplus(along + _SHIFT)
        square = jnp.square(self.weight).sum(-1)
        tiny = jnp.finfo(square.dtype).tiny
        moved = ((slope - 1 - along) / jnp.maximum(square, tiny))[..., None]
        direction = self.direction + moved * self.weight
        weight, direction = (jnp.broadcast_to(a, z.shape) for a in (self.weight, direction))
        slope, bias = (jnp.broadcast_to(a, z.shape[:-1]) for a in (slope, self.bias))
        return weight, direction, slope, bias


def _planar_log_det(bent: Array, slope: Array) -> Array:
    """log(1 + w u (1 - tanh^2)), as a sum of two positive terms."""
    squared = jnp.square(bent)
    return jnp.log(slope * (1 - squared) + squared)


@jax.custom_jvp
@jax.jit
def _along(target: Array, moved: Array, bias: Array) -> Array:
    """The t of t + moved tanh(t + bias) = target, moved > -1, elementwise by bisection."""

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = ends[0] + (ends[1] - ends[0]) / 2
        below = middle + moved * jnp.tanh(middle + bias) < target
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    # |tanh| < 1 holds t within |moved| of the target.
    ends = target - jnp.abs(moved), target + jnp.abs(moved)
    low, high = jax.lax.fori_loop(0, jnp.finfo(target.dtype).nmant + 8, halve, ends)
    middle: Array = low + (high - low) / 2
    return middle


@_along.defjvp
def _(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    """Of the implicit function; in terms of t itself, so that its derivatives are right too."""
    (_, moved, bias), (dtarget, dmoved, dbias) = primals, tangents
    along = _along(*primals)
    bent = jnp.tanh(along + bias)
    steepness = moved * (1 - jnp.square(bent))
    # 1 + steepness, as a sum of two positive terms.
    slope = (1 + moved) * (1 - jnp.square(bent)) + jnp.square(bent)
    return along, (dtarget - bent * dmoved - steepness * dbias) / slope


@pytree
class InverseAutoregressive:
    """y = s z + (1 - s) m, with m_i and s_i of the z before z_i (Kingma et al. 2016, equation 14).

    m and the logit of the gate s come of one dense network, masked so that output i sees no z_j
    with j >= i (Germain et al. 2015). The network is run once for a draw and its density, and Z
    times, one coordinate after the other, for the inverse. The logits are bounded smoothly, to
    (-4, 4): what a gate of 1e-8 lets through no inverse finds.

    Args:
      layers: of the network, at least two, from Z inputs to 2 Z outputs, m before the logits. Of
        each kernel only what the masks leave is read. Between the layers stands SiLU.
      context: added to the first layer's biases, [*b, H], or None: what the encoder knows of x.
      reverse: whether the order of the coordinates is from the last to the first.

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: the layers' shapes do not agree.

    >>> layers = ((jnp.ones((2, 4)), jnp.zeros(4)), (jnp.ones((4, 4)), jnp.zeros(4)))
    >>> transform = InverseAutoregressive(layers)
    >>> y, log_det = transform.forward_and_log_det(jnp.array([0.5, 3.0]))
    >>> transform.inverse_and_log_det(y)[0].round(4)
    Array([0.5, 3. ], dtype=float32)
    """

    layers: Layers
    context: Array | None = None
    reverse: bool = dataclasses.field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        _check_layers(self, self.layers, self.context)

    def forward_and_log_det(self, z: Array) -> tuple[Array, Array]:
        shift, logits = self._network(z)
        gate = jax.nn.sigmoid(logits)
        return gate * z + (1 - gate) * shift, jax.nn.log_sigmoid(logits).sum(-1)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        order = np.arange(y.shape[-1])
        order = order[::-1] if self.reverse else order

        def settle(z: Array, place: Array) -> tuple[Array, None]:
            # Those that are not settled yet stay 0: what is not finite would pass a mask of zeros.
            shift, logits = self._network(z)
            found = shift + (y - shift) * (1 + jnp.exp(-logits))
            here = jnp.arange(y.shape[-1]) == place
            return jnp.where(jnp.broadcast_to(here, z.shape), found, z), None

        z, _ = jax.lax.scan(settle, jnp.zeros_like(y), jnp.asarray(order))
        return z, -jax.nn.log_sigmoid(self._network(z)[1]).sum(-1)

    def _network(self, z: Array) -> tuple[Array, Array]:
        masks = autoregressive_masks([k.shape[0] for k, _ in self.layers], reverse=self.reverse)
        masked = tuple(
            (kernel * jnp.asarray(mask, kernel.dtype), bias)
            for (kernel, bias), mask in zip(self.layers, masks, strict=True)
        )
        shift, logits = jnp.split(dense(masked, z, self.context), 2, axis=-1)
        return shift, _MAX_LOGIT * jnp.tanh(logits / _MAX_LOGIT)


@pytree
class Coupling:
    """y = z where a coordinate is kept, z exp(s) + m elsewhere, s and m of the kept ones.

    An affine coupling (Dinh et al. 2017, equations 7 and 8): every other coordinate is kept, and
    the inverse is as cheap as the map. s is bounded smoothly, to (-3, 3).

    Args:
      layers: of a dense network, at least two, from Z inputs to 2 Z outputs, m before s; the
        inputs that are not kept are 0. Between the layers stands SiLU.
      context: added to the first layer's biases, [*b, H], or None.
      odd: whether the coordinates with an odd index are kept, in place of the even ones.

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: the layers' shapes do not agree.

    >>> layers = ((jnp.ones((2, 4)), jnp.zeros(4)), (jnp.ones((4, 4)), jnp.zeros(4)))
    >>> y, log_det = Coupling(layers).forward_and_log_det(jnp.array([0.5, 3.0]))
    >>> y[0]
    Array(0.5, dtype=float32)
    >>> Coupling(layers).inverse_and_log_det(y)[0].round(4)
    Array([0.5, 3. ], dtype=float32)
    """

    layers: Layers
    context: Array | None = None
    odd: bool = dataclasses.field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        _check_layers(self, self.layers, self.context)

    def forward_and_log_det(self, z: Array) -> tuple[Array, Array]:
        shift, log_scale = self._network(z)
        return z * jnp.exp(log_scale) + shift, log_scale.sum(-1)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        shift, log_scale = self._network(y)
        return (y - shift) * jnp.exp(-log_scale), -log_scale.sum(-1)

    def _network(self, z: Array) -> tuple[Array, Array]:
        kept = np.arange(z.shape[-1]) % 2 == int(self.odd)
        kept, changed = (jnp.broadcast_to(jnp.asarray(a, z.dtype), z.shape) for a in (kept, ~kept))
        shift, log_scale = jnp.split(dense(self.layers, kept * z, self.context), 2, axis=-1)
        return changed * shift, changed * _MAX_LOG_SCALE * jnp.tanh(log_scale / _MAX_LOG_SCALE)


_MAX_LOGIT, _MAX_LOG_SCALE = 4.0, 3.0


def autoregressive_masks(inputs: Sequence[int], *, reverse: bool) -> list[np.ndarray]:
    """Of each layer's kernel, [I, O]: output i of the last sees the inputs before i alone.

    A hidden unit of degree d sees inputs 1 to d; those of degree 0 see none, and carry the context
    to the first output (Germain et al. 2015, equations 8 and 9).

    Args:
      inputs: of each layer; the first has one for each coordinate.
      reverse: count the coordinates from the last.
    """
    num, *hidden = inputs
    degrees = np.arange(1, num + 1)
    degrees = degrees[::-1] if reverse else degrees
    of_hidden = [np.arange(width) % num for width in hidden]
    before = [degrees, *of_hidden]
    masks = [one[:, None] <= next_[None] for one, next_ in zip(before, of_hidden, strict=False)]
    last = of_hidden[-1][:, None] < degrees[None]
    return [*masks, np.concatenate([last, last], axis=1)]


def dense(layers: Layers, x: Array, context: Array | None) -> Array:
    """A network of dense layers with SiLU between them, the context beside the first's biases."""
    for i, (kernel, bias) in enumerate(layers):
        if i:
            x = jax.nn.silu(x)
        x = x @ kernel
        x = x + jnp.broadcast_to(bias, x.shape)
        if context is not None and not i:
            x = x + jnp.broadcast_to(context, x.shape)
    return x


def _check_layers(transform: object, layers: Layers, context: Array | None) -> None:
    name = type(transform).__name__
    shapes = [(float_array("a kernel", k).shape, float_array("a bias", b).shape) for k, b in layers]
    sizes = [shapes[0][0][0], *(kernel[-1] for kernel, _ in shapes)] if shapes else []
    expected = [((i, o), (o,)) for i, o in itertools.pairwise(sizes)]
    if len(shapes) < 2 or shapes != expected or sizes[-1] != 2 * sizes[0]:
        raise ValueError(
            f"layers of a {name} have kernels and biases of shapes {shapes}: give two or more that "
            "fit each other, from Z inputs to 2 Z outputs"
        )
    if context is not None and float_array("context", context).shape[-1:] != (sizes[1],):
        raise ValueError(
            f"context has shape {context.shape} but the first layer of the {name} has {sizes[1]} "
            "outputs: its last axis must be of that length"
        )
