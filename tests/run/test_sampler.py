"""A mixture fitted to codes, against the distribution that they came from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax.run import sampler
from vae_jax.run.commands import generate
from vae_jax.run.errors import UsageError


def test_the_fitted_mixture_is_where_the_codes_lie():
    """Two clusters of codes, far from N(0, I): means and covariances of the draws are theirs."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((900, 1, 1, 1)) < 0.3, -4.0, 5.0) + 0.5 * rng.normal(
        size=(900, 1, 1, 2)
    )
    model = vae_jax.VAE(
        None,
        lambda params, x, label=None: vae_jax.Normal(params * x[..., 0, 0, :], 0.1),
        lambda params, label=None: vae_jax.Normal(jnp.zeros(2), 1.0),
        lambda params, z, label=None: vae_jax.Normal(z, 1.0),
    )
    x = jnp.asarray(x, jnp.float32)
    z = sampler.codes(jax.random.key(0), model, 1.0, x)
    np.testing.assert_allclose(z, x[:, 0, 0], atol=0.6)
    fitted = sampler.with_fitted_prior(jax.random.key(0), model, 1.0, x, seed=0)
    drawn = np.asarray(vae_jax.generate(jax.random.key(1), fitted, 1.0, 4000).mean)
    for negative in (False, True):
        codes, draws = (a[(a[:, 0] < 0) == negative] for a in (z, drawn))
        assert abs(len(draws) / len(drawn) - len(codes) / len(z)) < 0.05
        np.testing.assert_allclose(draws.mean(0), codes.mean(0), atol=0.1)
        np.testing.assert_allclose(np.cov(draws.T), np.cov(codes.T), atol=0.06)


def test_few_codes_make_few_components():
    z = np.random.default_rng(0).normal(size=(100, 4))
    assert sampler.fit_mixture(z, seed=0).logits.shape == (2,)
    assert sampler.fit_mixture(z[:30], seed=0).logits.shape == (1,)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"conditional": True}, "knows no classes but run is a conditional run"),
        ({"posterior": "power_spherical"}, "the codes of run are unit ones"),
        ({"network": "ladder"}, "is of one layer of latents but run has several"),
    ],
)
def test_runs_that_no_mixture_is_fitted_to(model, said):
    chosen = generate.Options(run="run", sampler="mixture")
    with pytest.raises(UsageError, match=said):
        generate.check_sampler(chosen, {"options": {"model": model}})


@pytest.mark.parametrize(
    "prior",
    [
        vae_jax.Normal(jnp.ones(2), 2.0 * jnp.ones(2)),
        vae_jax.MultivariateNormal(jnp.ones(2), 2.0 * jnp.eye(2)),
        vae_jax.Mixture(jnp.zeros(1), vae_jax.Normal(jnp.ones((1, 2)), 2.0 * jnp.ones((1, 2)))),
        vae_jax.Flow(vae_jax.Normal(jnp.ones(2), 2.0 * jnp.ones(2)), ()),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_a_temperature_is_of_the_standard_deviation(prior):
    model = vae_jax.VAE(None, None, lambda params, label=None: prior, None)
    z = vae_jax.sample(jax.random.key(0), sampler.tempered(model, 0.25).prior(None), 2000)
    np.testing.assert_allclose(z.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(z.std(0), 0.5, atol=0.04)


def test_a_prior_on_the_sphere_has_no_temperature():
    sphere = vae_jax.SphericalUniform(3)
    model = vae_jax.VAE(None, None, lambda params, label=None: sphere, None)
    with pytest.raises(TypeError, match="a prior of SphericalUniform has no temperature"):
        sampler.tempered(model, 0.5).prior(None)
