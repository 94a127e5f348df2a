"""Every distribution keeps every promise: one dict of all of them, each promise a test over it.

The oracles are SciPy's densities in float64, sums and quadratures of the density itself, and
differences of SciPy's log-density.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import vae_jax
from vae_jax import (
    Bernoulli,
    Categorical,
    Columns,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Flow,
    Joint,
    Laplace,
    Masked,
    Mixture,
    MixtureOfDiscretizedLogistics,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    OrderedLogistic,
    Planar,
    Poisson,
    PowerSpherical,
    RelaxedBernoulli,
    RelaxedCategorical,
    SphericalUniform,
    StudentT,
    ZeroInflated,
)
from vae_jax.distributions.divergence import has_closed_form

FACTOR = np.array([[0.8, 0.0], [-0.5, 1.2]])


@dataclass(frozen=True)
class Member:
    """A distribution over a small event, and SciPy's word for it.

    Attributes:
      make: parameters -> the distribution.
      parameters: float64 arrays, of one distribution without batch axes.
      log_prob: (value, *parameters) -> log-density in float64, by SciPy.
      values: the whole support of a discrete one; None of a continuous one.
      other: parameters of another member of the family.
      extreme: parameters under which naive formulae overflow, and a value to score there.
      grid: of a continuous one, where its density is integrated: values and weights.
      uniform: (draws [N, *event], *parameters) -> [N, D], each of which SciPy's distribution
        function makes uniform.
    """

    make: Callable[..., Any]
    parameters: tuple[np.ndarray, ...]
    log_prob: Callable[..., float]
    values: list[Any] | None
    other: tuple[np.ndarray, ...]
    extreme: tuple[tuple[np.ndarray, ...], Any]
    grid: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
    uniform: Callable[..., np.ndarray] | None = None

    def distribution(self, dtype=jnp.float32, parameters=None):
        chosen = self.parameters if parameters is None else parameters
        return self.make(*(jnp.asarray(p, dtype) for p in chosen))


def bernoulli_log_prob(value, logits):
    return scipy.stats.bernoulli.logpmf(np.asarray(value), scipy.special.expit(logits)).sum()


def joint_log_prob(value, mean, scale, logits):
    z, k = value
    return (
        scipy.stats.norm.logpdf(np.asarray(z), mean, scale).sum()
        + scipy.special.log_softmax(logits)[int(k)]
    )


# Grids: Gauss's rule, in pieces, on a line that a map stretches


def rule(of=lambda t: (t, 1.0), pieces=8, points=24):
    """Nodes and weights of an integral over of((0, 1)); of gives a point and its derivative."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    t = ((np.arange(pieces)[:, None] + (nodes + 1) / 2) / pieces).ravel()
    x, slope = of(t)
    return x, np.tile(weights / (2 * pieces), pieces) * slope


def plane(first, second):
    (x, v), (y, w) = first, second
    return np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2), np.outer(v, w).ravel()


def line_around(centre):
    """All numbers, with a node nowhere and an end of a piece at the centre."""
    return rule(
        lambda t: (centre + np.tan(np.pi * (t - 0.5)), np.pi / np.cos(np.pi * (t - 0.5)) ** 2)
    )


def between(power=3):
    """(0, 1), dense near the ends, where a density may have no bound."""

    def of(t):
        x = scipy.special.betainc(power, power, t)
        return x, np.exp((power - 1) * np.log(t * (1 - t)) - scipy.special.betaln(power, power))

    return rule(of)


def triangle():
    """The simplex of three: x, and of what is left a share y."""
    points, weights = plane(between(), between())
    x, y = points.T
    return np.stack([x, (1 - x) * y, (1 - x) * (1 - y)], -1), weights * (1 - x)


# SciPy's words


def continuous_bernoulli_log_prob(x, logits):
    """A uniform density tilted by exp(logits x): SciPy has it as an exponential that is cut."""
    x, total = np.asarray(x, np.float64), 0.0
    for value, logit in zip(x, logits, strict=True):
        if logit > 0:
            value, logit = 1 - value, -logit
        total += scipy.stats.truncexpon.logpdf(value, -logit, scale=-1 / logit)
    return total


def continuous_bernoulli_uniform(x, logits):
    columns = [
        scipy.stats.truncexpon.cdf(1 - v if logit > 0 else v, abs(logit), scale=1 / abs(logit))
        for v, logit in zip(np.asarray(x, np.float64).T, logits, strict=True)
    ]
    return np.stack(columns, -1)


def logistic_mass(level, mean, scale, num_levels):
    """From the side on which the distribution function is small, lest it be 1 - 1."""
    edges = np.stack([level, level + 1.0]) / num_levels
    edges[0], edges[1] = (
        np.where(level == 0, -np.inf, edges[0]),
        np.where(level == num_levels - 1, np.inf, edges[1]),
    )
    left = scipy.stats.logistic.logcdf(edges, mean, scale)
    right = scipy.stats.logistic.logsf(edges, mean, scale)
    small, large = np.where(left[1] < right[0], left, right[::-1])
    return large + np.log1p(-np.exp(small - large))


def discretized_log_prob(level, mean, scale, num_levels=4):
    return logistic_mass(np.asarray(level), mean, scale, num_levels).sum()


def mixture_log_prob(level, logits, means, scales, coefficients, num_levels=4):
    """Of one pixel, component by component, as the paper writes it."""
    level = np.asarray(level)
    red, green, _ = (level + 0.5) / num_levels - 0.5
    terms = []
    for k, weight in enumerate(scipy.special.log_softmax(logits)):
        (a,), (b,), (c,) = coefficients[:, k : k + 1]
        moved = means[:, k] + np.array([0, a * red, b * red + c * green])
        terms.append(weight + logistic_mass(level, moved, scales[:, k], num_levels).sum())
    return scipy.special.logsumexp(terms)


def relaxed_bernoulli_log_prob(x, logits, temperature):
    """The density of a logistic variable, times the slope of what made x of it."""
    x = np.asarray(x, np.float64)
    slope = temperature / (x * (1 - x))
    noise = temperature * scipy.special.logit(x) - logits
    return (scipy.stats.logistic.logpdf(noise) + np.log(slope)).sum()


def relaxed_categorical_log_prob(x, logits, temperature):
    """Equation 10 of Maddison et al. 2017 as it stands, with alpha = exp(logits)."""
    x, alpha, num = np.asarray(x, np.float64), np.exp(logits), len(logits)
    front = scipy.special.factorial(num - 1) * temperature ** (num - 1)
    shares = alpha * x ** (-temperature)
    return np.log(front) + np.log(shares / x / shares.sum()).sum()


def relaxed_categorical_uniform(x, logits, temperature):
    """The difference of two Gumbel variables is a logistic one."""
    x = np.log(np.asarray(x, np.float64))
    differences = temperature * np.diff(x, axis=-1) - np.diff(logits)
    return scipy.stats.logistic.cdf(differences)


MIXTURE = (
    np.array([0.3, -0.4]),
    np.array([[0.2, 0.7], [0.4, 0.9], [0.1, 0.5]]),
    np.array([[0.1, 0.3], [0.2, 0.05], [0.4, 0.2]]),
    np.array([[0.8, -0.3], [0.2, 0.6], [-0.5, 0.9]]),
)


def mixture_of_normals_log_prob(x, logits, mean, scale):
    each = scipy.stats.norm.logpdf(np.asarray(x), mean, scale).sum(-1)
    return scipy.special.logsumexp(each + scipy.special.log_softmax(logits))


def planar_log_prob(x, mean, scale, weight, direction, bias):
    """By SciPy's root of the one equation, and the determinant of the whole Jacobian."""
    x = np.asarray(x, np.float64)
    along = weight @ direction
    moved = np.log1p(np.exp(along + np.log(np.e - 1))) - 1
    u = direction + (moved - along) * weight / (weight @ weight)
    excess = lambda t: t + moved * np.tanh(t + bias) - weight @ x  # noqa: E731
    t = scipy.optimize.brentq(excess, -1e5, 1e5, xtol=1e-14, rtol=1e-14)
    z = x - u * np.tanh(t + bias)
    jacobian = np.eye(len(x)) + np.outer(u, weight) * (1 - np.tanh(t + bias) ** 2)
    log_det = np.linalg.slogdet(jacobian)[1]
    return scipy.stats.norm.logpdf(z, mean, scale).sum() - log_det


def power_spherical_log_prob(x, direction, concentration):
    """The beta density of the cosine, spread over the circles that it is the same on."""
    half = (len(direction) - 1) / 2
    x, direction = (np.asarray(a, np.float64) / np.linalg.norm(a) for a in (x, direction))
    cosine = x @ direction
    of_cosine = scipy.stats.beta.logpdf((1 + cosine) / 2, concentration + half, half) - np.log(2)
    circle = np.log(2) + half * np.log(np.pi) - scipy.special.gammaln(half)
    return of_cosine - circle - (half - 1) * np.log1p(-(cosine**2))


def negative_binomial_log_prob(k, mean, concentration):
    share = concentration / (concentration + mean)
    return scipy.stats.nbinom.logpmf(np.asarray(k), concentration, share).sum()


def zero_inflated_log_prob(k, mean, concentration, logits):
    k, share = np.asarray(k), concentration / (concentration + mean)
    counted = scipy.stats.nbinom.logpmf(k, concentration, share) + np.log(
        scipy.special.expit(-logits)
    )
    zero = np.logaddexp(counted, scipy.special.log_expit(logits))
    return np.where(k == 0, zero, counted).sum()


def ordered_log_prob(k, location, cutpoints):
    """Of each entry the logistic variable's mass between two cutpoints, from the smaller side."""
    ends = np.pad(cutpoints, ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))
    k, rows = np.asarray(k), np.arange(len(location))
    low, high = ends[rows, k] - location, ends[rows, k + 1] - location
    flip = low > 0
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    large, small = scipy.stats.logistic.logcdf(high), scipy.stats.logistic.logcdf(low)
    return (large + np.log1p(-np.exp(small - large))).sum()


def row_log_prob(x, mean, scale, logits, rate):
    """Of a number, a class and a count, those that are there."""
    number, k, count = np.asarray(x, np.float64)
    total = 0.0
    if not np.isnan(number):
        total += scipy.stats.norm.logpdf(number, mean[0], scale[0])
    if not np.isnan(count):
        total += scipy.stats.poisson.logpmf(count, rate[0])
    return total + scipy.special.log_softmax(logits[0])[int(k)]


MEMBERS = {
    "Normal": Member(
        Normal,
        (np.array([0.3, -1.0]), np.array([0.5, 2.0])),
        lambda x, mean, scale: scipy.stats.norm.logpdf(np.asarray(x), mean, scale).sum(),
        None,
        (np.array([0.0, 0.4]), np.array([1.0, 0.7])),
        ((np.array([1e4, -1e4]), np.array([1e-3, 1e4])), np.array([1e4, 1e4])),
    ),
    "MultivariateNormal": Member(
        MultivariateNormal,
        (np.array([0.3, -1.0]), FACTOR),
        lambda x, mean, factor: scipy.stats.multivariate_normal.logpdf(
            np.asarray(x), mean, np.tril(factor) @ np.tril(factor).T
        ),
        None,
        (np.array([0.0, 0.4]), np.array([[1.1, 0.0], [0.2, 0.6]])),
        ((np.array([1e3, 0.0]), np.array([[1e-2, 0.0], [10.0, 1e2]])), np.array([1e3, 0.0])),
    ),
    "Bernoulli": Member(
        Bernoulli,
        (np.array([0.4, -2.0, 1.0]),),
        bernoulli_log_prob,
        [np.array(bits, float) for bits in itertools.product([0, 1], repeat=3)],
        (np.array([-0.3, 0.2, 2.0]),),
        ((np.array([300.0, -300.0, 88.0]),), np.array([1.0, 0.0, 0.0])),
    ),
    "Categorical": Member(
        Categorical,
        (np.array([0.4, -2.0, 1.0, 0.1]),),
        lambda k, logits: scipy.special.log_softmax(logits)[int(k)],
        [np.array(k) for k in range(4)],
        (np.array([0.0, 0.3, -1.0, 0.5]),),
        ((np.array([300.0, -300.0, 0.0, 88.0]),), np.array(1)),
    ),
    "Joint": Member(
        lambda mean, scale, logits: Joint(
            (Normal(mean, scale), Categorical(logits)), ancestral=True
        ),
        (np.array([0.3]), np.array([0.5]), np.array([0.4, -2.0, 1.0])),
        joint_log_prob,
        None,
        (np.array([-0.2]), np.array([0.9]), np.array([0.0, 1.0, 0.3])),
        ((np.array([1e4]), np.array([1e-3]), np.array([300.0, -300.0, 0.0])), None),
    ),
    "Mixture": Member(
        lambda logits, mean, scale: Mixture(logits, Normal(mean, scale)),
        (
            np.array([0.4, -1.0, 0.1]),
            np.array([[0.3, -1.0], [2.0, 1.0], [-2.0, 0.5]]),
            np.array([[0.5, 2.0], [1.0, 0.3], [0.7, 0.6]]),
        ),
        mixture_of_normals_log_prob,
        None,
        (np.zeros(3), np.zeros((3, 2)), np.ones((3, 2))),
        (
            (np.array([300.0, -300.0]), np.array([[1e4, 0.0], [-1e4, 0.0]]), np.ones((2, 2))),
            np.array([-1e4, 1.0]),
        ),
    ),
    "Flow": Member(
        lambda mean, scale, *planar: Flow(Normal(mean, scale), (Planar(*planar),)),
        (
            np.array([0.3, -1.0]),
            np.array([0.5, 2.0]),
            np.array([1.2, -0.7]),
            np.array([-1.0, 1.5]),
            np.array(0.4),
        ),
        planar_log_prob,
        None,
        (np.zeros(2), np.ones(2), np.array([0.3, 0.2]), np.array([1.0, 1.0]), np.array(0.0)),
        (
            (np.zeros(2), np.ones(2), np.array([20.0, 0.0]), np.array([-20.0, 5.0]), np.array(0.5)),
            np.array([1e3, 1.0]),
        ),
    ),
    "PowerSpherical": Member(
        PowerSpherical,
        (np.array([0.48, 0.6, 0.64]), np.array(4.0)),
        power_spherical_log_prob,
        None,
        (np.array([0.0, 0.6, -0.8]), np.array(0.5)),
        ((np.array([0.0, 0.0, 1.0]), np.array(1e6)), np.array([1e-3, 0.0, 1.0])),
    ),
    "SphericalUniform": Member(
        lambda: SphericalUniform(3),
        (),
        lambda x: -np.log(4 * np.pi),
        None,
        (),
        ((), np.array([0.0, 0.6, 0.8])),
    ),
}
MEMBERS |= {
    "Categorical of an event": Member(
        lambda logits: Categorical(logits, event_ndims=1),
        (np.array([[0.4, -2.0, 1.0], [0.0, 0.2, -0.1]]),),
        lambda k, logits: sum(scipy.special.log_softmax(logits, -1)[[0, 1], np.asarray(k)]),
        [np.array(k) for k in itertools.product(range(3), repeat=2)],
        (np.array([[0.1, 0.0, -1.0], [2.0, 0.2, 0.7]]),),
        ((np.array([[300.0, -300.0, 0.0], [0.0, 88.0, 1.0]]),), np.array([1, 0])),
    ),
    "ContinuousBernoulli": Member(
        ContinuousBernoulli,
        (np.array([0.3, -4.0]),),
        continuous_bernoulli_log_prob,
        None,
        (np.array([-0.3, 2.0]),),
        ((np.array([300.0, -1e4]),), np.array([0.9, 0.0])),
        lambda: plane(rule(), rule()),
        continuous_bernoulli_uniform,
    ),
    "Laplace": Member(
        Laplace,
        (np.array([0.3, -1.0]), np.array([0.5, 2.0])),
        lambda x, mean, scale: scipy.stats.laplace.logpdf(np.asarray(x), mean, scale).sum(),
        None,
        (np.array([0.0, 0.4]), np.array([1.0, 0.7])),
        ((np.array([1e4, -1e4]), np.array([1e-3, 1e4])), np.array([-1e4, 1e4])),
        lambda: plane(line_around(0.3), line_around(-1.0)),
        scipy.stats.laplace.cdf,
    ),
    "StudentT": Member(
        StudentT,
        (np.array([0.3, -1.0]), np.array([0.5, 2.0]), np.array([1.5, 30.0])),
        lambda x, mean, scale, df: scipy.stats.t.logpdf(np.asarray(x), df, mean, scale).sum(),
        None,
        (np.array([0.0, 0.4]), np.array([1.0, 0.7]), np.array([3.0, 0.4])),
        (
            (np.array([0.0, 0.0]), np.array([1e-3, 1.0]), np.array([0.01, 1e6])),
            np.array([1e25, 3.0]),
        ),
        lambda: plane(line_around(0.3), line_around(-1.0)),
        lambda x, mean, scale, df: scipy.stats.t.cdf(x, df, mean, scale),
    ),
    "DiscretizedLogistic": Member(
        lambda mean, scale: DiscretizedLogistic(mean, scale, num_levels=4),
        (np.array([0.3, 0.9]), np.array([0.1, 0.4])),
        discretized_log_prob,
        [np.array(k) for k in itertools.product(range(4), repeat=2)],
        (np.array([0.5, 0.1]), np.array([0.2, 0.2])),
        ((np.array([1e4, 0.4]), np.array([1e-2, 1e4])), np.array([1, 2])),
    ),
    "MixtureOfDiscretizedLogistics": Member(
        lambda *of: MixtureOfDiscretizedLogistics(*of, event_ndims=1, num_levels=4),
        MIXTURE,
        mixture_log_prob,
        [np.array(k) for k in itertools.product(range(4), repeat=3)],
        tuple(0.5 * a + 0.1 for a in MIXTURE),
        (
            (
                np.array([300.0, -300.0]),
                np.array([[1e3, 0.7], [0.4, 0.9], [0.1, -1e3]]),
                np.array([[0.1, 1e-3], [1e3, 0.05], [0.4, 0.2]]),
                np.array([[0.8, -1e3], [0.2, 0.6], [-0.5, 0.9]]),
            ),
            np.array([1, 2, 0]),
        ),
    ),
    "RelaxedBernoulli": Member(
        RelaxedBernoulli,
        (np.array([0.4, -1.0]), np.array(0.8)),
        relaxed_bernoulli_log_prob,
        None,
        (np.array([-0.2, 0.3]), np.array(1.5)),
        ((np.array([50.0, -50.0]), np.array(0.05)), np.array([1e-30, 0.999])),
        lambda: plane(between(), between()),
        lambda x, logits, temperature: scipy.stats.logistic.cdf(
            temperature * scipy.special.logit(np.asarray(x, np.float64)) - logits
        ),
    ),
    "RelaxedCategorical": Member(
        RelaxedCategorical,
        (np.array([0.4, -1.0, 0.1]), np.array(0.8)),
        relaxed_categorical_log_prob,
        None,
        (np.array([-0.2, 0.3, 0.0]), np.array(1.5)),
        ((np.array([50.0, -50.0, 0.0]), np.array(0.05)), np.array([1e-30, 1e-10, 1.0])),
        triangle,
        relaxed_categorical_uniform,
    ),
}
MEMBERS |= {
    "Poisson": Member(
        Poisson,
        (np.array([2.5]),),
        lambda k, rate: scipy.stats.poisson.logpmf(np.asarray(k), rate).sum(),
        [np.array([k]) for k in range(40)],
        (np.array([0.3]),),
        ((np.array([1e6, 1e-6, 1e4]),), np.array([1_001_000, 3, 0])),
    ),
    "NegativeBinomial": Member(
        NegativeBinomial,
        (np.array([2.5]), np.array([1.4])),
        negative_binomial_log_prob,
        [np.array([k]) for k in range(150)],
        (np.array([0.3]), np.array([20.0])),
        (
            (np.array([1e6, 1e-6, 1e4, 30.0]), np.array([1e6, 1e-3, 1e-4, 1e7])),
            np.array([1_001_000, 3, 0, 40]),
        ),
    ),
    "ZeroInflated": Member(
        lambda mean, concentration, logits: ZeroInflated(
            NegativeBinomial(mean, concentration), logits
        ),
        (np.array([2.5]), np.array([1.4]), np.array([-0.3])),
        zero_inflated_log_prob,
        [np.array([k]) for k in range(150)],
        (np.array([0.3]), np.array([20.0]), np.array([1.0])),
        (
            (np.array([1e6, 1e4, 1e3]), np.array([1e6, 1e4, 1e2]), np.array([-300.0, 90.0, -50.0])),
            np.array([1_001_000, 0, 0]),
        ),
    ),
    "OrderedLogistic": Member(
        OrderedLogistic,
        (np.array([0.3, -1.0]), np.array([[-1.0, 0.2, 0.9], [-2.0, -1.5, 3.0]])),
        ordered_log_prob,
        [np.array(k) for k in itertools.product(range(4), repeat=2)],
        (np.array([0.0, 2.0]), np.array([[-1.0, 0.0, 1.0], [0.0, 0.1, 0.2]])),
        (
            (np.array([300.0, -1e4, 0.0]), np.array([[-1.0, 0.2], [0.0, 1.0], [-60.0, -59.0]])),
            np.array([0, 2, 1]),
        ),
    ),
    "Masked": Member(
        lambda mean, scale: Masked(Normal(mean, scale), jnp.array([True, False])),
        (np.array([0.3, -1.0]), np.array([0.5, 2.0])),
        lambda x, mean, scale: scipy.stats.norm.logpdf(np.asarray(x)[0], mean[0], scale[0]),
        None,
        (np.array([0.0, 0.4]), np.array([1.0, 0.7])),
        ((np.array([1e4, 1e30]), np.array([1e-3, 1e-3])), np.array([1e4, np.nan])),
    ),
    "Columns": Member(
        lambda mean, scale, logits, rate: Columns(
            (Normal(mean, scale), Categorical(logits, event_ndims=1), Poisson(rate))
        ),
        (np.array([0.3]), np.array([0.5]), np.array([[0.4, -2.0, 1.0]]), np.array([2.5])),
        row_log_prob,
        None,
        (np.array([0.0]), np.array([0.7]), np.array([[0.0, 1.0, 1.0]]), np.array([0.5])),
        (
            (np.array([1e4]), np.array([1e-3]), np.array([[300.0, -300.0, 0.0]]), np.array([1e4])),
            np.array([np.nan, 1.0, np.nan]),
        ),
    ),
}
GAUSSIAN = ("Normal", "MultivariateNormal")
PLANE = (*GAUSSIAN, "Mixture", "Flow")
SPHERE = ("PowerSpherical", "SphericalUniform")
DISCRETE = tuple(name for name, member in MEMBERS.items() if member.values)
QUADRATURE = tuple(name for name, member in MEMBERS.items() if member.grid)
SIMPLE = PLANE + SPHERE + DISCRETE + QUADRATURE
CLOSED_KL = (*GAUSSIAN, "Bernoulli", "Categorical", "Categorical of an event", "Joint")
LEARNED = tuple(name for name in MEMBERS if name != "SphericalUniform")


def over(*names):
    return pytest.mark.parametrize(
        "member", [MEMBERS[n] for n in names or MEMBERS], ids=names or MEMBERS
    )


def draws(member, num, key=0, **how):
    return vae_jax.sample(jax.random.key(key), member.distribution(**how), num)


def each(values):
    """The draws one by one, of a tuple of arrays too."""
    return zip(*values, strict=True) if isinstance(values, tuple) else values


def test_every_distribution_of_the_front_door_is_a_member():
    public = {
        name
        for name in vae_jax.__all__
        if isinstance(value := getattr(vae_jax, name), type) and hasattr(value, "log_prob")
    }
    # Made of functions, not of arrays: test_hierarchy.py and test_sequence.py have their promises.
    of_functions = {"Ancestral", "MarkovChain"}
    members = {name.partition(" ")[0] for name in MEMBERS}
    assert public - {"Distribution"} - of_functions == members


@over(*SIMPLE)
def test_every_distribution_over_one_array_keeps_the_protocol(member):
    assert isinstance(member.distribution(), vae_jax.Distribution)


# Densities


@over()
def test_the_density_is_scipys(member):
    distribution = member.distribution()
    values = draws(member, 20)
    found = distribution.log_prob(values)
    expected = [member.log_prob(value, *member.parameters) for value in each(values)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@over(*DISCRETE)
def test_probabilities_sum_to_one(member):
    distribution = member.distribution()
    values = [v if v.dtype.kind == "i" else v.astype(np.float32) for v in member.values]
    total = sum(float(jnp.exp(distribution.log_prob(jnp.asarray(v)))) for v in values)
    np.testing.assert_allclose(total, 1, rtol=1e-5)


@over(*QUADRATURE)
def test_a_density_has_an_integral_of_one(member):
    with jax.enable_x64(True):
        values, weights = member.grid()
        density = jnp.exp(member.distribution(jnp.float64).log_prob(jnp.asarray(values)))
        np.testing.assert_allclose(weights @ np.asarray(density), 1, rtol=1e-6)


@over(*PLANE)
def test_a_density_integrates_to_one(member):
    line = np.linspace(-14, 14, 1201)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), jnp.float32)
    total = float(jnp.exp(member.distribution().log_prob(grid)).sum()) * (line[1] - line[0]) ** 2
    np.testing.assert_allclose(total, 1, rtol=1e-4)


@over(*SPHERE)
def test_a_density_integrates_to_one_over_the_sphere(member):
    """Equal steps of height are equal areas (Archimedes)."""
    height, angle = np.meshgrid((np.arange(400) + 0.5) / 200 - 1, np.arange(100) * np.pi / 50)
    radius = np.sqrt(1 - height**2)
    places = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1).reshape(-1, 3)
    density = jnp.exp(member.distribution().log_prob(jnp.asarray(places, jnp.float32)))
    np.testing.assert_allclose(float(density.mean()) * 4 * np.pi, 1, rtol=1e-4)


# Samplers


@over(*DISCRETE)
def test_draws_have_the_frequencies_of_the_density(member):
    num = 20_000
    found = np.asarray(draws(member, num))
    counts = [int((found == v).reshape(num, -1).all(axis=1).sum()) for v in member.values]
    assert sum(counts) == num
    expected = [num * np.exp(member.log_prob(v, *member.parameters)) for v in member.values]
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


@over(*QUADRATURE)
def test_draws_are_uniform_under_the_distribution_function(member):
    """Each coordinate's own, by Kolmogorov and Smirnov, and no two coordinates go together."""
    found = np.asarray(member.uniform(np.asarray(draws(member, 20_000)), *member.parameters))
    for column in found.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3
    if member is not MEMBERS["RelaxedCategorical"]:  # whose differences share a variable
        assert scipy.stats.pearsonr(*found.T).pvalue > 1e-3


@over(*GAUSSIAN)
def test_draws_have_the_distribution_of_the_density(member):
    """Each of two directions against the exact normal of it."""
    mean, scale = member.parameters
    covariance = np.diag(scale**2) if scale.ndim == 1 else np.tril(scale) @ np.tril(scale).T
    found = np.asarray(draws(member, 20_000), np.float64)
    for direction in np.array([[1.0, 0.0], [0.6, 0.8]]):
        exact = scipy.stats.norm(direction @ mean, np.sqrt(direction @ covariance @ direction))
        assert scipy.stats.kstest(found @ direction, exact.cdf).pvalue > 1e-3


@pytest.mark.few(4)
@over("Mixture", "Flow", *SPHERE)
def test_draws_fill_the_boxes_of_the_density(member):
    """Counts in the quadrants, or octants, of the median against the density's integral there.

    The integral is by weighing other draws, of a density that covers it: SciPy's word for both.
    """
    num, rng = 20_000, np.random.default_rng(0)
    found = np.asarray(draws(member, num), np.float64)
    if found.shape[1] == 3:
        wide = rng.normal(size=(num, 3))
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        log_wide = np.full(num, -np.log(4 * np.pi))
        centre = np.zeros(3)
    else:
        wide = 3.0 * rng.standard_t(5, size=(num, 2))
        log_wide = scipy.stats.t.logpdf(wide / 3.0, 5).sum(1) - 2 * np.log(3.0)
        centre = np.median(found, axis=0)
    exact = np.array([member.log_prob(value, *member.parameters) for value in wide])
    weights = np.exp(exact - log_wide)
    for side in itertools.product([False, True], repeat=found.shape[1]):
        share = ((found > centre) == side).all(axis=1).mean()
        inside = weights * ((wide > centre) == side).all(axis=1)
        error = np.sqrt(inside.var() + share * (1 - share)) / np.sqrt(num)
        assert abs(share - inside.mean()) < 4.5 * error


@pytest.mark.few(4)
@over()
def test_draws_have_the_shape_that_is_asked_for(member):
    for shape in ((), (3,), (2, 3)):
        for array in jax.tree.leaves(draws(member, shape)):
            assert array.shape[: len(shape)] == shape


# Divergences


@over(*CLOSED_KL)
def test_the_divergence_is_the_mean_of_the_log_ratio(member):
    p, q = member.distribution(), member.distribution(parameters=member.other)
    found = vae_jax.kl_divergence(p, q)
    assert found >= 0
    values = draws(member, 40_000)
    ratio = np.asarray(p.log_prob(values), np.float64) - np.asarray(q.log_prob(values), np.float64)
    assert abs(float(found) - ratio.mean()) < 5 * ratio.std() / np.sqrt(len(ratio))
    np.testing.assert_allclose(vae_jax.kl_divergence(p, p), 0, atol=1e-6)


def test_the_divergence_to_the_uniform_sphere_is_the_mean_of_the_log_ratio():
    for concentration in 0.0, 4.0, 1e3, 1e6:
        p = PowerSpherical(jnp.array([0.48, 0.6, 0.64]), jnp.array(concentration))
        found = vae_jax.kl_divergence(p, SphericalUniform(3))
        values = np.asarray(vae_jax.sample(jax.random.key(0), p, 4000))
        cosine = (values @ np.array([0.48, 0.6, 0.64])).clip(-1, 1)
        # On this sphere a cosine is between -1 and 1 with the density of a power alone.
        exact = np.log(concentration + 1) - concentration / (concentration + 1)
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
        mean = 1 - 2 / (concentration + 2)
        assert abs(cosine.mean() - mean) < 5 * cosine.std() / np.sqrt(4000) + 1e-6
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)


@over(*(name for name in CLOSED_KL if MEMBERS[name].values))
def test_the_divergence_is_the_sum_over_all_values(member):
    p, q = (
        [member.log_prob(v, *of) for v in member.values] for of in (member.parameters, member.other)
    )
    expected = (np.exp(p) * (np.array(p) - np.array(q))).sum()
    other = member.distribution(parameters=member.other)
    np.testing.assert_allclose(
        vae_jax.kl_divergence(member.distribution(), other), expected, rtol=1e-5
    )


# Transformations


def log_prob_of(member, value):
    return lambda *parameters: member.make(*parameters).log_prob(value)


def as_value(value, dtype=jnp.float32):
    def convert(array):
        array = jnp.asarray(array)
        return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    return jax.tree.map(convert, value)


def first_draw(member):
    return jax.tree.map(lambda a: a[0], draws(member, 1))


@over(*LEARNED)
def test_the_gradient_is_that_of_scipys_density(member):
    value = first_draw(member)
    parameters = [jnp.asarray(p, jnp.float32) for p in member.parameters]
    gradients = jax.grad(log_prob_of(member, value), range(len(parameters)))(*parameters)
    step = 1e-5
    for i, gradient in enumerate(gradients):
        for place in np.ndindex(*gradient.shape):
            if member is MEMBERS["MultivariateNormal"] and i == 1 and place == (0, 1):
                continue  # above the diagonal nothing is read
            moved = []
            for sign in (1, -1):
                changed = [p.astype(np.float64).copy() for p in member.parameters]
                changed[i][place] += sign * step
                moved.append(member.log_prob(value, *changed))
            expected = (moved[0] - moved[1]) / (2 * step)
            np.testing.assert_allclose(gradient[place], expected, rtol=2e-3, atol=2e-4)


@pytest.mark.few(4)
@over(*LEARNED)
def test_forward_and_reverse_mode_agree(member):
    function = log_prob_of(member, first_draw(member))
    parameters = tuple(jnp.asarray(p, jnp.float32) for p in member.parameters)
    arguments = tuple(range(len(parameters)))
    forward, reverse = (of(function, arguments)(*parameters) for of in (jax.jacfwd, jax.jacrev))
    for a, b in zip(forward, reverse, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    _, linear = jax.linearize(function, *parameters)
    ones = tuple(map(jnp.ones_like, parameters))
    np.testing.assert_allclose(linear(*ones), jax.jvp(function, parameters, ones)[1], rtol=1e-5)
    jax.hessian(function)(*parameters)


@pytest.mark.few(4)
@over()
def test_under_jit_vmap_and_scan(member):
    distribution, values = member.distribution(), draws(member, 5)
    expected = distribution.log_prob(values)
    log_prob = jax.jit(lambda d, v: d.log_prob(v))
    np.testing.assert_allclose(log_prob(distribution, values), expected, rtol=1e-5)
    mapped = jax.vmap(lambda d, v: d.log_prob(v), (None, 0))(distribution, values)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5)
    many = jax.tree.map(lambda a: jnp.stack([a] * 5), distribution)
    np.testing.assert_allclose(jax.vmap(log_prob)(many, values), expected, rtol=1e-5)
    carried, found = jax.lax.scan(lambda d, v: (d, d.log_prob(v)), distribution, values)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert jax.tree.structure(carried) == jax.tree.structure(distribution)


# Numbers


@pytest.mark.few(4)
@over()
def test_bfloat16_parameters_are_scored_in_float32(member):
    distribution = member.distribution(jnp.bfloat16)
    rounded = [np.asarray(jnp.asarray(p, jnp.bfloat16), np.float64) for p in member.parameters]
    values = draws(member, 10)
    found = distribution.log_prob(values)
    assert found.dtype == jnp.float32
    expected = [member.log_prob(value, *rounded) for value in each(values)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for array in jax.tree.leaves(draws(member, 3, dtype=jnp.bfloat16)):
        # A flow's, whose density is that of the draw before any rounding, are in float32, as are
        # rows of columns, which hold counts.
        wide = member in (MEMBERS[n] for n in ("Flow", "SphericalUniform", "Columns"))
        assert array.dtype in ((jnp.float32,) if wide else (jnp.bfloat16, jnp.int32))


@pytest.mark.few(4)
@over(*LEARNED)
def test_float64_is_computed_in_float64(member):
    with jax.enable_x64(True):
        distribution = member.distribution(jnp.float64)
        values = vae_jax.sample(jax.random.key(0), distribution, 10)
        found = distribution.log_prob(values)
        assert found.dtype == jnp.float64
        expected = [member.log_prob(value, *member.parameters) for value in each(values)]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def mixed(member, dtypes):
    """The member with each parameter in its own of the dtypes, and the numbers that are left."""
    arrays = [jnp.asarray(p, d) for p, d in zip(member.parameters, dtypes, strict=False)]
    return member.make(*arrays), [np.asarray(a, np.float64) for a in arrays]


@pytest.mark.few(6)
@pytest.mark.parametrize("widths", [("float32", "float64"), ("float64", "float32")], ids="-".join)
@over(*LEARNED)
def test_a_density_is_computed_in_the_widest_dtype_and_given_in_the_narrowest(member, widths):
    """Of parameters in one, and a value in the other; none is cut to the other's dtype."""
    of, at = (jnp.dtype(w) for w in widths)
    with jax.enable_x64(True):
        value = as_value(first_draw(member), at)
        distribution = member.distribution(of)
        found = distribution.log_prob(value)
        rounded = [np.asarray(jnp.asarray(p, of), np.float64) for p in member.parameters]
        expected = member.log_prob(jax.tree.map(np.asarray, value), *rounded)
        floats = [v for v in jax.tree.leaves(value) if jnp.issubdtype(v.dtype, jnp.floating)]
        assert found.dtype == (jnp.float32 if floats else of)
        # One rounding of the result, no more.
        np.testing.assert_allclose(found, expected, rtol=1.2e-7 if floats else 1e-6)


@over(*CLOSED_KL)
def test_a_prior_in_float64_beside_a_posterior_in_float32_keeps_the_carry_of_a_scan(member):
    with jax.enable_x64(True):
        posterior, prior = member.distribution(), member.distribution(jnp.float64, member.other)

        x = jnp.zeros(3, jnp.float32)
        likelihood = Normal(x, 1.0)

        def step(carry, key):
            z = vae_jax.sample(key, posterior)
            bounds = [
                vae_jax.elbo(x, z, posterior, prior, likelihood, analytic_kl=exact).value
                for exact in (None, False)
            ]
            closed = has_closed_form(prior, posterior)
            reverse = vae_jax.kl_divergence(prior, posterior) if closed else 0.0
            return carry + bounds[0] + bounds[1] + reverse, None

        keys = jax.random.split(jax.random.key(0), 3)
        total, _ = jax.lax.scan(step, jnp.zeros((), jnp.float32), keys)
        assert total.dtype == jnp.float32
        assert np.isfinite(total)


@pytest.mark.parametrize("widths", list(itertools.permutations(["bfloat16", "float32", "float64"])))
@over("Normal", "MultivariateNormal", "Joint")
def test_parameters_of_several_dtypes_are_each_taken_as_they_are(member, widths):
    with jax.enable_x64(True):
        distribution, rounded = mixed(member, widths)
        value = jax.tree.map(lambda a: a[0], vae_jax.sample(jax.random.key(0), distribution, 1))
        first = jax.tree.leaves(value)[0]
        assert first.dtype == widths[0]  # the mean's
        expected = member.log_prob(jax.tree.map(lambda a: np.asarray(a, float), value), *rounded)
        np.testing.assert_allclose(distribution.log_prob(value), expected, rtol=1e-6)
        np.testing.assert_allclose(vae_jax.kl_divergence(distribution, distribution), 0, atol=1e-6)


def test_an_array_for_all_scales_keeps_its_digits():
    """0.1 in bfloat16 is 0.10009765625, 0.1 % off; a number takes the dtype of the mean."""
    mean = jnp.zeros(3, jnp.bfloat16)
    scale = jnp.float32(0.1)
    expected = scipy.stats.norm.logpdf(np.zeros(3), 0, np.float64(scale)).sum()
    found = Normal(mean, scale).log_prob(jnp.zeros(3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert Normal(mean, 0.1).scale.dtype == jnp.bfloat16


@over(*(name for name in LEARNED if name != "Joint"))
def test_extreme_parameters_give_finite_values_and_gradients(member):
    parameters, value = member.extreme
    parameters = tuple(jnp.asarray(p, jnp.float32) for p in parameters)
    value = as_value(value)
    function = log_prob_of(member, value)
    found, gradients = jax.value_and_grad(function, range(len(parameters)))(*parameters)
    assert np.isfinite(found)
    assert all(np.isfinite(g).all() for g in gradients)
    expected = member.log_prob(np.asarray(value), *member.extreme[0])
    if np.isfinite(expected):
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "num_classes"),
    [
        (dtype, num)
        for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32")
        for num in (4, 100, 128, 200, 256)
        if num - 1 <= np.iinfo(dtype).max or dtype == "int8"
    ],
)
def test_every_integer_dtype_names_its_classes(dtype, num_classes):
    """In a narrow dtype the number of classes itself may have no room: 256 is 0 in uint8."""
    logits = np.random.default_rng(0).normal(size=num_classes)
    values = np.arange(min(num_classes, np.iinfo(dtype).max + 1)).astype(dtype)
    expected = scipy.special.log_softmax(logits)[values.astype(int)]
    distribution = Categorical(jnp.asarray(logits, jnp.float32))
    found = distribution.log_prob(jnp.asarray(values))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        jax.jit(distribution.log_prob)(jnp.asarray(values)), expected, rtol=1e-5
    )
