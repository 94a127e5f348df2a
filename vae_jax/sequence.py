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

    Smoother, transition and decoder may have a condition, such as `networks.ColumnsCondition`: the
    label of a sequence is a vector of numbers [*b, C], told at each step. A conditional model's x
    has `length` steps.

    Raises:
      TypeError: when called: a label is given and a network has no condition, or the other way
        round.

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
        return network.apply({"params": params}, *_given(inputs))

    def advance(theta: Params, z: Array, label: Any) -> Any:
        return apply(transition, theta["transition"], z, label)

    def infer(params: Params, z: Array, inputs: tuple[Array, Array, Any]) -> Any:
        features, there, label = inputs
        q = apply(combiner, params["encoder"]["combiner"], z, features)
        p = advance(params["decoder"], z, label)
        return jax.tree.map(lambda of_q, of_p: jnp.where(there, of_q, of_p), q, p)

    def init(key: Array, x: Array, label: Any = None) -> Params:
        keys = jax.random.split(key, 4)
        filled, within = filled_steps(x)
        label = _of_steps(label, x.shape[-2])
        z = jnp.zeros((*x.shape[:-1], latent_dim))
        seen = _given((filled, within.sum(axis=-1), label))
        phi = {"smoother": smoother.init(keys[0], *seen)["params"]}
        features = apply(smoother, phi["smoother"], *seen)
        phi["combiner"] = combiner.init(keys[1], z, features)["params"]
        theta = {
            "initial": jnp.zeros(latent_dim),
            "transition": transition.init(keys[2], *_given((z, label)))["params"],
            "emission": decoder.init(keys[3], *_given((z, label)))["params"],
        }
        return {"encoder": phi, "decoder": theta}

    def encode(params: Params, x: Array, label: Any = None) -> MarkovChain:
        filled, within = filled_steps(x)
        label = _of_steps(label, x.shape[-2])
        seen = filled, within.sum(axis=-1), label
        features = apply(smoother, params["encoder"]["smoother"], *seen)
        there = within.astype(bool)
        inputs = features, there[..., None], label
        start = jnp.zeros(latent_dim)
        return MarkovChain(Partial(infer, params), start, inputs, within=there)

    def prior(params: Params, label: Any = None) -> MarkovChain:
        theta, inputs = params["decoder"], _of_steps(label, length)
        return MarkovChain(Partial(advance, theta), theta["initial"], inputs, length=length)

    def decode(params: Params, z: Array, label: Any = None) -> Masked:
        label = _of_steps(label, z.shape[-2])
        return Masked(apply(decoder, params["decoder"]["emission"], z, label))

    return VAE(init, encode, prior, decode)


def _of_steps(label: Any, length: int) -> Any:
    """A label [*b, C] of each step, [*b, T, C]; None where there is none."""
    if label is None:
        return None
    if not jnp.ndim(label) or not jnp.issubdtype(jnp.result_type(label), jnp.floating):
        raise TypeError(
            f"a label of {jnp.ndim(label)} axes, {jnp.result_type(label)}: give floats [*b, C], a "
            "vector of each sequence, as networks.ColumnsCondition takes"
        )
    return jnp.broadcast_to(label[..., None, :], (*label.shape[:-1], length, label.shape[-1]))


def _given(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A network without labels need not know of them."""
    return inputs[:-1] if inputs[-1] is None else inputs
