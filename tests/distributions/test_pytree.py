"""Distributions cross every transformation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from tests.distributions.cases import DISTRIBUTIONS, each_distribution
from vae_jax import Normal


def total_log_prob(distribution, value):
    return distribution.log_prob(value).sum()


@each_distribution
def test_crosses_jit_and_checkpoint(distribution):
    x = vae_jax.sample(jax.random.key(0), distribution)
    expected = distribution.log_prob(x)
    for transform in (jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(f))):
        same, actual = transform(lambda d, x: (d, d.log_prob(x)))(distribution, x)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
        assert type(same) is type(distribution)
        jax.tree.map(np.testing.assert_array_equal, same, distribution)


@each_distribution
def test_crosses_vmap_and_scan(distribution):
    x = vae_jax.sample(jax.random.key(0), distribution)
    expected = distribution.log_prob(x)
    np.testing.assert_allclose(
        jax.vmap(lambda d, x: d.log_prob(x))(distribution, x), expected, rtol=1e-5
    )
    carried, scanned = jax.lax.scan(
        lambda d, row: (d, row[0].log_prob(row[1])), distribution, (distribution, x)
    )
    np.testing.assert_allclose(scanned, expected, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, carried, distribution)


@each_distribution
def test_crosses_grad(distribution):
    x = vae_jax.sample(jax.random.key(0), distribution)
    gradient = jax.jit(jax.grad(total_log_prob))(distribution, x)
    assert jax.tree.structure(gradient) == jax.tree.structure(distribution)
    remat = jax.grad(jax.checkpoint(total_log_prob))(distribution, x)
    for g, r in zip(jax.tree.leaves(gradient), jax.tree.leaves(remat), strict=True):
        assert jnp.isfinite(g).all()
        np.testing.assert_allclose(g, r, rtol=1e-4, atol=1e-5)


@each_distribution
@pytest.mark.parametrize(
    "leaf", [None, object(), "sharding", -1.0], ids=lambda leaf: type(leaf).__name__
)
def test_carries_any_leaf(distribution, leaf):
    strange = jax.tree.map(lambda _: leaf, distribution)
    assert type(strange) is type(distribution)
    leaves, structure = jax.tree.flatten(strange, is_leaf=lambda x: x is leaf)
    assert all(x is leaf for x in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert jax.tree.structure(again) == jax.tree.structure(strange)


def test_leaves_are_named_and_event_ndims_is_static():
    paths = jax.tree_util.tree_leaves_with_path(DISTRIBUTIONS["image"])
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [".mean", ".scale"]
    assert jax.jit(lambda d: d)(DISTRIBUTIONS["image"]).event_ndims == 3


@each_distribution
def test_is_frozen(distribution):
    name = dataclasses.fields(distribution)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(distribution, name, None)


def test_constants_known_while_tracing():
    constant = jnp.full(3, 2.0)  # concrete, where all around it is traced

    def density(mean):
        return Normal(mean, constant).log_prob(mean)

    expected = stats.norm(0, 2).logpdf(0) * 3
    np.testing.assert_allclose(jax.jit(density)(jnp.zeros(3)), expected, rtol=1e-6)
    _, scanned = jax.lax.scan(
        lambda c, _: (c, Normal(constant, constant).log_prob(constant)), 0, jnp.arange(2)
    )
    np.testing.assert_allclose(scanned, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"scale .*0\.0.*: it must be positive"):
        jax.jit(lambda mean: Normal(mean, 0.0))(jnp.zeros(3))
