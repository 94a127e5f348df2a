"""The model in which everything can be computed: p(z) = N(0, I), p(x|z) = N(W z, s^2 I)."""

import jax
import jax.numpy as jnp

import vae_jax
from vae_jax import MultivariateNormal, Normal

WEIGHT = ((1.0, 0.9), (0.2, 0.6), (-0.5, -0.3), (0.8, 0.4))
NOISE, OBSERVED = 0.5, (1.2, 0.3, -0.9, 1.5)


def decode(z: jax.Array, weight: jax.Array) -> Normal:
    return Normal(z @ weight.T, NOISE)


def exact_posterior(x: jax.Array, weight: jax.Array) -> MultivariateNormal:
    """p(z|x) of the linear model (Tipping & Bishop 1999)."""
    identity = jnp.eye(weight.shape[1])
    covariance = jnp.linalg.inv(identity + weight.T @ weight / NOISE**2)
    mean = covariance @ weight.T @ x / NOISE**2
    return MultivariateNormal(mean, jnp.linalg.cholesky(covariance))


def exact_log_px(x: jax.Array, weight: jax.Array) -> jax.Array:
    covariance = weight @ weight.T + NOISE**2 * jnp.eye(len(x))
    return MultivariateNormal(jnp.zeros(len(x)), jnp.linalg.cholesky(covariance)).log_prob(x)


def exact_elbo(x: jax.Array, weight: jax.Array, posterior: MultivariateNormal) -> jax.Array:
    """The bound without noise: 2 Z points have the mean and the covariance of the posterior.

    In the linear model every term is quadratic in z, so that their mean is the expectation.
    """
    latent_dim = len(posterior.mean)
    steps = jnp.sqrt(latent_dim) * posterior.scale_tril.T
    z = jnp.concatenate([posterior.mean[None] + steps, posterior.mean[None] - steps])
    prior = Normal(jnp.zeros(latent_dim), 1.0)
    return vae_jax.elbo(x, z, posterior, prior, decode(z, weight)).value.mean()
