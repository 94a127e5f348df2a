"""Importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2016), table 1, dynamic MNIST.

    python -m experiments.papers.burda2016 --cells iwae-50-one-layer --budget=110m

The networks are the paper's; the schedule is not. It took Adam at batches of 20 for 3,280 epochs;
this takes Muon, gradients of less variance (sticking the landing for the ELBO, DReG for the IWAE),
an average of the parameters, and fewer draws in the first part of the time.
"""

import jax
import jax.numpy as jnp

import vae_jax
from experiments.papers import study
from experiments.papers.study import Cell, Model, Params, Part
from vae_jax import Joint, Normal, networks
from vae_jax.run import command

PROTOCOL = (
    "negative log p(x) of MNIST's test images, binarised once, in nats; trained on 60,000 images "
    "binarised anew at every step; importance sampling from q(z|x). Published with 5,000 draws, "
    "after 3,280 epochs at batches of 20. Here seeds differ in parameters and noise, and share the "
    "order of the images"
)


def one_layer(mean: jax.Array, latent_dim: int = 50) -> Model:
    """784-200-200-50, tanh."""
    encoder = networks.Encoder(_network(2 * latent_dim, 200))
    decoder = networks.BernoulliDecoder(_network(len(mean), 200, mean))

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key)
        return {
            "encoder": encoder.init(keys[0], mean[None]),
            "decoder": decoder.init(keys[1], jnp.zeros((1, latent_dim))),
        }

    def posterior(params: Params, x: jax.Array, z: jax.Array | None = None) -> Normal:
        return encoder.apply(params["encoder"], x)

    return Model(
        init,
        lambda params, key, x, num: vae_jax.sample(key, posterior(params, x), num),
        posterior,
        lambda params, z: Normal(jnp.zeros(latent_dim), 1.0),
        lambda params, z: decoder.apply(params["decoder"], z),
    )


def two_layers(mean: jax.Array) -> Model:
    """784-200-200-100-100-100-50 and back, tanh: q(h1|x) q(h2|h1), p(h2) p(h1|h2) p(x|h1)."""
    encoders = networks.Encoder(_network(200, 200)), networks.Encoder(_network(100, 100))
    prior = networks.Encoder(_network(200, 100))
    decoder = networks.BernoulliDecoder(_network(len(mean), 200, mean))

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 4)
        h1, h2 = jnp.zeros((1, 100)), jnp.zeros((1, 50))
        return {
            "encoder": [
                e.init(*of) for e, *of in zip(encoders, keys, (mean[None], h1), strict=False)
            ],
            "prior": prior.init(keys[2], h2),
            "decoder": decoder.init(keys[3], h1),
        }

    def draw(params: Params, key: jax.Array, x: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key)
        h1 = vae_jax.sample(keys[0], encoders[0].apply(params["encoder"][0], x), num)
        return h1, vae_jax.sample(keys[1], encoders[1].apply(params["encoder"][1], h1))

    def posterior(params: Params, x: jax.Array, z: tuple[jax.Array, jax.Array]) -> Joint:
        inputs = x, z[0]
        return Joint(
            tuple(
                e.apply(p, i) for e, p, i in zip(encoders, params["encoder"], inputs, strict=True)
            )
        )

    return Model(
        init,
        draw,
        posterior,
        lambda params, z: Joint((prior.apply(params["prior"], z[1]), Normal(jnp.zeros(50), 1.0))),
        lambda params, z: decoder.apply(params["decoder"], z[0]),
    )


def _network(outputs: int, width: int, mean: jax.Array | None = None) -> networks.MLP:
    """Two hidden layers; with a mean, the output starts from its logit."""
    bias = {} if mean is None else {"bias_init": networks.constant_bias(networks.logit(mean))}
    return networks.MLP((outputs,), (width, width), activation=jnp.tanh, **bias)


def elbo(model: Model, params: Params, x: jax.Array, z: object) -> jax.Array:
    held = jax.lax.stop_gradient(params)
    return vae_jax.sticking_the_landing(
        x,
        z,
        lambda z: model.posterior(held, x, z),
        model.prior(params, z),
        model.decode(params, z),
    ).value


def iwae(model: Model, params: Params, x: jax.Array, z: object) -> jax.Array:
    held = jax.lax.stop_gradient(params)
    return vae_jax.doubly_reparameterized(
        x,
        z,
        lambda z: model.posterior(held, x, z),
        lambda z: model.prior(params, z),
        lambda z: model.decode(params, z),
    ).value


PARTS = {
    1: ((1, 400, 1.0),),
    5: ((1, 400, 0.5), (5, 400, 0.5)),
    50: ((5, 400, 0.7), (50, 100, 0.3)),
}
"""Of k draws: the draws, images a step and share of each part of the training."""


CELLS = {
    f"{name}-{draws}-{layers}": Cell(
        published, model, tuple(Part(objective, *part) for part in PARTS[draws])
    )
    for layers, model, name, objective, row in (
        ("one-layer", one_layer, "vae", elbo, {1: 86.76, 5: 86.47, 50: 86.35}),
        ("one-layer", one_layer, "iwae", iwae, {5: 85.54, 50: 84.78}),
        ("two-layers", two_layers, "vae", elbo, {1: 85.33, 5: 85.01, 50: 84.78}),
        ("two-layers", two_layers, "iwae", iwae, {5: 83.89, 50: 82.90}),
    )
    for draws, published in row.items()
}
"""With one draw the two bounds are one: ten cells make the table's twelve numbers."""


if __name__ == "__main__":
    command.run(lambda: study.main("burda2016", "table 1", PROTOCOL, CELLS))
