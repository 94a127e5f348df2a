"""Models of several layers of latents, as a `VAE` whose posterior and prior are `Ancestral`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from vae_jax.distributions import Ancestral, Normal
from vae_jax.model import VAE, Network

__all__ = ["make_chain", "make_top_down"]

Params = Any


def make_top_down(encoder: Network, decoder: Network) -> VAE:
    """A hierarchy that infers as it generates, from the top down: q(z1|x) q(z2|z1, x) ...

    q and p are of the same order, so the KL of each layer is in closed form given the layers above
    (Sonderby et al. 2016; Child 2021, section 3). A loss by `make_loss` makes one pass
    over both networks, as `draw` does; z is a tuple with the top layer first.

    Args:
      encoder: [*b, *event] -> features, a pytree, the way up: `networks.BottomUp` or
        `networks.LadderEncoder`.
      decoder: (choose, features or None) -> p(x|z), the way down, which calls z =
        choose(posterior, prior) for each layer, or choose(prior) without features, and goes on with
        the z that it gets: `networks.TopDown` or `networks.LadderDecoder`.

    Returns:
      A `VAE` whose params are {"encoder": phi, "decoder": theta}. As q looks at the way down too,
      theta is of q as well.

    Raises:
      TypeError: when called: a label is given.

    >>> from vae_jax import elbo, draw, generate, networks
    >>> from vae_jax.networks import BernoulliDecoder, MLP
    >>> model = make_top_down(
    ...     networks.LadderEncoder(latent_dims=(4, 2), hidden=(16, 8)),
    ...     networks.LadderDecoder(BernoulliDecoder(MLP((5,), (16,))), (4, 2), hidden=(16, 8)),
    ... )
    >>> x, key = jnp.ones((3, 5)), jax.random.key(0)
    >>> params = model.init(key, x)
    >>> posterior, prior = model.encode(params, x), model.prior(params)
    >>> drawn = draw(key, posterior, prior, lambda z: model.decode(params, z))
    >>> [z.shape for z in drawn.z], elbo(x, *drawn).kl.shape
    ([(3, 2), (3, 4)], (3,))
    >>> generate(key, model, params, 7).mean.shape
    (7, 5)
    """

    def walk(params: Params, features: Any, choose: Callable[..., Any]) -> Any:
        return decoder.apply({"params": params["decoder"]}, choose, features)

    def init(key: Array, x: Array, label: Any = None) -> Params:
        _check_unlabelled(label)
        encoder_key, decoder_key = jax.random.split(key)
        phi = encoder.init(encoder_key, x).get("params", {})
        features = encoder.apply({"params": phi}, x)
        theta = decoder.init(decoder_key, lambda posterior, prior: posterior.mean, features)
        return {"encoder": phi, "decoder": theta.get("params", {})}

    def encode(params: Params, x: Array, label: Any = None) -> Ancestral:
        _check_unlabelled(label)
        features = encoder.apply({"params": params["encoder"]}, x)
        return Ancestral(Partial(walk, params, features))

    def prior(params: Params, label: Any = None) -> Ancestral:
        _check_unlabelled(label)
        return Ancestral(Partial(walk, params, None))

    def decode(params: Params, z: Any, label: Any = None) -> Any:
        values = iter(z)
        return walk(params, None, lambda *_: next(values))

    return VAE(init, encode, prior, decode)


def make_chain(encoders: Sequence[Network], decoders: Sequence[Network], latent_dim: int) -> VAE:
    """A hierarchy that infers from the bottom up: q(z1|x) q(z2|z1), p(z2) p(z1|z2) p(x|z1).

    The two stochastic layers of Burda et al. 2016, section 5, or any number. As q and p are of
    opposite order the KL has no closed form, and `elbo` estimates it from the draws.

    Args:
      encoders: x -> q(z1|x), z1 -> q(z2|z1), and so on, such as `networks.Encoder`s.
      decoders: z1 -> p(x|z1), z2 -> p(z1|z2), and so on; as many.
      latent_dim: of the top layer, whose prior is N(0, I).

    Returns:
      A `VAE` of tuples z = (z1, z2, ...) whose params are {"encoder": a list, "decoder": a list}.

    Raises:
      ValueError: encoders and decoders are not as many, or none.
      TypeError: when called: a label is given.

    >>> from vae_jax import elbo, draw, networks
    >>> from vae_jax.networks import BernoulliDecoder, Encoder, MLP
    >>> model = make_chain(
    ...     [Encoder(MLP((2 * 4,), (16,))), Encoder(MLP((2 * 2,), (8,)))],
    ...     [BernoulliDecoder(MLP((5,), (16,))), Encoder(MLP((2 * 4,), (8,)))],
    ...     latent_dim=2,
    ... )
    >>> x, key = jnp.ones((3, 5)), jax.random.key(0)
    >>> params = model.init(key, x)
    >>> posterior, prior = model.encode(params, x), model.prior(params)
    >>> drawn = draw(key, posterior, prior, lambda z: model.decode(params, z), 6)
    >>> [z.shape for z in drawn.z], elbo(x, *drawn).kl.shape
    ([(6, 3, 4), (6, 3, 2)], (6, 3))
    """
    if not encoders or len(encoders) != len(decoders):
        raise ValueError(
            f"{len(encoders)} encoders and {len(decoders)} decoders: give as many of each, one for "
            "each layer"
        )

    def apply(network: Network, params: Params, value: Any) -> Any:
        return network.apply({"params": params}, value)

    def up(params: Params, x: Any, choose: Callable[..., Any]) -> None:
        value = x
        for encoder, phi in zip(encoders, params["encoder"], strict=True):
            value = choose(apply(encoder, phi, value))

    def down(params: Params, choose: Callable[..., Any]) -> None:
        z = choose(Normal(jnp.zeros(latent_dim), jnp.ones(latent_dim)))
        for decoder, theta in zip(decoders[:0:-1], params["decoder"][:0:-1], strict=True):
            z = choose(apply(decoder, theta, z))

    def init(key: Array, x: Array, label: Any = None) -> Params:
        _check_unlabelled(label)
        params: Params = {"encoder": [], "decoder": []}
        keys = jax.random.split(key, 2 * len(encoders))
        value: Any = x
        for i, (encoder, decoder) in enumerate(zip(encoders, decoders, strict=True)):
            phi = encoder.init(keys[2 * i], value).get("params", {})
            value = apply(encoder, phi, value).mean
            params["encoder"].append(phi)
            params["decoder"].append(decoder.init(keys[2 * i + 1], value).get("params", {}))
        return params

    def encode(params: Params, x: Array, label: Any = None) -> Ancestral:
        _check_unlabelled(label)
        return Ancestral(Partial(up, params, x))

    def prior(params: Params, label: Any = None) -> Ancestral:
        _check_unlabelled(label)
        return Ancestral(Partial(down, params), reverse=True)

    def decode(params: Params, z: Any, label: Any = None) -> Any:
        return apply(decoders[0], params["decoder"][0], z[0])

    return VAE(init, encode, prior, decode)


def _check_unlabelled(label: Any) -> None:
    if label is not None:
        raise TypeError("a label was given but hierarchies are unconditional: leave it out")
