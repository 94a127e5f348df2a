"""Discrete bottlenecks against NumPy, and their gradients against what they are to be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import quantization
from vae_jax.quantization import (
    Codebook,
    codebook_use,
    finite_scalar,
    finite_scalar_codes,
    init_codebook,
    quantize,
    update_codebook,
)

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(6, 5, 3)).astype(np.float32)
CODES = RNG.normal(size=(7, 3)).astype(np.float32)


def test_the_code_is_the_nearest():
    distances = np.square(Z[..., None, :].astype(float) - CODES).sum(-1)
    found = quantize(jnp.asarray(Z), jnp.asarray(CODES))
    np.testing.assert_array_equal(found.index, distances.argmin(-1))
    np.testing.assert_allclose(found.value, CODES[distances.argmin(-1)], rtol=1e-6)
    for term in found.commitment, found.codebook:
        np.testing.assert_allclose(term, distances.min(-1), rtol=1e-5)


def test_each_term_has_its_own_gradient():
    z, codes = jnp.asarray(Z), jnp.asarray(CODES)
    weight = jnp.asarray(RNG.normal(size=Z.shape), jnp.float32)
    index = np.asarray(quantize(z, codes).index)
    away = Z - CODES[index]

    def gradients(of):
        return jax.grad(lambda z, codes: of(quantize(z, codes)).sum(), (0, 1))(z, codes)

    of_z, of_codes = gradients(lambda q: weight * q.value)
    np.testing.assert_allclose(of_z, weight, rtol=1e-6)
    assert not of_codes.any()
    of_z, of_codes = gradients(lambda q: q.commitment)
    np.testing.assert_allclose(of_z, 2 * away, rtol=1e-5, atol=1e-6)
    assert not of_codes.any()
    of_z, of_codes = gradients(lambda q: q.codebook)
    assert not of_z.any()
    expected = np.zeros_like(CODES)
    np.add.at(expected, index.ravel(), -2 * away.reshape(-1, 3))
    np.testing.assert_allclose(of_codes, expected, rtol=1e-5, atol=1e-5)


def test_the_codebook_follows_its_vectors():
    """Equations 6 to 8 of van den Oord et al. 2017, written out; the last code is dead."""
    counts = np.array([2.0, 1.0, 3.0, 1.0, 1.0, 2.0, 0.05])
    sums = CODES * counts[:, None]
    codes = np.concatenate([CODES[:-1], [[50.0, 50.0, 50.0]]])
    index = np.square(Z[..., None, :] - codes).sum(-1).argmin(-1)
    book = Codebook(*(jnp.asarray(a, jnp.float32) for a in (codes, counts, sums)))
    update = jax.jit(update_codebook, static_argnames=("decay", "revive_below"))
    found = update(
        jax.random.key(0), book, jnp.asarray(Z), jnp.asarray(index), decay=0.9, revive_below=0.06
    )
    of_batch = np.bincount(index.ravel(), minlength=7)
    in_batch = np.zeros_like(CODES)
    np.add.at(in_batch, index.ravel(), Z.reshape(-1, 3))
    counts, sums = 0.9 * counts + 0.1 * of_batch, 0.9 * sums + 0.1 * in_batch
    np.testing.assert_allclose(found.counts[:-1], counts[:-1], rtol=1e-5)
    np.testing.assert_allclose(found.codes[:-1], (sums / counts[:, None])[:-1], rtol=1e-4)
    assert found.counts[-1] == 1
    assert (np.asarray(found.codes[-1]) == Z.reshape(-1, 3)).all(axis=1).any()
    kept = update(
        jax.random.key(0), book, jnp.asarray(Z), jnp.asarray(index), decay=0.9, revive_below=0.0
    )
    np.testing.assert_allclose(kept.counts[-1], 0.045, rtol=1e-5)
    np.testing.assert_allclose(kept.codes[-1], CODES[-1], rtol=1e-5)


def test_revived_codes_end_a_collapse():
    """Eight clusters, and of eight codes all but one start where nothing is near."""
    centres = 10 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1)
    data = jnp.asarray(centres[np.arange(400) % 8] + 0.1 * RNG.normal(size=(400, 2)), jnp.float32)
    codes = init_codebook(jax.random.key(0), data, 8).codes.at[1:].set(1e3)
    start = Codebook(codes, jnp.ones(8), codes)

    def use_after(revive_below):
        def step(book, key):
            index = quantize(data, book.codes).index
            book = update_codebook(key, book, data, index, decay=0.8, revive_below=revive_below)
            return book, None

        book, _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 60))
        return codebook_use(quantize(data, book.codes).index, 8)

    assert use_after(0.5).share == 1
    assert use_after(0.0).share == 1 / 8


def test_use_is_counted():
    use = codebook_use(jnp.array([[0, 0, 3], [1, 0, 1]]), 5)
    shares = np.array([3, 2, 1]) / 6
    np.testing.assert_allclose(use.share, 0.6)
    np.testing.assert_allclose(use.perplexity, np.exp(-(shares * np.log(shares)).sum()), rtol=1e-6)


@pytest.mark.parametrize("levels", [(3, 5), (2, 4), (8, 5)])
def test_every_finite_scalar_code_is_reached_and_found_again(levels):
    grid = np.linspace(-4, 4, 161)
    z = jnp.asarray(list(itertools.product(grid, grid)), jnp.float32)
    value, index = finite_scalar(z, levels)
    assert set(np.unique(index)) == set(range(levels[0] * levels[1]))
    np.testing.assert_allclose(finite_scalar_codes(index, levels), value, atol=1e-6)
    for column, num in zip(np.asarray(value).T, levels, strict=True):
        low = -1.0  # even numbers have one level more below 0 than above
        np.testing.assert_allclose(
            np.unique(column.round(5)), (low + np.arange(num) / (num // 2)).round(5), atol=1e-5
        )


def test_finite_scalars_pass_the_gradient_of_the_bounded_coordinate():
    z = jnp.asarray(Z[0], jnp.float32)
    levels = (3, 5, 7)
    gradient = jax.grad(lambda z: finite_scalar(z, levels)[0].sum())(z)
    reach = (np.array(levels) - 1) * 1.001 / 2 / (np.array(levels) // 2)
    np.testing.assert_allclose(gradient, reach / np.cosh(Z[0]) ** 2, rtol=1e-4)


def test_shapes_and_levels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\) but the codebook \(4, 2\)"):
        quantize(jnp.zeros((2, 3)), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"levels is \(3,\) for 2 coordinates"):
        finite_scalar(jnp.zeros((1, 2)), (3,))
    with pytest.raises(ValueError, match=r"levels is \(3, 1\)"):
        finite_scalar_codes(jnp.zeros(1, jnp.int32), (3, 1))
    with pytest.raises(TypeError, match="not a typed key"):
        init_codebook(0, jnp.zeros((4, 2)), 2)
    assert set(quantization.__all__) <= set(dir(quantization))
