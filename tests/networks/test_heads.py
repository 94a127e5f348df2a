"""What networks' outputs become: distributions, and bounds that keep all values finite."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax import networks

LATENT_DIM = 3


class Identity(nn.Module):
    """Stands for a network that puts out anything."""

    def __call__(self, x):
        return x


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(network, x):
    """In the shapes of `network.init`, but no bias is zero and nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: 0.2 * rng.normal(size=a.shape).astype(a.dtype), shapes)


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


LOCATED = {
    networks.NormalDecoder: lambda mean, scale: stats.norm(mean, scale).logpdf,
    networks.LaplaceDecoder: lambda mean, scale: stats.laplace(mean, scale).logpdf,
    networks.StudentTDecoder: lambda mean, scale: stats.t(5, mean, scale).logpdf,
    networks.DiscretizedLogisticDecoder: lambda mean, scale: (
        lambda k: np.log(
            np.diff(stats.logistic.cdf([k / 256, (k + 1) / 256], mean, scale), axis=0)[0]
        )
    ),
}


@pytest.mark.parametrize("per_entry", [False, True], ids=["one scale", "each its own"])
@pytest.mark.parametrize("head", LOCATED)
def test_a_located_likelihood_starts_at_its_initial_scale(head, per_entry):
    """Of each entry: the network's second half is the logarithm of what the scale is of it."""
    mean, log_scale = noise(0, 4, 3), 0.5 * noise(1, 4, 3)
    decoder = head(Identity(), initial_scale=0.3, per_entry=per_entry)
    output = jnp.concatenate([mean, log_scale], axis=-1) if per_entry else mean
    likelihood, _ = decoder.init_with_output(jax.random.key(0), output)
    scale = 0.3 * np.exp(10 * np.tanh(log_scale / 10)) if per_entry else 0.3
    discrete = head is networks.DiscretizedLogisticDecoder
    x = np.array([100, 1, 254]) + np.zeros((4, 1), int) if discrete else np.asarray(noise(2, 4, 3))
    expected = LOCATED[head](np.asarray(mean, float), scale)(x).sum(-1)
    np.testing.assert_allclose(likelihood.log_prob(x), expected, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    "head", [networks.MixtureOfDiscretizedLogisticsDecoder, networks.CategoricalDecoder]
)
def test_bytes_of_features_know_nothing_of_their_pixel_at_first(head):
    """Of features 0 all pixels are alike: about as probable as where each byte is."""
    likelihood, variables = head(Identity(), num_channels=2).init_with_output(
        jax.random.key(0), jnp.zeros((5, 4, 3, 16))
    )
    assert likelihood.shape == (5, 4, 3, 2)
    drawn = vae_jax.sample(jax.random.key(1), likelihood, 2)
    assert drawn.shape == (2, 5, 4, 3, 2)
    bits = -np.asarray(likelihood.log_prob(drawn)) / np.log(2) / (4 * 3 * 2)
    np.testing.assert_allclose(bits.mean(), 7.8, atol=0.3)
    assert list(variables["params"]) == ["Dense_0"]
