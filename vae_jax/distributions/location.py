"""A point in the middle of any distribution."""

from typing import Any

from jax import Array

from vae_jax.distributions.flow import Flow
from vae_jax.distributions.mixture import Mixture


def location(distribution: Any) -> Array:
    """The mean of a distribution, or what stands for it, [*b, *event].

    Of a `Flow`, whose mean has no closed form, where the mean of its base is taken; of a `Mixture`
    of such, the mean of these points.
    """
    if isinstance(distribution, Mixture):
        return distribution.averaged(location(distribution.components))
    if not isinstance(distribution, Flow):
        mean: Array = distribution.mean
        return mean
    wide = distribution.widest()
    point = location(wide.base)
    for transform in wide.transforms:
        point, _ = transform.forward_and_log_det(point)
    return point
