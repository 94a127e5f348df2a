"""A function as JAX traces it, written out for a page: a list of steps over flat arrays.

Few operations are enough. What only moves values (reshape, broadcast, slice, pad, concatenate,
split, transpose) is an index, found by moving the numbers 0, 1, ... in their place; what depends
on no input is computed here; what depends on the label alone is a table with a row for each label.
So the page has products, sums, maxima and functions of single values to know, and convolutions,
which are products of patches, and flows are carried as dense layers are. A loop is written out.
"""

import base64
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST_BYTES = 64 * 2**20
"""Of a program's arrays: more makes a file that nobody mails and a page that takes seconds."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INLINED = _names("jit pjit closed_call core_call custom_jvp_call custom_vjp_call remat checkpoint")
_MOVING = _names(
    "broadcast_in_dim reshape squeeze expand_dims transpose concatenate slice pad rev split stack"
)
_SAME = _names("stop_gradient copy copy_p")
# Of single values; the page has a function of each name.
_ELEMENTWISE = _names(
    "neg exp exp2 log log1p expm1 tanh logistic sqrt rsqrt square abs sign floor not is_finite "
    "integer_pow add add_any sub mul div max min pow eq ne lt le gt ge and or select_n"
)
_REDUCED = _names("reduce_sum reduce_max reduce_min")


class CannotCarryError(Exception):
    """What of a function a page cannot do; the message ends a sentence that begins with it."""


class Program(NamedTuple):
    """A function of one array, and maybe a label, for a page.

    Attributes:
      steps: each [operation, place of what it gives, places of what it takes, numbers].
      constants: the arrays of places, float32 and int32.
      size: of the input.
      result: place of the output.
      places: how many there are; the input is at 0.
    """

    steps: list[list[Any]]
    constants: dict[int, np.ndarray]
    size: int
    result: int
    places: int

    def to_json(self) -> dict[str, Any]:
        """JSON values; the arrays one after the other in base64, little-endian."""
        arrays = [np.ravel(array) for array in self.constants.values()]
        starts = itertools.accumulate((array.size for array in arrays), initial=0)
        return {
            "steps": self.steps,
            "constants": [
                [place, int(array.dtype == np.int32), start, array.size]
                for place, start, array in zip(self.constants, starts, arrays, strict=False)
            ],
            "bytes": encoded(
                b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)
            ),
            "size": self.size,
            "result": self.result,
            "places": self.places,
        }


def encoded(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode()


class _OfLabel(NamedTuple):
    """What depends on the label alone: its value for each, [K, *shape]."""

    values: Any


class _InPage(NamedTuple):
    """What the page computes."""

    place: int
    shape: tuple[int, ...]


def carried(function: Callable[..., Any], x: jax.ShapeDtypeStruct, num_labels: int = 0) -> Program:
    """The function as a program.

    Args:
      function: of x, and of a label int32 [1] where there are labels; gives an array of floats.
      x: shape and type of the input.
      num_labels: labels are from 0 to it; 0 for a function of x alone.

    Raises:
      CannotCarryError: it has an operation that the page does not know, or too large arrays.
    """
    label = [jax.ShapeDtypeStruct((1,), jnp.int32)] if num_labels else []
    closed = jax.make_jaxpr(function)(x, *label)
    given: list[Any] = [_InPage(0, tuple(x.shape))]
    if num_labels:
        given.append(_OfLabel(jnp.arange(num_labels, dtype=jnp.int32)[:, None]))
    writer = _Writer(num_labels)
    (result,) = writer.follow(closed.jaxpr, closed.consts, given)
    return writer.program(math.prod(x.shape), writer.place_of(result))


class _Writer:
    """Follows a jaxpr and writes the steps."""

    def __init__(self, num_labels: int) -> None:
        self._num_labels, self._places = num_labels, 1
        self._steps: list[list[Any]] = []
        self._constants: dict[int, np.ndarray] = {}
        self._known: dict[Any, int] = {}

    def follow(self, jaxpr: Any, constants: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """What the outputs are: an array, `_OfLabel` or `_InPage`."""
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
        values |= zip(jaxpr.invars, given, strict=True)

        def read(of: Any) -> Any:
            return of.val if hasattr(of, "val") else values[of]

        for equation in jaxpr.eqns:
            found = self._found(equation, [read(of) for of in equation.invars])
            values |= zip(equation.outvars, found, strict=True)
        return [read(of) for of in jaxpr.outvars]

    def _found(self, equation: Any, given: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name in _INLINED:
            inner = params.get("jaxpr", params.get("call_jaxpr"))
            return self.follow(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
        if not any(isinstance(of, _InPage) for of in given):
            return _computed(equation, given)
        if name == "scan":
            return self._scanned(equation, given)
        shapes = [tuple(of.aval.shape) for of in equation.outvars]
        if name == "convert_element_type":
            _check_types(given[0], equation)
            name = "copy"
        if name in _SAME:
            return [_InPage(self.place_of(given[0]), shapes[0])]
        if name in _MOVING:
            return self._moved(equation, given, shapes)
        if name == "dot_general":
            a, b = given
            return [self._product(params["dimension_numbers"], a, b, shapes[0])]
        if name in _REDUCED:
            return [self._reduced(name, params["axes"], given[0], shapes[0])]
        if name in _ELEMENTWISE and equation.outvars[0].aval.dtype in (jnp.float32, jnp.bool_):
            numbers = [params["y"]] if name == "integer_pow" else []
            places = [self._broadcast(of, shapes[0]) for of in given]
            return [self._step(name, places, numbers, shapes[0])]
        raise CannotCarryError(f"has {name} of {equation.outvars[0].aval.dtype}")

    def _scanned(self, equation: Any, given: list[Any]) -> list[Any]:
        """A loop of known length, as a recurrent network has one, written out."""
        params, inner = equation.params, equation.params["jaxpr"]
        jaxpr, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
        # How many are carried JAX has under other names in each version; the shapes tell it too:
        # what is carried is outside as it is in a turn, of rows a turn has one.
        num = sum(
            len(of.aval.shape) == len(one.aval.shape)
            for of, one in zip(equation.outvars, jaxpr.outvars, strict=True)
        )
        same = sum(
            len(of.aval.shape) == len(one.aval.shape)
            for of, one in zip(equation.invars, jaxpr.invars, strict=True)
        )
        held, carry, kept = given[: same - num], given[same - num : same], {}
        for i in range(params["length"])[:: -1 if params["reverse"] else 1]:
            rows = [self._row(of, i) for of in given[same:]]
            found = self.follow(jaxpr, constants, [*held, *carry, *rows])
            carry, kept[i] = found[:num], found[num:]
        each = zip(*(kept[i] for i in range(params["length"])), strict=True)
        return [*carry, *map(self._stacked, each)]

    def _row(self, value: Any, i: int) -> Any:
        if not isinstance(value, _InPage):
            return _each(lambda of: of[i], value)
        index = np.arange(math.prod(value.shape)).reshape(value.shape)
        return self._taken(index[i], [value.place], index.size, value.shape[1:])

    def _stacked(self, values: Sequence[Any]) -> _InPage:
        shape = (len(values), *_shape(values[0]))
        places = [self.place_of(of) for of in values]
        return self._taken(np.arange(math.prod(shape)), places, math.prod(shape), shape)

    def place_of(self, value: Any) -> int:
        """Where the page has a value."""
        if isinstance(value, _InPage):
            return value.place
        if isinstance(value, _OfLabel):
            table = np.asarray(value.values)
            place = self._constant(table)
            return self._step("row", [place], [], table.shape[1:]).place
        return self._constant(np.asarray(value))

    def _constant(self, array: np.ndarray) -> int:
        whole = array.dtype == np.int32
        array = np.ascontiguousarray(array if whole else array.astype(np.float32))
        # Of a loop each turn has the same ones.
        content = whole, array.shape, hashlib.blake2b(array.data).digest()
        if content not in self._known:
            place, self._places = self._places, self._places + 1
            self._constants[place] = array
            self._known[content] = place
        return self._known[content]

    def _step(
        self, name: str, of: list[int], numbers: list[int], shape: tuple[int, ...]
    ) -> _InPage:
        place, self._places = self._places, self._places + 1
        self._steps.append([name, place, math.prod(shape), of, numbers])
        return _InPage(place, shape)

    def _taken(
        self, index: np.ndarray, of: list[int], size: int, shape: tuple[int, ...]
    ) -> _InPage:
        """Values at an index, of arrays of so many values that stand one after the other."""
        flat = index.ravel().astype(np.int32)
        if len(of) == 1 and np.array_equal(flat, np.arange(size)):
            return _InPage(of[0], shape)
        return self._step("take", [self._constant(flat), *of], [], shape)

    def _moved(self, equation: Any, given: list[Any], shapes: list[tuple[int, ...]]) -> list[Any]:
        numbers, start = [], 0
        for of in equation.invars:
            size = math.prod(of.aval.shape)
            numbers.append(jnp.arange(start, start + size, dtype=jnp.int32).reshape(of.aval.shape))
            start += size
        found = equation.primitive.bind(*numbers, **equation.params)
        found = found if equation.primitive.multiple_results else [found]
        places = [self.place_of(of) for of in given]
        return [
            self._taken(np.asarray(i), places, start, s) for i, s in zip(found, shapes, strict=True)
        ]

    def _ordered(self, value: Any, order: Sequence[int]) -> _InPage | Any:
        """The value with its axes in an order."""
        if not isinstance(value, _InPage):
            return _InPage(self.place_of(_each(lambda a: np.transpose(a, order), value)), ())
        index = np.arange(math.prod(value.shape)).reshape(value.shape).transpose(order)
        return self._taken(index, [value.place], index.size, index.shape)

    def _broadcast(self, value: Any, shape: tuple[int, ...]) -> int:
        """Where the value is, of that shape; a single one is as it is."""
        own = _shape(value)
        if own == shape or math.prod(own) == 1:
            return self.place_of(value)
        index = np.broadcast_to(np.arange(math.prod(own)).reshape(own), shape)
        return self._taken(index, [self.place_of(value)], math.prod(own), shape).place

    def _product(self, dimensions: Any, a: Any, b: Any, shape: tuple[int, ...]) -> _InPage:
        """[B, M, K] times [B, K, N], whatever axes these are of."""
        (a_sum, b_sum), (a_batch, b_batch) = dimensions
        a_shape, b_shape = (_shape(of) for of in (a, b))
        a_free = [i for i in range(len(a_shape)) if i not in (*a_sum, *a_batch)]
        b_free = [i for i in range(len(b_shape)) if i not in (*b_sum, *b_batch)]
        sizes = [
            math.prod(of[i] for i in axes)
            for of, axes in (
                (a_shape, a_batch),
                (a_shape, a_free),
                (a_shape, a_sum),
                (b_shape, b_free),
            )
        ]
        left = self._ordered(a, (*a_batch, *a_free, *a_sum))
        right = self._ordered(b, (*b_batch, *b_sum, *b_free))
        return self._step("dot", [left.place, right.place], sizes, shape)

    def _reduced(
        self, name: str, axes: Sequence[int], of: _InPage, shape: tuple[int, ...]
    ) -> _InPage:
        kept = [i for i in range(len(of.shape)) if i not in axes]
        ordered = self._ordered(of, (*kept, *axes))
        inner = math.prod(of.shape[i] for i in axes)
        return self._step(name, [ordered.place], [inner], shape)

    def program(self, size: int, result: int) -> Program:
        """The steps that the result needs."""
        needed, steps = {result}, []
        for step in reversed(self._steps):
            if step[1] in needed:
                needed |= set(step[3])
                steps.append(step)
        constants = {p: array for p, array in self._constants.items() if p in needed}
        total = sum(array.nbytes for array in constants.values())
        if total > MOST_BYTES:
            raise CannotCarryError(
                f"has arrays of {total / 2**20:.0f} MB, of which a page takes {MOST_BYTES >> 20}"
            )
        return Program(steps[::-1], constants, size, result, self._places)


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, _OfLabel):
        return tuple(value.values.shape[1:])
    return tuple(np.shape(value)) if not isinstance(value, _InPage) else value.shape


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """The function of an array, or of that for each label."""
    if isinstance(value, _OfLabel):
        return _OfLabel(np.stack([function(np.asarray(of)) for of in value.values]))
    return function(np.asarray(value))


def _computed(equation: Any, given: list[Any]) -> list[Any]:
    """What an equation gives whose inputs are known, or known for each label."""

    def bound(*of: Any) -> list[Any]:
        found = equation.primitive.bind(*of, **equation.params)
        return found if equation.primitive.multiple_results else [found]

    if not any(isinstance(of, _OfLabel) for of in given):
        return bound(*given)
    axes = [0 if isinstance(of, _OfLabel) else None for of in given]
    values = [of.values if isinstance(of, _OfLabel) else of for of in given]
    return [_OfLabel(of) for of in jax.vmap(bound, axes)(*values)]


def _check_types(value: Any, equation: Any) -> None:
    """Raises CannotCarryError for a conversion that changes values."""
    new = jnp.dtype(equation.outvars[0].aval.dtype)
    if new != jnp.float32:
        raise CannotCarryError(f"computes in {new}")
