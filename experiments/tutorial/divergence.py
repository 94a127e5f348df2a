"""Chapter 3: the Kullback-Leibler divergence, and its form between Gaussians."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.study import Study

P = (0.36, 0.28, 0.18, 0.10, 0.06, 0.02)
Q = (0.05, 0.10, 0.15, 0.20, 0.25, 0.25)
MEAN, LOGVAR = (1.0, -0.5), (-0.8, 0.6)
NUM_DRAWS = 100_000

FULL = (
    r"\tfrac{1}{2}\left[\log\frac{|\Sigma_2|}{|\Sigma_1|} - k"
    r" + \operatorname{tr}(\Sigma_2^{-1}\Sigma_1)"
    r" + (\mu_2 - \mu_1)^\top \Sigma_2^{-1} (\mu_2 - \mu_1)\right]"
)
DIAGONAL = r"\tfrac{1}{2}\sum_{i=1}^{k}\left(\exp(\ell_i) + \mu_i^2 - 1 - \ell_i\right)"

TEXT = rf"""
How far is one distribution from another? The Kullback-Leibler divergence is the mean, under $P$, of
the difference of log-probabilities. For discrete outcomes $i$

$$ \mathrm{{KL}}(P \,\|\, Q) = \sum_i P_i \log\frac{{P_i}}{{Q_i}} $$

It is what one pays, in nats an outcome, for a code made for $Q$ where the outcomes come from $P$.

![discrete]

For the two above $\mathrm{{KL}}(P \,\|\, Q)$ is [[discrete.forward:.3f]] and
$\mathrm{{KL}}(Q \,\|\, P)$ is [[discrete.reverse:.3f]] nats: it is no distance, the order matters.
Single terms can be negative, the sum cannot; of [[num_random]] random pairs of distributions the
smallest divergence was [[least:.3f]], and from a distribution to itself it is
[[discrete.itself:.0f]].

**Which way round.** Fit one Gaussian $Q$ to a distribution $P$ with two peaks. The smallest
$\mathrm{{KL}}(P \,\|\, Q)$ wants $Q$ wherever $P$ is, and covers both peaks. The smallest
$\mathrm{{KL}}(Q \,\|\, P)$ wants $Q$ nowhere that $P$ is not, and sits on one. A VAE's encoder is
fitted in the second way.

![fits]

**Between Gaussians** with means $\mu_1, \mu_2$ and covariance matrices $\Sigma_1, \Sigma_2$ in $k$
dimensions there is a closed form:

$$ \mathrm{{KL}}(\mathcal{{N}}_1 \,\|\, \mathcal{{N}}_2) = $$

$$ {FULL} $$

For a pair in [[gaussian.dimensions]] dimensions it gives [[gaussian.closed_form:.4f]] nats. The
mean of $\log \mathcal{{N}}_1(z) - \log \mathcal{{N}}_2(z)$ over [[gaussian.num_draws:,]] draws from
$\mathcal{{N}}_1$ is [[gaussian.monte_carlo:.4f]] ± [[gaussian.standard_error:.4f]].

![monte_carlo]

**The one a VAE needs** has diagonal covariance, and the prior $\mathcal{{N}}(0, I)$. With
$\ell_i = \log\sigma_i^2$, the *logvar* of most code,

$$ \mathrm{{KL}}(q \,\|\, p) = {DIAGONAL} $$

> Where write-ups slip: the exponential belongs to $\ell_i$ alone, not around the sum; $\Sigma$ is a
covariance and $\sigma$ a standard deviation, $\Sigma_{{ii}} = \sigma_i^2$; and it is $\Sigma_2$, of
the second argument, that is inverted and stands on top of the fraction in the logarithm. At
$\mu = (1, -0.5)$, $\ell = (-0.8, 0.6)$ only one of these agrees with numerical integration:

| form | nats |
| numerical integration | [[diagonal.integral:.4f]] |
| $\tfrac{{1}}{{2}}\sum_i(\exp(\ell_i) + \mu_i^2 - 1 - \ell_i)$ | [[diagonal.right:.4f]] |
| exponential around the sum | [[diagonal.stray_exponential:.4f]] |
| $\sigma$ in the place of $\sigma^2$ | [[diagonal.scale_for_variance:.4f]] |
| the Gaussians swapped | [[diagonal.swapped:.4f]] |
"""


def gaussian_divergence(mean_1, covariance_1, mean_2, covariance_2):
    """KL(N(mean_1, covariance_1) || N(mean_2, covariance_2)), as the equation has it."""
    precision, shift = jnp.linalg.inv(covariance_2), mean_2 - mean_1
    return 0.5 * (
        jnp.linalg.slogdet(covariance_2)[1]
        - jnp.linalg.slogdet(covariance_1)[1]
        - len(mean_1)
        + jnp.trace(precision @ covariance_1)
        + shift @ precision @ shift
    )


def diagonal_divergence(mean, logvar):
    """KL(N(mean, diag(exp(logvar))) || N(0, I))."""
    return 0.5 * jnp.sum(jnp.exp(logvar) + mean**2 - 1 - logvar)


def monte_carlo(key, p, q, num_draws):
    """log p(z) - log q(z) for draws z ~ p; its mean estimates KL(p || q) for any two."""
    z = vae_jax.sample(key, p, num_draws)
    return vae_jax.log_prob(p, z) - vae_jax.log_prob(q, z)


def run(study: Study) -> page.Chapter:
    random_key, draw_key = jax.random.split(study.key("divergence"))
    p, q = (vae_jax.Categorical(jnp.log(jnp.array(probabilities))) for probabilities in (P, Q))
    logits = 2 * jax.random.normal(random_key, (2, 1000, len(P)))
    least = vae_jax.kl_divergence(*map(vae_jax.Categorical, logits)).min()

    mean_1, covariance_1, mean_2, covariance_2 = gaussians()
    first, second = (
        vae_jax.MultivariateNormal(mean, jnp.linalg.cholesky(covariance))
        for mean, covariance in ((mean_1, covariance_1), (mean_2, covariance_2))
    )
    terms = np.asarray(monte_carlo(draw_key, first, second, NUM_DRAWS), np.float64)
    numbers = {
        "p": P,
        "q": Q,
        "discrete": {
            "forward": vae_jax.kl_divergence(p, q),
            "reverse": vae_jax.kl_divergence(q, p),
            "itself": vae_jax.kl_divergence(p, p),
        },
        "num_random": logits.shape[1],
        "least": least,
        "fits": fits(),
        "gaussian": {
            "dimensions": len(mean_1),
            "means": [mean_1, mean_2],
            "covariances": [covariance_1, covariance_2],
            "closed_form": vae_jax.kl_divergence(first, second),
            "equation": gaussian_divergence(mean_1, covariance_1, mean_2, covariance_2),
            "num_draws": NUM_DRAWS,
            "monte_carlo": terms.mean(),
            "standard_error": terms.std(ddof=1) / np.sqrt(NUM_DRAWS),
        },
        "diagonal": {"mean": MEAN, "logvar": LOGVAR, **misprints()},
    }
    numbers = page.plain(numbers)
    figures = {
        "discrete": draw_discrete(),
        "fits": draw_fits(numbers["fits"]),
        "monte_carlo": draw_monte_carlo(terms, numbers["gaussian"]["closed_form"]),
    }
    code = (monte_carlo, gaussian_divergence, diagonal_divergence)
    return page.Chapter("Divergence", TEXT, numbers, figures, code)


def gaussians() -> tuple[jax.Array, ...]:
    """Means and covariances of two correlated Gaussians in three dimensions."""
    factor_1 = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.2, 0.7]])
    factor_2 = jnp.array([[1.3, 0.0, 0.0], [-0.4, 1.0, 0.0], [0.2, 0.5, 1.1]])
    mean_1, mean_2 = jnp.array([0.5, -0.3, 0.2]), jnp.array([-0.2, 0.4, 0.0])
    return mean_1, factor_1 @ factor_1.T, mean_2, factor_2 @ factor_2.T


def misprints() -> dict[str, Any]:
    """The diagonal form, three misprints of it, and the integral that tells them apart."""
    mean, logvar = np.array(MEAN), np.array(LOGVAR)
    scale = np.exp(logvar / 2)
    grid = np.linspace(-12, 12, 4001)[:, None]  # beyond ten standard deviations nothing is left
    log_q = -0.5 * ((grid - mean) / scale) ** 2 - np.log(scale)
    log_p = -0.5 * grid**2
    density = np.exp(log_q) / np.sqrt(2 * np.pi)
    return {
        "integral": np.trapezoid(density * (log_q - log_p), grid, axis=0).sum(),
        "right": diagonal_divergence(jnp.array(MEAN), jnp.array(LOGVAR)),
        "stray_exponential": 0.5 * np.exp(np.sum(logvar + mean**2 - 1 - logvar)),
        "scale_for_variance": 0.5 * np.sum(scale + mean**2 - 1 - np.log(scale)),
        "swapped": 0.5 * np.sum((1 + mean**2) / scale**2 - 1 + logvar),
    }


def two_peaks(z: np.ndarray) -> np.ndarray:
    """An even mixture of N(-2, 0.6^2) and N(2, 0.6^2)."""
    peaks = np.exp(-0.5 * ((z[..., None] - np.array([-2.0, 2.0])) / 0.6) ** 2)
    return peaks.mean(axis=-1) / (0.6 * np.sqrt(2 * np.pi))


def fits() -> dict[str, Any]:
    """The Gaussians of least divergence to and from two peaks, on a grid of means and scales."""
    z = np.linspace(-9, 9, 901)
    mean, scale = (
        a[..., None] for a in np.meshgrid(np.linspace(-3, 3, 121), np.linspace(0.3, 3, 109))
    )
    log_p = np.log(two_peaks(z))
    log_q = -0.5 * ((z - mean) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))
    step = z[1] - z[0]
    divergences = {
        "forward": (np.exp(log_p) * (log_p - log_q)).sum(axis=-1) * step,
        "reverse": (np.exp(log_q) * (log_q - log_p)).sum(axis=-1) * step,
    }
    found = {}
    for name, values in divergences.items():
        best = np.unravel_index(values.argmin(), values.shape)
        found[name] = {
            "mean": mean[best][0],
            "scale": scale[best][0],
            "divergence": values[best],
        }
    return found


def draw_discrete() -> page.Figure:
    p, q = np.array(P), np.array(Q)
    figure, (left, right) = drawing.panels(1, 2, 2.3)
    outcome = np.arange(1, len(P) + 1)
    left.bar(outcome - 0.2, p, 0.4, color=drawing.BLUE, label="P")
    left.bar(outcome + 0.2, q, 0.4, color=drawing.ORANGE, label="Q")
    left.set(xlabel="outcome $i$", ylabel="probability", xticks=outcome)
    left.legend()
    right.bar(outcome - 0.2, p * np.log(p / q), 0.4, color=drawing.BLUE, label="KL(P || Q)")
    right.bar(outcome + 0.2, q * np.log(q / p), 0.4, color=drawing.ORANGE, label="KL(Q || P)")
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="outcome $i$", ylabel="its term, nats", xticks=outcome)
    right.legend()
    return page.figure(
        figure,
        "Left, bars of two distributions over six outcomes, P falling and Q rising. Right, each "
        "outcome's term of the two divergences, some of them negative.",
        "Two distributions, and the terms that add up to each of the two divergences.",
    )


def draw_fits(found: dict[str, Any]) -> page.Figure:
    figure, axes = drawing.panels(height=2.5)
    z = np.linspace(-6, 6, 600)
    axes.fill_between(z, two_peaks(z), color="#d9d9d9", label="P, two peaks")
    for name, colour, style, label in (
        ("forward", drawing.BLUE, "-", "least KL(P || Q)"),
        ("reverse", drawing.ORANGE, "--", "least KL(Q || P)"),
    ):
        mean, scale = found[name]["mean"], found[name]["scale"]
        density = np.exp(-0.5 * ((z - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
        axes.plot(z, density, style, color=colour, label=label)
    axes.set(xlabel="$z$", ylabel="density")
    axes.legend()
    return page.figure(
        figure,
        "A density with two peaks; a wide Gaussian over both, and a narrow one over one of them.",
        "The Gaussian closest to two peaks, by either order of the divergence.",
    )


def draw_monte_carlo(terms: np.ndarray, exact: float) -> page.Figure:
    figure, axes = drawing.panels(height=2.5)
    num = np.unique(np.logspace(1, np.log10(len(terms)), 200).astype(int))
    mean = np.cumsum(terms)[num - 1] / num
    error = np.sqrt(np.maximum(np.cumsum(terms**2)[num - 1] / num - mean**2, 0) / num)
    axes.fill_between(num, mean - 2 * error, mean + 2 * error, color=drawing.BLUE, alpha=0.25)
    axes.plot(num, mean, color=drawing.BLUE, label="Monte Carlo, ± 2 standard errors")
    axes.axhline(exact, color=drawing.ORANGE, linestyle="--", label="closed form")
    axes.set(xscale="log", xlabel="draws", ylabel="KL, nats")
    axes.legend()
    return page.figure(
        figure,
        "The Monte Carlo estimate with its error band narrows around the closed form as the number "
        "of draws grows from ten to a hundred thousand.",
        "The divergence of two Gaussians in three dimensions, estimated and exact.",
    )
