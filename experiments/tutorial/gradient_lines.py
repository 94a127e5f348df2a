"""The gradient of an expectation line by line: from within, by the score, and reparameterised.

In one dimension, q = N(MEAN, SCALE^2), with f the log-likelihood of a pixel that is on under a
decoder of one unit. Values are the derivative with respect to sigma.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tutorial import integrals
from experiments.tutorial.integrals import Array, density, expectation, integral
from experiments.tutorial.page import Line

MEAN, SCALE, AT, NOISE_AT = 0.3, 0.8, 1.5, 0.7
LINE_DRAWS = 100_000

GRADIENT = r"\nabla_\phi\, \mathbb{E}_{q_\phi}[f(z)]"
BY_PARTS = r"\int f(z)\, \nabla_\phi q_\phi(z)\, dz"
INSIDE = r"\int q_\phi(z)\, \nabla_\phi f(z)\, dz"
OVER_NOISE = r"\mathbb{E}_{p(\epsilon)}[f(\mu + \sigma\epsilon)]"


def f(z: Array) -> Array:
    """log p(x = 1 | z) = log sigmoid(2 z - 1)."""
    return -np.logaddexp(0, 1 - 2 * z)


def slope(z: Array) -> Array:
    """f'(z), which is 2 sigmoid(1 - 2 z)."""
    return 1 + np.tanh(0.5 - z)


def density_slope(z: Array, scale: float = SCALE) -> Array:
    """d q(z) / d sigma: the density times ((z - mu)^2 / sigma^2 - 1) / sigma."""
    return density(z, MEAN, scale) * score(z, scale)


def score(z: Array, scale: float = SCALE) -> Array:
    """d log q(z) / d sigma."""
    return ((z - MEAN) ** 2 / scale**2 - 1) / scale


def by_nodes(scale: float) -> float:
    """E[f(mu + sigma epsilon)] by Gauss and Hermite's rule, which is a sum over noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    return float(weights @ f(MEAN + scale * nodes) / np.sqrt(2 * np.pi))


def scored(z: Array) -> Array:
    return f(z) * score(z)


def inside() -> list[Line]:
    """Why the gradient cannot go inside the expectation."""
    from_outside = integrals.gradient(by_nodes, SCALE)
    as_integral = integrals.gradient(lambda s: expectation(MEAN, s, f), SCALE)
    by_parts = integral(lambda z: f(z) * density_slope(z))
    no_phi = integral(lambda z: density(z, MEAN, SCALE) * np.zeros_like(f(z)))
    nearby = 1e-5
    product = integral(
        lambda z: (
            f(z)
            * (density(z, MEAN, SCALE + nearby) - density(z, MEAN, SCALE - nearby))
            / (2 * nearby)
        )
    )
    return [
        Line(
            GRADIENT,
            "=",
            r"\nabla_\phi \int q_\phi(z)\, f(z)\, dz",
            "What an expectation is.",
            (from_outside, as_integral),
        ),
        Line(
            r"\nabla_\phi \int q_\phi(z)\, f(z)\, dz",
            "=",
            r"\int \nabla_\phi [q_\phi(z)\, f(z)]\, dz",
            "The gradient of a sum is the sum of the gradients; the range of the integral does not "
            "depend on $\\phi$.",
            (as_integral, product),
        ),
        Line(
            r"\int \nabla_\phi [q_\phi(z)\, f(z)]\, dz",
            "=",
            rf"{BY_PARTS} & {{}} + {INSIDE}",
            "The product rule, with $\\partial q / \\partial\\sigma = q(z)\\, "
            "((z - \\mu)^2 / \\sigma^2 - 1) / \\sigma$.",
            (product, by_parts + no_phi),
        ),
        Line(
            INSIDE,
            "=",
            r"\mathbb{E}_{q_\phi}[\nabla_\phi f(z)] = 0",
            "The second term is what one gets by pulling the gradient inside: zero, as $f(z) = "
            "\\log p_\\theta(x \\mid z)$ has no $\\phi$ in it.",
            (no_phi, 0.0),
        ),
        Line(
            GRADIENT,
            r"\ne",
            r"\mathbb{E}_{q_\phi}[\nabla_\phi f(z)]",
            "Lines 3 and 4: what is missing is the first term of line 3, how the draws move. As it "
            "stands it is no expectation: $\\nabla_\\phi q_\\phi$ is not a density, so there is "
            "nothing to draw from.",
            (from_outside, no_phi),
        ),
    ]


def by_score() -> list[Line]:
    """The missing term as an expectation."""
    at = np.array(AT)
    log_slope = integrals.gradient(lambda s: float(integrals.log_density(at, MEAN, s)), SCALE)
    as_score = expectation(MEAN, SCALE, scored)
    centred = expectation(MEAN, SCALE, lambda z: (f(z) + 1) * score(z))
    mass = integrals.gradient(lambda s: integral(lambda z: density(z, MEAN, s)), SCALE)
    return [
        Line(
            r"\nabla_\phi q_\phi(z)",
            "=",
            r"q_\phi(z)\, \nabla_\phi \log q_\phi(z)",
            f"The chain rule: $\\nabla\\log q = \\nabla q / q$. Values at $z = {AT}$.",
            (float(density_slope(at)), float(density(at, MEAN, SCALE)) * log_slope),
        ),
        Line(
            BY_PARTS,
            "=",
            r"\mathbb{E}_{q_\phi}[f(z)\, \nabla_\phi \log q_\phi(z)]",
            "Line 1 under the integral: with $q_\\phi$ in front again it is an expectation.",
            (integral(lambda z: f(z) * density_slope(z)), as_score),
        ),
        Line(
            r"\mathbb{E}_{q_\phi}[\nabla_\phi \log q_\phi(z)]",
            "=",
            r"\nabla_\phi \int q_\phi(z)\, dz = 0",
            "Line 1 backwards; the integral is 1, whatever $\\phi$ is.",
            (expectation(MEAN, SCALE, score), mass),
        ),
        Line(
            GRADIENT,
            "=",
            r"\mathbb{E}_{q_\phi}[(f(z) - b)\, \nabla_\phi \log q_\phi(z)]",
            "So any constant $b$ may be taken from $f$. Here $b = -1$.",
            (integrals.gradient(by_nodes, SCALE), centred),
        ),
    ]


def reparameterised(key: jax.Array) -> tuple[list[Line], float]:
    """Phi moved out of the distribution; and the standard error of the last line's draws."""
    noise = np.asarray(jax.random.normal(key, (LINE_DRAWS,), jnp.float32), np.float64)
    terms = moved(noise)
    at = MEAN + SCALE * NOISE_AT
    over_z = expectation(MEAN, SCALE, f)
    over_noise = expectation(0, 1, lambda e: f(MEAN + SCALE * e))
    from_outside = integrals.gradient(by_nodes, SCALE)
    from_inside = expectation(0, 1, moved)
    each_moved = expectation(
        0, 1, lambda e: (f(MEAN + (SCALE + 1e-5) * e) - f(MEAN + (SCALE - 1e-5) * e)) / 2e-5
    )
    along = integrals.gradient(lambda s: float(f(np.array(MEAN + s * NOISE_AT))), SCALE)
    lines = [
        Line(
            r"q_\phi(z)\, \frac{dz}{d\epsilon}",
            "=",
            r"p(\epsilon)",
            "The **change of variable** $z = \\mu + \\sigma\\epsilon$: the probability of a small "
            "interval is the same in $z$ as in $\\epsilon$, and the one in $z$ is "
            f"$dz / d\\epsilon = \\sigma$ times as long. Values at $\\epsilon = {NOISE_AT}$.",
            (
                float(density(np.array(at), MEAN, SCALE)) * SCALE,
                float(density(np.array(NOISE_AT), 0, 1)),
            ),
        ),
        Line(
            r"\int q_\phi(z)\, f(z)\, dz",
            "=",
            r"\int p(\epsilon)\, f(\mu + \sigma\epsilon)\, d\epsilon",
            "Line 1 under the integral.",
            (over_z, over_noise),
        ),
        Line(
            r"\int p(\epsilon)\, f(\mu + \sigma\epsilon)\, d\epsilon",
            "=",
            OVER_NOISE,
            "An expectation over noise whose distribution has no $\\phi$ in it.",
            (over_noise, by_nodes(SCALE)),
        ),
        Line(
            rf"\nabla_\phi\, {OVER_NOISE}",
            "=",
            r"\mathbb{E}_{p(\epsilon)}[\nabla_\phi f(\mu + \sigma\epsilon)]",
            "Now the gradient may go inside: in lines 2 and 3 of the first derivation the term "
            "with $\\nabla_\\phi p(\\epsilon)$ is the one that is zero.",
            (from_outside, each_moved),
        ),
        Line(
            r"\frac{\partial}{\partial\sigma} f(\mu + \sigma\epsilon)",
            "=",
            r"f'(\mu + \sigma\epsilon)\, \epsilon",
            "The chain rule; with respect to $\\mu$ the last factor is 1. Values at "
            f"$\\epsilon = {NOISE_AT}$.",
            (along, float(slope(np.array(at))) * NOISE_AT),
        ),
        Line(
            r"\frac{\partial}{\partial\sigma} \mathbb{E}_{q_\phi}[f(z)]",
            "=",
            r"\mathbb{E}_{p(\epsilon)}[f'(\mu + \sigma\epsilon)\, \epsilon]",
            "Lines 2 to 5. Unlike the score it uses the slope of $f$, which says in which "
            "direction a draw would have been better.",
            (from_outside, from_inside),
        ),
        Line(
            r"\mathbb{E}_{p(\epsilon)}[f'(\mu + \sigma\epsilon)\, \epsilon]",
            r"\approx",
            r"\frac{1}{S} \sum_{s=1}^{S} f'(\mu + \sigma\epsilon_s)\, \epsilon_s",
            "The **Monte Carlo estimate** with $S$ draws $\\epsilon_s \\sim \\mathcal{N}(0, 1)$. "
            "Here $S$ is [[line.num:,]], and the standard error [[line.standard_error:.5f]].",
            (from_inside, float(terms.mean())),
        ),
    ]
    return lines, float(terms.std(ddof=1) / np.sqrt(LINE_DRAWS))


def deviation(mean: float, scale: float, term: Callable[[Array], Array]) -> float:
    """The exact standard deviation of a term under N(mean, scale^2)."""
    first, second = (expectation(mean, scale, lambda z, n=n: term(z) ** n) for n in (1, 2))
    return float(np.sqrt(second - first**2))


def moved(noise: Array) -> Array:
    """The reparameterised estimate of one draw."""
    return slope(MEAN + SCALE * noise) * noise
