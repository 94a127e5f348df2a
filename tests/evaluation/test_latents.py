"""Active units and the KL of each latent dimension, against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax import Categorical, Normal


def test_active_units():
    rng = np.random.default_rng(0)
    mean = (rng.normal(size=(500, 4)) * [1.0, 0.15, 0.05, 0.0] + 3).astype(np.float32)
    active = vae_jax.active_units(Normal(mean, 1.0))
    np.testing.assert_array_equal(active, mean.var(axis=0) > 0.01)
    np.testing.assert_array_equal(active, [True, True, False, False])
    higher = vae_jax.active_units(Normal(mean, 1.0), threshold=0.5)
    np.testing.assert_array_equal(higher, [True, False, False, False])


@pytest.mark.parametrize("batch", [(4,), ()], ids=str)
def test_kl_per_dimension_sums_to_the_kl(batch):
    rng = np.random.default_rng(0)
    mean, prior_mean = rng.normal(size=(4, 3)), rng.normal(size=(*batch, 3))
    scale, prior_scale = np.exp(rng.normal(size=(4, 3))), np.exp(rng.normal(size=(*batch, 3)))
    distribution = Normal(mean.astype(np.float32), scale.astype(np.float32))
    prior = Normal(prior_mean.astype(np.float32), prior_scale.astype(np.float32))
    actual = jax.jit(vae_jax.kl_per_dimension)(distribution, prior)
    expected = (
        np.log(prior_scale / scale)
        + (scale**2 + (mean - prior_mean) ** 2) / (2 * prior_scale**2)
        - 0.5
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    total = vae_jax.kl_divergence(distribution, prior)
    np.testing.assert_allclose(actual.sum(-1), total, rtol=1e-5)


def test_kl_per_dimension_is_of_diagonal_gaussians():
    normal = Normal(jnp.zeros(2), 1.0)
    with pytest.raises(TypeError, match=r"prior is a Categorical: pass a vae_jax\.Normal"):
        vae_jax.kl_per_dimension(normal, Categorical(jnp.zeros(2)))
