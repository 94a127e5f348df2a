"""Parameters of any framework and any type are trained, saved, and go on from what was saved."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax import checkpoint, run

# Each framework's own code is run in its author's settings, not in this repository's strict ones.
pytestmark = pytest.mark.relax

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
QUIET = run.ProgressBar(disable=True)


class Layer(NamedTuple):
    weight: Any
    bias: Any


def equinox_params():
    eqx = pytest.importorskip("equinox")
    network = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    return eqx.partition(network, eqx.is_array)[0]


def nnx_params():
    nnx = pytest.importorskip("flax.nnx")
    network = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    return nnx.split(network)[1]


def haiku_params():
    hk = pytest.importorskip("haiku")
    network = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 2])(x)))
    return network.init(jax.random.key(0), jnp.zeros((1, 3)))


PARAMS = {
    "an array": lambda: jnp.ones(3),
    "a number": lambda: 0.5,
    "of NumPy": lambda: {"w": np.ones((2, 3), np.float32)},
    "a list": lambda: [jnp.ones(3), jnp.zeros((2, 3))],
    "a tuple in a dict": lambda: {"layers": (jnp.ones(3), (jnp.zeros(2),)), "scale": jnp.ones(())},
    "a named tuple": lambda: Layer(jnp.ones((3, 3)), jnp.zeros(3)),
    "with None": lambda: Layer(jnp.ones((3, 3)), None),
    "with nothing in it": lambda: {"layer": {"w": jnp.ones(3)}, "none": {}, "empty": ()},
    "numbers for keys": lambda: {0: jnp.ones(3), 1: jnp.zeros(2)},
    "names with dots and slashes": lambda: {"a.b/c": {"~": jnp.ones(3)}, "a": {"b/c": jnp.ones(2)}},
    "complex": lambda: {"z": jnp.array([1 + 2j, 3 - 1j])},
    "bfloat16": lambda: {"w": jnp.ones(3, jnp.bfloat16), "v": jnp.ones(3, jnp.float16)},
    "a distribution": lambda: vae_jax.Normal(jnp.zeros((4, 3)), jnp.ones((4, 3))),
    "equinox": equinox_params,
    "nnx": nnx_params,
    "haiku": haiku_params,
}


def loss(params, key, batch):
    """Pulls every number to a noisy mean of the batch."""
    target = batch.mean() + 0.1 * jax.random.normal(key, ())
    errors = [
        jnp.square(jnp.abs(leaf - target.astype(leaf.dtype))).astype(jnp.float32).mean()
        for leaf in jax.tree.leaves(params)
    ]
    return sum(errors), {"first": errors[0]}


def trained(params, folder=None, **plan):
    return run.fit(
        jax.random.key(0),
        loss,
        params,
        optax.adam(0.1),
        X,
        run.Plan(**{"batch_size": 10, "epochs": 4, "folder": folder, **plan}),
        callbacks=[QUIET],
    )


def bits(tree):
    return [
        (leaf.dtype, np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf).tobytes())
        for leaf in jax.tree.leaves(tree)
    ]


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", PARAMS)
def test_parameters_of_any_kind_go_on_from_what_was_saved(tmp_path, name):
    params = PARAMS[name]()
    plan = {"average_decay": 0.9, "keep_best": "train_loss"}
    whole = trained(params, **plan)
    trained(params, tmp_path / "run", epochs=2, **plan)
    rest = trained(params, tmp_path / "run", resume=True, **plan)
    for part in ("params", "state"):
        one, other = getattr(rest, part), getattr(whole, part)
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert bits(one) == bits(other)
    assert jax.tree.structure(whole.params) == jax.tree.structure(params)
    assert whole.rows[-1]["train_loss"] < whole.rows[0]["train_loss"]
    for before, after in zip(*map(jax.tree.leaves, (params, whole.params)), strict=True):
        assert after.dtype == jnp.asarray(before).dtype
        assert not np.array_equal(after, before)


@pytest.mark.few(1)
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_the_key_of_a_run_may_be_of_any_generator(tmp_path, impl):
    def go(folder=None, **plan):
        key = jax.random.key(3, impl=impl)
        plan = run.Plan(**{"batch_size": 10, "epochs": 3, "folder": folder, **plan})
        return run.fit(key, loss, jnp.ones(3), optax.adam(0.1), X, plan, callbacks=[QUIET])

    whole = go()
    assert str(jax.random.key_impl(whole.state.key)) == impl
    go(tmp_path / "run", epochs=1)
    assert bits(go(tmp_path / "run", resume=True).state) == bits(whole.state)


class Counted(NamedTuple):
    step: jax.Array
    weights: Any


def test_a_state_needs_nothing_but_its_step(tmp_path):
    weights = {"w": jnp.array([1 + 2j]), "key": jax.random.key(3, impl="rbg"), "e": jnp.zeros(0)}
    state = Counted(jnp.int32(3), weights)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state, {}, best=jnp.ones(3))
        restored = checkpoint.restore(checkpoints, jax.eval_shape(lambda: state))
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        assert bits(restored) == bits(state)
        assert checkpoint.restore_best(checkpoints, 3, jnp.ones(3)).tolist() == [1, 1, 1]
        other = Counted(state.step, {**weights, "e": jnp.ones(3)})
        with pytest.raises(checkpoint.CheckpointError, match=r"weights.e has shape absent there"):
            checkpoint.restore(checkpoints, other)


def test_any_dtype_in_a_state_survives_and_a_changed_one_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    dtypes = (
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16"),
        *("float32", "complex64", "float8_e4m3fn"),
    )
    opt_state = {
        "arrays": {d: jnp.asarray(rng.normal(size=(3, 5)) * 50).astype(d) for d in dtypes},
        "scalars": {d: jnp.asarray(rng.normal()).astype(d) for d in dtypes},
        "keys": jax.random.split(jax.random.key(5), 4),
        "none": None,
        "without elements": [jnp.zeros((0,)), jnp.zeros((2, 0), jnp.int8)],
        "without keys": jax.random.split(jax.random.key(5), 0),
    }
    state = vae_jax.TrainState(jnp.int32(7), jax.random.key(1), {"w": jnp.ones(2)}, opt_state)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state, {})
        like = jax.tree.map(jnp.zeros_like, state._replace(key=None, opt_state=None))
        like = like._replace(
            key=jax.random.key(0),
            opt_state=jax.tree.map(
                lambda x: (
                    jax.random.split(jax.random.key(0), x.shape) if is_key(x) else jnp.zeros_like(x)
                ),
                opt_state,
            ),
        )
        restored = checkpoint.restore(checkpoints, like)
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        assert bits(restored) == bits(state)
        other = {**opt_state, "scalars": {**opt_state["scalars"], "int8": jnp.uint8(0)}}
        with pytest.raises(checkpoint.CheckpointError, match=r"scalars.int8 has dtype int8 there"):
            checkpoint.restore(checkpoints, like._replace(opt_state=other))
