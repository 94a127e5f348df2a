"""Networks: shapes, their state at initialisation, and bounds that keep all values finite."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import networks

IMAGE_SHAPES = [(28, 28, 1), (8, 8, 1), (28, 20, 1), (7, 5, 3)]
each_image_shape = pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
LATENT_DIM = 3


class Identity(nn.Module):
    """Stands for a network that puts out anything."""

    def __call__(self, x):
        return x


def encoders(shape):
    return {
        "mlp": networks.MLP((2 * LATENT_DIM,), hidden=(8,), event_ndims=3),
        "conv": networks.ConvEncoder((2 * LATENT_DIM,), channels=(3, 5), hidden=8),
    }


def decoders(shape, **kwargs):
    return {
        "mlp": networks.MLP(shape, hidden=(8,), **kwargs),
        "conv": networks.ConvDecoder(shape, channels=(5, 3), hidden=8, **kwargs),
    }


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(network, x):
    """In the shapes of `network.init`, but no bias is zero and nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: 0.2 * rng.normal(size=a.shape).astype(a.dtype), shapes)


# Shapes


@pytest.mark.parametrize("kind", ["mlp", "conv"])
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


@pytest.mark.parametrize("kind", ["mlp", "conv"])
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


def test_decoder_image_is_cut_from_the_larger_one_at_its_far_edges():
    large, small = (networks.ConvDecoder(s, (5, 3), 8) for s in ((8, 8, 3), (7, 5, 3)))
    z = noise(0, 4, LATENT_DIM)
    variables = random_variables(large, z)
    cut = {"params": {**variables["params"], "bias": variables["params"]["bias"][:7, :5]}}
    expected = jax.jit(large.apply)(variables, z)[:, :7, :5]
    np.testing.assert_allclose(jax.jit(small.apply)(cut, z), expected, rtol=1e-5, atol=1e-6)


def test_logit():
    p = np.array([0.0, 1e-4, 0.1, 0.5, 0.9, 1.0], np.float32)
    expected = special.logit(np.clip(p.astype(np.float64), 1e-3, 1 - 1e-3))
    np.testing.assert_allclose(networks.logit(p), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(networks.logit(p, smoothing=0.2)[0], special.logit(0.2), rtol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (
            networks.StridedConv(5),
            nn.Conv(5, (3, 3), strides=2, padding=((0, 1), (0, 1))),
            (2, 3, 14, 10, 4),
        ),
        (
            networks.StridedConv(5),
            nn.Conv(5, (3, 3), strides=2, padding=((0, 2), (0, 1))),
            (2, 7, 4, 1),
        ),
        (
            networks.TransposedConv(5),
            nn.ConvTranspose(5, (3, 3), strides=(2, 2), transpose_kernel=True),
            (2, 3, 7, 5, 4),
        ),
    ],
    ids=["strided", "strided, odd", "transposed"],
)
def test_convolutions_equal_those_of_flax(ours, theirs, shape):
    """Values, and gradients in input and parameters."""
    x, params = noise(0, *shape), ours.init(jax.random.key(1), jnp.zeros(shape))
    params = jax.tree.map(lambda p: p + noise(2, *p.shape), params)
    weights = noise(3, *ours.apply(params, x).shape)

    def gradients(module):
        return jax.value_and_grad(
            lambda params, x: (module.apply(params, x) * weights).sum(), (0, 1)
        )(params, x)

    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), 1e-4, 1e-4)
    chex.assert_trees_all_close(gradients(ours), gradients(theirs), rtol=1e-4, atol=1e-4)


def test_convolutions_in_bfloat16_have_float32_sums_and_gradients():
    x = noise(0, 3, 14, 14, 8)
    for module in (networks.StridedConv, networks.TransposedConv):
        low, full = module(16, networks.matmul_bfloat16), module(16)
        params = full.init(jax.random.key(1), x)

        def loss(params, module):
            return jnp.square(module.apply(params, x)).mean()

        for value in (lambda m, p: m.apply(p, x), lambda m, p: jax.grad(loss)(p, m)):
            got, expected = jax.jit(value, static_argnums=0)(low, params), value(full, params)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
                assert a.dtype == jnp.float32
                assert 0 < jnp.linalg.norm(a - b) < 0.01 * jnp.linalg.norm(b)


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


def test_encoder_without_hidden_layers_is_affine():
    encoder = networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=()))
    x = noise(0, 4, 5)
    variables = random_variables(encoder, x)
    params = variables["params"]["network"]
    outputs = np.asarray(x) @ np.asarray(params["Dense_0"]["kernel"]) + np.asarray(params["bias"])
    mean, log_scale = np.split(outputs, 2, axis=-1)
    posterior = encoder.apply(variables, x)
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(posterior.scale, np.exp(10 * np.tanh(log_scale / 10)), rtol=1e-5)


# Extremes


@pytest.mark.parametrize("log_scale", [-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4])
def test_posterior_of_extreme_log_scale_is_finite(log_scale):
    # +-50 is a log-variance of +-100.
    encoder = networks.Encoder(Identity())
    x, prior = jnp.zeros((4, 2)), vae_jax.Normal(jnp.zeros(LATENT_DIM), 1.0)

    @jax.jit
    @jax.value_and_grad
    def loss(outputs):
        posterior = encoder.apply({}, outputs)
        z = vae_jax.sample(jax.random.key(0), posterior)
        bounds = [
            vae_jax.elbo(
                x, z, posterior, prior, vae_jax.Bernoulli(z[:, :2]), analytic_kl=analytic_kl
            )
            for analytic_kl in (True, False)
        ]
        return sum(bound.value.sum() for bound in bounds)

    outputs = jnp.full((4, 2 * LATENT_DIM), log_scale).at[:, :LATENT_DIM].set(1.0)
    value, gradient = loss(outputs)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    scale = encoder.apply({}, outputs).scale
    assert ((scale > np.exp(-10.001)) & (scale < np.exp(10.001))).all()
    if abs(log_scale) <= 1:
        np.testing.assert_allclose(scale, np.exp(log_scale), rtol=0.01)
    if abs(log_scale) <= 50:
        assert (gradient[:, LATENT_DIM:] != 0).all()  # a hard clip would have none


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_likelihood_of_extreme_logits_is_finite(logit):
    decoder = networks.BernoulliDecoder(Identity())
    x = jnp.array([0.0, 1.0])

    def log_prob(z):
        return decoder.apply({}, z).log_prob(x)

    value, gradient = jax.value_and_grad(log_prob)(jnp.full(2, logit))
    np.testing.assert_allclose(value, -1e4, rtol=1e-6)
    np.testing.assert_allclose(gradient, x - np.float32(logit > 0), atol=1e-7)


@pytest.mark.parametrize("log_scale", [-1e4, -50.0, 50.0, 1e4])
def test_likelihood_of_extreme_log_scale_is_finite(log_scale):
    decoder = networks.NormalDecoder(Identity())

    @jax.jit
    @jax.value_and_grad
    def log_prob(params, z, x):
        return decoder.apply({"params": params}, z).log_prob(x).sum()

    value, gradient = log_prob(
        {"log_scale": jnp.float32(log_scale)}, noise(0, 4, 5), noise(1, 4, 5)
    )
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient["log_scale"])


def test_learned_scale_is_stationary_at_the_root_mean_square_error():
    # The maximum of sum log N(x; mean, s^2) over s is at s^2 = the mean squared error.
    mean, x = noise(0, 4, 2, 3, 1), noise(1, 4, 2, 3, 1)
    rmse = np.sqrt(np.mean(np.square(np.asarray(x) - np.asarray(mean))))
    decoder = networks.NormalDecoder(Identity(), event_ndims=3)

    def log_prob(log_scale):
        return decoder.apply({"params": {"log_scale": log_scale}}, mean).log_prob(x).sum()

    at = jnp.float32(10 * np.arctanh(np.log(rmse) / 10))
    value, gradient = jax.value_and_grad(log_prob)(at)
    np.testing.assert_allclose(value, stats.norm(mean, rmse).logpdf(x).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)
    assert decoder.init(jax.random.key(0), mean)["params"]["log_scale"] == 0
