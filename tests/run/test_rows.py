"""The VAE of a table: one likelihood of columns of every kind, and no NaN from what is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import vae_jax
from vae_jax.run import examples, kinds, rows, table_options, tabular
from vae_jax.run.data import conditions, tables
from vae_jax.run.data.columns import to_json


def test_a_row_with_holes_has_a_bound_and_a_gradient():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "sex": rng.choice(["f", "m"], 60),
            "n": rng.poisson(40, 60),
            "size": pd.Categorical(rng.choice(list("SML"), 60), list("SML"), ordered=True),
            "x": rng.normal(size=60),
            "yes": rng.random(60) < 0.5,
        }
    )
    columns = tables.columns_of(table, {"n": "count"})
    names = [column.name for column in tables.learned(columns)]
    assert names == ["x", "n", "yes", "size", "sex"]
    x, _ = tables.encode(table, columns)
    x = x[:7].copy()
    x[:5] = np.where(np.eye(5, dtype=bool), x[:5], np.nan)  # one value a row
    x[5] = np.nan  # and none
    model = rows.make_model(columns, 2, (8,))
    params = model.init(jax.random.key(0), jnp.asarray(x))

    @jax.jit
    def loss(params, x):
        z = jnp.zeros((7, 2))
        bound = vae_jax.elbo(
            x, z, model.encode(params, x), model.prior(params), model.decode(params, z)
        )
        return -bound.value.sum(), bound.log_likelihood

    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(params, x)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert terms[5] == 0
    likelihood = model.decode(params, jnp.zeros((7, 2)))
    assert likelihood.shape == (7, 5)
    alone = [likelihood.parts[i].log_prob(_of(x[i, i], i)) for i in range(5)]
    np.testing.assert_allclose(terms[:5], [part[i] for i, part in enumerate(alone)], rtol=1e-5)


def test_rows_under_conditions_and_new_ones_by_them():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=200), "age": rng.integers(20, 90, 200)})
    table["sex"] = rng.choice(["f", "m"], 200)
    split = tables.split(table, "t", "here", {}, {"age": None, "sex": None})
    of = table_options.Options(table_options.Data("t.csv", condition="age,sex"))
    config = {"columns": to_json(split.columns), "options": kinds.to_json(of)}
    config |= conditions.stored(split.conditions, split.told["train"])
    model = tabular.make_model(config)
    params = jax.jit(model.init)(jax.random.key(0), *tabular.example(config))
    x, label = (jnp.asarray(a[:2]) for a in (split.train, split.told["train"]))
    priors = model.prior(params, label)
    assert priors.shape == (2, 32)
    means = [model.encode(params, x[:1], label[i : i + 1]).mean for i in range(2)]
    for one, other in (means, priors.mean):
        assert not np.allclose(one, other)
    trained = examples.Trained(kinds.KINDS["table"], model, params, 0, of, config)
    made, notes = examples.generate(jax.random.key(1), trained, 30, {"age": 33, "sex": "f"})
    assert (list(made), len(made), notes) == (["x", "age", "sex"], 30, [])
    assert (set(made["age"]), set(made["sex"])) == ({33}, {"f"})
    assert made["x"].std() > 0


def _of(value, part):
    """One value for each row, of the type that the part takes."""
    return jnp.full((7, 1), value, jnp.int32 if part >= 3 else jnp.float32)
