"""Where a decoder's output bias starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vae_jax import networks

LATENT_DIM = 3


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def decoders(shape, **kwargs):
    return {
        "mlp": networks.MLP(shape, hidden=(8,), **kwargs),
        "conv": networks.ConvDecoder(shape, channels=(5, 3), hidden=8, **kwargs),
    }


def test_logit():
    p = np.array([0.0, 1e-4, 0.1, 0.5, 0.9, 1.0], np.float32)
    expected = special.logit(np.clip(p.astype(np.float64), 1e-3, 1 - 1e-3))
    np.testing.assert_allclose(networks.logit(p), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(networks.logit(p, smoothing=0.2)[0], special.logit(0.2), rtol=1e-5)


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("shape", [(28, 20, 1), (7, 5, 3)], ids=str)
def test_decoder_starts_at_the_training_mean(shape, kind):
    mean = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    bias_init = networks.constant_bias(networks.logit(mean))
    decoder = networks.BernoulliDecoder(decoders(shape, bias_init=bias_init)[kind], event_ndims=3)
    z = jnp.concatenate([jnp.zeros((1, LATENT_DIM)), noise(0, 200, LATENT_DIM)])
    likelihood, _ = jax.jit(decoder.init_with_output)(jax.random.key(0), z)
    # Every other bias starts at zero, so z = 0 gives the mean; and z from the prior nearly does.
    np.testing.assert_allclose(likelihood.mean[0], np.clip(mean, 1e-3, 1 - 1e-3), rtol=1e-4)
    shift = likelihood.logits[1:].mean(axis=0) - likelihood.logits[0]
    assert np.sqrt(np.mean(np.square(shift))) < 0.5


def test_constant_bias_takes_the_asked_shape():
    init = networks.constant_bias(2.0)
    np.testing.assert_array_equal(init(jax.random.key(0), (2, 3)), np.full((2, 3), 2.0))
    assert init(jax.random.key(0), (2,), jnp.bfloat16).dtype == jnp.bfloat16
