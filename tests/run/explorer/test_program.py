"""Programs for a page, run as NumPy has them and by node, against the functions they are of."""

import json
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vae_jax.run import explorer
from vae_jax.run.explorer import program
from vae_jax.run.explorer.program import CannotCarryError, carried

RNG = np.random.default_rng(0)
TABLE, KERNEL = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, 4), (6, 5)))
SQUARE = RNG.normal(size=(3, 3)).astype(np.float32)
BATCHED = RNG.normal(size=(2, 3, 4)).astype(np.float32)
X = RNG.normal(size=(1, 2, 3)).astype(np.float32)


def dense(xp, x, label):
    """A class beside what is flattened, as the networks take it; sums of the softmax."""
    both = xp.concatenate([x.reshape(1, 6) @ xp.asarray(KERNEL), xp.asarray(TABLE)[label]], axis=1)
    power = xp.exp(both - both.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def moved(xp, x, label):
    """Patches and what is put back in place, as convolutions do."""
    padded = xp.pad(x, ((0, 0), (1, 1), (0, 1)), constant_values=0.5)
    low, high = xp.split(padded, 2, axis=2)
    stacked = xp.stack([low[:, ::2], high[:, 1::2]], axis=-1)
    turned = xp.flip(xp.transpose(stacked, (0, 3, 1, 2)), axis=2)
    return xp.where(turned > 0, turned, xp.square(turned) - 1).reshape(1, -1)


def multiplied(xp, x, label):
    """Products whose batch, rows and sums are other axes than usual; a flow's functions."""
    product = xp.einsum("ubi,bio->oub", xp.broadcast_to(x, (1, 2, 3)), xp.asarray(BATCHED))
    value = xp.tanh(xp.log1p(xp.abs(product))) ** 3 + xp.maximum(product, -product) / 7
    return xp.minimum(value, xp.sqrt(1 + product * product)).reshape(1, -1)


def looped(xp, x, label):
    """A loop from the last row on, as a recurrent network's, with the same weights at each."""
    first, kernel = xp.asarray(TABLE)[label][:, :3], xp.asarray(SQUARE)

    def turn(carry, row):
        carry = xp.tanh(carry @ kernel + row[None])
        return carry, 2 * carry

    if xp is jnp:
        last, rows = jax.lax.scan(turn, first, x[0], reverse=True)
    else:
        second, after = turn(first, x[0, 1])
        last, before = turn(second, x[0, 0])
        rows = np.stack([before, after])
    return xp.concatenate([last, rows[:, 0]]).reshape(1, -1)


FUNCTIONS = {f.__name__: f for f in (dense, moved, multiplied, looped)}
ONE = {
    **{
        name: getattr(np, name)
        for name in ["exp", "log", "log1p", "tanh", "sqrt", "square", "abs", "sign"]
    },
    "neg": np.negative,
    "logistic": special.expit,
}
TWO = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "gt": np.greater,
    "lt": np.less,
    "ge": np.greater_equal,
}


def run_by_numpy(found, x, label):
    at = {place: np.ravel(array) for place, array in found.constants.items()}
    at[0] = x.ravel()
    for name, place, size, of, numbers in found.steps:
        given = [at[i] for i in of]
        if name == "take":
            value = np.concatenate(given[1:])[given[0]]
        elif name == "row":
            value = given[0].reshape(-1, size)[label]
        elif name == "dot":
            batch, rows, inner, columns = numbers
            a, b = given[0].reshape(batch, rows, inner), given[1].reshape(batch, inner, columns)
            value = a @ b
        elif name.startswith("reduce_"):
            value = getattr(given[0].reshape(-1, numbers[0]), name[7:])(axis=1)
        elif name == "integer_pow":
            value = given[0] ** numbers[0]
        elif name == "select_n":
            value = np.where(given[0], given[2], given[1])
        else:
            value = {**ONE, **TWO}[name](*given)
        at[place] = np.broadcast_to(np.ravel(value), size)
    return at[found.result]


def of_function(name):
    function = FUNCTIONS[name]
    x = jax.ShapeDtypeStruct(X.shape, jnp.float32)
    return carried(lambda x, label: function(jnp, x, label), x, 3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_program_is_its_function(name):
    found = of_function(name)
    for label in range(3):
        expected = FUNCTIONS[name](np, X.astype(np.float64), np.array([label])).ravel()
        np.testing.assert_allclose(run_by_numpy(found, X, label), expected, rtol=1e-5, atol=1e-6)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_loop_has_its_weights_once():
    held = [array for array in of_function("looped").constants.values() if array.shape == (3, 3)]
    assert len(held) == 1


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here; the browser's test is")
def test_the_page_runs_programs(tmp_path):
    stored = {name: of_function(name).to_json() for name in FUNCTIONS}
    (tmp_path / "programs.json").write_text(json.dumps({"of": stored, "x": X.ravel().tolist()}))
    script = f"""
const {{ of, x }} = JSON.parse(require("fs").readFileSync({str(tmp_path / "programs.json")!r}));
const found = {{}};
for (const name in of) {{
  const run = runnable(of[name]);
  found[name] = [0, 1, 2, 1].map((label) => [...run(x, label)]);
}}
console.log(JSON.stringify(found));
"""
    source = Path(explorer.__file__).with_name("program.js").read_text()
    (tmp_path / "run.js").write_text(source + script)
    said = subprocess.run(["node", tmp_path / "run.js"], check=True, capture_output=True, text=True)
    for name, values in json.loads(said.stdout).items():
        for label, of_label in zip((0, 1, 2, 1), values, strict=True):
            expected = FUNCTIONS[name](np, X.astype(np.float64), np.array([label])).ravel()
            np.testing.assert_allclose(of_label, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: jnp.sort(x), "has sort of float32"),
        (lambda x: x.astype(jnp.bfloat16), "computes in bfloat16"),
        (lambda x: jnp.cumsum(x, axis=1), "has cumsum of float32"),
    ],
)
def test_what_a_page_cannot_do_is_named(function, said):
    with pytest.raises(CannotCarryError, match=said):
        carried(function, jax.ShapeDtypeStruct((1, 4), jnp.float32))


def test_arrays_that_are_too_large_are_not_carried(monkeypatch):
    monkeypatch.setattr(program, "MOST_BYTES", 2**20)
    kernel = np.ones((4, 2**17), np.float32)
    with pytest.raises(CannotCarryError, match="has arrays of 2 MB, of which a page takes 1"):
        carried(lambda x: x @ kernel, jax.ShapeDtypeStruct((1, 4), jnp.float32))
    # What the result has no need of is left out.
    small = carried(lambda x: (x @ kernel, x)[1] + 1.0, jax.ShapeDtypeStruct((1, 4), jnp.float32))
    assert [step[0] for step in small.steps] == ["add"]
