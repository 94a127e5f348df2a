"""A VAE's four functions and what is made of them, against the same by NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vae_jax
from vae_jax import networks

LATENT_DIM, NUM_PIXELS, BATCH = 2, 5, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, NUM_PIXELS)).astype(np.float32)


def linear_vae(num_labels=3):
    """Everything is linear, and moved by the label where there is one."""

    def shift(label, batch):
        one_hot = jnp.zeros(()) if label is None else label.astype(jnp.float32)
        return jnp.broadcast_to(one_hot, batch)[..., None]

    def init(key, x, label=None):
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": jax.random.normal(encoder_key, (x.shape[-1], LATENT_DIM)),
            "decoder": jax.random.normal(decoder_key, (LATENT_DIM, x.shape[-1])),
        }

    def encode(params, x, label=None):
        return vae_jax.Normal(x @ params["encoder"] + shift(label, x.shape[:-1]), 0.5)

    def prior(params, label=None):
        batch = () if label is None else label.shape
        mean = jnp.broadcast_to(shift(label, batch), (*batch, LATENT_DIM))
        return vae_jax.Normal(mean, 1.0)

    def decode(params, z, label=None):
        return vae_jax.Normal(z @ params["decoder"] + shift(label, z.shape[:-1]), 0.1)

    return vae_jax.VAE(init, encode, prior, decode)


MODEL = linear_vae()
PARAMS = MODEL.init(jax.random.key(0), X)
ENCODER, DECODER = (np.asarray(PARAMS[name]) for name in ("encoder", "decoder"))
LABEL = jnp.array([0, 2, 1, 1])
SHIFT = np.asarray(LABEL, np.float32)[:, None]


def test_generate_decodes_draws_from_the_prior():
    z = np.asarray(jax.random.normal(jax.random.key(1), (7, LATENT_DIM)))
    actual = vae_jax.generate(jax.random.key(1), MODEL, PARAMS, 7)
    np.testing.assert_allclose(actual.mean, z @ DECODER, rtol=1e-5, atol=1e-5)
    one = vae_jax.generate(jax.random.key(1), MODEL, PARAMS)
    assert one.mean.shape == (NUM_PIXELS,)
    several = vae_jax.generate(jax.random.key(1), MODEL, PARAMS, (2, 3))
    assert several.mean.shape == (2, 3, NUM_PIXELS)


def test_generate_draws_for_each_label():
    z = np.asarray(jax.random.normal(jax.random.key(1), (7, BATCH, LATENT_DIM))) + SHIFT
    actual = vae_jax.generate(jax.random.key(1), MODEL, PARAMS, 7, LABEL)
    np.testing.assert_allclose(actual.mean, z @ DECODER + SHIFT, rtol=1e-5, atol=1e-5)


def test_generate_never_pairs_draws_with_labels():
    unconditional = MODEL._replace(prior=lambda params, label=None: MODEL.prior(params))
    with pytest.raises(ValueError, match=r"label has shape \(4,\) but the prior has no batch axes"):
        vae_jax.generate(jax.random.key(1), unconditional, PARAMS, BATCH, LABEL)


@pytest.mark.parametrize("label", [None, LABEL], ids=["no-label", "label"])
def test_reconstruct_decodes_the_posterior_mean(label):
    shift = np.zeros_like(SHIFT) if label is None else SHIFT
    expected = (X @ ENCODER + shift) @ DECODER + shift
    actual = vae_jax.reconstruct(MODEL, PARAMS, jnp.asarray(X), label)
    np.testing.assert_allclose(actual.mean, expected, rtol=1e-5, atol=1e-5)


def test_interpolate_goes_straight_from_one_reconstruction_to_the_other():
    x, other = jnp.asarray(X), jnp.asarray(X[::-1])
    actual = vae_jax.interpolate(MODEL, PARAMS, x, other, 5)
    start, end = X @ ENCODER, X[::-1] @ ENCODER
    weight = np.linspace(0, 1, 5)[:, None, None]
    expected = ((1 - weight) * start + weight * end) @ DECODER
    np.testing.assert_allclose(actual.mean, expected, rtol=1e-4, atol=1e-5)
    for i, image in ((0, x), (-1, other)):
        ends = vae_jax.reconstruct(MODEL, PARAMS, image).mean
        np.testing.assert_allclose(actual.mean[i], ends, rtol=1e-5, atol=1e-6)


def test_traverse_moves_one_dimension_at_a_time():
    values = jnp.array([-2.0, 0.0, 3.0])
    actual = vae_jax.traverse(MODEL, PARAMS, jnp.asarray(X), values)
    assert actual.mean.shape == (LATENT_DIM, 3, BATCH, NUM_PIXELS)
    for dimension in range(LATENT_DIM):
        for i, value in enumerate(np.asarray(values)):
            z = X @ ENCODER
            z[:, dimension] = value
            np.testing.assert_allclose(actual.mean[dimension, i], z @ DECODER, rtol=1e-4, atol=1e-5)


def test_traverse_takes_a_list():
    values = [-1, 0.5, 2]
    expected = vae_jax.traverse(MODEL, PARAMS, X, jnp.array(values))
    actual = vae_jax.traverse(MODEL, PARAMS, X, values)
    np.testing.assert_array_equal(actual.mean, expected.mean)


def test_one_example_and_any_batch_axes():
    x = jnp.asarray(X)
    assert vae_jax.reconstruct(MODEL, PARAMS, x[0]).mean.shape == (NUM_PIXELS,)
    assert vae_jax.interpolate(MODEL, PARAMS, x[0], x[1], 6).mean.shape == (6, NUM_PIXELS)
    with pytest.raises(ValueError, match=r"num is 1: .* 2 points at least"):
        vae_jax.interpolate(MODEL, PARAMS, x[0], x[1], 1)
    folded = x.reshape(2, 2, NUM_PIXELS)
    actual = vae_jax.traverse(MODEL, PARAMS, folded, jnp.zeros(3))
    assert actual.mean.shape == (LATENT_DIM, 3, 2, 2, NUM_PIXELS)


FROM_IMAGES = {
    "reconstruct": vae_jax.reconstruct,
    "interpolate": lambda model, params, x: vae_jax.interpolate(model, params, x, -x, 3),
    "traverse": lambda model, params, x: vae_jax.traverse(model, params, x, jnp.ones(2)),
}


@pytest.mark.parametrize("name", FROM_IMAGES)
def test_jit_and_vmap_change_nothing(name):
    def of(x):
        return FROM_IMAGES[name](MODEL, PARAMS, x).mean

    x = jnp.asarray(X)
    expected = of(x)
    np.testing.assert_allclose(jax.jit(of)(x), expected, rtol=1e-5, atol=1e-6)
    mapped = jax.vmap(of, out_axes=-2)(x)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5, atol=1e-6)


def test_generate_under_jit_and_vmap():
    def of(key):
        return vae_jax.generate(key, MODEL, PARAMS, 3).mean

    def keys():
        return jax.random.split(jax.random.key(0), 2)

    each = np.stack([of(key) for key in keys()])
    np.testing.assert_allclose(jax.vmap(of)(keys()), each, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(of))(keys()), each, rtol=1e-5, atol=1e-6)


# make_vae

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def flax_vae():
    mean = RNG.uniform(size=SHAPE)
    encoder = networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=(8,), event_ndims=3))
    bias_init = networks.constant_bias(networks.logit(jnp.asarray(mean, jnp.float32)))
    decoder = networks.MLP(SHAPE, hidden=(8,), bias_init=bias_init)
    decoder = networks.BernoulliDecoder(decoder, event_ndims=3)
    model = vae_jax.make_vae(encoder, decoder, LATENT_DIM)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SHAPE))), mean


def test_make_vae(flax_vae):
    model, params, mean = flax_vae
    assert set(params) == {"encoder", "decoder"}
    posterior = model.encode(params, jnp.zeros((BATCH, *SHAPE)))
    assert posterior.shape == (BATCH, LATENT_DIM)
    prior = model.prior(params)
    np.testing.assert_array_equal(prior.mean, np.zeros(LATENT_DIM))
    np.testing.assert_array_equal(prior.scale, np.ones(LATENT_DIM))
    likelihood = model.decode(params, jnp.zeros((1, LATENT_DIM)))
    expected = special.logit(np.clip(mean, 1e-3, 1 - 1e-3))
    np.testing.assert_allclose(likelihood.logits[0], expected, rtol=1e-4, atol=1e-5)
    generated = vae_jax.generate(jax.random.key(1), model, params, 3)
    assert vae_jax.sample(jax.random.key(2), generated).shape == (3, *SHAPE)


def test_make_vae_initialises_from_the_key_alone(flax_vae):
    model, params, _ = flax_vae
    init = jax.jit(model.init)
    again = init(jax.random.key(0), jnp.ones((5, *SHAPE)))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    other = init(jax.random.key(1), jnp.ones((5, *SHAPE)))
    kernels = [p["encoder"]["network"]["Dense_0"]["kernel"] for p in (params, other)]
    assert not np.allclose(*kernels)


def test_init_is_that_of_the_networks_with_their_own_keys():
    encoder = networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=(8,)))
    decoder = networks.BernoulliDecoder(networks.MLP((NUM_PIXELS,), hidden=(8,)))
    params = vae_jax.make_vae(encoder, decoder, LATENT_DIM).init(jax.random.key(0), X)
    keys = jax.random.split(jax.random.key(0), 3)
    expected = {
        "encoder": encoder.init(keys[0], X)["params"],
        "decoder": decoder.init(keys[1], jnp.zeros((BATCH, LATENT_DIM)))["params"],
    }
    jax.tree.map(np.testing.assert_array_equal, params, expected)


class Stateful(nn.Module):
    """A layer with statistics of its own, or with noise of its own, before a network."""

    layer: nn.Module
    network: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.network(self.layer(x))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm(use_running_average=False), r"the {} keeps batch_stats .* use LayerNorm"),
        (nn.Dropout(0.5, deterministic=False), r"the {} draws for itself, as Dropout does"),
    ],
    ids=["BatchNorm", "Dropout"],
)
@pytest.mark.relax
def test_networks_with_a_state_or_noise_of_their_own_are_refused(part, layer, message):
    shapes = {"encoder": (2 * LATENT_DIM,), "decoder": (NUM_PIXELS,)}
    of = {name: networks.MLP(shape, hidden=(8,)) for name, shape in shapes.items()}
    of[part] = Stateful(layer, of[part])
    model = vae_jax.make_vae(
        networks.Encoder(of["encoder"]), networks.BernoulliDecoder(of["decoder"]), LATENT_DIM
    )
    with pytest.raises(TypeError, match=message.format(part)):
        model.init(jax.random.key(0), X)


def test_latent_sizes_that_do_not_agree():
    def model(encoder_dim, prior=None):
        encoder = networks.Encoder(networks.MLP((2 * encoder_dim,), hidden=(8,)))
        decoder = networks.BernoulliDecoder(networks.MLP((NUM_PIXELS,), hidden=(8,)))
        return vae_jax.make_vae(encoder, decoder, LATENT_DIM, prior)

    message = r"latent_dim is 2 but the encoder's distribution has shape \(4, 3\)"
    with pytest.raises(ValueError, match=message):
        model(3).init(jax.random.key(0), X)
    # Broadcast against a prior of 2, an encoder of 1 would go on.
    message = r"latent_dim is 2 but the encoder's distribution has shape \(4, 1\)"
    with pytest.raises(ValueError, match=message):
        jax.jit(model(1).init)(jax.random.key(0), X)


def test_prior_of_another_size():
    condition = networks.ClassCondition(3, 4)

    def of(*shape):
        return networks.MLP(shape, hidden=(8,), condition=condition)

    encoder = networks.Encoder(of(2 * LATENT_DIM))
    decoder = networks.BernoulliDecoder(of(NUM_PIXELS))
    prior = networks.StandardPrior(LATENT_DIM + 1)
    model = vae_jax.make_vae(encoder, decoder, LATENT_DIM, prior)
    message = r"latent_dim is 2 but the prior's distribution has shape \(4, 3\)"
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), X, LABEL)


def test_elbo_of_a_flax_model_has_a_finite_gradient(flax_vae):
    model, params, _ = flax_vae
    x = (RNG.uniform(size=(BATCH, *SHAPE)) > 0.5).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(params):
        posterior = model.encode(params, x)
        z = vae_jax.sample(jax.random.key(0), posterior)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params), model.decode(params, z))
        return bound.value.mean()

    for leaf in jax.tree.leaves(gradient(params)):
        assert jnp.isfinite(leaf).all()
        assert leaf.any()
