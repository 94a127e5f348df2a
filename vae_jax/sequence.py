"""Models of sequences, as a `VAE` whose posterior and prior are Markov chains of latents."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from vae_jax.distributions import MarkovChain, Masked
from vae_jax.model import VAE, Network
from vae_jax.networks.sequence import filled_steps

__all__ = ["make_state_space"]

Params = Any


def make_state_space(
    smoother: Network,
    combiner: Network,
    transition: Network,
    decoder: Network,
    latent_dim: int,
    length: int,
) -> VAE:
    """A deep Markov model: p(z_t|z_(t-1)) p(x_t|z_t), with q(z_t|z_(t-1), x_t, ..., x_T).

    The structured inference of Krishnan et al. 2017: the posterior has the order of the prior, so
    the KL of each step is in closed form given the draw before, and the sum over the steps of one
    draw is `elbo`'s. Sequences of unequal length are padded to one with NaN, which may stand for
    single missing values too. Past the end of a sequence the posterior is the prior, so padding
    changes neither the bound nor its gradient.

    Args:
      smoother: (x [*b, T, 2 D], length [*b]) -> features [*b, T, F]: `networks.Smoother`. The 2 D
        are the values, 0 where one is missing, and of each 1 where it is there.
      combiner: (z [*b, Z], features [*b, F]) -> q: `networks.Combiner`.
      transition: z [*b, Z] -> p(z_t|z_(t-1)): `networks.GatedTransition`.
      decoder: z [*b, T, Z] -> p(x|z) over [T, D], of independent entries, such as
        `networks.BernoulliDecoder(MLP((D,)), event_ndims=2)`.
      latent_dim: Z.
      length: T of what the prior generates.

    Returns:
      A `VAE` whose params are {"encoder": phi, "decoder": theta}, with z_0 in theta. As the
      posterior is the prior past the end, theta is of q as well.

    Raises:
      TypeError: when called: a label is given.

    >>> from vae_jax import elbo, generate, networks, sample
    >>> model = make_state_space(
    ...     networks.Smoother(16),
    ...     networks.Combiner(),
    ...     networks.GatedTransition(8),
    ...     networks.BernoulliDecoder(networks.MLP((5,), (16,)), event_ndims=2),
    ...     latent_dim=3,
    ...     length=7,
    ... )
    >>> x = jnp.ones((2, 7, 5)).at[1, 4:].set(jnp.nan)  # of 7 steps, and of 4
    >>> params = model.init(jax.random.key(0), x)
    >>> posterior, prior = model.encode(params, x), model.prior(params)
    >>> z = sample(jax.random.key(1), posterior)
    >>> elbo(x, z, posterior, prior, model.decode(params, z)).value.shape
    (2,)
    >>> generate(jax.random.key(2), model, params, 4).mean.shape
    (4, 7, 5)
    """

    def apply(network: Network, params: Params, *inputs: Any) -> Any:
        return network.apply({"params": params}, *inputs)

    def advance(theta: Params, z: Array, inputs: None) -> Any:
        return apply(transition, theta["transition"], z)

    def infer(params: Params, z: Array, inputs: tuple[Array, Array]) -> Any:
        features, there = inputs
        q = apply(combiner, params["encoder"]["combiner"], z, features)
        p = advance(params["decoder"], z, None)
        return jax.tree.map(lambda of_q, of_p: jnp.where(there, of_q, of_p), q, p)

    def init(key: Array, x: Array, label: Any = None) -> Params:
        _check_unlabelled(label)
        keys = jax.random.split(key, 4)
        filled, within = filled_steps(x)
        z = jnp.zeros((*x.shape[:-1], latent_dim))
        phi = {"smoother": smoother.init(keys[0], filled, within.sum(axis=-1))["params"]}
        features = apply(smoother, phi["smoother"], filled, within.sum(axis=-1))
        phi["combiner"] = combiner.init(keys[1], z, features)["params"]
        theta = {
            "initial": jnp.zeros(latent_dim),
            "transition": transition.init(keys[2], z)["params"],
            "emission": decoder.init(keys[3], z)["params"],
        }
        return {"encoder": phi, "decoder": theta}

    def encode(params: Params, x: Array, label: Any = None) -> MarkovChain:
        _check_unlabelled(label)
        filled, within = filled_steps(x)
        features = apply(smoother, params["encoder"]["smoother"], filled, within.sum(axis=-1))
        there = within.astype(bool)
        inputs = features, there[..., None]
        start = jnp.zeros(latent_dim)
        return MarkovChain(Partial(infer, params), start, inputs, within=there)

    def prior(params: Params, label: Any = None) -> MarkovChain:
        _check_unlabelled(label)
        theta = params["decoder"]
        return MarkovChain(Partial(advance, theta), theta["initial"], length=length)

    def decode(params: Params, z: Array, label: Any = None) -> Masked:
        return Masked(apply(decoder, params["decoder"]["emission"], z))

    return VAE(init, encode, prior, decode)


def _check_unlabelled(label: Any) -> None:
    if label is not None:
        raise TypeError("a label was given but a state space is unconditional: leave it out")
