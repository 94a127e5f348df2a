"""The evidence lower bound and its two terms."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from vae_jax.bounds import _terms
from vae_jax.distributions import given, sample_scored
from vae_jax.distributions.joint import is_ancestral


class Bound(NamedTuple):
    """A lower bound on log p(x) and its two terms, in nats, nothing reduced.

    Attributes:
      value: the bound.
      log_likelihood: log p(x|z), under the draws.
      kl: KL(q(z|x) || p(z)), or log q(z|x) - log p(z) under the draws.

    >>> import jax.numpy as jnp
    >>> bound = Bound(jnp.array([-90.0, -88.0]), jnp.array([-70.0, -66.0]), jnp.array([20.0, 22.0]))
    >>> loss = -bound.value.mean()  # the one minus sign
    >>> loss
    Array(89., dtype=float32)
    """

    value: Array
    log_likelihood: Array
    kl: Array


def elbo(
    x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any, *, analytic_kl: bool | None = True
) -> Bound:
    """The evidence lower bound, log p(x|z) - KL(q(z|x) || p(z)).

    Its expectation over z ~ q(z|x) is log p(x) - KL(q(z|x) || p(z|x)) (Kingma & Welling 2014,
    equations 2 and 3). Leading axes of z, one draw [B] or many [S, B], are kept: take
    `.value.mean()` for the objective.

    The distributions may be of vae_jax, distrax, NumPyro and TFP in any mixture. What one of them
    says of its event (vae_jax's do; another library's non-empty `event_shape`) holds for all: those
    with an empty `event_shape` are summed down to the same leading axes. Where none says, the
    last axis of z is its event.

    Args:
      x: [*b, *event], what was observed; a tuple for a `Joint` likelihood.
      z: draws from the posterior, [*s, *b, Z]; a tuple for a `Joint` posterior.
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z), decoded from z.
      analytic_kl: the KL in closed form; False for its estimate log q(z|x) - log p(z) from z, which
        any pair with a `log_prob` has; None for the closed form where one is known, else the
        estimate. Of Joints it is estimated in any case, unless both are ancestral: see `Joint` and
        `Ancestral`.

    Returns:
      A `Bound` with arrays of shape [*s, *b].

    Raises:
      TypeError: no closed form of the KL is known; pass analytic_kl=False. Or x holds integers and
        the likelihood is a Bernoulli.
      ValueError: shapes do not match, or leave open which axes are the batch; the message names
        both. Or the scale of another library's distribution is known not to be positive.

    >>> import jax, jax.numpy as jnp
    >>> from vae_jax import Bernoulli, Normal, sample
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> z = sample(jax.random.key(0), posterior)
    >>> elbo(jnp.ones((4, 3)), z, posterior, prior, Bernoulli(jnp.zeros((4, 3)))).value.round(3)
    Array([-2.079, -2.079, -2.079, -2.079], dtype=float32)
    """
    posterior, prior = given(posterior, z), given(prior, z)
    latents, observed, leading, _ = _terms.checked(x, z, posterior, prior, likelihood)
    log_likelihood = _terms.log_likelihood(observed, leading)
    closed = is_ancestral(posterior) and is_ancestral(prior)
    if analytic_kl is None:
        closed = closed and _terms.all_closed(latents, leading)
    else:
        closed = closed and analytic_kl
    kl = (_terms.kl if closed else _terms.log_ratio)(latents, leading)
    return Bound(_terms.total([log_likelihood, -kl]), log_likelihood, kl)


def autoencode(
    key: Array,
    x: Any,
    encode: Callable[[Any], Any],
    prior: Any,
    decode: Callable[[Any], Any],
    sample_shape: int | tuple[int, ...] = (),
) -> Bound:
    """The `elbo` of the plain VAE: encodes x, draws z, decodes it (Kingma & Welling 2014).

    Args:
      key: a typed PRNG key.
      x: [*b, *event].
      encode: x -> posterior q(z|x).
      prior: p(z).
      decode: z -> likelihood p(x|z).
      sample_shape: leading axes of the draws; an int S for (S,).

    Returns:
      A `Bound` with arrays of shape [*sample_shape, *b].

    >>> import jax, jax.numpy as jnp
    >>> from vae_jax import Bernoulli, Normal
    >>> encode = lambda x: Normal(x @ jnp.ones((3, 2)), 1.0)
    >>> decode = lambda z: Bernoulli(z @ jnp.ones((2, 3)))
    >>> prior = Normal(jnp.zeros(2), 1.0)
    >>> autoencode(jax.random.key(0), jnp.zeros((4, 3)), encode, prior, decode, 5).value.shape
    (5, 4)
    """
    z, posterior = sample_scored(key, encode(x), sample_shape)
    return elbo(x, z, posterior, prior, decode(z))
