"""Bayes' rule line by line, with counts of images, and the same rules with densities."""

from typing import Any

import jax
import numpy as np

from experiments.tutorial.integrals import density, integral
from experiments.tutorial.page import Line

CLASS = 9
SLOPE, NOISE, X, Z = 0.8, 0.6, 1.5, 0.5


def bayes(off: np.ndarray, label: np.ndarray) -> list[Line]:
    """Bayes' rule for the event that the pixel is off, every probability counted on its own."""
    nine = label == CLASS
    off_given_class = [off[label == c].mean() for c in np.unique(label)]
    p_class = [(label == c).mean() for c in np.unique(label)]
    joint, off_given_nine, nine_given_off = (off & nine).mean(), off[nine].mean(), nine[off].mean()
    product, total = off_given_nine * nine.mean(), np.dot(off_given_class, p_class)
    return [
        Line(
            r"P(x, c)",
            "=",
            r"P(x \mid c)\, P(c)",
            "The definition of $P(x \\mid c)$, both sides times $P(c)$. Here $x = 0$ and $c = 9$.",
            (joint, product),
        ),
        Line(
            r"P(x, c)",
            "=",
            r"P(c \mid x)\, P(x)",
            "The same definition with the two exchanged.",
            (joint, nine_given_off * off.mean()),
        ),
        Line(
            r"P(c \mid x)\, P(x)",
            "=",
            r"P(x \mid c)\, P(c)",
            "Lines 1 and 2: both sides are the joint probability.",
            (nine_given_off * off.mean(), product),
        ),
        Line(
            r"P(c \mid x)",
            "=",
            r"\frac{P(x \mid c)\, P(c)}{P(x)}",
            "Divided by $P(x)$. This is **Bayes' rule**.",
            (nine_given_off, product / off.mean()),
        ),
        Line(
            r"P(x)",
            "=",
            r"\sum_k P(x, c = k)",
            "Every image has exactly one class $k$, so their shares add up.",
            (off.mean(), sum((off & (label == c)).mean() for c in np.unique(label))),
        ),
        Line(
            r"\sum_k P(x, c = k)",
            "=",
            r"\sum_k P(x \mid c = k)\, P(c = k)",
            "Line 1 in every term: **total probability**.",
            (sum((off & (label == c)).mean() for c in np.unique(label)), total),
        ),
        Line(
            r"P(c \mid x)",
            "=",
            r"\frac{P(x \mid c)\, P(c)}{\sum_k P(x \mid c = k)\, P(c = k)}",
            "Line 6 in line 4. The denominator needs a term for every class: with ten it is cheap.",
            (nine_given_off, product / total),
        ),
    ]


def densities() -> list[Line]:
    """The same with a continuous code. In closed form x ~ N(0, 1), z | x ~ N(0.8 x, 0.6^2)."""

    def joint(z: Any) -> Any:
        return density(X, SLOPE * z, NOISE) * density(z, 0, 1)

    covariance = np.array([[1, SLOPE], [SLOPE, 1]])
    both = np.array([Z, X])
    as_pair = np.exp(-both @ np.linalg.solve(covariance, both) / 2) / (
        2 * np.pi * np.sqrt(np.linalg.det(covariance))
    )
    evidence, posterior_mean = integral(joint), SLOPE * X
    # A mean over codes of equal probability: the middles of 100,000 equal slices of the prior.
    slices = jax.scipy.special.ndtri((np.arange(100_000) + 0.5) / 100_000)
    over_slices = density(X, SLOPE * np.asarray(slices, np.float64), NOISE).mean()
    return [
        Line(
            r"p(x, z)",
            "=",
            r"p(x \mid z)\, p(z)",
            "The joint density; $x$ and $z$ together are one Gaussian in two dimensions, with "
            "variances 1 and covariance 0.8, which gives the left side.",
            (as_pair, joint(Z)),
        ),
        Line(
            r"p(x)",
            "=",
            r"\int p(x \mid z)\, p(z)\, dz",
            "Total probability: the sum has become an integral over all codes. On the left "
            "$\\mathcal{N}(x;\\, 0,\\, 0.8^2 + 0.6^2)$.",
            (density(X, 0, np.hypot(SLOPE, NOISE)), evidence),
        ),
        Line(
            r"\int p(x \mid z)\, p(z)\, dz",
            "=",
            r"\mathbb{E}_{p(z)}\left[p(x \mid z)\right]",
            "What an expectation is. On the right the mean over 100,000 codes of equal "
            "probability.",
            (evidence, over_slices),
        ),
        Line(
            r"p(z \mid x)",
            "=",
            r"\frac{p(x \mid z)\, p(z)}{p(x)}",
            "Bayes' rule. On the left what it comes to here, "
            "$\\mathcal{N}(z;\\, 0.8\\, x,\\, 0.6^2)$.",
            (density(Z, posterior_mean, NOISE), joint(Z) / evidence),
        ),
        Line(
            r"\mathbb{E}_{p(z \mid x)}\left[z\right]",
            "=",
            r"\int z\, p(z \mid x)\, dz",
            "The mean of the code once $x$ is known, $0.8\\, x$; before, it was 0.",
            (posterior_mean, integral(lambda z: z * joint(z)) / evidence),
        ),
    ]
