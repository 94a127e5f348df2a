"""The VAE of the image programs and its optimizer."""

import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import vae_jax
from vae_jax import run
from vae_jax.run.errors import UsageError
from vae_jax.run.model import make_model, make_optimizer, observe, slower_where_wide
from vae_jax.run.options import Model, Options, Training, check
from vae_jax.run.pixels import measure_pixels


@pytest.mark.relax("numpy_dtype_promotion")
def test_a_very_wide_kernel_is_moved_as_far_as_one_of_3072_inputs():
    """What Adam moves the sum over n inputs that are all 1 by is n learning rates."""
    shapes = {"narrow": (3072, 2), "wide": (49_152, 2), "conv": (3, 3, 1024, 2)}
    params = {name: {"kernel": jnp.zeros(shape)} for name, shape in shapes.items()}
    params["table"] = {"embedding": jnp.zeros((9000, 2))}  # looked up, not summed
    gradient = jax.tree.map(jnp.ones_like, params)
    moved, expected = (
        optimizer.update(gradient, optimizer.init(params))
        for optimizer in (slower_where_wide(optax.adam(1e-3)), optax.adam(1e-3))
    )
    chex.assert_trees_all_equal(moved[1], expected[1])  # Adam's own state
    for name in "narrow", "table":
        chex.assert_trees_all_equal(moved[0][name], expected[0][name])
    for name in "narrow", "wide", "conv":
        sums = moved[0][name]["kernel"].sum(axis=tuple(range(len(shapes[name]) - 1)))
        np.testing.assert_allclose(sums, -3.072, rtol=1e-4)


@pytest.mark.relax("numpy_dtype_promotion")
def test_nadam_is_dozats_at_a_rate_that_rises_stays_and_falls_in_a_line():
    """Against Dozat 2016, algorithm 2, written out, its momentum being of a constant decay."""
    gradients = np.random.default_rng(0).normal(size=(40, 3))
    optimizer = make_optimizer(Training(optimizer="nadam", learning_rate=0.1), 40)
    params = jnp.zeros(3)
    state = optimizer.init(params)
    first, second = np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(gradients, 1):
        updates, state = optimizer.update(jnp.float32(gradient), state, params)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        ahead = 0.9 * first / (1 - 0.9 ** (t + 1)) + 0.1 * gradient / (1 - 0.9**t)
        rate = 0.1 * min(t / 4, 1, (41 - t) / 20)
        expected = -rate * ahead / (np.sqrt(second / (1 - 0.999**t)) + 1e-4)
        np.testing.assert_allclose(updates, expected, rtol=1e-4, atol=1e-8)


NETWORKS = typing.get_args(typing.get_args(typing.get_type_hints(Model)["network"])[0])


@pytest.mark.few(2)
@pytest.mark.relax("numpy_dtype_promotion")
@pytest.mark.parametrize(
    ("network", "binarization"),
    [*((network, "dynamic") for network in NETWORKS), ("residual_conv", "none")],
)
def test_each_network_trains_two_steps(network, binarization):
    images = np.random.default_rng(0).random((8, 9, 6, 3), dtype=np.float32)
    images = images if binarization == "none" else np.round(images)
    channels = (4, 8) if "conv" in network else None
    model = make_model(
        Model(network=network, hidden=(8, 8), channels=channels, latent_dim=2),
        images.shape[1:],
        binarization,
        measure_pixels(images, binarization),
        0,
    )
    params = model.init(jax.random.key(1), images[:1])
    fitted = run.fit(
        jax.random.key(0),
        vae_jax.make_loss(model),
        params,
        optax.adam(1e-2),
        images,
        run.Plan(epochs=2, batch_size=8),
    )
    assert len(fitted.rows) == 2
    assert all(np.isfinite(row["train_loss"]) for row in fitted.rows)
    for path, same in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: bool((a == b).all()), params, fitted.params)
    ):
        assert not same, path


@pytest.mark.parametrize("network", ["conv", "residual_conv"])
def test_convolutions_of_what_is_no_picture_are_refused_in_a_line(network):
    images = np.zeros((2, 1, 20, 1), np.float32)
    with pytest.raises(
        UsageError, match="data are 1 x 20, too narrow: choose mlp, gated, residual or"
    ) as e:
        make_model(
            Model(network=network, latent_dim=2),
            images.shape[1:],
            "dynamic",
            measure_pixels(images, "dynamic"),
            0,
        )
    assert "\n" not in str(e.value)


def test_channels_of_a_network_without_convolutions_are_refused():
    with pytest.raises(UsageError, match=r"--channels is of convolutions but --network=gated"):
        check(Options(model=Model(network="gated", channels=(8,))))
    check(Options(model=Model(network="residual_conv", channels=(8,))))
    with pytest.raises(UsageError, match=r"--channels is \(0,\)"):
        check(Options(model=Model(network="conv", channels=(0,))))
    with pytest.raises(UsageError, match=r"--hidden is of dense layers but --network=conv has"):
        check(Options(model=Model(network="conv", hidden=(8,))))
    with pytest.raises(UsageError, match=r"--hidden is of dense layers and --channels of conv"):
        check(Options(model=Model(hidden=(8,), channels=(8,))))


@pytest.mark.relax("numpy_dtype_promotion")
def test_pictures_of_128_by_128_do_not_blow_up():
    """At Adam's own rate the loss of these eight steps is 6e11."""
    grey = np.random.default_rng(0).random((64, 1, 1, 1), dtype=np.float32)
    images = np.broadcast_to(grey, (64, 128, 128, 3))
    model = make_model(
        Model(hidden=(32,), latent_dim=4),
        images.shape[1:],
        "none",
        measure_pixels(images, "none"),
        0,
    )
    fitted = run.fit(
        jax.random.key(0),
        vae_jax.make_loss(model),
        model.init(jax.random.key(1), images[:1]),
        make_optimizer(Training(learning_rate=1e-3), 8),
        images,
        run.Plan(epochs=2, batch_size=16),
    )
    assert fitted.rows[-1]["train_loss"] < 100 * images[0].size


def test_missing_pixels_are_no_part_of_what_a_run_starts_from():
    rng = np.random.default_rng(0)
    x = rng.random((30, 3, 2, 1)).astype(np.float32)
    x[rng.random(x.shape) < 0.4] = np.nan
    x[:, 0, 0, 0] = np.nan  # never seen
    found = measure_pixels(x, "none", missing=True)
    values = x[~np.isnan(x)].astype(np.float64)
    with np.errstate(all="ignore"):
        mean = np.array([column[~np.isnan(column)].mean() for column in x.reshape(30, 6).T[1:]])
    np.testing.assert_allclose(found.mean.ravel()[1:], mean, rtol=1e-5)
    np.testing.assert_allclose(found.mean[0, 0, 0], values.mean(), rtol=1e-6)
    np.testing.assert_allclose((found.centre, found.spread), (values.mean(), values.std()), 1e-6)
    binary = measure_pixels(x, "threshold", missing=True)
    np.testing.assert_allclose(binary.centre, (values > 0.5).mean(), rtol=1e-6)
    whole = np.nan_to_num(x, nan=0.25)
    one, other = (measure_pixels(whole, "none", missing=missing) for missing in (False, True))
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(one[1:4], other[1:4], rtol=1e-5)


@pytest.mark.parametrize(
    ("binarization", "likelihood"), [("threshold", "bernoulli"), ("none", "normal")]
)
def test_a_model_of_missing_pixels_scores_what_is_there(binarization, likelihood):
    rng = np.random.default_rng(0)
    x = rng.random((4, 3, 2, 1)).astype(np.float32)
    x[rng.random(x.shape) < 0.5] = np.nan
    pixels = measure_pixels(x, binarization, missing=True)
    chosen = Model(network="mlp", hidden=(4,), latent_dim=2, likelihood=likelihood)
    model = make_model(chosen, (3, 2, 1), binarization, pixels, 0)
    seen = observe(binarization, likelihood)(jax.random.key(0), jnp.asarray(x))
    np.testing.assert_array_equal(np.isnan(seen), np.isnan(x))
    params = model.init(jax.random.key(1), jnp.zeros((1, 3, 2, 1)))
    z = jax.random.normal(jax.random.key(2), (4, 2))
    found = model.decode(params, z)
    each = found.distribution
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-np.asarray(each.logits, np.float64)))
        log_prob = np.where(seen > 0.5, np.log(p), np.log1p(-p))
    else:
        log_prob = stats.norm.logpdf(np.asarray(seen), each.mean, each.scale)
    expected = np.where(np.isnan(x), 0, log_prob).sum((1, 2, 3))
    np.testing.assert_allclose(found.log_prob(seen), expected, rtol=1e-4)

    def loss(params, x):
        posterior = model.encode(params, x)
        return -vae_jax.elbo(x, z, posterior, model.prior(params), model.decode(params, z)).value

    gradient = jax.jit(jax.grad(lambda params: loss(params, seen).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_nadam_makes_no_steps_of_rounding_errors():
    """Adam divides a gradient by its size, however small: of noise it would make whole steps."""
    optimizer = make_optimizer(Training(optimizer="nadam", learning_rate=1.0), 1000)
    params = {"noise": jnp.zeros(()), "gradient": jnp.zeros(())}
    gradient = {"noise": jnp.float32(1e-6), "gradient": jnp.float32(1e-2)}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(100):
            updates, state = update(gradient, state, params)
    assert abs(updates["noise"]) < 0.02 * abs(updates["gradient"])
