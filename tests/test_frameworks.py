"""One VAE in every framework, with every library's distributions, under every transformation.

The oracle is the bound written out in jnp, by hand, on the same weights.
"""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax

# The other libraries mix dtypes and ranks.
pytestmark = pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion")

B, D, H, Z = 4, 6, 5, 3


def weights():
    rng = np.random.default_rng(0)

    def layer(i, o):
        return (rng.normal(size=(i, o)) / i**0.5, rng.normal(size=o))

    def network(*w):
        return [layer(i, o) for i, o in itertools.pairwise(w)]

    networks = {"encoder": network(D, H, 2 * Z), "decoder": network(Z, H, D)}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), networks)


def data():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.random((B, D)) < 0.5, jnp.float32)
    return x, jnp.asarray(rng.normal(size=(B, Z)), jnp.float32)


# Frameworks: (from [(w, b), ...] to parameters, from parameters and x to outputs, and back).


def plain(_):
    def apply(layers, x):
        (w1, b1), (w2, b2) = layers
        return jnp.tanh(x @ w1 + b1) @ w2 + b2

    return (lambda layers: layers), apply, (lambda params: params)


def linen(flax):
    nn = importlib.import_module("flax.linen")

    def apply(params, x):
        out = params["params"]["layers_2"]["bias"].size
        return nn.Sequential([nn.Dense(H), nn.tanh, nn.Dense(out)]).apply(params, x)

    def make(layers):
        named = zip(("layers_0", "layers_2"), layers, strict=True)
        return {"params": {name: {"kernel": w, "bias": b} for name, (w, b) in named}}

    def back(params):
        return [(layer["kernel"], layer["bias"]) for layer in params["params"].values()]

    return make, apply, back


def nnx(flax):
    nnx = importlib.import_module("flax.nnx")

    def network(layers):
        def linear(w):
            return nnx.Linear(*w.shape, rngs=nnx.Rngs(0))

        return nnx.Sequential(linear(layers[0][0]), nnx.tanh, linear(layers[1][0]))

    def make(layers):
        model = network(layers)
        for index, (w, b) in zip((0, 2), layers, strict=True):
            model.layers[index].kernel.set_value(w)
            model.layers[index].bias.set_value(b)
        graph, params = nnx.split(model)
        graphs[len(layers[1][1])] = graph
        return params

    graphs = {}

    def back(params):
        return [
            (params["layers"][i]["kernel"][...], params["layers"][i]["bias"][...]) for i in (0, 2)
        ]

    def apply(params, x):
        graph = graphs[params["layers"][2]["bias"][...].size]
        return nnx.merge(graph, params)(x)

    return make, apply, back


def equinox(eqx):
    def make(layers):
        sizes = layers[0][0].shape[0], layers[1][0].shape[1]
        model = eqx.nn.MLP(*sizes, H, 1, jnp.tanh, key=jax.random.key(0))
        arrays = [a for w, b in layers for a in (w.T, b)]
        params = eqx.tree_at(leaves, model, arrays)
        params, statics[sizes] = eqx.partition(params, eqx.is_array)
        return params

    def leaves(m):
        return [a for layer in m.layers for a in (layer.weight, layer.bias)]

    statics = {}

    def apply(params, x):
        sizes = params.layers[0].weight.shape[1], params.layers[1].weight.shape[0]
        model = eqx.combine(params, statics[sizes])
        return model(x) if x.ndim == 1 else jax.vmap(model)(x)

    return make, apply, lambda params: [(layer.weight.T, layer.bias) for layer in params.layers]


def haiku(hk):
    def transformed(out):
        return hk.without_apply_rng(
            hk.transform(lambda x: hk.nets.MLP([H, out], activation=jnp.tanh, name="mlp")(x))
        )

    names = "mlp/~/linear_0", "mlp/~/linear_1"

    def make(layers):
        return {name: {"w": w, "b": b} for name, (w, b) in zip(names, layers, strict=True)}

    def apply(params, x):
        return transformed(params[names[1]]["b"].size).apply(params, x)

    return make, apply, lambda params: [(params[n]["w"], params[n]["b"]) for n in names]


FRAMEWORKS = {
    "plain": (plain, "jax"),
    "linen": (linen, "flax"),
    "nnx": (nnx, "flax"),
    "equinox": (equinox, "equinox"),
    "haiku": (haiku, "haiku"),
}

# Libraries: from mean and scale to a Gaussian, from logits to Bernoullis, each with one event axis.


def own(module):
    return module.Normal, module.Bernoulli


def numpyro(module):
    return (
        lambda mean, scale: module.Normal(mean, scale).to_event(1),
        lambda logits: module.Bernoulli(logits=logits).to_event(1),
    )


def distrax_or_tfp(module):
    def bernoulli(logits):
        return module.Independent(module.Bernoulli(logits=logits), reinterpreted_batch_ndims=1)

    return module.MultivariateNormalDiag, bernoulli


LIBRARIES = {
    "vae_jax": (own, "vae_jax"),
    "distrax": (distrax_or_tfp, "distrax"),
    "numpyro": (numpyro, "numpyro.distributions"),
    "tfp": (distrax_or_tfp, "tensorflow_probability.substrates.jax.distributions"),
}


def eager(bound, params, x, noise):
    return bound(params, x, noise)


def jit(bound, params, x, noise):
    return jax.jit(bound)(params, x, noise)


def vmap(bound, params, x, noise):
    return jax.vmap(bound, in_axes=(None, 0, 0))(params, x, noise)


def scan(bound, params, x, noise):
    def step(carry, batch):
        return (carry, bound(params, *batch))

    halves = x.reshape(2, B // 2, D), noise.reshape(2, B // 2, Z)
    _, values = jax.lax.scan(step, 0.0, halves)
    return values.reshape(B)


def grad(bound, params, x, noise):
    return jax.grad(lambda params: bound(params, x, noise).mean())(params)


def checkpoint(bound, params, x, noise):
    return jax.grad(lambda params: jax.checkpoint(bound)(params, x, noise).mean())(params)


def by_hand(params, x, noise):
    _, network, _ = plain(None)
    mean, log_scale = jnp.split(network(params["encoder"], x), 2, axis=-1)
    logits = network(params["decoder"], mean + jnp.exp(log_scale) * noise)
    log_likelihood = -jnp.logaddexp(0.0, (1 - 2 * x) * logits).sum(-1)
    kl = 0.5 * (jnp.exp(2 * log_scale) + mean**2 - 1 - 2 * log_scale).sum(-1)
    return log_likelihood - kl


@pytest.mark.few(20)
@pytest.mark.parametrize("transform", [eager, jit, vmap, scan, grad, checkpoint])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_same_numbers_in_every_cell(framework, library, transform):
    adapter, module = FRAMEWORKS[framework]
    make, network, back = adapter(pytest.importorskip(module))
    distributions, module = LIBRARIES[library]
    normal, bernoulli = distributions(pytest.importorskip(module))

    def bound(params, x, noise):
        mean, log_scale = jnp.split(network(params["encoder"], x), 2, axis=-1)
        scale = jnp.exp(log_scale)
        z = mean + scale * noise
        likelihood = bernoulli(network(params["decoder"], z))
        prior = normal(jnp.zeros(Z), jnp.ones(Z))
        return vae_jax.elbo(x, z, normal(mean, scale), prior, likelihood).value

    layers = weights()
    got = transform(bound, {name: make(layers[name]) for name in layers}, *data())
    want = transform(by_hand, layers, *data())
    if transform in (grad, checkpoint):
        got = {name: back(got[name]) for name in got}
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for got_array, want_array in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        atol = 1e-5 * np.abs(want_array).max()
        np.testing.assert_allclose(got_array, want_array, rtol=0, atol=atol)
