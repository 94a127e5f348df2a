"""The loss against the lines it stands for, written out, bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax import networks

LATENT_DIM, NUM_PIXELS = 2, 6
CLASSES = networks.ClassCondition(3, 2)
IMAGES = np.random.default_rng(0).integers(256, size=(8, NUM_PIXELS), dtype=np.uint8)
LABELS = jnp.arange(8) % 3


def make_model(condition=None):
    encoder = networks.MLP((2 * LATENT_DIM,), hidden=(5,), condition=condition)
    decoder = networks.MLP((NUM_PIXELS,), hidden=(5,), condition=condition)
    return vae_jax.make_vae(
        networks.Encoder(encoder), networks.BernoulliDecoder(decoder), LATENT_DIM
    )


def start(condition=None):
    model = make_model(condition)
    label = None if condition is None else LABELS[:1]
    return model, model.init(jax.random.key(0), jnp.zeros((1, NUM_PIXELS)), label)


@pytest.mark.parametrize("condition", [None, CLASSES], ids=["plain", "conditional"])
def test_with_observe_the_key_is_split(condition):
    model, params = start(condition)
    batch = vae_jax.Batch(jnp.asarray(IMAGES), None if condition is None else LABELS)

    def written_out(params, key, batch):
        observe_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(observe_key, batch.image)
        posterior = model.encode(params, x, batch.label)
        z = vae_jax.sample(draw_key, posterior)
        likelihood = model.decode(params, z, batch.label)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params, batch.label), likelihood)
        return -bound.value.mean(), bound

    loss = vae_jax.make_loss(model, observe=vae_jax.binarize)
    results = [
        jax.jit(jax.value_and_grad(of, has_aux=True))(params, jax.random.key(1), batch)
        for of in (loss, written_out)
    ]
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_without_it_the_key_is_the_draws():
    model, params = start()
    x = jnp.asarray(IMAGES > 127, jnp.float32)
    loss, bound = vae_jax.make_loss(model)(params, jax.random.key(1), x)
    posterior = model.encode(params, x)
    z = vae_jax.sample(jax.random.key(1), posterior)
    expected = vae_jax.elbo(x, z, posterior, model.prior(params), model.decode(params, z))
    np.testing.assert_array_equal(bound, expected)
    np.testing.assert_array_equal(loss, -expected.value.mean())
    in_batch, _ = vae_jax.make_loss(model)(params, jax.random.key(1), vae_jax.Batch(x))
    np.testing.assert_array_equal(in_batch, loss)


def test_objective_and_draws():
    model, params = start()
    x = jnp.asarray(IMAGES > 127, jnp.float32)
    posterior = model.encode(params, x)
    z = vae_jax.sample(jax.random.key(1), posterior, 5)
    of = (x, z, posterior, model.prior(params), model.decode(params, z))
    for objective in (vae_jax.iwae, functools.partial(vae_jax.elbo, analytic_kl=False)):
        loss = vae_jax.make_loss(model, objective=objective, num_draws=5)
        value, bound = loss(params, jax.random.key(1), x)
        np.testing.assert_array_equal(bound, objective(*of))
        np.testing.assert_array_equal(value, -objective(*of).value.mean())


@pytest.mark.parametrize("condition", [None, CLASSES], ids=["plain", "conditional"])
def test_an_objective_that_decodes_itself(condition):
    model, params = start(condition)
    label = None if condition is None else LABELS
    batch = vae_jax.Batch(jnp.asarray(IMAGES > 127, jnp.float32), label)

    def written_out(params, key, batch):
        posterior = model.encode(params, batch.image, label)
        z = vae_jax.sample(key, posterior, 5)
        prior = model.prior(params, label)
        bound = vae_jax.vimco(
            batch.image, z, posterior, prior, lambda z: model.decode(params, z, label)
        )
        return -bound.value.mean(), bound

    loss = vae_jax.make_loss(model, objective=vae_jax.vimco, num_draws=5)
    results = [
        jax.jit(jax.value_and_grad(of, has_aux=True))(params, jax.random.key(1), batch)
        for of in (loss, written_out)
    ]
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_a_number_of_draws_that_cannot_be():
    with pytest.raises(ValueError, match="num_draws is 0: give 1 or more"):
        vae_jax.make_loss(make_model(), num_draws=0)


def test_a_penalty_is_subtracted_and_the_bound_stays():
    model, params = start()
    x, step = jnp.asarray(IMAGES > 127, jnp.float32), jnp.int32(3)
    plain, bound = vae_jax.make_loss(model)(params, jax.random.key(1), x)
    seen = {}

    def of_each(*given):
        seen.update(zip(("bound", "z", "posterior", "prior", "step"), given, strict=True))
        return vae_jax.weighted_kl(given[0].kl, 3.0)

    loss, reported = vae_jax.make_loss(model, penalty=of_each)(
        params, jax.random.key(1), x, step=step
    )
    np.testing.assert_array_equal(reported, bound)
    np.testing.assert_allclose(loss, plain + 2 * bound.kl.mean(), rtol=1e-6)
    np.testing.assert_array_equal(
        seen["z"], vae_jax.sample(jax.random.key(1), model.encode(params, x))
    )
    assert seen["posterior"].shape == (8, LATENT_DIM)
    assert seen["prior"].shape == (LATENT_DIM,)
    assert seen["step"] is step
    scalar = vae_jax.make_loss(model, penalty=lambda *_: jnp.float32(7))
    np.testing.assert_allclose(scalar(params, jax.random.key(1), x)[0], plain + 7, rtol=1e-6)
