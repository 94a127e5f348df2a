"""The rules of probability that the bound is made of, counted on images and on one Gaussian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, integrals, page
from experiments.tutorial.integrals import density, integral
from experiments.tutorial.probability_lines import CLASS, NOISE, SLOPE, X, bayes, densities
from experiments.tutorial.study import Study

DRAWS = (10, 1_000, 100_000)

TEXT = r"""
Five rules are enough for the whole of the next chapters. Take one of the [[count.all:,]] training
images at random and look at two things: its class $c$, and whether the pixel in the middle of it is
on (brighter than half), $x = 1$, or off, $x = 0$.

![images]

**A random variable** is a quantity whose value is left to chance: it has a set of values, and a
probability for each, which add up to one. Both $c$ and $x$ are random variables. Of the images
[[count.class:,]] are a [[class]], so

$$ P(c = 9) = \frac{N_{c = 9}}{N} $$

which is [[count.class:,]] / [[count.all:,]] = [[p.class:.4f]].

**The joint probability** $P(x, c)$ is that of both values together. [[count.both:,]] images are a
[[class]] *and* have the pixel off: $P(x = 0, c = 9) =$ [[p.joint:.4f]].

**The conditional probability** $P(x \mid c)$ is that of one value among the cases in which the
other is known:

$$ P(x \mid c) = \frac{P(x, c)}{P(c)} $$

Among the [[count.class:,]] nines the pixel is off in [[count.both:,]]: $P(x = 0 \mid c = 9) =$
[[p.off_given_class:.4f]].

**The theorem of total probability**: every image has some class, so the probability of $x$ is the
sum over all of them,

$$ P(x) = \sum_c P(x \mid c)\, P(c) $$

The ten products add up to [[p.total:.4f]], and counted without looking at classes the pixel is off
in [[count.off:,]] images, $P(x = 0) =$ [[p.off:.4f]].

**Bayes' rule** turns a conditional probability round:

$$ P(c \mid x) = \frac{P(x \mid c)\, P(c)}{P(x)} $$

Before the pixel is seen, a [[class]] has probability [[p.class:.4f]], its *prior*. Seen that it is
off, the probability is [[p.class_given_off:.4f]], the *posterior*. $P(x \mid c)$ is the
*likelihood*, and $P(x)$ the *evidence*. Every line of its proof, with what both sides come to when
each factor is counted on its own:

=[bayes]

![bars]

> Where write-ups slip: $P(x \mid c)$ and $P(c \mid x)$ are taken for each other. For the zero,
which has a hole in the middle, $P(x = 0 \mid c = 0) =$ [[p.off_given_zero:.1%]], but
$P(c = 0 \mid x = 0) =$ [[p.zero_given_off:.1%]]: nearly every zero has the pixel off, and most
images that have it off are no zeros.

**The expectation** of a function is its mean, each value weighted by its probability:

$$ \mathbb{E}_{P(x)}\left[f(x)\right] = \sum_x P(x)\, f(x) $$

The index says from which distribution $x$ comes. For $f(x) = x$ it is the probability of on,
[[p.on:.4f]]. For $f(c) = -\log P(c)$ it is the mean *surprise*: an event of probability $p$ carries
$-\log p$ **nats** of information (with the logarithm to base 2 it would be bits; one nat is
[[bits:.3f]] bits). Here that is [[entropy:.4f]] nats an image, close to $\log 10 =$
[[log_classes:.4f]], which ten classes of equal probability would have. Expectations are linear,
$\mathbb{E}[a f + b g] = a\, \mathbb{E}[f] + b\, \mathbb{E}[g]$, and that of a constant is the
constant. Both are used in every proof that follows.

**With densities.** A code $z$ is a real number. A probability then belongs to an interval, a
*density* $p(z)$ to a point, and sums become integrals. Nothing else changes. As a model take

$$ p(z) = \mathcal{N}(z;\, 0,\, 1) $$

$$ p(x \mid z) = \mathcal{N}(x;\, 0.8\, z,\, 0.6^2) $$

that is, a code and a "decoder" of one number each, and observe $x = 1.5$. Values at $z = 0.5$:

=[densities]

![posterior]

**The mean of draws.** Where there is no integral to be had, an expectation is estimated from $S$
independent draws, a *Monte Carlo* estimate:

$$ \mathbb{E}_{p(z)}\left[f(z)\right] \approx \frac{1}{S} \sum_{s=1}^{S} f(z_s),
\qquad z_s \sim p(z) $$

It is right on average, and its standard error is the standard deviation of $f$ divided by
$\sqrt{S}$: a hundred times the draws for one more digit. For the evidence of line 3, with
$f(z) = p(x \mid z)$ and the exact value [[evidence:.5f]]:

| draws $S$ | estimate | standard error |
| [[draws.0.num:,]] | [[draws.0.estimate:.5f]] | [[draws.0.standard_error:.5f]] |
| [[draws.1.num:,]] | [[draws.1.estimate:.5f]] | [[draws.1.standard_error:.5f]] |
| [[draws.2.num:,]] | [[draws.2.estimate:.5f]] | [[draws.2.standard_error:.5f]] |
"""

EXERCISES = (
    (
        "From the counts in the text alone: how probable is a 9 once the pixel is seen to be *on*?",
        "Of the [[count.class:,]] nines [[count.both:,]] have it off, so "
        "[[exercises.class_and_on:,]] have it on, out of [[exercises.on:,]] images that do: "
        "$P(c = 9 \\mid x = 1) =$ [[exercises.class_given_on:.4f]].",
    ),
    (
        "Which class is the most probable one when the pixel is off, and which when it is on?",
        "Off: [[exercises.best_off]], with probability [[exercises.best_off_probability:.3f]]. On: "
        "[[exercises.best_on]], with [[exercises.best_on_probability:.3f]]. One pixel leaves much "
        "open.",
    ),
    (
        "How many nats does the pixel tell about the class on average, that is, by how much does "
        "the mean surprise of $c$ fall once $x$ is known?",
        "$\\mathbb{E}_{P(x, c)}[\\log P(c \\mid x) - \\log P(c)] =$ [[exercises.told:.4f]] nats, "
        "of the [[entropy:.4f]] there are. It cannot tell more than its own mean surprise, "
        "[[exercises.pixel_entropy:.4f]].",
    ),
    (
        "In the Gaussian model, what are the mean and the standard deviation of $p(z \\mid x)$ for "
        "$x = 0.5$, and which of them changes with $x$?",
        "The mean is $0.8\\, x =$ [[exercises.mean:.4f]], the standard deviation "
        "[[exercises.scale:.4f]], whatever $x$ is. By sums over a grid of codes.",
    ),
    (
        "How many draws does the estimate of the evidence need for a standard error of 0.0001?",
        "One draw of $p(x \\mid z)$ has a standard deviation of [[exercises.deviation:.4f]], and "
        "$(\\mathrm{sd} / 0.0001)^2$ are [[exercises.draws_needed:,.0f]] draws.",
    ),
)


def evidence_by_draws(key: jax.Array, x: float, num_draws: int) -> tuple[jax.Array, jax.Array]:
    """p(x) = E[p(x|z)] over draws from the prior, and its standard error."""
    z = vae_jax.sample(key, vae_jax.Normal(jnp.zeros(1), 1.0), num_draws)
    f = jnp.exp(vae_jax.Normal(SLOPE * z, NOISE).log_prob(jnp.array([x])))
    return f.mean(), f.std(ddof=1) / jnp.sqrt(num_draws)


def run(study: Study) -> page.Chapter:
    images, label = study.dataset.train
    off = middle(images) <= 127
    nine, zero, num_classes = label == CLASS, label == 0, study.dataset.num_classes
    p_class = np.bincount(label) / len(label)
    lines = densities()
    estimates = []
    for num, key in zip(DRAWS, jax.random.split(study.key("probability"), 3), strict=True):
        estimate, error = evidence_by_draws(key, X, num)
        estimates.append({"num": num, "estimate": estimate, "standard_error": error})
    given = {"off": share_of_classes(label[off]), "on": share_of_classes(label[~off])}
    numbers = {
        "class": CLASS,
        "count": {
            "all": len(label),
            "class": nine.sum(),
            "off": off.sum(),
            "both": (off & nine).sum(),
        },
        "p": {
            "class": nine.mean(),
            "joint": (off & nine).mean(),
            "off": off.mean(),
            "on": (~off).mean(),
            "off_given_class": off[nine].mean(),
            "class_given_off": nine[off].mean(),
            "total": sum(off[label == c].mean() * p_class[c] for c in range(num_classes)),
            "off_given_zero": off[zero].mean(),
            "zero_given_off": zero[off].mean(),
        },
        "off_given_class": [off[label == c].mean() for c in range(num_classes)],
        "class_given_off": given["off"],
        "bits": 1 / np.log(2),
        "entropy": entropy(p_class),
        "log_classes": np.log(num_classes),
        "evidence": density(X, 0, np.hypot(SLOPE, NOISE)),
        "draws": estimates,
        "derivations": page.derived(bayes=bayes(off, label), densities=lines),
        "exercises": exercises(off, label, given),
    }
    numbers = page.plain(numbers)
    figures = {
        "images": draw_images(images, label),
        "bars": draw_bars(numbers),
        "posterior": draw_posterior(),
    }
    code = (evidence_by_draws, integrals.integral, integrals.density)
    return page.Chapter("Probability", TEXT, numbers, figures, code, exercises=EXERCISES)


def middle(images: np.ndarray) -> np.ndarray:
    return images[:, images.shape[1] // 2, images.shape[2] // 2, 0]


def share_of_classes(label: np.ndarray) -> np.ndarray:
    return np.bincount(label, minlength=10) / len(label)


def entropy(p: np.ndarray) -> float:
    """E[-log p], where 0 log 0 is 0."""
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def exercises(off: np.ndarray, label: np.ndarray, given: dict[str, Any]) -> dict[str, Any]:
    nine, x = label == CLASS, 0.5

    def weight(z: Any) -> Any:
        return density(x, SLOPE * z, NOISE) * density(z, 0, 1)

    mass = integral(weight)
    mean = integral(lambda z: z * weight(z)) / mass
    variance = integral(lambda z: (z - mean) ** 2 * weight(z)) / mass
    likelihood = {
        power: integrals.expectation(0, 1, lambda z, n=power: density(X, SLOPE * z, NOISE) ** n)
        for power in (1, 2)
    }
    deviation = np.sqrt(likelihood[2] - likelihood[1] ** 2)
    remaining = sum(
        share * entropy(p)
        for share, p in ((off.mean(), given["off"]), ((~off).mean(), given["on"]))
    )
    return {
        "class_and_on": (nine & ~off).sum(),
        "on": (~off).sum(),
        "class_given_on": nine[~off].mean(),
        "best_off": given["off"].argmax(),
        "best_off_probability": given["off"].max(),
        "best_on": given["on"].argmax(),
        "best_on_probability": given["on"].max(),
        "told": entropy(share_of_classes(label)) - remaining,
        "pixel_entropy": entropy(np.array([off.mean(), (~off).mean()])),
        "mean": mean,
        "scale": np.sqrt(variance),
        "deviation": deviation,
        "draws_needed": np.ceil((deviation / 1e-4) ** 2),
    }


def draw_images(images: np.ndarray, label: np.ndarray) -> page.Figure:
    figure, axes = drawing.panels(height=1.15)
    means = np.stack([images[label == c].mean(axis=0) / 255 for c in np.unique(label)])
    drawing.images(axes, means, len(means))
    drawing.column_labels(axes, np.unique(label))
    height, width = images.shape[1:3]
    for c in range(len(means)):
        corner = (c * (width + 1) + width // 2 - 0.5, height // 2 - 0.5)
        axes.add_patch(drawing.plt.Rectangle(corner, 1, 1, fill=False, color=drawing.ORANGE))
    return page.figure(
        figure,
        "The average image of each of the ten classes, with one pixel near the middle framed.",
        "The mean image of each class, and the pixel $x$ (framed).",
    )


def draw_bars(numbers: dict[str, Any]) -> page.Figure:
    figure, axes = drawing.panels(1, 2, 2.2)
    for panel, name, label, colour in (
        (axes[0], "off_given_class", "$P(x = 0 \\mid c)$", drawing.BLUE),
        (axes[1], "class_given_off", "$P(c \\mid x = 0)$", drawing.ORANGE),
    ):
        panel.bar(range(10), numbers[name], color=colour)
        panel.set(xlabel="class $c$", ylabel=label, xticks=range(10))
    return page.figure(
        figure,
        "Left, ten bars between 0 and 1 that add up to more than one: how often each class has the "
        "pixel off. Right, ten bars that add up to one: the classes of the images that have it "
        "off.",
        "A likelihood and a posterior. The bars on the left are ten different distributions' and "
        "need not add up to one; those on the right do.",
    )


def draw_posterior() -> page.Figure:
    figure, axes = drawing.panels(height=2.5)
    z = np.linspace(-3, 4, 400)
    axes.plot(z, density(z, 0, 1), "--", color=drawing.GREY, label="prior $p(z)$")
    axes.plot(
        *(z, density(X, SLOPE * z, NOISE), ":"),
        color=drawing.ORANGE,
        label="likelihood $p(x \\mid z)$",
    )
    joint = density(X, SLOPE * z, NOISE) * density(z, 0, 1)
    axes.fill_between(z, joint, color="#d9d9d9", label="their product; its area is $p(x)$")
    axes.plot(z, joint / density(X, 0, 1), color=drawing.BLUE, label="posterior $p(z \\mid x)$")
    axes.set(xlabel="$z$", ylabel="density", ylim=(0, None))
    axes.legend(loc="upper left")
    return page.figure(
        figure,
        "Four curves over z: the prior around 0, the likelihood around 1.9, their product small "
        "between them, and the posterior, the product made to have area one, around 1.2.",
        "Bayes' rule for $x = 1.5$: prior times likelihood, divided by its own area.",
    )
