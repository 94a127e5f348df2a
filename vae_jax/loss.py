"""The loss of a VAE: minus its mean bound, less a penalty where there is one."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from vae_jax.bounds import Bound, elbo
from vae_jax.distributions import draw, sample_scored
from vae_jax.model import VAE
from vae_jax.train import Batch, Loss, Params

__all__ = ["make_loss"]


def make_loss(
    model: VAE,
    *,
    observe: Callable[[Array, Any], Any] | None = None,
    objective: Callable[..., Bound] = elbo,
    num_draws: int = 1,
    penalty: Callable[..., Array] | None = None,
) -> Loss:
    """Minus the mean bound of a batch: encodes, draws, decodes (Kingma & Welling 2014).

    Args:
      model: the VAE.
      observe: (key, image) -> x, such as `binarize`; None where the batch holds x itself.
      objective: (x, z, posterior, prior, likelihood) -> `Bound`: `elbo`, `iwae`, or a partial of
        them, such as `functools.partial(elbo, analytic_kl=False)`. Or (x, z, posterior, prior,
        decode) -> `Bound`, by these names, which decodes itself: `doubly_reparameterized`, `vimco`.
      num_draws: S, of z for each example; with 1, z has no axis of draws.
      penalty: (bound, z, posterior, prior, step) -> what the loss subtracts from the bound's value,
        nats for each of it or a scalar: see `vae_jax.penalties`. The bound is reported as it is.

    Returns:
      (params, key, batch, step=None) -> (loss, bound), for `make_train_step` and the like, which
      give it the step. A batch is a `Batch`, whose label goes to the model, or x alone.

    Raises:
      ValueError: num_draws is less than 1.

    >>> import jax, jax.numpy as jnp
    >>> import optax
    >>> from vae_jax import VAE, Normal, total_correlation, weighted_kl
    >>> encode = lambda params, x, label=None: Normal(x, 1.0)
    >>> prior = lambda params, label=None: Normal(jnp.zeros(3), 1.0)
    >>> decode = lambda params, z, label=None: Normal(0.0 * z, 1.0)
    >>> loss = make_loss(VAE(None, encode, prior, decode))
    >>> value, bound = loss(None, jax.random.key(0), jnp.zeros((4, 3)))
    >>> value.round(3), bound.kl
    (Array(2.757, dtype=float32), Array([0., 0., 0., 0.], dtype=float32))

    A warm-up of the KL, and beta-TCVAE:

    >>> beta = optax.linear_schedule(0.0, 1.0, 1000)
    >>> loss = make_loss(
    ...     VAE(None, encode, prior, decode),
    ...     penalty=lambda bound, z, posterior, prior, step: weighted_kl(bound.kl, beta(step)),
    ... )
    >>> loss = make_loss(
    ...     VAE(None, encode, prior, decode),
    ...     penalty=lambda bound, z, posterior, prior, step: (
    ...         5 * total_correlation(z, posterior, num_examples=60_000)
    ...     ),
    ... )
    """
    if num_draws < 1:
        raise ValueError(f"num_draws is {num_draws}: give 1 or more")
    decodes = "decode" in inspect.signature(objective).parameters
    sample_shape = () if num_draws == 1 else (num_draws,)

    def loss(
        params: Params, key: Array, batch: Any, step: Array | None = None
    ) -> tuple[Array, Bound]:
        x, label = batch if isinstance(batch, Batch) else (batch, None)
        if observe is not None:
            observe_key, key = jax.random.split(key)
            x = observe(observe_key, x)
        posterior, prior = model.encode(params, x, label), model.prior(params, label)

        def decode(z: Any) -> Any:
            return model.decode(params, z, label)

        if decodes:
            z, scored = sample_scored(key, posterior, sample_shape)
            bound = objective(x, z, scored, prior, decode)
        else:
            drawn = draw(key, posterior, prior, decode, sample_shape)
            z, posterior, prior, _ = drawn
            bound = objective(x, *drawn)
        value = bound.value
        if penalty is not None:
            value = value - penalty(bound, z, posterior, prior, step)
        return -value.mean(), bound

    return loss
