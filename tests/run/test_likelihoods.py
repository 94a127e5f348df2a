"""Every likelihood that a run can have: it trains, is measured and drawn, or is refused."""

import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax.run import defaults, measure, model, objective, options
from vae_jax.run.data.dataset import Dataset, Split
from vae_jax.run.errors import UsageError
from vae_jax.run.pixels import measure_pixels

BYTES = np.random.default_rng(0).integers(0, 256, (6, 4, 3, 3), np.uint8)
ALL = (*options.BINARY, *options.DENSITIES, *options.OF_BYTES)


def test_the_option_offers_all_that_there_are():
    hint = typing.get_type_hints(options.Model)["likelihood"]
    named = {name for of in typing.get_args(hint) for name in typing.get_args(of)}
    assert named == set(ALL)


@pytest.mark.few(2)
@pytest.mark.relax("numpy_dtype_promotion")
@pytest.mark.parametrize("name", ALL)
def test_it_trains_for_two_steps_and_is_measured(name):
    binarization = "threshold" if name in options.BINARY else "none"
    chosen = options.Model(likelihood=name, latent_dim=2, hidden=(4,))
    pixels = measure_pixels(BYTES, binarization)
    vae = model.make_model(chosen, BYTES.shape[1:], binarization, pixels, 0)
    observe = model.observe(binarization, name)
    loss = objective.make_loss(
        options.Objective(), vae, observe, 1, len(BYTES), optimal_scale=name == "sigma_vae"
    )
    optimizer = optax.adam(1e-3)
    params = vae.init(jax.random.key(0), observe(jax.random.key(2), jnp.asarray(BYTES[:1])))

    @jax.jit
    def run(params, key, images):
        def train(carry, step):
            params, state = carry
            given = params, jax.random.fold_in(key, step), images, step
            (value, bound), gradient = jax.value_and_grad(loss, has_aux=True)(*given)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), (value, bound.value)

        start = params
        (params, _), (losses, bound) = jax.lax.scan(
            train, (params, optimizer.init(params)), jnp.arange(2)
        )
        moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), start, params)
        x = observe(jax.random.fold_in(key, 2), images)
        posterior = vae.encode(params, x)
        estimate = vae_jax.log_likelihood(
            jax.random.fold_in(key, 3),
            x,
            posterior,
            vae.prior(params),
            lambda z: vae.decode(params, z),
            num_samples=2,
        )
        picture = model.expected(vae_jax.reconstruct(vae, params, x))
        return losses, bound, moved, estimate.value, picture

    losses, bound, moved, values, picture = run(params, jax.random.key(1), BYTES)
    np.testing.assert_allclose(losses, -bound.mean(axis=1), rtol=1e-5)
    assert np.isfinite(losses).all()
    assert min(jax.tree.leaves(moved)) > 0  # whatever is learned has a gradient
    assert picture.shape == BYTES.shape
    assert np.isfinite(picture).all()
    # Before it has learned, no code of a byte is far from 8 bits, nor one of a zero or one from 1.
    levels = model.num_levels(name)
    bits = measure.bits_per_dimension(float(values.mean()), BYTES.shape[1:], levels)
    assert 7.5 < bits < 10


def dataset(images):
    split = Split(images, np.full(len(images), -1, np.int32))
    return Dataset("tiny", split, split, split, 0, "")


@pytest.mark.parametrize(
    ("images", "binarization", "name", "possible"),
    [
        (BYTES, "none", "bernoulli", "normal, sigma_vae, "),
        (BYTES, "threshold", "normal", "bernoulli"),
        (BYTES, "dynamic", "mixture_of_logistics", "bernoulli"),
        (BYTES.astype(np.float32) / 255, "none", "categorical", "normal, sigma_vae, "),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_does(images, binarization, name, possible):
    chosen = options.Options(
        options.Data(binarization=binarization), options.Model(likelihood=name)
    )
    with pytest.raises(UsageError, match=f"--likelihood is {name} but .*from {possible}"):
        defaults.likelihood(chosen, dataset(images))


def test_sigma_vae_weighs_no_draws():
    chosen = options.Options(
        model=options.Model(likelihood="sigma_vae"),
        objective=options.Objective(objective="iwae", num_draws=5),
    )
    with pytest.raises(UsageError, match="choose --likelihood=normal, or --objective=elbo"):
        options.check(chosen)


def test_sigma_vae_moves_the_mean_under_the_best_scale_and_learns_its_own():
    """Closed forms: (x - mean) / (mean squared error) of the mean, and of log scale as of one."""
    rng = np.random.default_rng(0)
    x, mean = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    standard = vae_jax.Normal(jnp.zeros((5, 2)), 1.0)
    bound_of = objective._with_optimal_scale(vae_jax.elbo)

    def total(mean, log_scale):
        likelihood = vae_jax.Normal(mean, jnp.exp(log_scale))
        return bound_of(x, jnp.zeros((5, 2)), standard, standard, likelihood).value.sum()

    square = np.square(x - mean)
    value, gradients = jax.value_and_grad(total, (0, 1))(mean, jnp.log(jnp.float32(3)))
    np.testing.assert_allclose(value, -10 * (np.log(2 * np.pi * square.mean()) + 1), rtol=1e-5)
    np.testing.assert_allclose(gradients[0], (x - mean) / square.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients[1], square.sum() / 9 - x.size, rtol=1e-5)


def test_bits_of_bytes_and_of_their_density_are_one_scale():
    """A uniform density of 1, and a probability of 1/256, say the same."""
    shape = (2, 2, 3)
    assert measure.bits_per_dimension(0.0, shape, 1) == 8
    assert measure.bits_per_dimension(-12 * math.log(256), shape, 256) == 8
