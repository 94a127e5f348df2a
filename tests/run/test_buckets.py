"""Sequences measured in groups of like lengths: the numbers of all padded, in fewer steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax.run import buckets, measure, sequences

N, T, D = 24, 16, 2
LENGTHS = np.where(np.arange(N) % 3 == 0, T - np.arange(N) % 4, 2 + np.arange(N) % 3)


def padded():
    """Sequences of 14 to 16 steps and of 3 and 4, with holes in them."""
    rng = np.random.default_rng(0)
    x = rng.integers(2, size=(N, T, D)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[np.arange(N), LENGTHS - 1] = 1  # the last is there
    x[np.arange(T) >= LENGTHS[:, None]] = np.nan
    return x


def model_of(latents, width=T):
    model = {"latents": latents, "latent_dim": 3, "hidden": [4]}
    of = {"length": width, "likelihood": "bernoulli", "centre": [0.5, 0.25], "spread": [1.0, 1.0]}
    return sequences.make_model({**of, "options": {"model": model}})


ALL = ["state_space", pytest.param("recurrent", marks=pytest.mark.long)]


@pytest.fixture(scope="module", params=ALL)
def found(request):
    """A model, its parameters, sequences, their groups, and the shapes that are encoded."""
    x, model, shapes = padded(), model_of(request.param), []
    params = jax.jit(model.init)(jax.random.key(0), jnp.asarray(x))

    def counted(width):
        of = model_of(request.param, width)

        def encode(params, x, label=None):
            shapes.append(x.shape)
            return of.encode(params, x, label)

        return of._replace(encode=encode)

    return model, params, x, buckets.of_sequences(x, 5, counted), shapes


def test_groups_are_of_like_lengths_and_few(found):
    *_, x, groups, _ = found
    np.testing.assert_array_equal(groups.widths, np.where(LENGTHS > 4, T, 4))
    assert buckets.of_sequences(x, 20, None) is None  # of fewer than that no group is made
    assert buckets.of_sequences(x[LENGTHS > 4], 1, None) is None


@pytest.mark.parametrize("most", [N, 10])
def test_a_validation_set_in_groups_is_that_of_all_padded_to_one(found, most):
    model, params, x, groups, shapes = found
    key = jax.random.key(1)
    shapes.clear()
    own = measure.validation(model, key, x, None, most)(params)
    of_groups = measure.validation(model, jax.random.clone(key), x, None, most, groups)
    cut = of_groups(params)
    assert own.keys() == cut.keys()
    for name, value in own.items():
        np.testing.assert_allclose(cut[name], value, rtol=1e-5)
    # Each group of a batch is encoded once, in all fewer steps than half.
    steps = sum(num * width for num, width, _ in shapes)
    if most == N:
        assert steps == groups.widths.sum() < 0.6 * N * T
    again = of_groups(jax.tree.map(lambda leaf: 0.5 * leaf, params))
    assert again != cut
    assert len(shapes) <= 2 * -(-N // most)  # compiled once


def test_a_test_set_in_groups_is_that_of_all_padded_to_one(found):
    model, params, x, groups, shapes = found
    key, num_samples = jax.random.key(2), 6
    shapes.clear()
    cut = measure.measure(key, model, params, x, None, num_samples, "examples", groups)
    sizes = {(num, width) for num, width, _ in shapes if num > 1}  # of one, its shape is asked
    assert sum(num * width for num, width in sizes) == groups.widths.sum()
    one = measure.measure_batch(model, num_samples, 1)
    elbo = np.empty(N, np.float32)
    for width, rows in groups.groups(np.arange(N)):
        own = jax.random.fold_in(jax.random.fold_in(key, width), 0)
        bound, estimate, *_ = one(params, own, x[rows], None)
        elbo[rows] = bound.value
        for name in estimate._fields[:3]:
            whole = getattr(estimate, name)
            np.testing.assert_allclose(getattr(cut["estimate"], name)[rows], whole, rtol=2e-5)
    np.testing.assert_allclose(cut["elbo"], elbo.mean(), rtol=1e-5)


def test_steps_after_the_end_are_not_units_that_are_used():
    """A latent that moves in padding alone is none."""
    x = padded()
    within = np.arange(T)[None] < LENGTHS[:, None]
    moved = np.where(within, 0.0, np.random.default_rng(0).normal(size=(N, T)))[..., None]
    kept = buckets.without_padding(x, moved)
    assert np.isnan(kept).sum() == (~within).sum()
    assert np.nanvar(kept) == 0


def test_draws_among_many_are_those_of_all():
    rng = np.random.default_rng(0)
    whole = vae_jax.Normal(*jnp.asarray(np.exp(rng.normal(size=(2, 7, 3))), jnp.float32))
    rows = np.array([5, 0, 3])
    some = jax.tree.map(lambda a: a[rows], whole)
    key = jax.random.key(3)
    drawn = buckets.sample_among(key, some, jnp.asarray(rows), 7)
    np.testing.assert_array_equal(drawn, vae_jax.sample(jax.random.clone(key), whole)[rows])
