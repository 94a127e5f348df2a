"""Networks of counts: the library size is an offset of the means, and an input of the encoder."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import special

import vae_jax
from vae_jax import networks
from vae_jax.networks import CellLabel

D, Z = 5, 2
SHARES = (0.1, 0.2, 0.3, 0.25, 0.15)
RNG = np.random.default_rng(0)
Z_VALUES = RNG.normal(size=(3, 4, Z)).astype(np.float32)
LIBRARY = np.array([10.0, 20.0, 500.0, 1e5], np.float32)
CATEGORY = np.array([0, 1, 1, 0], np.int32)


def heads():
    binomial = networks.NegativeBinomialDecoder(nn.Dense(D), SHARES, 3.0, shared=True)
    return {
        "poisson": networks.PoissonDecoder(nn.Dense(D), SHARES),
        "negative_binomial": binomial,
        "zero_inflated": networks.ZeroInflatedDecoder(binomial, nn.Dense(D)),
    }


def decoder(name, condition=None):
    return networks.LibraryDecoder(networks.MLP((4,), (), condition=condition), heads()[name])


def means(likelihood):
    """Of the counts, before zeros are added."""
    counts = getattr(likelihood, "counts", likelihood)
    return counts.mean


@pytest.mark.parametrize("name", heads())
def test_the_means_are_the_library_size_times_a_softmax_and_double_with_it(name):
    network = decoder(name)

    @jax.jit
    def of(z, library):
        params = network.init(jax.random.key(0), z, CellLabel(library))
        once, twice = (network.apply(params, z, CellLabel(of)) for of in (library, 2 * library))
        return params, means(once), means(twice)

    params, mean, twice = jax.tree.map(np.asarray, of(Z_VALUES, LIBRARY))
    np.testing.assert_allclose(twice, 2 * mean, rtol=1e-6)
    np.testing.assert_allclose(mean.sum(-1), np.broadcast_to(LIBRARY, (3, 4)), rtol=1e-5)
    # The oracle: dense layers of NumPy, a relu, and SciPy's softmax.
    features, counts = params["params"]["network"], params["params"]["counts"]
    counts = counts.get("counts", counts)["network"]
    hidden = Z_VALUES @ features["Dense_0"]["kernel"] + features["bias"]
    logits = np.maximum(hidden, 0) @ counts["kernel"] + counts["bias"]
    logits = 10 * np.tanh(logits / 10) + np.log(SHARES)
    expected = LIBRARY[:, None] * special.softmax(logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(mean, expected, rtol=1e-4)


def test_the_encoder_is_given_logarithms_of_the_counts_and_of_the_library_size():
    x = RNG.poisson(2.0, (4, D)).astype(np.float32)
    network = networks.CountsInput(networks.MLP((3,), ()), typical=20.0)

    @jax.jit
    def of(x, label):
        params = network.init(jax.random.key(0), x, label)
        return params, network.apply(params, x, label)

    params, output = jax.tree.map(np.asarray, of(x, CellLabel(LIBRARY)))
    dense = params["params"]["network"]
    given = np.concatenate([np.log(1 + x), np.log(LIBRARY / 20)[:, None]], axis=-1)
    np.testing.assert_allclose(
        output, given @ dense["Dense_0"]["kernel"] + dense["bias"], rtol=1e-4
    )


def test_a_category_is_told_to_both_networks():
    condition = networks.ClassCondition(2)
    encoder = networks.Encoder(
        networks.CountsInput(networks.MLP((2 * Z,), (4,), condition=condition))
    )
    model = vae_jax.make_vae(encoder, decoder("poisson", condition.clone()), Z)
    x = np.ones((4, D), np.float32)

    @jax.jit
    def of(label, other):
        params = model.init(jax.random.key(0), x, label)
        z = Z_VALUES[0]
        encoded = [model.encode(params, x, of).mean for of in (label, other)]
        return params, encoded, [model.decode(params, z, of).mean for of in (label, other)]

    label, other = CellLabel(LIBRARY, CATEGORY), CellLabel(LIBRARY, 1 - CATEGORY)
    params, (code, other_code), (mean, other_mean) = of(label, other)
    assert (code != other_code).any(axis=-1).all()
    assert (mean != other_mean).any(axis=-1).all()
    with pytest.raises(TypeError, match="label is None but the network is conditional"):
        model.encode(params, x, CellLabel(LIBRARY))


def test_the_gradient_of_a_zero_inflated_model_is_finite_and_moves_what_its_counts_have():
    encoder = networks.Encoder(networks.CountsInput(networks.MLP((2 * Z,), (4,))))
    model = vae_jax.make_vae(encoder, decoder("zero_inflated"), Z)
    x = np.array(RNG.poisson(2.0, (4, D)), np.float32)
    batch = vae_jax.Batch(x, CellLabel(x.sum(-1)))

    @jax.jit
    def gradient(batch):
        params = model.init(jax.random.key(0), *batch)
        return jax.grad(lambda p: vae_jax.make_loss(model)(p, jax.random.key(1), batch)[0])(params)

    found = gradient(batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    of_counts = found["decoder"]["counts"]
    for leaf in of_counts["counts"]["log_concentration"], of_counts["network"]["bias"]:
        assert (leaf != 0).all()
