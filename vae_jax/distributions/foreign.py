"""Distributions of distrax, NumPyro, TFP and flowjax, by their attributes: none is imported.

These libraries leave open what an event is: a Normal over [B, Z] with an empty `event_shape` may be
B vectors or B * Z scalars, and its log-probabilities come back per entry. `event_ndims` says so,
and who knows the batch sums down to it. Those of flowjax have an event and no batch.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vae_jax.distributions._pytree import check_positive


def shape(distribution: Any) -> tuple[int, ...]:
    """[*b, *event] of a distribution, of vae_jax or another library.

    Raises:
      TypeError: it is not one distribution over one array.
    """
    if _is_of(distribution, "flowjax"):  # no batch axes: of many conditions it is no one law
        if distribution.cond_shape is not None:
            raise TypeError(
                f"{type(distribution).__name__} of flowjax wants a condition of shape "
                f"{distribution.cond_shape}: wrap it in a class that gives one, with the shape, "
                "event_ndims and sample_and_log_prob of vae_jax.Distribution"
            )
        event: tuple[int, ...] = distribution.shape
        return event
    _check_attributes(distribution)
    if hasattr(distribution, "event_ndims"):
        own: tuple[int, ...] = distribution.shape
        return own
    try:
        sizes = (*distribution.batch_shape, *distribution.event_shape)
    except TypeError:
        sizes = (None,)
    if not all(isinstance(size, int) for size in sizes):
        raise TypeError(
            f"{type(distribution).__name__} has no batch_shape and event_shape of integers: pass a "
            "distribution over one array, or a vae_jax.Joint of several"
        )
    return sizes


def _check_attributes(distribution: Any) -> None:
    """Names the attributes of vae_jax.Distribution that a distribution lacks."""
    own, theirs = ("shape", "event_ndims"), ("batch_shape", "event_shape")
    lacks = [[name for name in way if not hasattr(distribution, name)] for way in (own, theirs)]
    # event_ndims alone tells whose way it is: NumPyro's `shape` is a method.
    missing = lacks[0] if hasattr(distribution, "event_ndims") else min(lacks, key=len)
    if not callable(getattr(distribution, "log_prob", None)):
        missing = [*missing, "log_prob"]
    if missing:
        raise TypeError(
            f"{type(distribution).__name__} lacks {', '.join(missing)}: a distribution has "
            "log_prob, and shape and event_ndims or batch_shape and event_shape "
            "(vae_jax.Distribution)"
        )


def event_ndims(distribution: Any) -> int | None:
    """How many of the last axes are one event; None where the library's `event_shape` is empty."""
    if hasattr(distribution, "event_ndims"):
        own: int = distribution.event_ndims
        return own
    if _is_of(distribution, "flowjax"):
        return len(distribution.shape)
    return len(distribution.event_shape) or None


def check(distribution: Any, value: Array) -> None:
    """Raises on what another library lets pass and vae_jax's own distributions do not.

    Raises:
      TypeError: an integer value for a Bernoulli: the bytes of a picture are no zeros and ones.
      ValueError: a known scale is not positive.
    """
    if library(distribution) is None:
        return
    inner = innermost(distribution)
    name = type(inner).__name__
    if name.startswith("Bernoulli") and jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(
            f"the value of a {name} has dtype {value.dtype}: pass floats, x.astype(float), "
            "after scaling pixels to [0, 1]"
        )
    scale = getattr(inner, "scale", None)
    # A linear operator may stand there too.
    if isinstance(scale, jax.Array | np.ndarray | np.number | float | int):
        check_positive(f"scale of a {name}", scale)


def innermost(distribution: Any) -> Any:
    """The distribution inside wrappers that change nothing but shapes."""
    while type(distribution).__name__ in ("Independent", "ExpandedDistribution"):
        # NumPyro's name for it, then that of distrax and TFP.
        inside = getattr(distribution, "base_dist", None)
        distribution = distribution.distribution if inside is None else inside
    return distribution


def library(distribution: Any) -> str | None:
    """The name of the library a distribution is made of; a caller's subclass counts as its own."""
    names = ("numpyro", "distrax", "tensorflow_probability")
    return next((name for name in names if _is_of(distribution, name)), None)


def _is_of(distribution: Any, name: str) -> bool:
    return any(cls.__module__.partition(".")[0] == name for cls in type(distribution).__mro__)


def kl_divergence(posterior: Any, prior: Any) -> Array | None:
    """The KL of the library that both come from; None where it knows none."""
    libraries = {library(posterior), library(prior)}
    result: Array | None = None
    try:
        if libraries == {"numpyro"}:
            result = sys.modules["numpyro"].distributions.kl_divergence(posterior, prior)
        elif libraries <= {"distrax", "tensorflow_probability"}:  # distrax takes TFP's too
            result = posterior.kl_divergence(prior)
    except NotImplementedError:
        return None
    return result
