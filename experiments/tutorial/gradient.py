"""The gradient of an expectation, by the score function and by reparameterisation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, gradient_lines, integrals, page
from experiments.tutorial.autoencoder import LATENTS, trained_vae
from experiments.tutorial.study import Study

DRAWS = {"reparameterised": 10, "score": 30, "score_baseline": 30}
"""For each estimate. A backward pass costs about two forward ones, which the score function of an
expectation over z does not need through the decoder: it gets three times as many draws."""
TITLES = {
    "score": "score function",
    "score_baseline": "score function, baseline",
    "reparameterised": "reparameterised",
}
COLOURS = (drawing.ORANGE, drawing.PURPLE, drawing.BLUE)
NUM_ESTIMATES, NUM_IMAGES = 2000, 8

TEXT = r"""
The bound's first term is an expectation over $q_\phi(z \mid x)$, estimated with draws. For $\theta$
that is simple: the gradient of the mean is the mean of the gradients. For $\phi$ it is not, because
$\phi$ says where the draws come from:

$$ \nabla_\phi\, \mathbb{E}_{q_\phi(z)}\left[f(z)\right]
\ne \mathbb{E}_{q_\phi(z)}\left[\nabla_\phi f(z)\right] $$

Why not, line by line. For values take one latent dimension, $\mu = 0.3$, $\sigma = 0.8$, and as
$f(z) = \log p_\theta(x \mid z)$ that of one pixel which is on, under a decoder of a single unit:
$f(z) = \log(1 / (1 + \exp(1 - 2 z)))$. The gradient is shown for $\sigma$.

=[inside]

There are two ways out.

**The score function** (Williams 1992) writes the missing term as an expectation:

=[by_score]

It needs nothing of $f$ but its values, and so works for discrete $z$ too. The constant $b$ is
called a baseline. But it only hears how good a draw was, never in which direction it would have
been better.

**The reparameterisation** (Kingma & Welling 2014; Rezende et al. 2014) moves $\phi$ out of the
distribution, with noise that has no parameters:

$$ z = \mu_\phi(x) + \sigma_\phi(x) \odot \epsilon, \qquad \epsilon \sim \mathcal{N}(0, I) $$

$$ \nabla_\phi\, \mathbb{E}_{q_\phi}\left[f(z)\right]
= \mathbb{E}_{\epsilon}\left[\nabla_\phi f(\mu_\phi + \sigma_\phi \odot \epsilon)\right] $$

=[reparameterised]

How good is the estimate with $S$ draws? It is right on average for every $S$, and its standard
deviation falls as $1 / \sqrt{S}$: that of one draw, by an integral, is
[[line.deviation.reparameterised:.4f]] reparameterised and [[line.deviation.score:.4f]] by the
score. Measured over [[line.repeats:,]] estimates each:

| draws $S$ | mean | standard deviation | the same by the score |
| [[line.draws.0.num:,]] | [[line.draws.0.mean:.4f]]
  | [[line.draws.0.reparameterised:.4f]] | [[line.draws.0.score:.4f]] |
| [[line.draws.1.num:,]] | [[line.draws.1.mean:.4f]]
  | [[line.draws.1.reparameterised:.4f]] | [[line.draws.1.score:.4f]] |
| [[line.draws.2.num:,]] | [[line.draws.2.mean:.4f]]
  | [[line.draws.2.reparameterised:.4f]] | [[line.draws.2.score:.4f]] |

> Where write-ups slip. The noise multiplies the standard deviation, not the variance: drawn as
$\mu + \sigma^2 \epsilon$ the code has variance $\sigma^4$, here [[line.slip.variance:.4f]] instead
of [[line.slip.right:.4f]]. And $\epsilon$ must be drawn anew at every step and for every image; a
noise that stays is part of the network.

![graphs]

**On images** both estimate the same gradient. Here it is the one with respect to the mean and the
log of the standard deviation of a test image's $q_\phi(z \mid x)$, of the VAE with two latent
dimensions, [[num_estimates]] times with fresh noise. At equal cost: a gradient through the decoder
costs about as much as three evaluations, so an estimate is of [[draws.reparameterised]]
reparameterised draws or of [[draws.score]] scored ones. The baseline is the mean of $f$ over the
other draws.

![histogram]

Variance, summed over the components of the gradient, as a multiple of the reparameterised one's
(geometric mean over [[num_images]] test images):

| estimate | 2 latents | [[latent_dim]] latents |
| reparameterised | 1 | 1 |
| score function, baseline | [[ratio.2.score_baseline:,.1f]] | [[ratio.10.score_baseline:,.1f]] |
| score function | [[ratio.2.score:,.0f]] | [[ratio.10.score:,.0f]] |

So many times more draws the score function needs for the same precision. Without a baseline its
noise is of the size of $f$ itself, which tells nothing. A good baseline takes most of that away,
and leaves [[ratio.2.score_baseline:.1f]] times the reparameterised variance in two dimensions,
[[ratio.10.score_baseline:.1f]] times in ten: the score hears one number about all of them.

Against the exact gradient, from a sum over a grid of codes, the means of all three are right: none
is further off than [[worst_z:.1f]] of its standard errors, over [[num_compared]] components.
"""

EXERCISES = (
    (
        "What is the derivative with respect to $\\mu$ in the example of the derivations?",
        "$\\mathbb{E}_{p(\\epsilon)}[f'(\\mu + \\sigma\\epsilon)] =$ [[exercises.by_mean:.4f]], by "
        "an integral.",
    ),
    (
        "Take $f(z) = z^2$. What is $\\nabla_\\sigma\\, \\mathbb{E}_{q_\\phi}[f(z)]$ at "
        "$\\sigma = 0.8$, from the variance and by reparameterisation?",
        "$\\mathbb{E}[z^2] = \\mu^2 + \\sigma^2$, so the derivative is $2\\sigma$; and "
        "$\\mathbb{E}[2(\\mu + \\sigma\\epsilon)\\epsilon] = 2\\sigma$, by an integral "
        "[[exercises.square:.4f]].",
    ),
    (
        "How many scored draws are worth one reparameterised draw in the example, without a "
        "baseline?",
        "As many as the ratio of the variances, [[exercises.draws_worth:.1f]].",
    ),
    (
        "Which constant $b$ makes the variance of the score function least, and what is left of "
        "it?",
        "With $s(z) = \\partial \\log q / \\partial\\sigma$, the derivative of the variance is "
        "zero at $b = \\mathbb{E}[f s^2] / \\mathbb{E}[s^2] =$ [[exercises.best_baseline:.4f]]. "
        "The variance is then [[exercises.left:.1%]] of what it was.",
    ),
    (
        "Let $z$ be 1 with probability $\\pi$ and else 0. Drawn as $z = 1$ where a uniform $u$ is "
        "below $\\pi$, it is a function of $\\pi$ and of noise. Does the gradient go through?",
        "No: moving $\\pi$ a little changes no draw (or flips it), so the derivative of $f(z)$ is "
        "zero almost everywhere, while that of the expectation is $f(1) - f(0) =$ "
        "[[exercises.discrete:.4f]]. The score function gives it.",
    ),
)


def reparameterised(key, posterior, f, num_draws):
    """Its gradient goes through the draws."""
    return f(vae_jax.sample(key, posterior, num_draws)).mean()


def score(key, posterior, f, num_draws):
    """Its gradient goes through log q(z) alone."""
    z = jax.lax.stop_gradient(vae_jax.sample(key, posterior, num_draws))
    return vae_jax.score_function(f(z), posterior.log_prob(z)).mean()


def score_baseline(key, posterior, f, num_draws):
    """The same, each draw judged against the mean of the others."""
    z = jax.lax.stop_gradient(vae_jax.sample(key, posterior, num_draws))
    value = f(z)
    others = (value.sum() - value) / (num_draws - 1)
    return vae_jax.score_function(value, posterior.log_prob(z), others).mean()


ESTIMATES = {
    "score": score,
    "score_baseline": score_baseline,
    "reparameterised": reparameterised,
}


def gradients(
    key: jax.Array, estimate: Callable[..., jax.Array], posterior: vae_jax.Normal, f: Any, num: int
) -> jax.Array:
    """[NUM_ESTIMATES, 2 Z] gradients with respect to mean and log-scale."""

    def objective(phi: jax.Array, key: jax.Array) -> jax.Array:
        mean, log_scale = jnp.split(phi, 2)
        return estimate(key, vae_jax.Normal(mean, jnp.exp(log_scale)), f, num)

    phi = jnp.concatenate([posterior.mean, jnp.log(posterior.scale)])
    keys = jax.random.split(key, NUM_ESTIMATES)
    return jax.lax.map(lambda key: jax.grad(objective)(phi, key), keys, batch_size=20)


def run(study: Study) -> page.Chapter:
    found = {latent_dim: measure(study, latent_dim) for latent_dim in (2, LATENTS)}
    exact = exact_gradients(study)
    deviations = []
    for means, errors in found[2]["moments"].values():
        deviations.append(np.abs(means - exact) / errors)
    lines, standard_error = gradient_lines.reparameterised(study.key("gradient lines"))
    numbers = {
        "latent_dim": LATENTS,
        "num_images": NUM_IMAGES,
        "num_estimates": NUM_ESTIMATES,
        "draws": DRAWS,
        "exact": exact,
        "mean": {name: means for name, (means, _) in found[2]["moments"].items()},
        "standard_error": {name: errors for name, (_, errors) in found[2]["moments"].items()},
        "variance": {str(z): found[z]["variance"] for z in found},
        "ratio": {str(z): found[z]["ratio"] for z in found},
        "worst_z": np.max(deviations),
        "num_compared": np.size(deviations),
        "line": {
            "num": gradient_lines.LINE_DRAWS,
            "standard_error": standard_error,
            **by_draws(study.key("gradient draws")),
        },
        "derivations": page.derived(
            inside=gradient_lines.inside(),
            by_score=gradient_lines.by_score(),
            reparameterised=lines,
        ),
        "exercises": exercises(),
    }
    figures = {
        "graphs": draw_graphs(),
        "histogram": draw_histogram(found[2]["first"], exact[0]),
    }
    code = tuple(ESTIMATES.values())
    return page.Chapter(
        *("The gradient problem", TEXT, page.plain(numbers), figures, code), exercises=EXERCISES
    )


def by_draws(key: jax.Array) -> dict[str, Any]:
    """The derivations' derivative by S draws, many times over."""
    mean, scale, repeats = gradient_lines.MEAN, gradient_lines.SCALE, 20_000
    rows = []
    for num in (1, 10, 100):
        noise = jax.random.normal(jax.random.fold_in(key, num), (repeats, num))
        noise = np.asarray(noise, np.float64)
        through = gradient_lines.moved(noise).mean(axis=1)
        scored = gradient_lines.scored(mean + scale * noise).mean(axis=1)
        rows.append(
            {
                "num": num,
                "mean": through.mean(),
                "reparameterised": through.std(ddof=1),
                "score": scored.std(ddof=1),
            }
        )
    return {
        "repeats": repeats,
        "draws": rows,
        "deviation": {
            "reparameterised": gradient_lines.deviation(0, 1, gradient_lines.moved),
            "score": gradient_lines.deviation(mean, scale, gradient_lines.scored),
        },
        "slip": {"right": scale**2, "variance": scale**4},
    }


def exercises() -> dict[str, Any]:
    mean, scale, f, score = (
        *(gradient_lines.MEAN, gradient_lines.SCALE),
        *(gradient_lines.f, gradient_lines.score),
    )
    deviation = gradient_lines.deviation
    scored = deviation(mean, scale, gradient_lines.scored)
    weight = integrals.expectation(mean, scale, lambda z: score(z) ** 2)
    best = integrals.expectation(mean, scale, lambda z: f(z) * score(z) ** 2) / weight
    return {
        "by_mean": integrals.expectation(0, 1, lambda e: gradient_lines.slope(mean + scale * e)),
        "square": integrals.expectation(0, 1, lambda e: 2 * (mean + scale * e) * e),
        "draws_worth": (scored / deviation(0, 1, gradient_lines.moved)) ** 2,
        "best_baseline": best,
        "left": (deviation(mean, scale, lambda z: (f(z) - best) * score(z)) / scored) ** 2,
        "discrete": np.subtract(*f(np.array([1.0, 0.0]))),
    }


def measure(study: Study, latent_dim: int) -> dict[str, Any]:
    """Mean, standard error and variance of every estimate, for a few test images."""
    model, params = study.make_model(latent_dim), trained_vae(study, latent_dim).params

    def of_image(estimate: Any, num: int, x: jax.Array, key: jax.Array) -> jax.Array:
        def f(z: jax.Array) -> jax.Array:
            return model.decode(params, z).log_prob(x)

        return gradients(key, estimate, model.encode(params, x), f, num)

    moments, variance, first = {}, {}, {}
    keys = jax.random.split(study.key(f"gradient {latent_dim}"), NUM_IMAGES)
    for name, estimate in ESTIMATES.items():
        one = jax.jit(lambda x, key, e=estimate, n=DRAWS[name]: of_image(e, n, x, key))
        drawn = np.stack([one(x, key) for x, key in zip(study.x[:NUM_IMAGES], keys, strict=True)])
        drawn = drawn.astype(np.float64)
        moments[name] = (drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / np.sqrt(NUM_ESTIMATES))
        variance[name] = drawn.var(axis=1, ddof=1).sum(axis=-1)
        first[name] = drawn[0, :, 0]
    ratio = {
        name: np.exp(np.log(variance[name] / variance["reparameterised"]).mean())
        for name in variance
    }
    return {"moments": moments, "variance": variance, "ratio": ratio, "first": first}


def exact_gradients(study: Study) -> np.ndarray:
    """[NUM_IMAGES, 4] by sums over a grid of noise, 8 standard deviations wide on either side."""
    model, params = study.make_model(2), trained_vae(study, 2).params
    line = jnp.linspace(-8.0, 8.0, 161)
    noise = jnp.stack(jnp.meshgrid(line, line), axis=-1)

    def of_image(x: jax.Array) -> jax.Array:
        posterior = model.encode(params, x)

        def expectation(phi: jax.Array) -> jax.Array:
            mean, log_scale = jnp.split(phi, 2)

            def of_row(noise: jax.Array) -> jax.Array:
                z = mean[None] + jnp.exp(log_scale)[None] * noise
                weight = jnp.exp(-0.5 * jnp.square(noise).sum(axis=-1)) / (2 * jnp.pi)
                return (weight * model.decode(params, z).log_prob(x)).sum()

            return jax.lax.map(of_row, noise).sum() * (line[1] - line[0]) ** 2

        return jax.grad(expectation)(jnp.concatenate([posterior.mean, jnp.log(posterior.scale)]))

    one = jax.jit(of_image)
    return np.stack([one(x) for x in study.x[:NUM_IMAGES]])


def draw_histogram(first: dict[str, np.ndarray], exact: np.ndarray) -> page.Figure:
    figure, axes = drawing.panels(3, 1, 3.6, sharex=True)
    reach = 3 * first["score_baseline"].std()
    bins = np.linspace(exact[0] - reach, exact[0] + reach, 61)
    for panel, name, colour in zip(axes, ESTIMATES, COLOURS, strict=True):
        inside = np.abs(first[name] - exact[0]) <= reach
        deviation = first[name].std()
        heights, *_ = panel.hist(first[name], bins, color=colour)
        panel.set_ylim(0, 1.5 * heights.max())  # room for the words
        panel.axvline(exact[0], color="black", linestyle="--", linewidth=1)
        panel.set_ylabel("estimates")
        panel.text(0.01, 0.93, TITLES[name], transform=panel.transAxes, va="top", fontsize=8)
        panel.text(
            *(
                0.99,
                0.93,
                f"standard deviation {deviation:,.2f}\n{inside.mean():.0%} shown",
            ),
            transform=panel.transAxes,
            va="top",
            ha="right",
            fontsize=8,
        )
    axes[-1].set_xlabel("estimate of the gradient's first component, nats per unit of $\\mu_1$")
    return page.figure(
        figure,
        "Three histograms of gradient estimates around the same exact value: the score function's "
        "is so wide that it is nearly flat, with a baseline it is narrower, the reparameterised "
        "one is narrowest.",
        "Estimates of one component for the first test image at equal cost; dashed, the exact "
        "value.",
    )


def draw_graphs() -> page.Figure:
    figure, axes = drawing.panels(1, 2, 2.7)
    random = {"boxstyle": "circle,pad=0.3", "facecolor": "#e3e3e3"}

    def back(panel: Any, start: Any, end: Any, curve: float) -> None:
        style = {"arrowstyle": "-|>", "color": drawing.ORANGE, "linestyle": "--", "shrinkA": 0}
        style |= {"shrinkB": 0, "connectionstyle": f"arc3,rad={curve}"}
        panel.annotate("", end, start, arrowprops=style)

    for panel, title in zip(axes, ("score function", "reparameterised"), strict=True):
        panel.set(xlim=(-1.3, 1.3), ylim=(-0.25, 3.25), title=title)
        panel.axis("off")
        drawing.box(panel, (-0.4, 0), "$\\phi$: $\\mu$, $\\sigma$")
        drawing.box(panel, (-0.4, 3), "$f(z)$")
    left, right = axes
    drawing.arrow(left, (-0.4, 1.9), (-0.4, 2.75))
    drawing.arrow(right, (-0.4, 1.75), (-0.4, 2.75))
    drawing.box(left, (-0.4, 1.5), "$z \\sim q_\\phi$", **random)
    drawing.box(left, (0.8, 1.5), "$\\log q_\\phi(z)$")
    drawing.arrow(left, (-0.4, 0.25), (-0.4, 1.1))
    drawing.arrow(left, (-0.1, 1.5), (0.35, 1.5))
    back(left, (0.8, 1.25), (0, 0), -0.35)
    left.text(-0.5, 0.62, "draw: no\ngradient", ha="right", va="center", fontsize=8)
    label = {"va": "center", "fontsize": 8, "color": drawing.ORANGE}
    left.text(0.8, 0.45, "gradient,\ntimes\n$f(z) - b$", **label)
    drawing.box(right, (-0.4, 1.5), "$z = \\mu + \\sigma\\epsilon$")
    drawing.box(right, (0.9, 1.5), "$\\epsilon$", **random)
    drawing.arrow(right, (-0.4, 0.25), (-0.4, 1.25))
    drawing.arrow(right, (0.75, 1.5), (0.05, 1.5))
    back(right, (-0.65, 2.8), (-0.65, 1.75), 0.4)
    back(right, (-0.65, 1.25), (-0.65, 0.25), 0.4)
    for height in (2.27, 0.75):
        right.text(-0.92, height, "gradient", ha="right", **label)
    right.text(0.9, 1.1, "noise,\n$N(0, I)$", ha="center", va="top", fontsize=8)
    return page.figure(
        figure,
        "Two computation graphs. Score function: phi to a random node z to f, the gradient returns "
        "from log q to phi alone. Reparameterised: phi and a random node epsilon make z, and the "
        "gradient returns from f through z to phi.",
        "Where the randomness sits (grey circles) and which way the gradient takes (dashed).",
    )
