"""Images of any shape, under any batch axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax import networks

LATENT_DIM = 3


IMAGE_SHAPES = [(28, 28, 1), (8, 8, 1), (28, 20, 1), (7, 5, 3)]


KINDS = ["mlp", "conv", "gated", "residual", "residual conv"]
each_image_shape = pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)


def encoders(shape):
    return {
        "mlp": networks.MLP((2 * LATENT_DIM,), hidden=(8,), event_ndims=3),
        "conv": networks.ConvEncoder((2 * LATENT_DIM,), channels=(3, 5), hidden=8),
        "gated": networks.GatedMLP((2 * LATENT_DIM,), hidden=(8,), event_ndims=3),
        "residual": networks.ResidualMLP((2 * LATENT_DIM,), hidden=(8, 8), event_ndims=3),
        "residual conv": networks.ResidualConvEncoder((2 * LATENT_DIM,), (3, 5), hidden=8),
    }


def decoders(shape, **kwargs):
    return {
        "mlp": networks.MLP(shape, hidden=(8,), **kwargs),
        "conv": networks.ConvDecoder(shape, channels=(5, 3), hidden=8, **kwargs),
        "gated": networks.GatedMLP(shape, hidden=(8,), **kwargs),
        "residual": networks.ResidualMLP(shape, hidden=(8, 8), **kwargs),
        "residual conv": networks.ResidualConvDecoder(shape, (5, 3), hidden=8, **kwargs),
    }


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(network, x):
    """In the shapes of `network.init`, but no bias is zero and nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: 0.2 * rng.normal(size=a.shape).astype(a.dtype), shapes)


@pytest.mark.parametrize("kind", KINDS)
@each_image_shape
def test_encoder_and_decoder_of_any_image_shape(shape, kind):
    encoder = networks.Encoder(encoders(shape)[kind])
    x = jnp.zeros((4, *shape))
    posterior, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), x)
    assert isinstance(posterior, vae_jax.Normal)
    assert posterior.shape == posterior.scale.shape == (4, LATENT_DIM)
    decoder = networks.BernoulliDecoder(decoders(shape)[kind], event_ndims=3)
    z = jnp.zeros((4, LATENT_DIM))
    likelihood, variables = jax.eval_shape(decoder.init_with_output, jax.random.key(0), z)
    assert isinstance(likelihood, vae_jax.Bernoulli)
    assert likelihood.shape == (4, *shape)
    assert likelihood.event_ndims == 3
    assert variables["params"]["network"]["bias"].shape == shape


@pytest.mark.few(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_leading_axes_are_a_batch(kind, part):
    shape = (7, 5, 3)
    network = {"encoder": encoders(shape), "decoder": decoders(shape)}[part][kind]
    inputs = noise(0, 2, 3, *{"encoder": shape, "decoder": (LATENT_DIM,)}[part])
    variables = random_variables(network, inputs)
    apply = jax.jit(network.apply)
    actual = apply(variables, inputs)
    expected = [apply(variables, one) for row in inputs for one in row]
    expected = np.stack(expected).reshape(actual.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply(variables, inputs[1]), expected[1], rtol=1e-4, atol=1e-5)
