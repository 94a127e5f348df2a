"""A prior for a trained model that fits where its codes lie."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.evaluation import batched
from vae_jax.run import extras

MOST_CODES = 10_000
_NUM_COMPONENTS, _BATCH = 10, 500
# Of each component: a covariance of 40 latents from 65 codes scored others by 14 nats less than
# N(0, I) did.
_CODES_PER_LATENT = 10


def codes(key: jax.Array, model: vae_jax.VAE, params: Any, x: Any) -> np.ndarray:
    """A draw of each example's posterior, [N, Z].

    Args:
      key: of the draws.
      model: an unconditional VAE.
      params: its parameters.
      x: [N, H, W, C], as the model sees them, or what is read like it.
    """

    @jax.jit
    def encode(params: Any, key: jax.Array, x: jax.Array) -> jax.Array:
        z: jax.Array = vae_jax.sample(key, model.encode(params, x))
        return z

    parts = [
        jax.device_get(encode(params, jax.random.fold_in(key, i), batched.take(x, rows)))
        for i, rows in enumerate(batched.rows_of(len(x), min(_BATCH, len(x))))
    ]
    joined: np.ndarray = batched.joined(parts, len(x))
    return joined


def fit_mixture(z: np.ndarray, seed: int) -> vae_jax.Mixture:
    """A mixture of Gaussians with full covariances, fitted to codes by scikit-learn's EM.

    Draws of a trained model's N(0, I) fall where no code lies; those of a density fitted to its
    codes do not (Ghosh et al. 2020, section 4, of autoencoders without a prior). It has ten
    components, and fewer where the codes are too few for so many covariances.

    Args:
      z: [N, Z].
      seed: of the start.
    """
    extras.check("sklearn")
    from sklearn.mixture import GaussianMixture  # here, as it takes a second

    num = max(1, min(_NUM_COMPONENTS, len(z) // (_CODES_PER_LATENT * z.shape[1])))
    start = GaussianMixture(num, reg_covar=1e-4, random_state=seed)
    fitted = start.fit(np.asarray(z, np.float64))
    return vae_jax.Mixture(
        jnp.asarray(np.log(fitted.weights_), jnp.float32),
        vae_jax.MultivariateNormal(
            jnp.asarray(fitted.means_, jnp.float32),
            jnp.asarray(np.linalg.cholesky(fitted.covariances_), jnp.float32),
        ),
    )


def with_fitted_prior(
    key: jax.Array, model: vae_jax.VAE, params: Any, x: Any, seed: int
) -> vae_jax.VAE:
    """The model, whose prior is such a mixture, of the codes of x.

    Args:
      key: of the codes.
      model: an unconditional VAE.
      params: its parameters, which the mixture belongs to.
      x: [N, H, W, C].
      seed: of the mixture's start.
    """
    mixture = fit_mixture(codes(key, model, params, x), seed)
    return model._replace(prior=lambda params, label=None: mixture)


def tempered(model: vae_jax.VAE, temperature: float) -> vae_jax.VAE:
    """The model, whose prior's standard deviation is multiplied by a temperature.

    Of a mixture that of each component, of a flow that of its base, of a hierarchy that of each
    layer.

    Args:
      model: the VAE.
      temperature: below 1 for draws that are less odd.

    Raises:
      TypeError: when the prior is asked for, if it has no standard deviation.
    """

    def scaled(prior: Any) -> Any:
        match prior:
            case vae_jax.Normal():
                return dataclasses.replace(prior, scale=temperature * prior.scale)
            case vae_jax.MultivariateNormal():
                return dataclasses.replace(prior, scale_tril=temperature * prior.scale_tril)
            case vae_jax.Mixture():
                return dataclasses.replace(prior, components=scaled(prior.components))
            case vae_jax.Flow():
                return dataclasses.replace(prior, base=scaled(prior.base))
            case vae_jax.Ancestral(walk):
                return dataclasses.replace(
                    prior, walk=lambda choose: walk(lambda part, *_: choose(scaled(part)))
                )
        raise TypeError(f"a prior of {type(prior).__name__} has no temperature: leave it out")

    return model._replace(prior=lambda params, label=None: scaled(model.prior(params, label)))
