"""The label's road into the networks: classes, vectors, images and masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.few(3)
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


def test_standard_prior_is_n_0_i_with_the_batch_of_the_label():
    prior = networks.StandardPrior(3, label_ndims=1).apply({}, jnp.ones((4, 7)))
    np.testing.assert_array_equal(prior.mean, np.zeros((4, 3)))
    np.testing.assert_array_equal(prior.scale, np.ones((4, 3)))


# Bad input: one clear line each, at trace time


@pytest.mark.few(1)
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


def test_columns_are_their_numbers_and_an_embedding_of_each_class():
    condition = networks.ColumnsCondition((0, 3, 0, 2), size=4)
    label = jnp.array([[0.5, 2.0, -1.0, 0.0], [1.5, 0.0, 7.0, 1.0]])
    params = condition.init(jax.random.key(0), label)
    tables = [params["params"][f"column_{i}"]["embedding"] for i in (1, 3)]
    assert [table.shape for table in tables] == [(3, 4), (2, 4)]
    expected = [
        [*[0.5], *tables[0][2], *[-1.0], *tables[1][0]],
        [*[1.5], *tables[0][0], *[7.0], *tables[1][1]],
    ]
    np.testing.assert_allclose(condition.apply(params, label), np.array(expected), rtol=1e-6)
    wrong = [3.0, -1.0, 0.5, jnp.nan]
    for value in wrong:
        of = label.at[0, 1].set(value)
        with pytest.raises(ValueError, match="pass classes from 0 to 2"):
            condition.apply(params, of)
    of = jnp.stack([label[0].at[1].set(value) for value in wrong])
    assert np.isnan(jax.jit(condition.apply)(params, of)[:, 1:5]).all()
    with pytest.raises(ValueError, match=r"shape \(2, 3\) but there are 4 columns"):
        condition.apply(params, label[:, :3])
    with pytest.raises(TypeError, match="dtype int32: pass floats"):
        condition.apply(params, label.astype(int))
