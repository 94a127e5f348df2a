"""What a distribution is, and what one does with any."""

import inspect
import operator
from typing import Any, Protocol, runtime_checkable

from jax import Array

from vae_jax.distributions._pytree import check_key


@runtime_checkable
class Distribution(Protocol):
    """What this library asks of a distribution over one array; a class of one's own needs no base.

    In place of `shape` and `event_ndims` it may have the `batch_shape` and `event_shape` of
    distrax, NumPyro and TFP. `sample` is needed only of what is drawn from: a prior that is scored
    alone, in `elbo(..., analytic_kl=False)`, takes none. A `Joint` is several of these.

    Attributes:
      shape: [*b, *event], a tuple of integers.
      event_ndims: how many of the last axes are one event.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal, elbo
    >>> class Laplace:
    ...     shape, event_ndims = (2,), 1
    ...
    ...     def log_prob(self, value):
    ...         return -(abs(value) + jnp.log(2)).sum(-1)
    >>> z, likelihood = jnp.zeros((4, 2)), Normal(jnp.zeros((4, 3)), 1.0)
    >>> posterior = Normal(z, 1.0)
    >>> elbo(jnp.zeros((4, 3)), z, posterior, Laplace(), likelihood, analytic_kl=False).kl.round(3)
    Array([-0.452, -0.452, -0.452, -0.452], dtype=float32)
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def event_ndims(self) -> int: ...

    def log_prob(self, value: Any) -> Array:
        """Log p(value) in nats, [*b], or [*s, *b] of a value [*s, *b, *event]."""
        ...

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape [*sample_shape, *b, *event]."""
        ...


def sample(key: Array, distribution: Any, sample_shape: int | tuple[int, ...] = ()) -> Any:
    """Draws from a distribution, reparameterised where the distribution can be.

    A Gaussian draw is mean + scale * noise, so gradients flow to the parameters (Kingma & Welling
    2014, section 2.4).

    Args:
      key: a typed PRNG key, from jax.random.key.
      distribution: of this library, or any with a NumPyro-style `sample(key, sample_shape)` or a
        TFP-style `sample(seed=, sample_shape=)`.
      sample_shape: leading axes of the draws; an int S for (S,).

    Returns:
      [*sample_shape, *b, *event], in the dtype of the parameters.

    Raises:
      TypeError: the key is not typed.

    >>> import jax, jax.numpy as jnp
    >>> from vae_jax import Normal
    >>> z = sample(jax.random.key(0), Normal(jnp.zeros((4, 2)), 1.0), 5)
    >>> z.shape
    (5, 4, 2)
    """
    check_key(key)
    shape = sizes(sample_shape)
    if "seed" in inspect.signature(distribution.sample).parameters:
        return distribution.sample(seed=key, sample_shape=shape)
    return distribution.sample(key, shape)


def sizes(sample_shape: Any) -> tuple[int, ...]:
    """The axes of draws as a tuple, of one size or several."""
    given = (sample_shape,) if hasattr(sample_shape, "__index__") else sample_shape
    return tuple(map(operator.index, given))  # NumPy's integers too


def log_prob(distribution: Any, value: Any) -> Array:
    """log p(value) in nats, [*b]: the distribution's own, which sums over its event.

    Another library's distribution with an empty `event_shape` is a batch of scalars to it, and so
    it is here; `elbo` knows the batch from its other arguments and sums down to it.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal
    >>> log_prob(Normal(jnp.zeros(2), 1.0), jnp.zeros(2)).round(3)
    Array(-1.838, dtype=float32)
    """
    result: Array = distribution.log_prob(value)
    return result
