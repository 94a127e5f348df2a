"""The bound of a conditional VAE line by line, with a code and an observation of one number."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.integrals import Array, density, expectation, integral, log_density
from experiments.tutorial.page import Line
from experiments.tutorial.study import Study

P_CLASS = (0.5, 0.3, 0.2)
PRIOR_MEAN, PRIOR_SCALE = (-1.5, 0.0, 2.0), (0.5, 1.0, 0.7)
OFFSET, SLOPE, NOISE = (0.4, -0.3, 0.8), 1.0, 0.5
X, CLASS = 0.5, 0
Q_MEAN, Q_SCALE = -0.2, 0.5

GAP = r"\mathrm{KL}(q(z \mid x, c) \,\|\, p(z \mid x, c))"
TO_PRIOR = r"\mathrm{KL}(q(z \mid x, c) \,\|\, p(z \mid c))"
LOG_Q = r"\mathbb{E}_q[\log q(z \mid x, c)]"
LOG_LIKELIHOOD = r"\mathbb{E}_q[\log p(x \mid z, c)]"
LOG_PRIOR = r"\mathbb{E}_q[\log p(z \mid c)]"

TEXT = r"""
The bound of [#conditional] is that of [#bound] with $c$ behind every bar. That is no accident: the
class is *given* in every distribution, so every rule of [#probability] holds as before, among the
images of that class. What takes part is

| | | here |
| prior | $p(z \mid c)$ | where the codes of class $c$ are, without an image |
| decoder | $p(x \mid z, c)$ | the image, from code and class |
| encoder | $q(z \mid x, c)$ | the code, from image and class |
| evidence | $p(x \mid c)$ | the image among those of its class |

For values take a model of three classes in which code and observation are one number each, with
priors $\mathcal{N}(m_c, s_c^2)$ and decoders $\mathcal{N}(z + v_c,\, 0.5^2)$:

| class | $P(c)$ | $m_c$ | $s_c$ | $v_c$ |
| 1 | 0.5 | $-1.5$ | 0.5 | 0.4 |
| 2 | 0.3 | 0 | 1 | $-0.3$ |
| 3 | 0.2 | 2 | 0.7 | 0.8 |

The observation is $x = 0.5$, of the first class (an unusual one), and
$q = \mathcal{N}(-0.2,\, 0.5^2)$.

=[conditional]

![classes]

Lines 10 to 12 are about what a label is worth. The conditional bound is one of another quantity,
which may be larger or smaller for one image; on average over images and their classes it is larger,
by what the image and its class have in common, their mutual information, here
[[information:.4f]] of at most [[class_entropy:.4f]] nats.

> Where write-ups slip. The divergence is to the prior from which codes are drawn for this class.
Where that is $p(z \mid c)$, a standard Gaussian in its place is no bound of the right thing: for
the $x$ and $c$ above and $q$ the true posterior it gives [[slips.standard:.4f]], above
$\log p(x \mid c) =$ [[log_px:.4f]]. With $p(z \mid c) = \mathcal{N}(0, I)$ for all classes, which
is a choice one may make, it is right, but then for another model. And an encoder that is not shown
$c$ still gives a bound, a lower one: the closest single $q(z \mid x)$ for all three classes, each
as probable as $x$ makes it, leaves [[slips.without_class:.4f]] nats more of gap on average than a
$q$ for each.
"""

EXERCISES = (
    (
        "Which class does $x = 0.5$ most probably have? Compute $p(c \\mid x)$ from the three "
        "evidences.",
        "$p(x \\mid c)$ is [[exercises.evidence.0:.4f]], [[exercises.evidence.1:.4f]] and "
        "[[exercises.evidence.2:.4f]]; times $P(c)$ and divided by their sum, "
        "[[exercises.class.0:.4f]], [[exercises.class.1:.4f]] and [[exercises.class.2:.4f]]. So a "
        "generative model of each class is a classifier.",
    ),
    (
        "What is the best the conditional bound can be for $x = 0.5$ and the second class, and for "
        "which $q$?",
        "$\\log p(x \\mid c) =$ [[exercises.second:.4f]], for the true posterior, a Gaussian of "
        "mean [[exercises.second_mean:.4f]] and standard deviation [[exercises.second_scale:.4f]].",
    ),
    (
        "By how much does a *wrong* label, the third class, lower the bound of the $q$ that is "
        "best for the first?",
        "To [[exercises.wrong:.4f]] from [[log_px:.4f]] nats, by [[exercises.lowered:.4f]]. "
        "The evidence itself changes by [[exercises.evidence_change:.4f]]; the rest is that $q$ is "
        "the posterior of another class.",
    ),
    (
        "Ten classes of equal probability: how much can a label tell at most, and why do the "
        "bounds of [#conditional] differ by more?",
        "$\\log 10 =$ [[exercises.ten:.4f]] nats on average, for the evidences. Bounds have gaps, "
        "and those of the two models are not the same: with two dimensions and no class, $q$ and "
        "the decoder have to find room for the class too.",
    ),
    (
        "Draw $c$ from $P(c)$, $z$ from $p(z \\mid c)$ and $x$ from the decoder. What are the mean "
        "and the standard deviation of $x$?",
        "By total expectation, $\\sum_c P(c) (m_c + v_c) =$ [[exercises.mean:.4f]], and from the "
        "second moments [[exercises.deviation:.4f]]: wider than within any class, where it is at "
        "most [[exercises.within:.4f]].",
    ),
)


def log_joint(z: Array, c: int) -> Array:
    """log p(x, z | c) at the observation."""
    return log_density(X, SLOPE * z + OFFSET[c], NOISE) + log_density(
        z, PRIOR_MEAN[c], PRIOR_SCALE[c]
    )


def exact_posterior(c: int) -> tuple[float, float]:
    """Mean and standard deviation of p(z | x, c): precisions add, means are weighted by them."""
    prior, data = PRIOR_SCALE[c] ** -2, SLOPE**2 / NOISE**2
    mean = (prior * PRIOR_MEAN[c] + data * (X - OFFSET[c]) / SLOPE) / (prior + data)
    return mean, (prior + data) ** -0.5


def exact_evidence(c: int, x: Array | float = X) -> Array:
    """p(x | c)."""
    return density(x, SLOPE * PRIOR_MEAN[c] + OFFSET[c], np.hypot(SLOPE * PRIOR_SCALE[c], NOISE))


def divergence(mean: float, scale: float, other_mean: float, other_scale: float) -> float:
    first, second = (
        vae_jax.Normal(jnp.array([m]), jnp.array([s]))
        for m, s in ((mean, scale), (other_mean, other_scale))
    )
    return float(vae_jax.kl_divergence(first, second))


def conditional() -> list[Line]:
    c, z = CLASS, np.array(Q_MEAN)
    posterior, prior = exact_posterior(c), (PRIOR_MEAN[c], PRIOR_SCALE[c])
    gap = divergence(Q_MEAN, Q_SCALE, *posterior)
    to_prior = divergence(Q_MEAN, Q_SCALE, *prior)

    def mean(f: Any) -> float:
        return expectation(Q_MEAN, Q_SCALE, f)

    evidence = integral(lambda z: np.exp(log_joint(z, c)))
    log_px = float(np.log(exact_evidence(c)))
    log_q = mean(lambda z: log_density(z, Q_MEAN, Q_SCALE))
    log_posterior = mean(lambda z: log_density(z, *posterior))
    log_prior = mean(lambda z: log_density(z, *prior))
    log_likelihood = mean(lambda z: log_density(X, SLOPE * z + OFFSET[c], NOISE))
    evidences = np.array([exact_evidence(k) for k in range(len(P_CLASS))])
    all_classes = sum(
        p * integral(lambda z, k=k: np.exp(log_joint(z, k))) for k, p in enumerate(P_CLASS)
    )
    log_class = float(np.log(P_CLASS[c] * evidences[c] / (P_CLASS @ evidences)))
    return [
        Line(
            r"p(x \mid c)",
            "=",
            r"\int p(x \mid z, c)\, p(z \mid c)\, dz",
            "Total probability, among the images of class $c$.",
            (float(exact_evidence(c)), evidence),
        ),
        Line(
            r"p(z \mid x, c)",
            "=",
            r"\frac{p(x \mid z, c)\, p(z \mid c)}{p(x \mid c)}",
            "Bayes' rule, among the images of class $c$. Values at the mean of $q$.",
            (float(density(z, *posterior)), float(np.exp(log_joint(z, c))) / evidence),
        ),
        Line(
            GAP,
            "=",
            rf"{LOG_Q} & {{}} - \mathbb{{E}}_q[\log p(z \mid x, c)]",
            "The definition of the divergence; $\\mathbb{E}_q$ is over $z \\sim q(z \\mid x, c)$.",
            (gap, log_q - log_posterior),
        ),
        Line(
            GAP,
            "=",
            rf"{LOG_Q} & {{}} - {LOG_LIKELIHOOD} & {{}} - {LOG_PRIOR} & {{}} + \log p(x \mid c)",
            "The logarithm of line 2 in line 3; $\\log p(x \\mid c)$ has no $z$ in it and comes "
            "out of the expectation.",
            (gap, log_q - log_likelihood - log_prior + np.log(evidence)),
        ),
        Line(
            rf"{LOG_Q} & {{}} - {LOG_PRIOR}",
            "=",
            TO_PRIOR,
            "The definition of the divergence from the *class's* prior.",
            (log_q - log_prior, to_prior),
        ),
        Line(
            rf"\log p(x \mid c) & {{}} - {GAP}",
            "=",
            rf"{LOG_LIKELIHOOD} & {{}} - {TO_PRIOR}",
            "Line 5 in line 4, both sides times $-1$, and $\\log p(x \\mid c)$ on both sides.",
            (log_px - gap, log_likelihood - to_prior),
        ),
        Line(GAP, r"\ge", "0", "No divergence is negative ([#divergence]).", (gap, 0.0)),
        Line(
            r"\log p(x \mid c)",
            r"\ge",
            rf"{LOG_LIKELIHOOD} & {{}} - {TO_PRIOR} & {{}} = \mathcal{{L}}(x, c)",
            "Line 7 in line 6: **the conditional bound**.",
            (log_px, log_likelihood - to_prior),
        ),
        Line(
            r"{} - \mathcal{L}(x, c)",
            "=",
            rf"\mathbb{{E}}_q[{{}} - \log p(x \mid z, c)] & {{}} + {TO_PRIOR}",
            "The **loss**: the mean over images with their classes is made small.",
            (gap - log_px, to_prior - log_likelihood),
        ),
        Line(
            r"p(x)",
            "=",
            r"\sum_k P(c = k)\, p(x \mid c = k)",
            "Back to images of all classes: total probability once more.",
            (all_classes, P_CLASS @ evidences),
        ),
        Line(
            r"\log p(x \mid c) - \log p(x)",
            "=",
            r"\log p(c \mid x) - \log P(c)",
            "Bayes' rule for the class: the label raises the image's log-probability by as much "
            "as the image raises the label's.",
            (log_px - np.log(all_classes), log_class - np.log(P_CLASS[c])),
        ),
        Line(
            r"\log p(x \mid c) - \log p(x)",
            r"\le",
            r"{} - \log P(c)",
            "$\\log p(c \\mid x)$ is never above zero: a label tells at most its own surprise.",
            (log_px - np.log(all_classes), -np.log(P_CLASS[c])),
        ),
    ]


def run(study: Study) -> page.Chapter:
    del study  # nothing is trained, and nothing drawn
    p_class = np.array(P_CLASS)
    line = np.linspace(-12, 14, 5201)
    evidences = np.stack([exact_evidence(c, line) for c in range(len(P_CLASS))])
    mixture = p_class @ evidences
    terms = (p_class[:, None] * evidences * (np.log(evidences) - np.log(mixture))).sum(axis=0)
    numbers = {
        "x": X,
        "class": CLASS,
        "log_px": np.log(exact_evidence(CLASS)),
        "information": np.trapezoid(terms, line),
        "class_entropy": -p_class @ np.log(p_class),
        "slips": slips(),
        "derivations": page.derived(conditional=conditional()),
        "exercises": exercises(),
    }
    code = (divergence, log_joint, exact_posterior)
    figures = {"classes": draw_classes()}
    return page.Chapter(
        *("The conditional bound", TEXT, page.plain(numbers), figures, code), exercises=EXERCISES
    )


def class_given_x() -> Array:
    joint = np.array([p * exact_evidence(c) for c, p in enumerate(P_CLASS)])
    return joint / joint.sum()


def slips() -> dict[str, float]:
    posteriors = [exact_posterior(c) for c in range(len(P_CLASS))]
    mean, scale = posteriors[CLASS]
    fit = expectation(mean, scale, lambda z: log_density(X, SLOPE * z + OFFSET[CLASS], NOISE))
    # Least sum of p(c|x) KL(q || p(z|x,c)): precisions are averaged, and so are means by them.
    weight = class_given_x() * np.array([s**-2 for _, s in posteriors])
    shared = weight @ np.array([m for m, _ in posteriors]) / weight.sum(), weight.sum() ** -0.5
    return {
        "standard": fit - divergence(mean, scale, 0.0, 1.0),
        "without_class": sum(
            share * divergence(*shared, *posterior)
            for share, posterior in zip(class_given_x(), posteriors, strict=True)
        ),
    }


def exercises() -> dict[str, Any]:
    evidences = [exact_evidence(c) for c in range(len(P_CLASS))]
    second_mean, second_scale = exact_posterior(1)
    best = exact_posterior(CLASS)
    wrong = np.log(evidences[2]) - divergence(*best, *exact_posterior(2))
    means = np.array([SLOPE * m + v for m, v in zip(PRIOR_MEAN, OFFSET, strict=True)])
    within = np.hypot(SLOPE * np.array(PRIOR_SCALE), NOISE)
    mean = P_CLASS @ means
    return {
        "evidence": evidences,
        "class": class_given_x(),
        "second": np.log(evidences[1]),
        "second_mean": second_mean,
        "second_scale": second_scale,
        "wrong": wrong,
        "lowered": np.log(evidences[CLASS]) - wrong,
        "evidence_change": np.log(evidences[CLASS] / evidences[2]),
        "ten": np.log(10),
        "mean": mean,
        "deviation": np.sqrt(P_CLASS @ (within**2 + means**2) - mean**2),
        "within": within.max(),
    }


def draw_classes() -> page.Figure:
    figure, (left, right) = drawing.panels(1, 2, 2.5)
    z, x = np.linspace(-4, 5, 400), np.linspace(-5, 7, 400)
    colours, styles = (drawing.BLUE, drawing.ORANGE, drawing.GREEN), ("-", "--", "-.")
    for c, (colour, style) in enumerate(zip(colours, styles, strict=True)):
        left.plot(
            z,
            density(z, PRIOR_MEAN[c], PRIOR_SCALE[c]),
            style,
            color=colour,
            label=f"class {c + 1}",
        )
        right.plot(x, exact_evidence(c, x), style, color=colour)
    evidence = sum(p * exact_evidence(c, x) for c, p in enumerate(P_CLASS))
    right.fill_between(x, evidence, color="#d9d9d9", label="$p(x)$")
    right.axvline(X, color="black", linestyle=":", linewidth=1)
    left.set(xlabel="$z$", ylabel="density", title="priors $p(z \\mid c)$")
    right.set(xlabel="$x$", title="evidences $p(x \\mid c)$")
    left.legend()
    right.legend()
    return page.figure(
        figure,
        "Left, three bell curves over z, one for each class. Right, three wider ones over x, the "
        "mixture of them shaded, and a dotted line at the observation.",
        "The model of the values: each class has a prior and an evidence of its own; $p(x)$ is "
        "their mixture. Dotted, the observation.",
    )
