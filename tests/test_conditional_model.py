"""Conditional models: the linear-Gaussian CVAE with its known p(x|c), and all that takes labels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vae_jax
from vae_jax import networks

CLASS = networks.ClassCondition(10, 4)


def mlp(output_shape, condition=None, **options):
    return networks.MLP(output_shape, hidden=(8,), condition=condition, **options)


def label_prior(latent_dim):
    return networks.Encoder(nn.Sequential([networks.ClassCondition(10, 4), mlp((2 * latent_dim,))]))


def image_model(network, condition=CLASS, prior=None):
    """A small CVAE of 6 x 6 images with three latents."""
    shape = (6, 6, 1)
    if network == "mlp":
        encoder = mlp((6,), condition, event_ndims=3)
        decoder = mlp(shape, condition)
    else:
        encoder = networks.ConvEncoder((6,), (4, 8), hidden=8, condition=condition)
        decoder = networks.ConvDecoder(shape, (8, 4), hidden=8, condition=condition)
    return vae_jax.make_vae(
        networks.Encoder(encoder), networks.BernoulliDecoder(decoder, event_ndims=3), 3, prior
    )


class LinearGaussian:
    """A CVAE of linear networks, its parameters set by hand, and the exact p(x|c) by SciPy.

    The columns of W are orthogonal, so that the posterior's covariance is diagonal, as the
    encoder's is.
    """

    X, Z, C, SIGMA = 5, 2, 3, 0.7

    def __init__(self):
        numbers = np.random.default_rng(0)
        w = np.linalg.qr(numbers.normal(size=(self.X, self.Z)))[0] * [1.5, 0.6]
        v = numbers.normal(size=(self.X, self.C))
        a = numbers.normal(size=(self.Z, self.C))
        s = np.array([0.8, 1.3])
        self.c = numbers.normal(size=(4, self.C))
        self.covariance = (w * s**2) @ w.T + self.SIGMA**2 * np.eye(self.X)
        self.mean = self.c @ (w @ a + v).T
        self.x = np.stack([numbers.multivariate_normal(m, self.covariance) for m in self.mean])
        precision = 1 / s**2 + np.square(w).sum(axis=0) / self.SIGMA**2
        gain = (
            w / self.SIGMA**2 / precision
        ).T  # E[z|x,c] = gain (x - V c) + A c / (s^2 precision)

        condition = networks.FloatCondition((self.C,))
        statistics = networks.MLP((2 * self.Z,), hidden=(), condition=condition)
        means = networks.MLP((self.X,), hidden=(), condition=condition)
        self.model = vae_jax.make_vae(
            networks.Encoder(statistics),
            networks.NormalDecoder(means),
            self.Z,
            networks.Encoder(networks.MLP((2 * self.Z,), hidden=())),
        )

        def dense(kernel, scale=None):
            """Parameters of a linear MLP; with a scale, of a Gaussian's two statistics."""
            bias = np.zeros(len(kernel))
            if scale is not None:
                kernel = np.concatenate([kernel, np.zeros_like(kernel)])
                bias = np.concatenate([bias, bounded_log(scale)])
            return {"Dense_0": {"kernel": jnp.float32(kernel.T)}, "bias": jnp.float32(bias)}

        def bounded_log(scale):
            return 10 * np.arctanh(np.log(scale) / 10)

        posterior = np.concatenate([gain, a / (s**2 * precision)[:, None] - gain @ v], axis=1)
        self.params = {
            "encoder": {"network": dense(posterior, precision**-0.5)},
            "decoder": {
                "network": dense(np.concatenate([w, v], axis=1)),
                "log_scale": jnp.float32(bounded_log(self.SIGMA)),
            },
            "prior": {"network": dense(a, s)},
        }

    def log_prob(self):
        return scipy.stats.multivariate_normal(cov=self.covariance).logpdf(self.x - self.mean)


@pytest.fixture(scope="module")
def linear():
    return LinearGaussian()


def test_linear_gaussian_parameters_have_the_networks_shapes(linear):
    params = linear.model.init(jax.random.key(0), jnp.float32(linear.x), jnp.float32(linear.c))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, linear.params)


def test_elbo_of_the_exact_posterior_is_log_p_of_x_given_c(linear):
    x, c = jnp.float32(linear.x), jnp.float32(linear.c)
    posterior, prior = (
        linear.model.encode(linear.params, x, c),
        linear.model.prior(linear.params, c),
    )
    z = vae_jax.sample(jax.random.key(0), posterior, 7)
    likelihood = linear.model.decode(linear.params, z, c)
    # Every draw has the same weight, p(x|c), when the posterior is exact.
    bound = vae_jax.elbo(x, z, posterior, prior, likelihood, analytic_kl=False)
    np.testing.assert_allclose(bound.value, np.tile(linear.log_prob(), (7, 1)), atol=1e-4)


def test_another_posterior_costs_its_divergence_from_the_true_one(linear):
    x, c = jnp.float32(linear.x), jnp.float32(linear.c)
    exact, prior = linear.model.encode(linear.params, x, c), linear.model.prior(linear.params, c)
    posterior = vae_jax.Normal(exact.mean + 0.1, 1.2 * exact.scale)
    z = vae_jax.sample(jax.random.key(0), posterior, 200_000)
    likelihood = linear.model.decode(linear.params, z, c)
    values = vae_jax.elbo(x, z, posterior, prior, likelihood).value
    # KL(N(m + d, t^2) || N(m, s^2)) of each dimension, summed.
    ratio, shift = 1.2, 0.1 / np.asarray(exact.scale)
    divergence = (0.5 * (ratio**2 + shift**2 - 1) - np.log(ratio)).sum(axis=-1)
    error = np.asarray(values.std(axis=0)) / np.sqrt(len(values))
    difference = np.asarray(values.mean(axis=0)) - (linear.log_prob() - divergence)
    assert (np.abs(difference) < 4 * error).all()


def test_importance_sampling_covers_log_p_of_x_given_c(linear):
    x, c = jnp.float32(linear.x), jnp.float32(linear.c)
    exact = linear.model.encode(linear.params, x, c)
    estimate = vae_jax.log_likelihood(
        jax.random.key(1),
        x,
        vae_jax.Normal(exact.mean + 0.1, 1.2 * exact.scale),
        linear.model.prior(linear.params, c),
        lambda z: linear.model.decode(linear.params, z, c),
        num_samples=2000,
        chunk_size=100,
    )
    error = np.abs(np.asarray(estimate.value) - linear.log_prob())
    assert (error < 4 * np.asarray(estimate.standard_error)).all()
    assert (np.asarray(estimate.standard_error) < 0.02).all()


# What is done with a conditional model


@pytest.mark.parametrize("prior", [label_prior(3), networks.StandardPrior(3)])
def test_generate_reconstruct_and_the_rest_take_labels(prior):
    model = image_model("mlp", prior=prior)
    label, x = jnp.array([1, 2]), jnp.ones((2, 6, 6, 1))
    params = model.init(jax.random.key(0), x, label)
    assert vae_jax.generate(jax.random.key(1), model, params, 5, label).shape == (5, 2, 6, 6, 1)
    assert vae_jax.generate(jax.random.key(1), model, params, (), label).shape == (2, 6, 6, 1)
    assert vae_jax.reconstruct(model, params, x, label).shape == (2, 6, 6, 1)
    assert vae_jax.interpolate(model, params, x, x, 4, label).shape == (4, 2, 6, 6, 1)
    values = jnp.linspace(-1.0, 1.0, 4)
    assert vae_jax.traverse(model, params, x, values, label).shape == (3, 4, 2, 6, 6, 1)


def test_conditional_prior_depends_on_the_label_and_is_trained_by_the_elbo():
    model = image_model("mlp", prior=label_prior(3))
    x, label = jnp.ones((2, 6, 6, 1)), jnp.array([4, 5])
    params = model.init(jax.random.key(0), x, label)
    prior = model.prior(params, label)
    assert not np.allclose(prior.mean[0], prior.mean[1])
    np.testing.assert_allclose(prior.mean[1], model.prior(params, jnp.array(5)).mean, atol=1e-6)

    def value(params):
        posterior = model.encode(params, x, label)
        z = vae_jax.sample(jax.random.key(1), posterior)
        likelihood = model.decode(params, z, label)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params, label), likelihood)
        return bound.value.mean()

    gradient = jax.grad(value)(params)
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(gradient["prior"]))


def test_transfer_to_the_own_class_is_reconstruction():
    model = image_model("mlp", prior=label_prior(3))
    x, label = jnp.ones((2, 6, 6, 1)), jnp.array([4, 5])
    params = model.init(jax.random.key(0), x, label)
    same = vae_jax.transfer(model, params, x, label, label)
    expected = vae_jax.reconstruct(model, params, x, label)
    np.testing.assert_allclose(same.logits, expected.logits, atol=1e-4)
    other = vae_jax.transfer(model, params, x, label, jnp.array([5, 5]))
    # z by the formula, with NumPy.
    old, new = model.prior(params, label), model.prior(params, jnp.array([5, 5]))
    style = (np.asarray(model.encode(params, x, label).mean) - old.mean) / old.scale
    z = np.asarray(new.mean) + np.asarray(new.scale) * style
    expected = model.decode(params, jnp.asarray(z), jnp.array([5, 5]))
    np.testing.assert_allclose(other.logits, expected.logits, atol=1e-4)
