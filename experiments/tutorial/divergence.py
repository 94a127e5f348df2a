"""The Kullback-Leibler divergence, and its form between Gaussians."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import divergence_lines, drawing, page
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

It is what one pays, in nats an outcome, for writing outcomes of $P$ down in a shorthand made for
those of $Q$: the mean surprise ([#probability]) with the wrong probabilities, less that with the
right ones.

![discrete]

For the two above $\mathrm{{KL}}(P \,\|\, Q)$ is [[discrete.forward:.3f]] and
$\mathrm{{KL}}(Q \,\|\, P)$ is [[discrete.reverse:.3f]] nats: it is no distance, the order matters.
Single terms can be negative, the sum cannot; of [[num_random]] random pairs of distributions the
smallest divergence was [[least:.3f]], and from a distribution to itself it is
[[discrete.itself:.0f]].

**Why it cannot.** Two proofs, the second by the inequality that the bound will need again. Values
are those of the $P$ and $Q$ above.

![logarithm]

=[nonnegative]

**Which way round.** Fit one Gaussian $Q$ to a distribution $P$ with two peaks. The smallest
$\mathrm{{KL}}(P \,\|\, Q)$ wants $Q$ wherever $P$ is, and covers both peaks. The smallest
$\mathrm{{KL}}(Q \,\|\, P)$ wants $Q$ nowhere that $P$ is not, and sits on one. A VAE's encoder is
fitted in the second way.

![fits]

**The one a VAE needs** is between a Gaussian with diagonal covariance, which the encoder computes,
and the prior $\mathcal{{N}}(0, I)$. With $\ell_i = \log\sigma_i^2$,

$$ \mathrm{{KL}}(q \,\|\, p) = {DIAGONAL} $$

From the definition, line by line, at $\mu = (1, -0.5)$ and $\ell = (-0.8, 0.6)$ (lines 1 to 8 at
the first of each):

=[diagonal]

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

**Between any two Gaussians** with means $\mu_1, \mu_2$ and covariance matrices
$\Sigma_1, \Sigma_2$ in $k$ dimensions there is a closed form:

$$ \mathrm{{KL}}(\mathcal{{N}}_1 \,\|\, \mathcal{{N}}_2) = $$

$$ {FULL} $$

For a pair of full covariance matrices in [[gaussian.dimensions]] dimensions:

=[full]

Without a closed form there are always draws: the mean of
$\log \mathcal{{N}}_1(z) - \log \mathcal{{N}}_2(z)$ over [[gaussian.num_draws:,]] draws from
$\mathcal{{N}}_1$ is [[gaussian.monte_carlo:.4f]] ± [[gaussian.standard_error:.4f]], where the
closed form is [[gaussian.closed_form:.4f]].

![monte_carlo]
"""

EXERCISES = (
    (
        "By hand: the divergence of $\\mathcal{N}(1, 2^2)$ from $\\mathcal{N}(0, 1)$.",
        "$\\tfrac{1}{2}(4 + 1 - 1 - \\log 4) =$ [[exercises.by_hand:.4f]] nats.",
    ),
    (
        "And the other way round, of $\\mathcal{N}(0, 1)$ from $\\mathcal{N}(1, 2^2)$? Which of "
        "the two is larger, and why?",
        "[[exercises.reverse:.4f]] nats. The first is larger: draws of the wide Gaussian fall "
        "where the narrow one has almost no density, which is dear; draws of the narrow one all "
        "lie where the wide one has some.",
    ),
    (
        "How far may $\\mu$ move from 0, with $\\sigma = 1$, before the code says one bit?",
        "$\\tfrac{1}{2}\\mu^2 = \\log 2$ nats at $\\mu =$ [[exercises.one_bit:.4f]].",
    ),
    (
        "$P = (0.5, 0.5)$ and $Q = (1, 0)$. What are the two divergences?",
        "$\\mathrm{KL}(Q \\,\\|\\, P) = \\log 2 =$ [[exercises.one_of_two:.4f]], where a term with "
        "probability zero counts as zero. $\\mathrm{KL}(P \\,\\|\\, Q)$ is infinite: $P$ has an "
        "outcome that $Q$ calls impossible. With $Q = (1 - 10^{-6}, 10^{-6})$ it is "
        "[[exercises.nearly_impossible:.4f]].",
    ),
    (
        "Put $\\mu_2 = 0$, $\\Sigma_2 = I$ and $\\Sigma_1 = \\operatorname{diag}(\\sigma^2)$ "
        "into the formula of two full covariances. What is left of each term?",
        "$\\log(|I| / |\\Sigma_1|) = -\\sum_i \\log\\sigma_i^2$, the trace is "
        "$\\sum_i \\sigma_i^2$, the quadratic form $\\sum_i \\mu_i^2$, and $k$ is a sum of ones: "
        "the form a VAE needs. At the values above both give [[exercises.special_case:.4f]] nats.",
    ),
)


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
        "derivations": page.derived(
            nonnegative=divergence_lines.nonnegative(np.array(P), np.array(Q)),
            diagonal=divergence_lines.diagonal(np.array(MEAN), np.array(LOGVAR)),
            full=divergence_lines.full(*(np.asarray(a, np.float64) for a in gaussians())),
        ),
        "exercises": exercises(),
    }
    numbers = page.plain(numbers)
    figures = {
        "discrete": draw_discrete(),
        "logarithm": draw_logarithm(),
        "fits": draw_fits(numbers["fits"]),
        "monte_carlo": draw_monte_carlo(terms, numbers["gaussian"]["closed_form"]),
    }
    code = (monte_carlo, gaussian_divergence, diagonal_divergence)
    return page.Chapter("Divergence", TEXT, numbers, figures, code, exercises=EXERCISES)


def gaussians() -> tuple[jax.Array, ...]:
    """Means and covariances of two correlated Gaussians in three dimensions."""
    factor_1 = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.2, 0.7]])
    factor_2 = jnp.array([[1.3, 0.0, 0.0], [-0.4, 1.0, 0.0], [0.2, 0.5, 1.1]])
    mean_1, mean_2 = jnp.array([0.5, -0.3, 0.2]), jnp.array([-0.2, 0.4, 0.0])
    return mean_1, factor_1 @ factor_1.T, mean_2, factor_2 @ factor_2.T


def exercises() -> dict[str, Any]:
    normal, discrete = vae_jax.Normal, vae_jax.Categorical
    one, two = jnp.ones(1), 2 * jnp.ones(1)
    standard = normal(jnp.zeros(1), one)
    even, certain = jnp.log(jnp.array([0.5, 0.5])), jnp.array([1 - 1e-6, 1e-6])
    mean, variance = jnp.array(MEAN), jnp.exp(jnp.array(LOGVAR))
    return {
        "by_hand": vae_jax.kl_divergence(normal(one, two), standard),
        "reverse": vae_jax.kl_divergence(standard, normal(one, two)),
        "one_bit": np.sqrt(2 * np.log(2)),
        "one_of_two": vae_jax.kl_divergence(discrete(jnp.array([0.0, -jnp.inf])), discrete(even)),
        "nearly_impossible": vae_jax.kl_divergence(discrete(even), discrete(jnp.log(certain))),
        "special_case": gaussian_divergence(mean, jnp.diag(variance), jnp.zeros(2), jnp.eye(2)),
    }


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


def draw_logarithm() -> page.Figure:
    figure, axes = drawing.panels(height=2.7)
    t = np.linspace(0.05, 6, 400)
    axes.plot(t, t - 1, "--", color=drawing.GREY, label="$t - 1$")
    axes.plot(t, np.log(t), color=drawing.BLUE, label="$\\log t$")
    ratio, p = np.array(Q) / np.array(P), np.array(P)
    shown = ratio < 6  # the last ratio is far to the right
    axes.scatter(ratio[shown], np.log(ratio[shown]), 600 * p[shown], color=drawing.ORANGE, zorder=3)
    axes.plot([], [], "o", color=drawing.ORANGE, label="$Q_i / P_i$, as large as $P_i$")
    axes.set(xlabel="$t$", ylim=(-3, 3), xlim=(0, 6))
    axes.legend(loc="lower right")
    return page.figure(
        figure,
        "The logarithm bends downwards under the straight line t minus one, which touches it at "
        "one; five points on the logarithm, the larger ones to the left of one.",
        "The picture of the proof: the logarithm lies under its tangent at 1, so the mean of "
        "$\\log t$ under $P$ lies under the mean of $t - 1$, which is zero for $t = Q_i / P_i$. "
        "The sixth ratio, at "
        f"{ratio.max():g}"
        ", is not shown.",
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
