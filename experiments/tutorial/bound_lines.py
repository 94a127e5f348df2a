"""The bound line by line, and once more by Jensen's inequality, in numbers of the linear model.

Left sides and right sides come from different formulas wherever a line is more than a definition:
closed forms of the library on the one hand, sums over a grid of codes on the other, in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial.integrals import Array, log_density
from experiments.tutorial.linear import NOISE, OBSERVED, WEIGHT, exact_elbo, exact_posterior
from experiments.tutorial.page import Line
from vae_jax import MultivariateNormal

Q_MEAN, Q_SCALE = (0.6, 0.4), 0.6
"""The q of the derivations, N(Q_MEAN, Q_SCALE^2 I)."""

GAP = r"\mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))"
TO_PRIOR = r"\mathrm{KL}(q(z \mid x) \,\|\, p(z))"
LOG_Q = r"\mathbb{E}_q[\log q(z \mid x)]"
LOG_POSTERIOR = r"\mathbb{E}_q[\log p(z \mid x)]"
LOG_LIKELIHOOD = r"\mathbb{E}_q[\log p(x \mid z)]"
LOG_PRIOR = r"\mathbb{E}_q[\log p(z)]"
WEIGHTED = r"\frac{p(x \mid z)\, p(z)}{q(z \mid x)}"


class Model(NamedTuple):
    """Log-densities of codes z [..., 2] at the observation, and expectations under q."""

    log_q: Callable[[Array], Array]
    log_prior: Callable[[Array], Array]
    log_likelihood: Callable[[Array], Array]
    log_posterior: Callable[[Array], Array]
    log_px: float
    mean: Callable[[Callable[[Array], Array]], float]
    integral: Callable[[Callable[[Array], Array]], float]


def linear_model() -> Model:
    weight, x = np.array(WEIGHT), np.array(OBSERVED)
    precision = np.eye(2) + weight.T @ weight / NOISE**2
    center = np.linalg.solve(precision, weight.T @ x / NOISE**2)
    covariance = weight @ weight.T + NOISE**2 * np.eye(len(x))
    line = np.linspace(-7, 7, 561)
    grid, area = np.stack(np.meshgrid(line, line), axis=-1), (line[1] - line[0]) ** 2

    def log_q(z: Array) -> Array:
        return log_density(z, np.array(Q_MEAN), Q_SCALE).sum(axis=-1)

    def log_posterior(z: Array) -> Array:
        misfit = np.einsum("...i,ij,...j->...", z - center, precision, z - center)
        return 0.5 * np.linalg.slogdet(precision)[1] - np.log(2 * np.pi) - 0.5 * misfit

    return Model(
        log_q,
        lambda z: log_density(z, 0, 1).sum(axis=-1),
        lambda z: log_density(x, z @ weight.T, NOISE).sum(axis=-1),
        log_posterior,
        float(
            -0.5 * (x @ np.linalg.solve(covariance, x) + np.linalg.slogdet(covariance)[1])
            - len(x) / 2 * np.log(2 * np.pi)
        ),
        lambda f: float((np.exp(log_q(grid)) * f(grid)).sum() * area),
        lambda f: float(f(grid).sum() * area),
    )


def closed_forms() -> tuple[float, float, float]:
    """By the library: the gap, the divergence from the prior, and the bound."""
    weight, x = jnp.array(WEIGHT), jnp.array(OBSERVED)
    q = MultivariateNormal(jnp.array(Q_MEAN), Q_SCALE * jnp.eye(2))
    prior = MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    return (
        float(vae_jax.kl_divergence(q, exact_posterior(x, weight))),
        float(vae_jax.kl_divergence(q, prior)),
        float(exact_elbo(x, weight, q)),
    )


def bound() -> list[Line]:
    m, (gap, to_prior, elbo) = linear_model(), closed_forms()
    z = np.array(Q_MEAN)
    log_q, log_posterior = m.mean(m.log_q), m.mean(m.log_posterior)
    log_likelihood, log_prior = m.mean(m.log_likelihood), m.mean(m.log_prior)
    log_evidence = m.mean(lambda z: np.full(z.shape[:-1], m.log_px))
    apart = log_q - log_likelihood - log_prior
    return [
        Line(
            GAP,
            "=",
            r"\int q(z \mid x) \log\frac{q(z \mid x)}{p(z \mid x)}\, dz",
            "The definition of the divergence ([#divergence]), between $q$ and the true posterior.",
            (gap, m.integral(lambda z: np.exp(m.log_q(z)) * (m.log_q(z) - m.log_posterior(z)))),
        ),
        Line(
            r"\int q(z \mid x) \log\frac{q(z \mid x)}{p(z \mid x)}\, dz",
            "=",
            rf"{LOG_Q} & {{}} - {LOG_POSTERIOR}",
            "The logarithm of a fraction is a difference, and an integral weighted by $q$ is an "
            "expectation under $q$.",
            (gap, log_q - log_posterior),
        ),
        Line(
            r"\log p(z \mid x)",
            "=",
            r"\log p(x \mid z) & {} + \log p(z) - \log p(x)",
            "The logarithm of Bayes' rule ([#probability]). Values at the mean of $q$.",
            (m.log_posterior(z), m.log_likelihood(z) + m.log_prior(z) - m.log_px),
        ),
        Line(
            GAP,
            "=",
            rf"{LOG_Q} & {{}} - {LOG_LIKELIHOOD} & {{}} - {LOG_PRIOR} "
            r"& {} + \mathbb{E}_q[\log p(x)]",
            "Line 3 in line 2. All three signs turn, because $\\log p(z \\mid x)$ is subtracted.",
            (gap, apart + log_evidence),
        ),
        Line(
            r"\mathbb{E}_q[\log p(x)]",
            "=",
            r"\log p(x)",
            "It does not depend on $z$, so it comes out of the expectation: the mean of a constant "
            "is the constant, as $q$ integrates to one.",
            (log_evidence, m.log_px),
        ),
        Line(
            GAP,
            "=",
            rf"{LOG_Q} & {{}} - {LOG_LIKELIHOOD} & {{}} - {LOG_PRIOR} & {{}} + \log p(x)",
            "Line 5 in line 4.",
            (gap, apart + m.log_px),
        ),
        Line(
            rf"{LOG_Q} & {{}} - {LOG_PRIOR}",
            "=",
            TO_PRIOR,
            "Lines 1 and 2 read backwards, with the prior in the place of the posterior.",
            (log_q - log_prior, to_prior),
        ),
        Line(
            GAP,
            "=",
            rf"{TO_PRIOR} & {{}} - {LOG_LIKELIHOOD} & {{}} + \log p(x)",
            "Line 7 in line 6.",
            (gap, to_prior - log_likelihood + m.log_px),
        ),
        Line(
            rf"{{}} - {GAP}",
            "=",
            rf"{LOG_LIKELIHOOD} & {{}} - {TO_PRIOR} & {{}} - \log p(x)",
            "Both sides times $-1$.",
            (-gap, log_likelihood - to_prior - m.log_px),
        ),
        Line(
            rf"\log p(x) & {{}} - {GAP}",
            "=",
            rf"{LOG_LIKELIHOOD} & {{}} - {TO_PRIOR}",
            "$\\log p(x)$ added to both sides. This is **exact**, for every $q$.",
            (m.log_px - gap, log_likelihood - to_prior),
        ),
        Line(
            GAP,
            r"\ge",
            "0",
            "No divergence is negative ([#divergence]); it is zero only for $q(z \\mid x) = "
            "p(z \\mid x)$.",
            (gap, 0.0),
        ),
        Line(
            r"\log p(x)",
            r"\ge",
            rf"{LOG_LIKELIHOOD} & {{}} - {TO_PRIOR} & {{}} = \mathcal{{L}}(x)",
            "Line 11 in line 10: what is left out is not negative. The right side is the "
            "**evidence lower bound**, or ELBO.",
            (m.log_px, log_likelihood - to_prior),
        ),
        Line(
            r"{} - \mathcal{L}(x)",
            "=",
            rf"\mathbb{{E}}_q[{{}} - \log p(x \mid z)] & {{}} + {TO_PRIOR}",
            "The **loss**, which is made small, is minus the bound, which is made large: the "
            "reconstruction's cost plus the divergence from the prior.",
            (-elbo, m.mean(lambda z: -m.log_likelihood(z)) + to_prior),
        ),
    ]


def by_jensen() -> list[Line]:
    m, (_, to_prior, elbo) = linear_model(), closed_forms()

    def joint(z: Array) -> Array:
        return np.exp(m.log_likelihood(z) + m.log_prior(z))

    evidence = m.integral(joint)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    codes = np.array(Q_MEAN) + Q_SCALE * np.stack(np.meshgrid(nodes, nodes), axis=-1)
    ratio = joint(codes) / np.exp(m.log_q(codes))
    # By Gauss and Hermite's rule, which has its nodes where q is.
    mean_ratio = float((np.outer(weights, weights) * ratio).sum() / (2 * np.pi))
    mean_log = m.mean(lambda z: m.log_likelihood(z) + m.log_prior(z) - m.log_q(z))
    log_likelihood, log_prior = m.mean(m.log_likelihood), m.mean(m.log_prior)
    return [
        Line(
            r"\log p(x)",
            "=",
            r"\log \int p(x \mid z)\, p(z)\, dz",
            "Total probability ([#probability]).",
            (m.log_px, np.log(evidence)),
        ),
        Line(
            r"\log \int p(x \mid z)\, p(z)\, dz",
            "=",
            rf"\log \int q(z \mid x) {WEIGHTED}\, dz",
            "Multiplied and divided by $q(z \\mid x)$, which must be positive where the numerator "
            "is.",
            (np.log(evidence), np.log(m.mean(lambda z: joint(z) / np.exp(m.log_q(z))))),
        ),
        Line(
            rf"\log \int q(z \mid x) {WEIGHTED}\, dz",
            "=",
            rf"\log \mathbb{{E}}_q\left[{WEIGHTED}\right]",
            "What an expectation is.",
            (np.log(m.mean(lambda z: joint(z) / np.exp(m.log_q(z)))), np.log(mean_ratio)),
        ),
        Line(
            rf"\log \mathbb{{E}}_q\left[{WEIGHTED}\right]",
            r"\ge",
            rf"\mathbb{{E}}_q\left[\log {WEIGHTED}\right]",
            "**Jensen's inequality**: the logarithm bends downwards, so that the logarithm of a "
            "mean is never below the mean of the logarithms ([#divergence]).",
            (np.log(mean_ratio), mean_log),
        ),
        Line(
            rf"\mathbb{{E}}_q\left[\log {WEIGHTED}\right]",
            "=",
            rf"{LOG_LIKELIHOOD} & {{}} + {LOG_PRIOR} & {{}} - {LOG_Q}",
            "The logarithm of products and fractions.",
            (mean_log, log_likelihood + log_prior - m.mean(m.log_q)),
        ),
        Line(
            rf"{LOG_LIKELIHOOD} & {{}} + {LOG_PRIOR} & {{}} - {LOG_Q}",
            "=",
            rf"{LOG_LIKELIHOOD} & {{}} - {TO_PRIOR}",
            "The definition of the divergence: the same bound.",
            (elbo, log_likelihood - to_prior),
        ),
    ]
