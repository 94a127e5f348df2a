"""What a distribution is, and what one does with any."""

import inspect
import operator
from typing import Any

from jax import Array

from vae_jax.distributions._pytree import check_key


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
    sizes = (sample_shape,) if hasattr(sample_shape, "__index__") else sample_shape
    shape = tuple(map(operator.index, sizes))  # NumPy's integers too
    if "seed" in inspect.signature(distribution.sample).parameters:
        return distribution.sample(seed=key, sample_shape=shape)
    return distribution.sample(key, shape)


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
