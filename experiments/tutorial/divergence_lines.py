"""That no divergence is negative, and the Gaussian one from its definition, line by line.

One side of a line is a closed form, the other a sum over a grid, in float64.
"""

import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial.integrals import Array, density, expectation, integral, log_density
from experiments.tutorial.page import Line

HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)
E1 = r"\mathbb{E}_1"
SUM_OF_LOGS = r"\sum_i P_i \log\frac{Q_i}{P_i}"
SUM_OF_STRAIGHT = r"\sum_i P_i \left(\frac{Q_i}{P_i} - 1\right)"
LOG_OF_SUM = r"\log \sum_i P_i\, \frac{Q_i}{P_i}"


def form(mean: int, covariance: int) -> str:
    """(z - mu)^T Sigma^-1 (z - mu)."""
    return rf"(z - \mu_{mean})^\top \Sigma_{covariance}^{{-1}} (z - \mu_{mean})"


def nonnegative(p: Array, q: Array) -> list[Line]:
    divergence = vae_jax.kl_divergence(*(vae_jax.Categorical(jnp.log(a)) for a in (p, q)))
    logs, straight = p @ np.log(q / p), p @ (q / p - 1)
    return [
        Line(
            r"{} - \mathrm{KL}(P \,\|\, Q)",
            "=",
            SUM_OF_LOGS,
            "The definition; the minus sign has turned the fraction over.",
            (-float(divergence), logs),
        ),
        Line(
            SUM_OF_LOGS,
            r"\le",
            SUM_OF_STRAIGHT,
            "$\\log t \\le t - 1$: the straight line touches the logarithm at $t = 1$ and is above "
            "it everywhere else (the figure). Here $t = Q_i / P_i$.",
            (logs, straight),
        ),
        Line(
            SUM_OF_STRAIGHT,
            "=",
            r"\sum_i Q_i - \sum_i P_i",
            "$P_i$ times the bracket.",
            (straight, q.sum() - p.sum()),
        ),
        Line(
            r"\sum_i Q_i - \sum_i P_i",
            "=",
            "0",
            "Probabilities add up to one, $1 - 1$.",
            (q.sum() - p.sum(), 0.0),
        ),
        Line(
            r"\mathrm{KL}(P \,\|\, Q)",
            r"\ge",
            "0",
            "Lines 1 to 4, times $-1$, which turns the sign round. Equal only where every "
            "$Q_i / P_i$ is 1.",
            (float(divergence), 0.0),
        ),
        Line(
            SUM_OF_LOGS,
            r"\le",
            LOG_OF_SUM,
            "The same by **Jensen's inequality**: a function that bends downwards has a mean "
            "that is at most its value at the mean.",
            (logs, np.log(p @ (q / p))),
        ),
        Line(
            LOG_OF_SUM,
            "=",
            "0",
            "$P_i$ cancels, and $\\log \\sum_i Q_i = \\log 1$.",
            (np.log(p @ (q / p)), 0.0),
        ),
    ]


def diagonal(mean: Array, logvar: Array) -> list[Line]:
    """In one dimension first, the first of those given; then in all of them."""
    (m, *_), (s, *_) = mean, np.exp(logvar / 2)

    def library(mean: Array, logvar: Array) -> float:
        q = vae_jax.Normal(jnp.asarray(mean), jnp.exp(jnp.asarray(logvar) / 2))
        return float(vae_jax.kl_divergence(q, vae_jax.Normal(jnp.zeros(len(mean)), 1.0)))

    def on_grid(m: float, s: float) -> float:
        return expectation(m, s, lambda z: log_density(z, m, s) - log_density(z, 0, 1))

    log_q = expectation(m, s, lambda z: log_density(z, m, s))
    log_p = expectation(m, s, lambda z: log_density(z, 0, 1))
    spread, square = expectation(m, s, lambda z: (z - m) ** 2), expectation(m, s, np.square)
    of_dimension = [on_grid(m, s) for m, s in zip(mean, np.exp(logvar / 2), strict=True)]
    line = np.linspace(-12, 12, 1201)
    z = np.stack(np.meshgrid(line, line), axis=-1)
    log_q_all = log_density(z, mean, np.exp(logvar / 2)).sum(axis=-1)
    to_prior = np.exp(log_q_all) * (log_q_all - log_density(z, 0, 1).sum(axis=-1))
    in_the_plane = to_prior.sum() * (line[1] - line[0]) ** 2
    by_variance = 0.5 * np.sum(np.exp(logvar) + mean**2 - 1 - 2 * np.log(np.exp(logvar / 2)))
    return [
        Line(
            r"\mathrm{KL}(q \,\|\, p)",
            "=",
            r"\int q(z) \log\frac{q(z)}{p(z)}\, dz",
            "The definition, with an integral for the sum. One dimension first: "
            "$q = \\mathcal{N}(\\mu, \\sigma^2)$ and $p = \\mathcal{N}(0, 1)$.",
            (
                library(mean[:1], logvar[:1]),
                integral(
                    lambda z: density(z, m, s) * (log_density(z, m, s) - log_density(z, 0, 1))
                ),
            ),
        ),
        Line(
            r"\int q(z) \log\frac{q(z)}{p(z)}\, dz",
            "=",
            r"\mathbb{E}_q[\log q(z)] & {} - \mathbb{E}_q[\log p(z)]",
            "The logarithm of a fraction is a difference.",
            (of_dimension[0], log_q - log_p),
        ),
        Line(
            r"\mathbb{E}_q[\log q(z)]",
            "=",
            r"{} - \tfrac{1}{2}\log 2\pi - \log\sigma & "
            r"{} - \frac{\mathbb{E}_q[(z - \mu)^2]}{2\sigma^2}",
            "The logarithm of $q(z) = \\exp(-(z - \\mu)^2 / 2\\sigma^2) / (\\sigma\\sqrt{2\\pi})$; "
            "constants come out of the expectation.",
            (log_q, -HALF_LOG_2PI - np.log(s) - spread / (2 * s**2)),
        ),
        Line(
            r"\mathbb{E}_q[(z - \mu)^2]",
            "=",
            r"\sigma^2",
            "What a variance is.",
            (spread, s**2),
        ),
        Line(
            r"\mathbb{E}_q[\log q(z)]",
            "=",
            r"{} - \tfrac{1}{2}\log 2\pi & {} - \tfrac{1}{2}\log\sigma^2 - \tfrac{1}{2}",
            "Line 4 in line 3, and $\\log\\sigma = \\tfrac{1}{2}\\log\\sigma^2$.",
            (log_q, -HALF_LOG_2PI - 0.5 * np.log(s**2) - 0.5),
        ),
        Line(
            r"\mathbb{E}_q[\log p(z)]",
            "=",
            r"{} - \tfrac{1}{2}\log 2\pi & {} - \tfrac{1}{2}\mathbb{E}_q[z^2]",
            "The same logarithm with $\\mu = 0$ and $\\sigma = 1$, but the expectation is still "
            "under $q$.",
            (log_p, -HALF_LOG_2PI - square / 2),
        ),
        Line(
            r"\mathbb{E}_q[z^2]",
            "=",
            r"\sigma^2 + \mu^2",
            "$z = \\mu + (z - \\mu)$, squared: the middle term $2\\mu(z - \\mu)$ has mean zero.",
            (square, s**2 + m**2),
        ),
        Line(
            r"\mathrm{KL}(q \,\|\, p)",
            "=",
            r"\tfrac{1}{2}(\sigma^2 + \mu^2 - 1 - \log\sigma^2)",
            "Lines 5, 6 and 7 in line 2; $\\tfrac{1}{2}\\log 2\\pi$ cancels.",
            (of_dimension[0], 0.5 * (s**2 + m**2 - 1 - np.log(s**2))),
        ),
        Line(
            r"\mathrm{KL}(q(z) \,\|\, p(z))",
            "=",
            r"\sum_{i=1}^{k} \mathrm{KL}(q(z_i) \,\|\, p(z_i))",
            "More dimensions, independent under both $q$ and $p$: densities multiply, so their "
            "logarithms add. Here $k = 2$, and the left side is an integral over the plane.",
            (in_the_plane, sum(of_dimension)),
        ),
        Line(
            r"\sum_{i=1}^{k} \mathrm{KL}(q(z_i) \,\|\, p(z_i))",
            "=",
            r"\tfrac{1}{2}\sum_{i=1}^{k} (\sigma_i^2 + \mu_i^2 - 1 - \log\sigma_i^2)",
            "Line 8 for each dimension.",
            (sum(of_dimension), by_variance),
        ),
        Line(
            r"\tfrac{1}{2}\sum_{i=1}^{k} (\sigma_i^2 + \mu_i^2 - 1 - \log\sigma_i^2)",
            "=",
            r"\tfrac{1}{2}\sum_{i=1}^{k} (\exp(\ell_i) + \mu_i^2 - 1 - \ell_i)",
            "$\\ell_i = \\log\\sigma_i^2$, the *logvar* of most code: any real number will do, "
            "where a variance must be positive.",
            (by_variance, library(mean, logvar)),
        ),
    ]


def full(mean_1: Array, covariance_1: Array, mean_2: Array, covariance_2: Array) -> list[Line]:
    """Between two Gaussians in three dimensions, with expectations by a sum over a grid."""
    line, at = np.linspace(-8, 8, 97), np.zeros(3)
    z = np.stack(np.meshgrid(line, line, line), axis=-1).reshape(-1, 3)
    inverse_1, inverse_2 = np.linalg.inv(covariance_1), np.linalg.inv(covariance_2)
    log_1, log_2 = log_gaussian(z, mean_1, covariance_1), log_gaussian(z, mean_2, covariance_2)
    weight = np.exp(log_1) * (line[1] - line[0]) ** 3
    own, other = quadratic(z - mean_1, inverse_1), quadratic(z - mean_2, inverse_2)
    by_own, by_other = weight @ own, weight @ other
    around_own_mean = weight @ quadratic(z - mean_1, inverse_2)
    scatter = np.einsum("n,ni,nj->ij", weight, z - mean_1, z - mean_1)
    log_ratio = np.log(np.linalg.det(covariance_2) / np.linalg.det(covariance_1))
    shift = (mean_2 - mean_1) @ inverse_2 @ (mean_2 - mean_1)
    trace = np.trace(inverse_2 @ covariance_1)
    first, second = (
        vae_jax.MultivariateNormal(jnp.asarray(mean), jnp.linalg.cholesky(jnp.asarray(covariance)))
        for mean, covariance in ((mean_1, covariance_1), (mean_2, covariance_2))
    )
    closed = float(vae_jax.kl_divergence(first, second))
    on_grid = weight @ (log_1 - log_2)
    return [
        Line(
            r"\mathrm{KL}(\mathcal{N}_1 \,\|\, \mathcal{N}_2)",
            "=",
            rf"{E1}[\log \mathcal{{N}}_1(z) - \log \mathcal{{N}}_2(z)]",
            "The definition. $\\mathbb{E}_1$ is the expectation over $z \\sim "
            "\\mathcal{N}(\\mu_1, \\Sigma_1)$, in $k = 3$ dimensions.",
            (closed, on_grid),
        ),
        Line(
            r"\log \mathcal{N}_2(z)",
            "=",
            r"{} - \tfrac{k}{2}\log 2\pi & {} - \tfrac{1}{2}\log|\Sigma_2| & "
            + rf"{{}} - \tfrac{{1}}{{2}}{form(2, 2)}",
            "The logarithm of the density of a Gaussian; the same for $\\mathcal{N}_1$. Values at "
            "$z = 0$.",
            (
                float(second.log_prob(jnp.zeros(3))),
                log_gaussian(at[None], mean_2, covariance_2)[0],
            ),
        ),
        Line(
            r"\mathrm{KL}(\mathcal{N}_1 \,\|\, \mathcal{N}_2)",
            "=",
            r"\tfrac{1}{2}\log\frac{|\Sigma_2|}{|\Sigma_1|} & "
            + rf"{{}} - \tfrac{{1}}{{2}}{E1}[{form(1, 1)}] & "
            + rf"{{}} + \tfrac{{1}}{{2}}{E1}[{form(2, 2)}]",
            "Line 2 for both in line 1; $\\tfrac{k}{2}\\log 2\\pi$ cancels, and no determinant has "
            "a $z$ in it.",
            (closed, 0.5 * (log_ratio - by_own + by_other)),
        ),
        Line(
            rf"{E1}[{form(1, 1)}]",
            "=",
            r"\operatorname{tr}(\Sigma_1^{-1} " + rf"{E1}[(z - \mu_1)(z - \mu_1)^\top])",
            "A number is its own trace, $\\operatorname{tr}(A B) = \\operatorname{tr}(B A)$, and "
            "the expectation of a sum is the sum of the expectations.",
            (by_own, np.trace(inverse_1 @ scatter)),
        ),
        Line(
            r"\operatorname{tr}(\Sigma_1^{-1} " + rf"{E1}[(z - \mu_1)(z - \mu_1)^\top])",
            "=",
            r"\operatorname{tr}(\Sigma_1^{-1} \Sigma_1)",
            "What a covariance matrix is.",
            (np.trace(inverse_1 @ scatter), np.trace(inverse_1 @ covariance_1)),
        ),
        Line(
            r"\operatorname{tr}(\Sigma_1^{-1} \Sigma_1)",
            "=",
            "k",
            "The trace of the identity is the number of dimensions.",
            (np.trace(inverse_1 @ covariance_1), len(mean_1)),
        ),
        Line(
            rf"{E1}[{form(2, 2)}]",
            "=",
            rf"{E1}[{form(1, 2)}] & {{}} + (\mu_2 - \mu_1)^\top \Sigma_2^{{-1}} (\mu_2 - \mu_1)",
            "$z - \\mu_2 = (z - \\mu_1) - (\\mu_2 - \\mu_1)$, multiplied out: what is linear in "
            "$z - \\mu_1$ has mean zero.",
            (by_other, around_own_mean + shift),
        ),
        Line(
            rf"{E1}[{form(1, 2)}]",
            "=",
            r"\operatorname{tr}(\Sigma_2^{-1} \Sigma_1)",
            "As in lines 4 and 5, with $\\Sigma_2^{-1}$ in the middle.",
            (around_own_mean, trace),
        ),
        Line(
            r"\mathrm{KL}(\mathcal{N}_1 \,\|\, \mathcal{N}_2)",
            "=",
            r"\tfrac{1}{2}[\log\frac{|\Sigma_2|}{|\Sigma_1|} - k & "
            r"{} + \operatorname{tr}(\Sigma_2^{-1}\Sigma_1) & "
            r"{} + (\mu_2 - \mu_1)^\top \Sigma_2^{-1} (\mu_2 - \mu_1)]",
            "Lines 4 to 8 in line 3.",
            (on_grid, 0.5 * (log_ratio - len(mean_1) + trace + shift)),
        ),
    ]


def quadratic(z: Array, matrix: Array) -> Array:
    """z^T A z of each z [N, k]."""
    return np.asarray(np.einsum("ni,ij,nj->n", z, matrix, z))


def log_gaussian(z: Array, mean: Array, covariance: Array) -> Array:
    """The log-density of each z [N, k], as line 2 has it."""
    form = quadratic(z - mean, np.linalg.inv(covariance))
    return np.asarray(
        -len(mean) * HALF_LOG_2PI - 0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * form
    )
