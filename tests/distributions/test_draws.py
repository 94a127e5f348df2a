"""Draws have the moments and the shapes that they should."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vae_jax
from tests.distributions.cases import (
    DISTRIBUTIONS,
    GAUSSIANS,
    NUM_DRAWS,
    covariance,
    each_distribution,
    noise,
    within_standard_errors,
)
from vae_jax import Joint, Normal


@pytest.mark.parametrize("name", GAUSSIANS)
def test_gaussian_draws_have_their_mean_and_covariance(name):
    distribution = GAUSSIANS[name](0)
    z = np.asarray(vae_jax.sample(jax.random.key(0), distribution, NUM_DRAWS), np.float64)
    centred = z - np.asarray(distribution.mean)
    assert within_standard_errors(centred, 0)
    products = centred[..., :, None] * centred[..., None, :]
    assert within_standard_errors(products, covariance(distribution))


@pytest.mark.parametrize("name", GAUSSIANS)
def test_gaussian_draws_are_mean_plus_scale_times_noise(name):
    distribution = GAUSSIANS[name](0)
    key = jax.random.key(0)
    standard = np.asarray(jax.random.normal(jax.random.clone(key), (5, 4, 3)))
    scaled = {
        "diagonal": lambda: np.asarray(distribution.scale) * standard,
        "full": lambda: np.einsum("bij,sbj->sbi", distribution.scale_tril, standard),
    }[name]()
    actual = vae_jax.sample(key, distribution, 5)
    np.testing.assert_allclose(actual, np.asarray(distribution.mean) + scaled, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_draw_reaches_the_parameters():
    distribution = GAUSSIANS["diagonal"](0)
    z = vae_jax.sample(jax.random.key(0), distribution)
    gradient = jax.grad(lambda d: vae_jax.sample(jax.random.key(0), d).sum())(distribution)
    np.testing.assert_allclose(gradient.mean, np.ones((4, 3)))
    expected = (z - distribution.mean) / distribution.scale
    np.testing.assert_allclose(gradient.scale, expected, rtol=1e-4, atol=1e-5)


def test_what_stands_above_the_diagonal_is_ignored():
    lower = GAUSSIANS["full"](0)
    above = np.triu(np.full((3, 3), 9.0, np.float32), 1)
    full = dataclasses.replace(lower, scale_tril=np.asarray(lower.scale_tril) + above)
    standard = Normal(jnp.zeros(3), 1.0)
    for of in (
        lambda d: d.log_prob(noise(2, 4, 3)),
        lambda d: vae_jax.sample(jax.random.key(0), d),
        lambda d: vae_jax.kl_divergence(d, standard),
        lambda d: vae_jax.kl_divergence(GAUSSIANS["diagonal"](5), d),
    ):
        of = jax.jit(of)
        np.testing.assert_array_equal(of(full), of(lower))
        gradient = jax.jit(jax.grad(lambda d, of=of: of(d).sum()))(full)
        assert not np.triu(gradient.scale_tril, 1).any()


def test_bernoulli_draws_have_their_frequency():
    distribution = DISTRIBUTIONS["bernoulli"]
    x = vae_jax.sample(jax.random.key(0), distribution, NUM_DRAWS)
    assert set(np.unique(x)) == {0.0, 1.0}
    assert within_standard_errors(x, special.expit(distribution.logits))
    np.testing.assert_allclose(distribution.mean, special.expit(distribution.logits), rtol=1e-6)


def test_categorical_draws_have_their_frequency():
    distribution = DISTRIBUTIONS["categorical"]
    x = vae_jax.sample(jax.random.key(0), distribution, NUM_DRAWS)
    one_hot = np.asarray(x)[..., None] == np.arange(5)
    assert within_standard_errors(one_hot, special.softmax(distribution.logits, axis=-1))


def test_joint_draws_its_parts_independently():
    joint = Joint((Normal(jnp.zeros(3), 1.0), Normal(jnp.zeros(3), 1.0)))
    first, second = vae_jax.sample(jax.random.key(0), joint, NUM_DRAWS)
    assert within_standard_errors(first * second, 0)


@pytest.mark.parametrize(
    ("sample_shape", "leading"), [((), ()), (5, (5,)), ((2, 5), (2, 5))], ids=str
)
@each_distribution
def test_shapes_of_draws_and_densities(distribution, sample_shape, leading):
    def draw_and_density(key):
        draws = vae_jax.sample(key, distribution, sample_shape)
        return draws, distribution.log_prob(draws)

    draws, density = jax.eval_shape(draw_and_density, jax.random.key(0))
    if isinstance(distribution, Joint):
        assert [z.shape for z in draws] == [(*leading, 4, 3), (*leading, 4, 3)]
    else:
        assert draws.shape == (*leading, *distribution.shape)
    assert density.shape == (*leading, 4)
