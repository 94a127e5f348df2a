"""Conditional models: the linear-Gaussian CVAE with its known p(x|c), and all that takes labels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from PIL import Image

import vae_jax
from experiments import conditional, data, generate, measure, mnist, options, quadrants
from vae_jax import networks

ROOT = Path(__file__).parents[1]

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


# The linear-Gaussian CVAE: p(z|c) = N(A c, S^2), p(x|z,c) = N(W z + V c, sigma^2 I)


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


# The label's road


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("condition", "label"),
    [
        (CLASS, jnp.array([3, 0, 9, 3])),
        (networks.FloatCondition((2,)), jax.random.normal(jax.random.key(0), (4, 2))),
        (networks.FloatCondition((6, 6, 2)), jax.random.normal(jax.random.key(0), (4, 6, 6, 2))),
        (networks.FloatCondition((6, 6, 1)), jnp.arange(144).reshape(4, 6, 6, 1) % 5 == 0),
    ],
    ids=["class", "vector", "image", "mask"],
)
def test_every_kind_of_condition_reaches_encoder_and_decoder(network, condition, label):
    model = image_model(network, condition)
    x = jnp.ones((4, 6, 6, 1))
    params = model.init(jax.random.key(1), x, label)
    posterior = model.encode(params, x, label)
    assert posterior.shape == (4, 3)
    # The same x under another's label is encoded, and the same z decoded, otherwise.
    other = jnp.roll(label, 1, axis=0)
    assert not np.allclose(posterior.mean, model.encode(params, x, other).mean)
    z = jnp.ones((4, 3))
    one, another = model.decode(params, z, label), model.decode(params, z, other)
    assert not np.allclose(one.logits, another.logits)
    np.testing.assert_allclose(np.roll(one.logits, 1, axis=0), another.logits, atol=1e-5)
    # Draws [S, B, Z] with labels [B] are each decoded under the label of their example.
    draws = model.decode(params, jnp.stack([z, 2 * z]), label)
    assert draws.shape == (2, 4, 6, 6, 1)
    np.testing.assert_allclose(draws.logits[0], one.logits, atol=1e-5)


def test_vector_is_the_same_at_every_pixel_and_image_is_not():
    encoder = networks.ConvEncoder((6,), (4,), hidden=4, condition=networks.FloatCondition((2,)))
    image = networks.ConvEncoder((6,), (4,), hidden=4, condition=networks.FloatCondition((6, 6, 2)))
    x, vector = jnp.ones((3, 6, 6, 1)), jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    params = encoder.init(jax.random.key(0), x, vector)
    spread = jnp.broadcast_to(vector[:, None, None], (3, 6, 6, 2))
    np.testing.assert_allclose(
        encoder.apply(params, x, vector), image.apply(params, x, spread), atol=1e-6
    )


def test_embedding_is_a_row_of_its_table():
    params = CLASS.init(jax.random.key(0), jnp.array(0))
    table = np.asarray(params["params"]["embedding"])
    assert table.shape == (10, 4)
    label = np.array([[7, 0], [9, 2]])
    np.testing.assert_array_equal(CLASS.apply(params, jnp.array(label)), table[label])
    gradient = jax.grad(lambda p: CLASS.apply(p, jnp.array([2, 2, 5])).sum())(params)
    counts = np.zeros((10, 4))
    counts[2], counts[5] = 2, 1
    np.testing.assert_array_equal(gradient["params"]["embedding"], counts)


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


def test_standard_prior_is_n_0_i_with_the_batch_of_the_label():
    prior = networks.StandardPrior(3, label_ndims=1).apply({}, jnp.ones((4, 7)))
    np.testing.assert_array_equal(prior.mean, np.zeros((4, 3)))
    np.testing.assert_array_equal(prior.scale, np.ones((4, 3)))


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


# Bad input: one clear line each, at trace time


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_bad_labels(network):
    model, plain = image_model(network, prior=label_prior(3)), image_model(network, None)
    x, label = jnp.ones((4, 6, 6, 1)), jnp.arange(4)
    params = model.init(jax.random.key(0), x, label)
    plain_params = plain.init(jax.random.key(0), x)
    encode = jax.jit(model.encode)
    with pytest.raises(TypeError, match=r"a label was given but the network is unconditional"):
        plain.encode(plain_params, x, label)
    with pytest.raises(TypeError, match=r"a label was given but the network is unconditional"):
        plain.decode(plain_params, jnp.ones((4, 3)), label)
    with pytest.raises(TypeError, match=r"label is None but the network is conditional"):
        encode(params, x)
    with pytest.raises(TypeError, match=r"label is None but the network is conditional"):
        model.decode(params, jnp.ones((4, 3)))
    with pytest.raises(TypeError, match=r"label is None but the prior is conditional"):
        model.prior(params)
    with pytest.raises(TypeError, match=r"dtype float32: pass classes, integers from 0 to 9"):
        encode(params, x, jnp.ones(4))
    with pytest.raises(TypeError, match=r"dtype float32: pass classes"):
        model.prior(params, jnp.ones(4))
    with pytest.raises(ValueError, match=r"batch shape \(5,\) but the input has \(4,\)"):
        encode(params, x, jnp.arange(5))
    with pytest.raises(ValueError, match=r"batch shape \(1,\) but the input has \(4,\)"):
        encode(params, x, jnp.arange(1))
    with pytest.raises(ValueError, match=r"batch shape \(2, 4\) but the input has \(4,\)"):
        model.decode(params, jnp.ones((4, 3)), jnp.ones((2, 4), jnp.int32))


@pytest.mark.parametrize("label", [-1, 10])
def test_class_out_of_range_is_an_error_or_nan_but_never_another_class(label):
    params = CLASS.init(jax.random.key(0), jnp.array(0))
    with pytest.raises(ValueError, match=rf"label has the value {label}: pass classes from 0 to 9"):
        CLASS.apply(params, jnp.array([3, label]))
    # A constant is looked at even where all else is traced.
    with pytest.raises(ValueError, match=rf"label has the value {label}"):
        jax.jit(lambda params: CLASS.apply(params, np.array([3, label])))(params)
    traced = jax.jit(CLASS.apply)(params, jnp.array([3, label]))
    assert np.isnan(traced).all(axis=-1).tolist() == [False, True]


def test_bad_float_conditions():
    condition = networks.FloatCondition((2,))
    model = image_model("conv", condition)
    x = jnp.ones((4, 6, 6, 1))
    params = model.init(jax.random.key(0), x, jnp.ones((4, 2)))
    with pytest.raises(TypeError, match=r"dtype int32: pass floating-point"):
        model.encode(params, x, jnp.arange(4))
    with pytest.raises(ValueError, match=r"shape \(4, 3\) but one condition has \(2,\)"):
        model.encode(params, x, jnp.ones((4, 3)))
    with pytest.raises(ValueError, match=r"batch shape \(3,\) but the input has \(4,\)"):
        model.encode(params, x, jnp.ones((3, 2)))
    small = image_model("conv", networks.FloatCondition((3, 3, 1)))
    with pytest.raises(ValueError, match=r"shape \(3, 3, 1\) but the image is 6 x 6"):
        small.init(jax.random.key(0), x, jnp.ones((4, 3, 3, 1)))


# Evaluation


def test_log_likelihoods_of_every_class_and_what_is_made_of_them(monkeypatch):
    """Against a model whose p(x|c) is known: z does nothing, x is Bernoulli(logits[c])."""
    num_classes, num_test = 3, 7
    numbers = np.random.default_rng(0)
    logits = numbers.normal(size=(num_classes, 4, 4, 1))

    def decode(params, z, label=None):
        shape = (*z.shape[:-1], 4, 4, 1)
        return vae_jax.Bernoulli(jnp.broadcast_to(params[label], shape), event_ndims=3)

    def standard(shape):
        return vae_jax.Normal(jnp.zeros((*shape, 2)), jnp.ones(()))

    model = vae_jax.VAE(
        init=None,
        encode=lambda params, x, label=None: standard(x.shape[:1]),
        prior=lambda params, label=None: standard(jnp.shape(label)),
        decode=decode,
    )
    images = numbers.integers(0, 2, (num_test, 4, 4, 1), np.uint8) * 255
    x = images.astype(np.float32) / 255
    exact = (x[:, None] * logits - np.logaddexp(0, logits)).sum(axis=(2, 3, 4))
    params = jnp.float32(logits)
    key = jax.random.key(0)
    estimate = conditional.log_likelihoods(key, model, params, jnp.asarray(x), num_classes, 2)
    np.testing.assert_allclose(estimate.value, exact, rtol=1e-5)
    np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-5)

    labels = numbers.integers(0, num_classes, num_test).astype(np.int32)
    training = np.array([0, 1, 1, 2, 2, 2], np.int32)
    dataset = data.Dataset(
        "tiny",
        data.Split(np.zeros((6, 4, 4, 1), np.uint8), training),
        data.Split(images, labels),
        data.Split(images, labels),
        num_classes,
        "",
    )
    monkeypatch.setattr(
        conditional.classifier, "train", lambda *_: lambda images: jnp.zeros(len(images), int)
    )
    rows = np.arange(num_test)
    own = vae_jax.Estimate(exact[rows, labels].astype(np.float32), np.full(num_test, 0.1))
    fields = conditional.measure(key, model, params, jnp.asarray(x), dataset, own, 2)
    joint = exact + np.log([1 / 6, 2 / 6, 3 / 6])
    marginal = scipy.special.logsumexp(joint, axis=1)
    weight = np.exp(joint[rows, labels] - marginal)
    correct = joint.argmax(axis=1) == labels
    zero, a_third = labels == 0, np.arange(conditional.NUM_GENERATED) % 3 == 0
    expected = {
        "log_likelihood": exact[rows, labels].mean(),
        "log_likelihood_standard_error": 0.1 / np.sqrt(num_test),
        "marginal_log_likelihood": marginal.mean(),
        "marginal_log_likelihood_standard_error": 0.1 * np.sqrt((weight**2).sum()) / num_test,
        "bayes_accuracy": correct.mean(),
        "bayes_accuracy_standard_error": scipy.stats.sem(correct),
        "classifier_test_accuracy": zero.mean(),
        "classifier_agreement": a_third.mean(),
        "classifier_agreement_standard_error": scipy.stats.sem(a_third),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(fields[f"conditional_{name}"], value, rtol=1e-4, err_msg=name)
    shuffled = fields["conditional_shuffled_log_likelihood"]
    cost = fields["conditional_shuffled_labels_cost"]
    np.testing.assert_allclose(shuffled + cost, expected["log_likelihood"], rtol=1e-5)
    assert cost != 0
    assert fields["conditional_shuffled_log_likelihood_standard_error"] < 1e-5


def test_rows_without_a_label_are_dropped_from_every_split():
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    split = data.Split(images, np.array([1, -1, 0, -1], np.int32))
    dataset = data.Dataset("tiny", split, split, split, 2, "")
    for kept in conditional.labelled(dataset)[1:4]:
        assert kept.images.flatten().tolist() == [0, 2]
        assert kept.labels.tolist() == [1, 0]
    with pytest.raises(data.DataError, match=r"train split of tiny has the label 1: .* 0 to 0"):
        conditional.labelled(dataset._replace(num_classes=1))
    none = data.Split(images, np.full(4, -1, np.int32))
    with pytest.raises(data.DataError, match=r"test split of tiny has no labels: leave --cond"):
        conditional.labelled(dataset._replace(test=none))


def test_a_column_of_the_class_grid_is_one_style():
    model = image_model("mlp", prior=networks.StandardPrior(3))
    params = model.init(jax.random.key(0), jnp.ones((1, 6, 6, 1)), jnp.array([0]))
    images = conditional.by_class(jax.random.key(1), model, params, 10, 4)
    z = jax.random.normal(jax.random.key(1), (4, 1, 3))[:, 0]
    for label in range(10):
        row = images[4 * label : 4 * label + 4]
        expected = model.decode(params, z, jnp.int32(label)).mean
        np.testing.assert_allclose(row, expected, atol=1e-6)


# Two devices

TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, optax, vae_jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from experiments.model import make_loss, make_model
from experiments.options import Model

model = make_model(Model(network=NETWORK, conditional=True, hidden=(8,), channels=(4, 8)),
                   (6, 6, 1), "threshold", np.full((6, 6, 1), 0.5, np.float32), 10)
params = model.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), jnp.zeros(1, jnp.int32))
loss = make_loss(model, lambda key, image: (image > 127).astype(jnp.float32))
numbers = np.random.default_rng(0)
image, label = numbers.integers(0, 256, (8, 6, 6, 1), np.uint8), np.arange(8, dtype=np.int32)
optimizer = optax.sgd(1e-2)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
results = []
for spec in PartitionSpec(), PartitionSpec("data"):
    state = vae_jax.init_state(jax.random.key(1), params, optimizer)
    state = jax.jit(lambda s: s, out_shardings=NamedSharding(mesh, PartitionSpec()))(state)
    batch = jax.device_put(vae_jax.Batch(image, label), NamedSharding(mesh, spec))
    assert len(batch.label.sharding.device_set) == 2
    results.append(vae_jax.make_train_step(loss, optimizer)(state, batch)[0].params)
for one, two in zip(*map(jax.tree.leaves, results)):
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (params, results[1]))))
"""


@pytest.mark.parametrize("network", ["mlp", pytest.param("conv", marks=pytest.mark.long)])
def test_a_step_on_two_devices_is_the_step_on_one(network):
    flags = f"--xla_force_host_platform_device_count=2 {os.environ['XLA_FLAGS']}"
    process = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES.replace("NETWORK", repr(network))],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr


# The commands, on scikit-learn's digits


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def train(output, *arguments):
    arguments = ("--dataset=digits", "--accelerator=cpu", f"--output={output}", *arguments)
    process = command("mnist", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads((output / "results.json").read_text())


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    """A run with a standard prior, in which only encoder and decoder see the label."""
    output = tmp_path_factory.mktemp("standard") / "run"
    small = ("--hidden", 200, "--num-importance-samples=20", "--num-class-samples=20")
    return output, train(output, "--conditional", "--prior=standard", "--epochs=60", *small)


def test_shuffled_labels_cost_a_model_that_uses_them(standard):
    results = standard[1]
    cost = results["conditional_shuffled_labels_cost"]
    assert cost - 4 * results["conditional_shuffled_labels_cost_standard_error"] > 5


def test_a_conditional_run_leaves_its_numbers_and_pictures(standard):
    output, results = standard
    assert results["conditional"] is True
    assert results["conditional_log_likelihood"] == results["test_log_likelihood"]
    # p(x) = sum_c p(c) p(x|c) has one term in ten, or more, of p(x|c): the label's share at most.
    counts = np.bincount(data.load("digits").train.labels)
    least = np.log(counts.min() / counts.sum())
    gap = results["conditional_marginal_log_likelihood"] - results["conditional_log_likelihood"]
    assert least < gap < 0
    assert results["conditional_bayes_accuracy"] > 0.8
    assert results["conditional_classifier_agreement"] > 0.8
    assert results["conditional_classifier_test_accuracy"] > 0.95
    names = [name for name in results if f"{name}_standard_error" in results]
    assert len(names) == 8
    assert all(0 < results[f"{name}_standard_error"] < 5 for name in names)
    # Borders of a pixel, images of 8 x 8, enlarged sevenfold.
    assert pixels(output / "samples_by_class.png").shape == (7 * 9 * 10, 7 * 9 * 16)
    assert pixels(output / "style_transfer.png").shape == (7 * 9 * 10, 7 * 9 * 11)
    for name in ("samples_by_class", "style_transfer", "samples", "reconstructions"):
        assert pixels(output / f"{name}.png").std() > 10, f"{name}.png is blank"


def test_a_run_drops_the_rows_without_a_label(tmp_path, monkeypatch):
    digits = data.load("digits")
    labels = np.where(np.arange(len(digits.train.labels)) % 3, digits.train.labels, -1)
    train = data.Split(digits.train.images, labels.astype(np.int32))
    monkeypatch.setattr(data, "load", lambda *_, **__: digits._replace(train=train))
    arguments = ("--epochs=1", "--hidden", "16", "--num-importance-samples=2")
    arguments += ("--num-class-samples=2", f"--output={tmp_path / 'run'}")
    monkeypatch.setattr(sys, "argv", ["mnist", "--dataset=digits", "--conditional", *arguments])
    mnist.main()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["num_train"] == (labels >= 0).sum()
    assert np.isfinite(results["test_elbo"])


@pytest.mark.long
def test_convolutions_with_a_conditional_prior(tmp_path):
    small = ("--channels", 8, 16, "--num-importance-samples=4", "--num-class-samples=4")
    results = train(tmp_path / "run", "--conditional", "--network=conv", "--epochs=15", *small)
    assert results["conditional_bayes_accuracy"] > 0.5
    assert results["conditional_shuffled_labels_cost"] > 1


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (("--label=2", "--num=9"), (7 * 9 * 3, 7 * 9 * 3)),
        (("--label=all", "--num=5"), (7 * 9 * 10, 7 * 9 * 5)),
        (("--reconstruct-as=7", "--num=20"), (7 * 9 * 4, 7 * 9 * 16)),
    ],
    ids=["label", "all", "reconstruct"],
)
def test_generate_by_class(standard, tmp_path, arguments, shape):
    process = command("generate", standard[0], *arguments, f"--output={tmp_path / 'grid.png'}")
    assert process.returncode == 0, process.stderr
    assert pixels(tmp_path / "grid.png").shape == shape
    assert pixels(tmp_path / "grid.png").std() > 10


def test_evaluate_a_conditional_run(standard):
    output, results = standard
    process = command("evaluate", output, "--num-samples=20", "--seed=1")
    assert process.returncode == 0, process.stderr
    again = json.loads((output / "evaluation.json").read_text())
    error = np.hypot(*(r["test_log_likelihood_standard_error"] for r in (results, again)))
    # The same p(x|c) from other draws.
    difference = abs(again["test_log_likelihood"] - results["test_log_likelihood"])
    assert difference < 5 * error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "is a conditional run: give --label, a class from 0 to 9 or all"),
        (("--label=10",), "--label is 10: give a class from 0 to 9 or all"),
        (("--label=-1",), "--label is -1: give a class from 0 to 9 or all"),
        (("--label=2.5",), "--label is 2.5: give a class from 0 to 9 or all"),
        (("--reconstruct-as=all",), "--reconstruct-as is all: give a class from 0 to 9"),
        (("--label=2", "--reconstruct-as=7"), "give one of them"),
    ],
)
def test_bad_labels_of_generate(standard, monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["generate", str(standard[0]), *arguments])
    with pytest.raises(options.UsageError) as error:
        generate.main()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_label_for_an_unconditional_run(tmp_path, monkeypatch):
    config = {
        "options": options.to_json(options.Options()),
        "dataset": "digits",
        "notice": "",
        "binarization": "dynamic",
        "image_shape": [8, 8, 1],
        "num_classes": 10,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(sys, "argv", ["generate", str(tmp_path), "--label=2"])
    with pytest.raises(options.UsageError, match=r"--label is 2 but .* is an unconditional run"):
        generate.main()


def test_conditional_needs_labels_and_an_embedding():
    model = options.Model(conditional=True)
    binarized = options.Data(dataset="binarized_mnist")
    with pytest.raises(options.UsageError, match=r"--conditional needs labels, which binarized_mn"):
        options.check(options.Options(data=binarized, model=model))
    model = options.Model(conditional=True, embedding_dim=0)
    with pytest.raises(options.UsageError, match=r"--embedding-dim is 0: it must be 1 or more"):
        options.check(options.Options(model=model))
    with pytest.raises(options.UsageError, match=r"--num-class-samples is 1: it must be 2"):
        options.check(options.Options(evaluation=options.Evaluation(num_class_samples=1)))


def test_active_units_do_not_count_what_the_label_alone_tells():
    """Posteriors equal to their priors, whose means differ from class to class."""
    model = image_model("mlp", prior=label_prior(3))
    label, x = jnp.arange(10), jnp.ones((10, 6, 6, 1))
    params = model.init(jax.random.key(0), x, label)
    ignoring = model._replace(encode=lambda params, x, label=None: model.prior(params, label))
    test = measure.measure(jax.random.key(1), ignoring, params, x, label, 2)
    assert test["active_units"] == 0
    assert test["means"].var(axis=0).max() > 0.01
    np.testing.assert_allclose(test["kl_per_dimension"], 0, atol=1e-6)


# Quadrants


@pytest.mark.parametrize("num_given", [1, 2, 3])
def test_quadrants_are_those_of_the_tutorial(num_given):
    """Its code, in NumPy: -1 stands for what is not in the output, or not in the input."""
    image = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    output = image[..., 0] / 255
    output[:, 14:, :14] = -1
    if num_given == 2:
        output[:, :, :14] = -1
    if num_given == 3:
        output[:, :14, :] = -1
    given = quadrants.mask(num_given, 28, 28)
    taken = quadrants.take(image, given)
    assert given.sum() == 196 * num_given
    np.testing.assert_allclose(taken.missing, output[output != -1].reshape(2, -1), rtol=1e-6)
    np.testing.assert_allclose(quadrants.put(taken, given), image / 255, rtol=1e-6)


def test_quadrants_of_digits(tmp_path):
    output = tmp_path / "run"
    small = ("--epochs=30", "--hidden=64", "--num-importance-samples=50")
    process = command("quadrants", "--dataset=digits", "--given", 1, *small, f"--output={output}")
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((output / "results.json").read_text())
    (row,) = results["quadrants"]
    assert row["given"] == 1
    # The latent variable tells more than a guess for each pixel, and the bound is one.
    assert row["baseline_log_likelihood"] < row["log_likelihood"]
    assert row["elbo"] < row["log_likelihood"]
    # Grey pixels have their own entropy, which no prediction can undercut.
    test = quadrants.take(data.load("digits").test.images, quadrants.mask(1, 8, 8))
    missing = np.asarray(test.missing, np.float64)
    entropy = -scipy.special.xlogy(missing, missing) - scipy.special.xlog1py(1 - missing, -missing)
    assert row["log_likelihood"] < -entropy.sum(axis=1).mean()
    picture = pixels(output / "completions_1.png")
    assert picture.shape == (7 * 9 * 9, 7 * 9 * 16)
    assert picture.std() > 10


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": 0}, "--epochs is 0"),
        ({"given": ()}, r"--given is \(\): give 1, 2, 3"),
        ({"given": (1, 1)}, r"--given is \(1, 1\)"),
        ({"hidden": (0,)}, r"--hidden is \(0,\)"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"num_importance_samples": 1}, "--num-importance-samples is 1"),
    ],
)
def test_bad_options_of_quadrants(option, message):
    with pytest.raises(options.UsageError, match=message):
        quadrants.check(quadrants.Options(**option))


# Real data, minutes each


@pytest.mark.long
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_real_images(shared_data, tmp_path, dataset, network):
    if shared_data is None:
        pytest.skip("no original files beside the repository")
    output = tmp_path / "run"
    process = command(
        "mnist",
        f"--dataset={dataset}",
        f"--data-dir={tmp_path / 'tfds'}",
        f"--manual-dir={shared_data / dataset}",
        f"--network={network}",
        f"--output={output}",
        "--conditional",
        "--epochs=1",
        "--num-importance-samples=10",
        "--num-class-samples=2",
    )
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((output / "results.json").read_text())
    assert results["conditional_shuffled_labels_cost"] > 5
    assert results["conditional_bayes_accuracy"] > (0.8 if dataset == "mnist" else 0.6)
    assert results["conditional_classifier_test_accuracy"] > (0.98 if dataset == "mnist" else 0.85)
