"""The evidence lower bound, derived, where everything can be computed and where it cannot."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.tutorial import bound_lines, drawing, page
from experiments.tutorial.autoencoder import trained_vae
from experiments.tutorial.intractable import draw_cost, quadrature
from experiments.tutorial.linear import (
    NOISE,
    OBSERVED,
    WEIGHT,
    exact_elbo,
    exact_log_px,
    exact_posterior,
)
from experiments.tutorial.study import Study
from vae_jax import MultivariateNormal

NUM_IMAGES, IMAGE_DRAWS, GRID = 16, 4000, 481

TEXT = r"""
Training by maximum likelihood wants $\log p_\theta(x)$, the probability of an image under all
codes. Its name is the *evidence*:

$$ p_\theta(x) = \int p_\theta(x \mid z)\, p(z)\, dz $$

**Out of reach.** The code behind an image has the distribution $p(z \mid x) = p(x \mid z)\, p(z) /
p(x)$. The numerator is one call of the decoder. The denominator is this integral, over every code
there is, and with a neural network for $p(x \mid z)$ it has no formula. On a grid its cost is a
power of the latent dimension. Measured, for a linear decoder (whose exact value is known) and an
error of at most [[quadrature.tolerance]] nats:

| latent dimension | points in each | codes to decode | seconds, measured |
| 1 | [[quadrature.nodes.0]] | [[quadrature.points.0:,]] | [[seconds.grid.0:.5f]] |
| 2 | [[quadrature.nodes.1]] | [[quadrature.points.1:,]] | [[seconds.grid.1:.5f]] |
| 3 | [[quadrature.nodes.2]] | [[quadrature.points.2:,]] | [[seconds.grid.2:.5f]] |
| 4 | [[quadrature.nodes.3]] | [[quadrature.points.3:,]] | [[seconds.grid.3:.5f]] |
| 5 | [[quadrature.nodes.4]] | [[quadrature.points.4:,]] | [[seconds.grid.4:.5f]] |

[[quadrature.nodes.4]] points in each of 10 dimensions, at a million decoded codes a second, take
[[quadrature.days_10:.1f]] days for one image; in 20 dimensions, [[quadrature.years_20:.0e]] years.

![cost]

**So approximate it.** Take a distribution $q(z \mid x)$ that is easy to draw from and to evaluate,
a Gaussian, and bring it as close to $p(z \mid x)$ as it gets: *variational inference* (Jordan et
al. 1999). One could search a $q$ for every image on its own. A VAE trains one network instead, the
encoder, which computes the parameters of $q$ from the image, for images it has never seen too. The
cost of the search is paid once and shared by all of them: **amortisation**.

**The bound, line by line.** How close is $q(z \mid x)$ to $p(z \mid x)$, when nobody knows
$p(z \mid x)$? The divergence between them can be rearranged until what is unknown in it stands
alone. $\mathbb{E}_q$ is the expectation over $z \sim q(z \mid x)$. On the right of each line is
what its two sides come to where everything can be computed: with $p(z) = \mathcal{N}(0, I)$ in two
dimensions, $p(x \mid z) = \mathcal{N}(W z,\, [[noise]]^2 I)$ in four, one observation $x$, and
$q = \mathcal{N}((0.6,\, 0.4),\, 0.6^2 I)$.

=[bound]

Line 10 is what all of it is for. On its left are two things that cannot be computed; on its right
two that can, by drawing codes from $q$. Raising the right side *in $\phi$*, the parameters of $q$,
cannot change $\log p(x)$, so it lowers the divergence: $q$ comes closer to the true posterior.
Raising it *in $\theta$*, the decoder's, makes the image more probable, or $q$ better, or both.

> Where write-ups slip. There are two divergences: the one *inside* the bound is to the prior, the
one that is its *gap* is to the posterior. The bound's expectation is over $q$, not over the prior.
And the divergence is subtracted from the bound, so that it is added to the loss. Of the following
forms only the first two stay below $\log p(x) =$ [[log_px:.4f]] for every $q$, and the second draws
its codes without having looked at $x$:

| nats, for the $q$ above or the true posterior as $q$ | $q$ | posterior |
| the bound, line 12
  | [[slips.q.right:.4f]] | [[slips.posterior.right:.4f]] |
| expectation over the prior
  | [[slips.q.over_prior:.4f]] | [[slips.posterior.over_prior:.4f]] |
| divergence to the posterior
  | [[slips.q.to_posterior:.4f]] | [[slips.posterior.to_posterior:.4f]] |
| divergence added
  | [[slips.q.added:.4f]] | [[slips.posterior.added:.4f]] |

**A second way**, without the posterior: by Jensen's inequality from the evidence itself. It is
shorter, but does not say what the gap is.

=[by_jensen]

**Shown exactly.** For the same observation, and four choices of $q$:

| $q(z \mid x)$ | ELBO | gap | sum |
| the prior | [[exact.prior.elbo:.4f]] | [[exact.prior.gap:z.4f]] | [[exact.prior.sum:.4f]] |
| in between | [[exact.between.elbo:.4f]] | [[exact.between.gap:z.4f]] | [[exact.between.sum:.4f]] |
| best diagonal | [[exact.diagonal.elbo:.4f]]
  | [[exact.diagonal.gap:z.4f]] | [[exact.diagonal.sum:.4f]] |
| true posterior | [[exact.posterior.elbo:.4f]]
  | [[exact.posterior.gap:z.4f]] | [[exact.posterior.sum:.4f]] |

and $\log p(x)$ is [[log_px:.4f]]: the largest disagreement of the four sums is
[[largest_error:.0e]] nats.

**Closing the gap.** Gradient steps on the bound, from the prior. A full covariance reaches
$\log p(x)$. A diagonal one stops [[fit.diagonal_gap:.3f]] nats below: the true posterior is
correlated, and no diagonal Gaussian is. That is the price of the usual encoder, whatever its
network.

![improving]

**On images.** With two latent dimensions the integral can still be done, on a grid of
[[images.grid_points:,]] codes. For [[images.num]] test images and the trained VAE, on average:

| | nats |
| $\log p(x)$, by the grid | [[images.log_px:.3f]] |
| ELBO, by [[images.num_draws:,]] draws | [[images.elbo:.3f]] ± [[images.elbo_standard_error:.3f]] |
| gap, by the grid | [[images.gap:.3f]] |
| ELBO + gap | [[images.sum:.3f]] |
| $\log p(x)$, by importance sampling
  | [[images.importance:.3f]] ± [[images.importance_standard_error:.3f]] |

The last is [[images.importance_off:.3f]] from the first, [[images.importance_errors_off:.1f]] of
its standard errors. Where $q$ is narrower than the posterior the heaviest weights are seldom drawn,
and then neither the estimate, which comes out too low, nor its standard error knows of them.

What does amortisation cost? When a diagonal Gaussian is fitted to each of these images on its own,
by [[fit_each.steps]] steps from what the encoder gave, the bound rises from
[[fit_each.encoder:.3f]] to [[fit_each.fitted:.3f]] nats. Of the gap, [[fit_each.amortisation:.3f]]
nats are thus the encoder's, the amortisation gap, and [[fit_each.family:.3f]] the Gaussian's
(Cremer et al. 2018).

**Without a grid.** Drawing codes from a good $q$ and weighting them, importance sampling estimates
$\log p(x)$ in any dimension: with [[quadrature.importance_draws:,]] draws in 20 dimensions of the
linear model its error was [[quadrature.importance_error:.3f]] nats.
"""

EXERCISES = (
    (
        "What is the bound of the linear model when $q$ is the prior, and which of its terms is "
        "zero?",
        "The divergence is zero, and the bound $\\mathbb{E}_{p(z)}[\\log p(x \\mid z)] =$ "
        "[[exercises.prior:.4f]], far below [[log_px:.4f]]: most codes of the prior do not explain "
        "this $x$.",
    ),
    (
        "For which $q$ is the bound as high as it gets? What are then its two terms?",
        "For the true posterior, where it is $\\log p(x)$. The expectation is "
        "[[exercises.log_likelihood:.4f]] and the divergence from the prior "
        "[[exercises.to_prior:.4f]]; their difference is [[exercises.difference:.4f]].",
    ),
    (
        "The $q$ of the derivation has a standard deviation of 0.6 in both dimensions. Which one "
        "would be best, with the mean and the round shape kept?",
        "In the bound, $s$ appears as $2 \\log s - \\tfrac{1}{2} s^2 "
        "\\operatorname{tr}(I + W^\\top W / 0.5^2)$, which is largest at "
        "$s = \\sqrt{2 / \\operatorname{tr}(\\cdot)} =$ [[exercises.best_scale:.4f]]; the bound is "
        "there [[exercises.best_bound:.4f]] nats.",
    ),
    (
        "How far below $\\log p(x)$ must the best diagonal $q$ stay, from the true posterior's "
        "covariance alone?",
        "With $\\Lambda$ its inverse, $\\tfrac{1}{2}(\\sum_i \\log \\Lambda_{ii} - "
        "\\log |\\Lambda|) =$ [[exercises.diagonal_gap:.4f]] nats. The gradient steps above "
        "stopped [[fit.diagonal_gap:.4f]] below.",
    ),
    (
        "Twice the observation, $2x$, is less probable. By how many nats, and which part of the "
        "Gaussian density $p(x)$ changes?",
        "$\\log p(2x) =$ [[exercises.twice:.4f]], lower by [[exercises.fall:.4f]] nats. Only the "
        "quadratic form $x^\\top C^{-1} x$ with $C = W W^\\top + 0.5^2 I$ changes, by a factor of "
        "four.",
    ),
)


def run(study: Study) -> page.Chapter:
    weight, x = jnp.array(WEIGHT), jnp.array(OBSERVED)
    log_px, true = exact_log_px(x, weight), exact_posterior(x, weight)
    curves = {"diagonal": improve(x, weight, diagonal=True), "full": improve(x, weight)}
    precision = jnp.linalg.inv(true.scale_tril @ true.scale_tril.T)
    choices = {
        "prior": MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
        "between": MultivariateNormal(true.mean / 2, 0.6 * jnp.eye(2)),
        # Of all diagonal Gaussians this one has the least divergence from the posterior.
        "diagonal": MultivariateNormal(true.mean, jnp.diag(jnp.diag(precision) ** -0.5)),
        "posterior": true,
    }
    exact = {}
    for name, q in choices.items():
        elbo, gap = exact_elbo(x, weight, q), vae_jax.kl_divergence(q, true)
        exact[name] = {"elbo": elbo, "gap": gap, "sum": elbo + gap}
    images = on_images(study)
    cost, seconds = quadrature(study.key("quadrature"))
    numbers = {
        "weight": weight,
        "noise": NOISE,
        "x": x,
        "log_px": log_px,
        "exact": exact,
        "largest_error": max(abs(float(row["sum"] - log_px)) for row in exact.values()),
        "fit": {
            "elbo": {name: curve[-1] for name, curve in curves.items()},
            "diagonal_gap": log_px - curves["diagonal"][-1],
            "full_gap": log_px - curves["full"][-1],
        },
        "images": images,
        "fit_each": fit_each(study, images["log_px"]),
        "quadrature": cost,
        "slips": slips(x, weight, true),
        "derivations": page.derived(bound=bound_lines.bound(), by_jensen=bound_lines.by_jensen()),
        "exercises": exercises(x, weight),
    }
    numbers = page.plain(numbers)
    figures = {
        "improving": draw_improving(curves, float(log_px)),
        "cost": draw_cost(numbers["quadrature"]),
    }
    code = (exact_elbo, exact_posterior, exact_log_px, grid_terms)
    return page.Chapter(
        *("The bound", TEXT, numbers, figures, code), {"grid": seconds}, exercises=EXERCISES
    )


def improve(x: jax.Array, weight: jax.Array, *, diagonal: bool = False) -> np.ndarray:
    """The bound along 400 gradient steps in q, from the prior."""

    def posterior(params: Any) -> MultivariateNormal:
        factor = jnp.diag(jnp.exp(params["log_scale"]))
        if not diagonal:
            factor = factor + jnp.tril(params["below"], -1)
        return MultivariateNormal(params["mean"], factor)

    def loss(params: Any, key: jax.Array, batch: None) -> tuple[jax.Array, jax.Array]:
        bound = exact_elbo(x, weight, posterior(params))
        return -bound, bound

    params = {"mean": jnp.zeros(2), "log_scale": jnp.zeros(2), "below": jnp.zeros((2, 2))}
    optimizer = optax.adam(0.03)
    state = vae_jax.init_state(jax.random.key(0), params, optimizer)
    train_epoch = vae_jax.make_train_epoch(loss, optimizer)
    _, metrics = train_epoch(state, None, jnp.zeros((400, 1), jnp.int32))
    return np.asarray(metrics.aux)


def grid_terms(model: vae_jax.VAE, params: Any, x: jax.Array) -> dict[str, jax.Array]:
    """log p(x) and KL(q(z|x) || p(z|x)) of images [N], by sums over a square grid of codes."""
    line = jnp.linspace(-6.0, 6.0, GRID)
    z, area = jnp.stack(jnp.meshgrid(line, line), axis=-1), (line[1] - line[0]) ** 2

    def log_likelihood(row: jax.Array) -> jax.Array:
        return jax.vmap(model.decode(params, row).log_prob)(x)

    # Row by row of the grid: all codes at once would not fit in memory.
    log_joint = jax.lax.map(log_likelihood, z) + model.prior(params).log_prob(z)[:, None]
    log_px = jax.nn.logsumexp(log_joint, axis=(0, 2)) + jnp.log(area)
    log_q = jax.vmap(lambda q: q.log_prob(z), out_axes=1)(model.encode(params, x))
    to_posterior = log_q - (log_joint - log_px[None, :, None])
    return {"log_px": log_px, "gap": jnp.sum(jnp.exp(log_q) * to_posterior, axis=(0, 2)) * area}


def on_images(study: Study) -> dict[str, Any]:
    """The decomposition for test images: each of its terms on its own way."""
    elbo_key, weight_key = jax.random.split(study.key("bound"))
    model, params = study.make_model(2), trained_vae(study, 2).params
    x = study.x[:NUM_IMAGES]
    grid = jax.jit(lambda x: grid_terms(model, params, x))(x)
    posterior, prior = model.encode(params, x), model.prior(params)

    def bound(key: jax.Array) -> jax.Array:
        z = vae_jax.sample(key, posterior)
        return vae_jax.elbo(x, z, posterior, prior, model.decode(params, z)).value

    def importance(key: jax.Array) -> vae_jax.Estimate:
        return vae_jax.log_likelihood(
            key, x, posterior, prior, lambda z: model.decode(params, z), num_samples=IMAGE_DRAWS
        )

    elbo = jax.jit(lambda keys: jax.lax.map(bound, keys))(jax.random.split(elbo_key, IMAGE_DRAWS))
    estimate = jax.jit(importance)(weight_key)
    mean, importance_mean = elbo.mean(), estimate.value.mean()
    importance_error = jnp.sqrt(jnp.square(estimate.standard_error).sum()) / NUM_IMAGES
    off = jnp.abs(importance_mean - grid["log_px"].mean())
    return {
        "num": NUM_IMAGES,
        "num_draws": IMAGE_DRAWS,
        "grid_points": GRID**2,
        "log_px": grid["log_px"].mean(),
        "gap": grid["gap"].mean(),
        "gaps": grid["gap"],
        "elbo": mean,
        "elbo_standard_error": elbo.mean(axis=1).std(ddof=1) / np.sqrt(IMAGE_DRAWS),
        "sum": mean + grid["gap"].mean(),
        "importance": importance_mean,
        "importance_standard_error": importance_error,
        "importance_off": off,
        "importance_errors_off": off / importance_error,
    }


def fit_each(study: Study, log_px: jax.Array) -> dict[str, Any]:
    """The bound of the encoder, and of a diagonal Gaussian fitted to each image on its own.

    Expectations over the two latent dimensions are by Gauss and Hermite's rule.
    """
    model, params = study.make_model(2), trained_vae(study, 2).params
    x, steps = study.x[:NUM_IMAGES], 300
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    noise = jnp.asarray(np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2), jnp.float32)
    weight = jnp.asarray(np.outer(weights, weights).ravel() / (2 * np.pi), jnp.float32)

    def bound(phi: tuple[jax.Array, jax.Array]) -> jax.Array:
        q = vae_jax.Normal(phi[0], jnp.exp(phi[1]))
        z = q.mean[None] + q.scale[None] * noise[:, None]
        log_likelihood = jax.vmap(lambda z: model.decode(params, z).log_prob(x))(z)
        divergence = vae_jax.kl_divergence(q, model.prior(params))
        return (weight @ log_likelihood - divergence).mean()

    def step(carry: Any, _: None) -> tuple[Any, None]:
        phi, state = carry
        updates, state = optimizer.update(jax.grad(lambda phi: -bound(phi))(phi), state)
        return (optax.apply_updates(phi, updates), state), None

    posterior, optimizer = model.encode(params, x), optax.adam(0.02)
    start = (posterior.mean, jnp.log(posterior.scale))
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps))
    (phi, _), _ = run((start, optimizer.init(start)))
    encoder, fitted = bound(start), bound(phi)
    return {
        "steps": steps,
        "encoder": encoder,
        "fitted": fitted,
        "amortisation": fitted - encoder,
        "family": log_px - fitted,
    }


def slips(x: jax.Array, weight: jax.Array, true: MultivariateNormal) -> dict[str, dict[str, float]]:
    """The bound and three misprints of it, for the q of the derivation and the true posterior."""
    prior = MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    chosen = MultivariateNormal(jnp.array(bound_lines.Q_MEAN), bound_lines.Q_SCALE * jnp.eye(2))
    found = {}
    for name, q in (("q", chosen), ("posterior", true)):
        to_prior, gap = vae_jax.kl_divergence(q, prior), vae_jax.kl_divergence(q, true)
        log_likelihood = exact_elbo(x, weight, q) + to_prior
        found[name] = {
            "right": log_likelihood - to_prior,
            "over_prior": exact_elbo(x, weight, prior) - to_prior,
            "to_posterior": log_likelihood - gap,
            "added": log_likelihood + to_prior,
        }
    return found


def exercises(x: jax.Array, weight: jax.Array) -> dict[str, Any]:
    prior, true = MultivariateNormal(jnp.zeros(2), jnp.eye(2)), exact_posterior(x, weight)
    mean = jnp.array(bound_lines.Q_MEAN)
    precision = jnp.linalg.inv(true.scale_tril @ true.scale_tril.T)
    scale = jnp.sqrt(2 / jnp.trace(precision))
    to_prior, difference = vae_jax.kl_divergence(true, prior), exact_elbo(x, weight, true)
    twice = exact_log_px(2 * x, weight)
    return {
        "prior": exact_elbo(x, weight, prior),
        "log_likelihood": difference + to_prior,
        "to_prior": to_prior,
        "difference": difference,
        "best_scale": scale,
        "best_bound": exact_elbo(x, weight, MultivariateNormal(mean, scale * jnp.eye(2))),
        "diagonal_gap": 0.5
        * (jnp.log(jnp.diag(precision)).sum() - jnp.linalg.slogdet(precision)[1]),
        "twice": twice,
        "fall": exact_log_px(x, weight) - twice,
    }


def draw_improving(curves: dict[str, np.ndarray], log_px: float) -> page.Figure:
    figure, axes = drawing.panels(height=2.6)
    axes.axhline(log_px, color="black", linewidth=1, label="$\\log p(x)$")
    for (name, curve), colour, style in zip(
        curves.items(), (drawing.ORANGE, drawing.BLUE), ("--", "-"), strict=True
    ):
        axes.plot(curve, style, color=colour, label=f"ELBO, {name} covariance")
    axes.set(xlabel="gradient steps in $q$", ylabel="nats", ylim=(log_px - 4, log_px + 0.4))
    axes.legend(loc="lower right")
    return page.figure(
        figure,
        "Two curves of the ELBO rise with the steps: with a full covariance to log p(x), with a "
        "diagonal one to a little below it.",
        "The bound as $q$ is improved from the prior, for one observation of the linear model. "
        "What is left to $\\log p(x)$ is the divergence from the true posterior.",
    )
