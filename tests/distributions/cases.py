"""Distributions of several shapes, for the tests of this folder."""

import itertools
import math

import jax
import numpy as np
import pytest

from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal

NUM_DRAWS = 2000


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cholesky(seed, *shape):
    """Well-conditioned lower factors [*b, D, D]."""
    factor = 0.4 * noise(seed, *shape)
    return np.tril(factor, -1) + np.exp(factor) * np.eye(shape[-1], dtype=np.float32)


def covariance(distribution):
    if isinstance(distribution, Normal):
        scale = np.asarray(distribution.scale, np.float64)
        return np.square(scale)[..., None] * np.eye(scale.shape[-1])
    factor = np.asarray(distribution.scale_tril, np.float64)
    return factor @ factor.swapaxes(-1, -2)


def within_standard_errors(draws, expected, num=4):
    """Whether the mean over the first axis is within `num` standard errors of what is expected."""
    draws = np.asarray(draws, np.float64)
    error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
    return np.all(np.abs(draws.mean(axis=0) - expected) <= num * error)


GAUSSIANS = {
    "diagonal": lambda seed: Normal(noise(seed, 4, 3), np.exp(0.5 * noise(seed + 1, 4, 3))),
    "full": lambda seed: MultivariateNormal(noise(seed, 4, 3), cholesky(seed + 1, 4, 3, 3)),
}
DISTRIBUTIONS = {
    **{name: make(0) for name, make in GAUSSIANS.items()},
    "image": Normal(noise(0, 4, 2, 3, 1), np.exp(noise(1, 4, 2, 3, 1)), event_ndims=3),
    "bernoulli": Bernoulli(3 * noise(0, 4, 3)),
    "categorical": Categorical(2 * noise(0, 4, 5)),
    "joint": Joint((GAUSSIANS["diagonal"](2), GAUSSIANS["full"](4)), ancestral=True),
}
each_distribution = pytest.mark.parametrize(
    "distribution", DISTRIBUTIONS.values(), ids=list(DISTRIBUTIONS)
)
each_pair = pytest.mark.parametrize(("of", "against"), list(itertools.product(GAUSSIANS, repeat=2)))
eager_and_jitted = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
