"""Distributions as frozen pytrees; `sample`, `log_prob` and `kl_divergence` of them.

A distribution over `*event` dimensions with batch axes `*b` holds parameters of shape
[*b, *event].  Log-probabilities and divergences are in nats, of shape [*b]: summed over the event,
never over the batch.  They are computed in float32 at least, so a bfloat16 network loses nothing
in the sums.

Distributions of other libraries (distrax, NumPyro, TFP) are accepted wherever these are. They
compute in the dtype of their own parameters.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vae_jax import foreign

__all__ = [
    "Bernoulli",
    "Categorical",
    "Joint",
    "MultivariateNormal",
    "Normal",
    "kl_divergence",
    "log_prob",
    "sample",
]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def _pytree(cls: type[_T]) -> type[_T]:
    """A frozen dataclass whose fields are pytree children, but for those marked static.

    Unflattening skips `__post_init__`: a transformation may put tracers, shardings or None where
    the arrays were, and only what a caller constructs is checked.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    data = [f.name for f in fields if not f.metadata.get("static")]
    meta = [f.name for f in fields if f.metadata.get("static")]

    def flatten_with_keys(x: _T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(x, name)) for name in data]
        return children, tuple(getattr(x, name) for name in meta)

    def unflatten(aux: tuple[Any, ...], children: Iterable[Any]) -> _T:
        x = object.__new__(cls)
        for name, value in zip(data + meta, [*children, *aux], strict=True):
            object.__setattr__(x, name, value)
        return x

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


def _float_array(name: str, value: ArrayLike) -> Array:
    with jax.ensure_compile_time_eval():  # a constant stays one, to be looked at, under jit too
        array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {array.dtype}: pass a floating-point array")
    return array


def _check_key(key: Any) -> None:
    dtype = getattr(key, "dtype", type(key))
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(f"the key is {dtype}, not a typed key: make it with jax.random.key(seed)")


def _accurate_dtype(*arrays: Array) -> Any:
    # Widening is meant here: a caller's strict promotion must not forbid it.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(jnp.float32, *(array.dtype for array in arrays))


def _accurate(x: Array) -> Array:
    """x in float32 at least: sums of hundreds of bfloat16 terms lose whole nats."""
    return x.astype(_accurate_dtype(x))


def _flat(x: Array, event_ndims: int) -> Array:
    """[*b, *event] -> [*b, D]; a sum over one axis is faster on CPU than one over several."""
    return x.reshape(*x.shape[: x.ndim - event_ndims], -1)


def _sum_event(x: Array, event_ndims: int) -> Array:
    return _flat(x, event_ndims).sum(-1)


def _check_event_ndims(parameter: Array, event_ndims: int) -> None:
    if parameter.ndim < event_ndims:
        raise ValueError(
            f"parameters of shape {parameter.shape} cannot have {event_ndims} event axes: "
            "add axes, or pass a smaller event_ndims"
        )


def _diagonal(matrix: Array) -> Array:
    diagonal: Array = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    return diagonal


def _longer(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """The longer shape if the shorter is its last axes, else None.

    Nothing but leading axes broadcasts here, so a [B, 1] never meets a [B, D] unseen.
    """
    short, long = sorted((one, other), key=len)
    return long if long[len(long) - len(short) :] == short else None


def _aligned_shape(value: Array, distribution: Any) -> tuple[int, ...]:
    """The longer of the value's shape and the distribution's, no part of an event for the whole."""
    shape: tuple[int, ...] = distribution.shape
    event_ndims = distribution.event_ndims
    long = _longer(value.shape, shape)
    if value.ndim < event_ndims or long is None:
        raise ValueError(
            f"the value has shape {value.shape} but {type(distribution).__name__} has shape "
            f"{shape} with {event_ndims} event axes: pass whole events, and let the shorter match "
            "the last axes of the longer"
        )
    return long


def _aligned(value: ArrayLike, distribution: Any, *parameters: Array) -> tuple[Array, ...]:
    """Value and parameters, accurate, in one dtype and with as many axes as the longest."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"the value of a {type(distribution).__name__} has dtype {value.dtype}: "
            "pass floats, x.astype(float), after scaling pixels to [0, 1]"
        )
    long = _aligned_shape(value, distribution)
    dtype = _accurate_dtype(value, *parameters)
    return tuple(jnp.broadcast_to(a.astype(dtype), long) for a in (value, *parameters))


@jax.custom_jvp
def _bernoulli_log_prob(value: Array, logits: Array) -> Array:
    """Sum over the last axis of value logits - log(1 + exp(logits)).

    Finite with finite derivatives at every finite logit: exp is only ever taken of -|logits|, of
    logits it overflows at 89. Up to 16 factors 1 + exp(-|logits|), each in (1, 2], are multiplied
    before a logarithm is taken, which on CPU saves most of the cost; the product is off by 2^-24 a
    factor, 5e-5 nats in all for 784 pixels.
    """
    factors = 1 + jnp.exp(-jnp.abs(logits))
    group = math.gcd(logits.shape[-1], 16)
    factors = factors.reshape(*logits.shape[:-1], group, logits.shape[-1] // group).prod(axis=-2)
    return (value * logits - jnp.maximum(logits, 0)).sum(-1) - jnp.log(factors).sum(-1)


@_bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (value, logits), (dvalue, dlogits) = primals, tangents
    tangent = (value - jax.nn.sigmoid(logits)) * dlogits + logits * dvalue
    return _bernoulli_log_prob(value, logits), tangent.sum(-1)


@_pytree
class Normal:
    """Gaussian with a diagonal covariance, N(mean, diag(scale^2)).

    Args:
      mean: [*b, *event].
      scale: standard deviations, the shape of `mean` or a scalar.
      event_ndims: number of trailing axes that are one event; 3 for images [B, H, W, C].

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: shapes differ, or a known scale is not positive.

    >>> Normal(jnp.zeros((2, 4)), 1.0).log_prob(jnp.zeros((2, 4)))
    Array([-3.6757541, -3.6757541], dtype=float32)
    """

    mean: Array
    scale: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        mean, scale = _float_array("mean", self.mean), _float_array("scale", self.scale)
        if scale.shape not in ((), mean.shape):
            raise ValueError(
                f"mean has shape {mean.shape} but scale has shape {scale.shape}: "
                "give them the same shape, or a scalar scale"
            )
        _check_event_ndims(mean, self.event_ndims)
        foreign.check_positive("scale", scale)
        if scale.shape != mean.shape:
            scale = jnp.broadcast_to(scale.astype(mean.dtype), mean.shape)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "scale", scale)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws mean + scale * noise (Kingma & Welling 2014, section 2.4); differentiable."""
        noise = jax.random.normal(key, (*sample_shape, *self.mean.shape), self.mean.dtype)
        mean, scale = (jnp.broadcast_to(a, noise.shape) for a in (self.mean, self.scale))
        return mean + scale * noise

    def log_prob(self, value: ArrayLike) -> Array:
        value, mean, scale = _aligned(value, self, self.mean, self.scale)
        standardised = (value - mean) / scale
        terms = -0.5 * jnp.square(standardised) - jnp.log(scale) - _HALF_LOG_2PI
        return _sum_event(terms, self.event_ndims)


@_pytree
class MultivariateNormal:
    """Gaussian with a full covariance, N(mean, scale_tril scale_tril^T).

    Args:
      mean: [*b, D].
      scale_tril: [*b, D, D], the lower Cholesky factor of the covariance, positive diagonal.
        What stands above the diagonal is ignored.

    Raises:
      TypeError: the parameters are not floating-point.
      ValueError: shapes do not agree, or a known diagonal is not positive.

    >>> MultivariateNormal(jnp.zeros(2), jnp.eye(2)).log_prob(jnp.zeros(2)).round(3)
    Array(-1.838, dtype=float32)
    """

    mean: Array
    scale_tril: Array

    event_ndims = 1

    def __post_init__(self) -> None:
        mean = _float_array("mean", self.mean)
        scale_tril = _float_array("scale_tril", self.scale_tril)
        if mean.ndim < 1 or scale_tril.shape != (*mean.shape, mean.shape[-1]):
            raise ValueError(
                f"mean has shape {mean.shape} but scale_tril has shape {scale_tril.shape}: "
                "they must be [*b, D] and [*b, D, D]"
            )
        foreign.check_positive("the diagonal of scale_tril", _diagonal(scale_tril))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "scale_tril", scale_tril)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws mean + scale_tril @ noise; differentiable."""
        noise = jax.random.normal(key, (*sample_shape, *self.mean.shape), self.mean.dtype)
        mean = jnp.broadcast_to(self.mean, noise.shape)
        return mean + jnp.einsum("...ij,...j->...i", jnp.tril(self.scale_tril), noise)

    def log_prob(self, value: ArrayLike) -> Array:
        value, mean = _aligned(value, self, self.mean)
        factor = _accurate(self.scale_tril).astype(value.dtype)
        factor = jnp.broadcast_to(factor, (*value.shape, value.shape[-1]))
        standardised = jax.scipy.linalg.solve_triangular(
            factor, (value - mean)[..., None], lower=True
        )[..., 0]
        terms = -0.5 * jnp.square(standardised) - jnp.log(_diagonal(factor)) - _HALF_LOG_2PI
        return terms.sum(-1)


@_pytree
class Bernoulli:
    """Independent binary variables with the given log-odds.

    Args:
      logits: [*b, *event], log p(1) - log p(0).
      event_ndims: number of trailing axes that are one event; 3 for images [B, H, W, C].

    Raises:
      TypeError: logits, or a value whose probability is asked, are not floating-point.

    A value between 0 and 1 (a grey pixel) is taken as a probability: its log_prob is the negative
    cross-entropy, which is not the log-density of anything. Binarise images to compare bounds.

    >>> Bernoulli(jnp.array([0.0, 1e4])).log_prob(jnp.array([1.0, 1.0])).round(3)
    Array(-0.693, dtype=float32)
    """

    logits: Array
    event_ndims: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        logits = _float_array("logits", self.logits)
        _check_event_ndims(logits, self.event_ndims)
        object.__setattr__(self, "logits", logits)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.logits.shape

    @property
    def mean(self) -> Array:
        return jax.nn.sigmoid(self.logits)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws zeros and ones, in the dtype of the logits; not differentiable."""
        shape = (*sample_shape, *self.logits.shape)
        drawn = jax.random.bernoulli(key, jnp.broadcast_to(_accurate(self.mean), shape))
        return drawn.astype(self.logits.dtype)

    def log_prob(self, value: ArrayLike) -> Array:
        value, logits = _aligned(value, self, self.logits)
        value, logits = _flat(value, self.event_ndims), _flat(logits, self.event_ndims)
        return _bernoulli_log_prob(value, logits)


@_pytree
class Categorical:
    """One of K classes with probabilities softmax(logits).

    Args:
      logits: [*b, K], unnormalised; -inf for a class that cannot happen.

    Raises:
      TypeError: the logits are not floating-point, or a value whose probability is asked is no
        integer.
      ValueError: a known value is not from 0 to K - 1; one not known, under `jax.jit`, has -inf.

    >>> Categorical(jnp.zeros(4)).log_prob(jnp.array(2)).round(3)
    Array(-1.386, dtype=float32)
    """

    logits: Array

    event_ndims = 0

    def __post_init__(self) -> None:
        logits = _float_array("logits", self.logits)
        _check_event_ndims(logits, 1)
        object.__setattr__(self, "logits", logits)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.logits.shape[:-1]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws int32 classes 0..K-1."""
        return jax.random.categorical(
            key, _accurate(self.logits), shape=(*sample_shape, *self.shape)
        )

    def log_prob(self, value: ArrayLike) -> Array:
        with jax.ensure_compile_time_eval():  # a constant stays one, to be looked at, under jit too
            value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"the value of a Categorical has dtype {value.dtype}: pass integers")
        num_classes = self.logits.shape[-1]
        if not isinstance(value, jax.core.Tracer):
            # With NumPy: within a trace, jnp's comparisons of a constant are traced too.
            known = np.asarray(value)
            wrong = known[(known < 0) | (known >= num_classes)]
            if wrong.size:
                raise ValueError(
                    f"the value of a Categorical is {wrong[0]} but its logits have {num_classes} "
                    f"classes: pass integers from 0 to {num_classes - 1}"
                )
        log_probs = jax.nn.log_softmax(_accurate(self.logits))
        shape = _aligned_shape(value, self)
        log_probs = jnp.broadcast_to(log_probs, (*shape, num_classes))
        index = jnp.broadcast_to(value, shape)[..., None]
        taken = jnp.take_along_axis(log_probs, index, axis=-1, mode="clip")[..., 0]
        # Outside the support a probability is 0, as in scipy.stats.rv_discrete.logpmf; a plain
        # gather would score the last class for -1.
        inside = (index[..., 0] >= 0) & (index[..., 0] < num_classes)
        return jnp.where(inside, taken, jnp.full_like(taken, -jnp.inf))


@_pytree
class Joint:
    """Independent distributions as one, over tuples of values: a ladder's layers, say.

    `sample` gives a tuple of draws; `log_prob` of a tuple and `kl_divergence` sum over the parts,
    whose batch axes broadcast. A part may depend on an earlier draw, as in q(z1|x) q(z2|z1, x):
    the caller has drawn it already.

    Args:
      parts: distributions, of this library or another.

    >>> joint = Joint((Normal(jnp.zeros(2), 1.0), Normal(jnp.zeros(3), 1.0)))
    >>> [z.shape for z in sample(jax.random.key(0), joint)]
    [(2,), (3,)]
    """

    parts: tuple[Any, ...]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(self.parts))
        return tuple(
            sample(k, part, sample_shape) for k, part in zip(keys, self.parts, strict=True)
        )

    def log_prob(self, value: Sequence[Any]) -> Array:
        if len(value) != len(self.parts):
            raise ValueError(
                f"{len(value)} values for a Joint of {len(self.parts)} parts: pass one for each"
            )
        terms = [log_prob(part, v) for part, v in zip(self.parts, value, strict=True)]
        return _broadcast_sum(terms)


def _broadcast_sum(terms: Sequence[Array]) -> Array:
    first, *rest = jnp.broadcast_arrays(*terms)
    return sum(rest, start=first)


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

    >>> z = sample(jax.random.key(0), Normal(jnp.zeros((4, 2)), 1.0), 5)
    >>> z.shape
    (5, 4, 2)
    """
    _check_key(key)
    shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
    if "seed" in inspect.signature(distribution.sample).parameters:
        return distribution.sample(seed=key, sample_shape=shape)
    return distribution.sample(key, shape)


def log_prob(distribution: Any, value: Any) -> Array:
    """log p(value) in nats, [*b]: the distribution's own, which sums over its event.

    Another library's distribution with an empty `event_shape` is a batch of scalars to it, and so
    it is here; `elbo` knows the batch from its other arguments and sums down to it.

    >>> log_prob(Normal(jnp.zeros(2), 1.0), jnp.zeros(2)).round(3)
    Array(-1.838, dtype=float32)
    """
    result: Array = distribution.log_prob(value)
    return result


def kl_divergence(posterior: Any, prior: Any, *, event_ndims: int | None = None) -> Array:
    """KL(posterior || prior) in closed form, in nats.

    Known pairs: Gaussians of either covariance in either place (Kingma & Welling 2014, appendix B,
    for the diagonal case against N(0, I)), of vae_jax, distrax, NumPyro and TFP in any mixture;
    Bernoulli, Categorical, and Joints of such parts; and what another library knows of two of its
    own.

    Args:
      posterior: batch axes [*b].
      prior: the same event; the shorter of the two batches matches the last axes of the longer.
      event_ndims: how many last axes are one event, used only where neither distribution says so:
        both are of another library with an empty `event_shape`. By default 1, the last.

    Returns:
      [*b] of the longer batch, not negative but for rounding.

    Raises:
      TypeError: no closed form is known for the pair.
      ValueError: event or batch shapes do not match, or nothing says whether the only axis is the
        batch or the event.

    >>> kl_divergence(Normal(jnp.ones((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0))
    Array([1., 1., 1., 1.], dtype=float32)
    """
    closed_form = _CLOSED_FORMS.get((type(posterior), type(prior)))
    if closed_form is not None:
        return closed_form(posterior, prior)
    if not isinstance(posterior, Joint) and not isinstance(prior, Joint):
        shape = _check_pair(posterior, prior)
        event_ndims = _event_ndims_of_pair(posterior, prior, event_ndims)
        known = foreign.kl_divergence(posterior, prior)
        if known is not None:
            # [*b] from a library that knows the event, [*b, *event] from one that does not.
            return _sum_event(_accurate(known), known.ndim - (len(shape) - event_ndims))
        p, q = (_as_gaussian(d, shape, event_ndims) for d in (posterior, prior))
        if p is not None and q is not None:
            return _CLOSED_FORMS[type(p), type(q)](p, q)
    raise TypeError(
        f"no closed form is known for KL({type(posterior).__name__} || {type(prior).__name__}): "
        "estimate it from the draws, elbo(..., analytic_kl=False)"
    )


def _event_ndims_of_pair(posterior: Any, prior: Any, default: int | None) -> int:
    for distribution in (posterior, prior):
        declared = foreign.event_ndims(distribution)
        if declared is not None:
            return declared
    shapes = foreign.shape(posterior), foreign.shape(prior)
    ndim = max(map(len, shapes))
    if default is None and ndim == 1:
        raise ValueError(
            f"posterior has shape {shapes[0]} and prior {shapes[1]}, and neither declares an "
            "event: for one vector pass event_ndims=1, for a batch of scalars event_ndims=0"
        )
    return min(ndim, 1) if default is None else default


def _as_gaussian(
    distribution: Any, shape: tuple[int, ...], event_ndims: int
) -> Normal | MultivariateNormal | None:
    """A Gaussian of another library as one of ours, of the shape; None for anything else."""
    if isinstance(distribution, Normal | MultivariateNormal):
        return distribution
    inner = foreign.innermost(distribution)
    match foreign.library(inner), type(inner).__name__:
        case str(), "Normal":
            mean, scale = inner.loc, inner.scale
        case (("distrax" | "tensorflow_probability"), "MultivariateNormalDiag"):
            mean, scale = inner.mean(), inner.stddev()
        case "numpyro", "MultivariateNormal":
            return MultivariateNormal(inner.loc, inner.scale_tril)
        case "distrax", "MultivariateNormalTri" if inner.is_lower:
            return MultivariateNormal(inner.loc, inner.scale_tri)
        case "tensorflow_probability", "MultivariateNormalTriL":
            return MultivariateNormal(inner.mean(), inner.scale.to_dense())
        case _:
            return None
    # Accurate, as NumPyro takes integers: Normal(0, 1).
    mean, scale = (_accurate(jnp.broadcast_to(a, shape)) for a in (mean, scale))
    return Normal(mean, scale, event_ndims)


def _check_pair(posterior: Any, prior: Any) -> tuple[int, ...]:
    """The longer shape of the two, if they fit."""
    shapes = foreign.shape(posterior), foreign.shape(prior)
    events = foreign.event_ndims(posterior), foreign.event_ndims(prior)
    shape = _longer(*shapes)
    if shape is None or (None not in events and events[0] != events[1]):
        raise ValueError(
            f"posterior has shape {shapes[0]} with {events[0]} event axes but prior has "
            f"shape {shapes[1]} with {events[1]}: the shorter must match the last axes of the "
            "longer, and the events must be the same"
        )
    return shape


def _matched(posterior: Any, prior: Any, *parameters: str) -> list[Array]:
    """The named parameters of both, accurate, broadcast over the batch axes."""
    _check_pair(posterior, prior)
    matched = []
    for name in parameters:
        pair = [_accurate(getattr(distribution, name)) for distribution in (posterior, prior)]
        shape = _longer(pair[0].shape, pair[1].shape)
        if shape is None:
            raise ValueError(
                f"posterior has {name} of shape {pair[0].shape} but prior has {name} of shape "
                f"{pair[1].shape}: the shorter must match the last axes of the longer"
            )
        matched.append([jnp.broadcast_to(parameter, shape) for parameter in pair])
    p, q = zip(*matched, strict=True)
    return [*p, *q]


def _kl_normal(posterior: Normal, prior: Normal) -> Array:
    mean, scale, prior_mean, prior_scale = _matched(posterior, prior, "mean", "scale")
    ratio = scale / prior_scale
    shift = (mean - prior_mean) / prior_scale
    terms = 0.5 * (jnp.square(ratio) + jnp.square(shift) - 1) - jnp.log(ratio)
    return _sum_event(terms, posterior.event_ndims)


def _kl_multivariate_normal(
    posterior: Normal | MultivariateNormal, prior: Normal | MultivariateNormal
) -> Array:
    posterior, prior = _with_factor(posterior), _with_factor(prior)
    mean, factor, prior_mean, prior_factor = _matched(posterior, prior, "mean", "scale_tril")
    columns = jnp.concatenate([jnp.tril(factor), (mean - prior_mean)[..., None]], axis=-1)
    # ||L2^-1 L1||^2 = tr(S2^-1 S1) and ||L2^-1 (m1 - m2)||^2, both from one triangular solve.
    solved = jax.scipy.linalg.solve_triangular(prior_factor, columns, lower=True)
    log_ratio = jnp.log(_diagonal(factor)) - jnp.log(_diagonal(prior_factor))
    return 0.5 * (jnp.square(solved).sum((-2, -1)) - mean.shape[-1]) - log_ratio.sum(-1)


def _with_factor(distribution: Normal | MultivariateNormal) -> MultivariateNormal:
    if isinstance(distribution, MultivariateNormal):
        return distribution
    if distribution.event_ndims != 1:
        raise ValueError(
            f"a Normal with {distribution.event_ndims} event axes beside a MultivariateNormal, "
            "which has 1: flatten the event"
        )
    scale = distribution.scale
    identity = jnp.eye(scale.shape[-1], dtype=scale.dtype)
    scale_tril = jnp.einsum("...i,ij->...ij", scale, identity)
    return MultivariateNormal(distribution.mean, scale_tril)


def _kl_bernoulli(posterior: Bernoulli, prior: Bernoulli) -> Array:
    logits, prior_logits = _matched(posterior, prior, "logits")
    logits, prior_logits = (_flat(a, posterior.event_ndims) for a in (logits, prior_logits))
    p = jax.nn.sigmoid(logits)
    return _bernoulli_log_prob(p, logits) - _bernoulli_log_prob(p, prior_logits)


def _kl_categorical(posterior: Categorical, prior: Categorical) -> Array:
    logits, prior_logits = _matched(posterior, prior, "logits")
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(prior_logits)
    p = jnp.exp(log_p)
    # 0 log 0 = 0: the difference is made finite where p is zero, or its gradient would be NaN.
    difference = jnp.where(p > 0, log_p - log_q, jnp.zeros_like(p))
    return (p * difference).sum(-1)


def _kl_joint(posterior: Joint, prior: Joint) -> Array:
    if len(posterior.parts) != len(prior.parts):
        raise ValueError(
            f"posterior is a Joint of {len(posterior.parts)} parts but prior of "
            f"{len(prior.parts)}: give each part its counterpart"
        )
    pairs = zip(posterior.parts, prior.parts, strict=True)
    return _broadcast_sum([kl_divergence(p, q) for p, q in pairs])


_CLOSED_FORMS: dict[tuple[type, type], Callable[[Any, Any], Array]] = {
    (Normal, Normal): _kl_normal,
    (Normal, MultivariateNormal): _kl_multivariate_normal,
    (MultivariateNormal, Normal): _kl_multivariate_normal,
    (MultivariateNormal, MultivariateNormal): _kl_multivariate_normal,
    (Bernoulli, Bernoulli): _kl_bernoulli,
    (Categorical, Categorical): _kl_categorical,
    (Joint, Joint): _kl_joint,
}
