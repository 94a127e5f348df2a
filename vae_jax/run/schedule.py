"""Optimizers at a constant rate, and then along a line to zero."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib


def rate_at(
    step: Any,
    num_steps: Any,
    rate: float = 1.0,
    *,
    part: tuple[float, float] = (0.0, 1.0),
    constant: float = 0.5,
    warm_up: float = 500,
) -> jax.Array:
    """The rate of a step: it rises in a warm-up, stays, and falls along a line to zero.

    Args:
      step: float32, of a part of a training, from 0.
      num_steps: of the part.
      rate: while it stays.
      part: from one share of the training to another; the line is the whole training's, so that
        the rate of a part begins where that of the one before ended.
      constant: share of the training from which it falls.
      warm_up: steps in which it rises.

    >>> [round(float(rate_at(jnp.float32(s), 1000, warm_up=100)), 3) for s in (0, 49, 400, 750)]
    [0.01, 0.5, 1.0, 0.5]
    """
    share = part[0] + (part[1] - part[0]) * step / num_steps
    left = jnp.clip((1 - share) / (1 - constant), 0.0, 1.0)
    return rate * left * jnp.minimum((step + 1) / warm_up, 1.0)


def muon(rate: float, num_steps: int, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Muon for weight matrices (Jordan et al. 2024); Adam, at a fifth of the rate, for all else.

    weight_decay is the matrices': of each step, times the rate, the share of them that goes.
    """
    of = optax.contrib.muon  # type: ignore[attr-defined]
    both = of(rate, adam_learning_rate=0.2 * rate, weight_decay=weight_decay)
    return _falling(both, num_steps)


def adam(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015)."""
    return _falling(optax.adam(rate), num_steps)


def clipped_adam(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Adam behind a gradient of norm 10 at most, for recurrent networks (Pascanu et al. 2013)."""
    return optax.chain(optax.clip_by_global_norm(10.0), adam(rate, num_steps))


def _falling(
    optimizer: optax.GradientTransformation, num_steps: int
) -> optax.GradientTransformation:
    warm_up = min(500, max(1, num_steps // 10))

    def scale(step: Any) -> jax.Array:
        return rate_at(jnp.asarray(step, jnp.float32), num_steps, warm_up=warm_up)

    return optax.chain(optimizer, optax.scale_by_schedule(scale))
