"""Chapter 4: the evidence lower bound, where everything can be computed and where it cannot."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.autoencoder import trained_vae
from experiments.tutorial.study import Study
from vae_jax import MultivariateNormal, Normal

# p(z) = N(0, I), p(x|z) = N(W z, s^2 I): the model in which all is known.
WEIGHT = ((1.0, 0.9), (0.2, 0.6), (-0.5, -0.3), (0.8, 0.4))
NOISE, OBSERVED = 0.5, (1.2, 0.3, -0.9, 1.5)
NUM_IMAGES, IMAGE_DRAWS, GRID = 16, 4000, 481
TOLERANCE, DIMENSIONS, DECODES_PER_SECOND = 1e-3, (1, 2, 3, 4, 5), 1e6
SECONDS_A_DAY = 24 * 3600

TEXT = r"""
Training by maximum likelihood wants $\log p_\theta(x)$, the probability of an image under all
codes:

$$ p_\theta(x) = \int p_\theta(x \mid z)\, p(z)\, dz $$

Nobody can do this integral for a network. So take any distribution $q(z \mid x)$; Bayes' rule,
$p(z \mid x) = p(x \mid z)\, p(z) / p(x)$, and a rearrangement give

$$ \log p(x) = \mathcal{L}(x) + \mathrm{KL}\left(q(z \mid x) \,\|\, p(z \mid x)\right) $$

$$ \mathcal{L}(x) = \mathbb{E}_{q(z \mid x)}\left[\log p(x \mid z)\right]
- \mathrm{KL}\left(q(z \mid x) \,\|\, p(z)\right) $$

No divergence is negative, so $\mathcal{L}(x)$ is a lower bound of $\log p(x)$, and the gap is
exactly the divergence of $q$ from the true posterior. Raising the bound in $\phi$ closes the gap;
raising it in $\theta$ makes the image more probable. The two KLs are different ones: the one
*inside* the bound is to the prior, the one that is its *gap* is to the posterior.

**Shown exactly.** Where $p(x \mid z)$ is a Gaussian whose mean is linear in $z$, all three terms
are known. For one observation, and four choices of $q$:

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

**Why not always a grid?** Because its cost is a power of the latent dimension. In the linear model
a grid needs about [[quadrature.nodes.4]] points per dimension for an error below
[[quadrature.tolerance]] nats. That many in each of 10 dimensions, at a million decoded codes a
second, take [[quadrature.days_10:.1f]] days for one image; in 20 dimensions,
[[quadrature.years_20:.0e]] years.

![cost]

Drawing codes from a good $q$ instead, importance sampling needs no grid: with
[[quadrature.importance_draws:,]] draws in 20 dimensions its error was
[[quadrature.importance_error:.3f]] nats.
"""


def decode(z: jax.Array, weight: jax.Array) -> Normal:
    return Normal(z @ weight.T, NOISE)


def exact_posterior(x: jax.Array, weight: jax.Array) -> MultivariateNormal:
    """p(z|x) of the linear model (Tipping & Bishop 1999)."""
    identity = jnp.eye(weight.shape[1])
    covariance = jnp.linalg.inv(identity + weight.T @ weight / NOISE**2)
    mean = covariance @ weight.T @ x / NOISE**2
    return MultivariateNormal(mean, jnp.linalg.cholesky(covariance))


def exact_log_px(x: jax.Array, weight: jax.Array) -> jax.Array:
    covariance = weight @ weight.T + NOISE**2 * jnp.eye(len(x))
    return MultivariateNormal(jnp.zeros(len(x)), jnp.linalg.cholesky(covariance)).log_prob(x)


def exact_elbo(x: jax.Array, weight: jax.Array, posterior: MultivariateNormal) -> jax.Array:
    """The bound without noise: 2 Z points have the mean and the covariance of the posterior.

    In the linear model every term is quadratic in z, so that their mean is the expectation.
    """
    latent_dim = len(posterior.mean)
    steps = jnp.sqrt(latent_dim) * posterior.scale_tril.T
    z = jnp.concatenate([posterior.mean[None] + steps, posterior.mean[None] - steps])
    prior = Normal(jnp.zeros(latent_dim), 1.0)
    return vae_jax.elbo(x, z, posterior, prior, decode(z, weight)).value.mean()


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
        "images": on_images(study),
        "quadrature": quadrature(study.key("quadrature")),
    }
    numbers = page.plain(numbers)
    figures = {
        "improving": draw_improving(curves, float(log_px)),
        "cost": draw_cost(numbers["quadrature"]),
    }
    code = (exact_elbo, exact_posterior, exact_log_px, grid_terms)
    return page.Chapter("The bound", TEXT, numbers, figures, code)


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
    mean = elbo.mean()
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
        "importance": estimate.value.mean(),
        "importance_standard_error": jnp.sqrt(jnp.square(estimate.standard_error).sum())
        / NUM_IMAGES,
    }


def quadrature(key: jax.Array) -> dict[str, Any]:
    """Grid points that the linear model needs for log p(x), against the latent dimension."""
    weight_key, x_key, draw_key = jax.random.split(key, 3)
    nodes, points = [], []
    for latent_dim in DIMENSIONS:
        weight, x = a_linear_model(weight_key, x_key, latent_dim)
        exact = float(exact_log_px(x, weight))
        num = next(n for n in range(3, 40) if abs(by_grid(x, weight, n) - exact) < TOLERANCE)
        nodes.append(num)
        points.append(num**latent_dim)
    weight, x = a_linear_model(weight_key, x_key, 20)
    true = exact_posterior(x, weight)
    posterior = Normal(true.mean, 1.2 * jnp.sqrt(jnp.diag(true.scale_tril @ true.scale_tril.T)))
    estimate = vae_jax.log_likelihood(
        draw_key,
        x,
        posterior,
        Normal(jnp.zeros(20), 1.0),
        lambda z: decode(z, weight),
        num_samples=10_000,
        chunk_size=100,
    )
    return {
        "dimensions": DIMENSIONS,
        "tolerance": TOLERANCE,
        "nodes": nodes,
        "points": points,
        "days_10": nodes[-1] ** 10 / DECODES_PER_SECOND / SECONDS_A_DAY,
        "years_20": nodes[-1] ** 20 / DECODES_PER_SECOND / SECONDS_A_DAY / 365.25,
        "importance_draws": 10_000,
        "importance_error": jnp.abs(estimate.value - exact_log_px(x, weight)),
        "importance_standard_error": estimate.standard_error,
    }


def a_linear_model(
    weight_key: jax.Array, x_key: jax.Array, latent_dim: int
) -> tuple[jax.Array, jax.Array]:
    """W [25, Z] with columns of length 1, and one x from the model."""
    weight = jax.random.normal(weight_key, (25, latent_dim)) / 5
    z_key, noise_key = jax.random.split(x_key)
    z, noise = jax.random.normal(z_key, (latent_dim,)), jax.random.normal(noise_key, (25,))
    return weight, weight @ z + NOISE * noise


def by_grid(x: jax.Array, weight: jax.Array, num: int) -> float:
    """log p(x) by the trapezoidal rule with num points in each dimension, from -5 to 5."""
    latent_dim = weight.shape[1]
    line = np.linspace(-5, 5, num)
    z = np.stack(np.meshgrid(*[line] * latent_dim), axis=-1).reshape(-1, latent_dim)
    misfit = np.square(np.asarray(x, np.float64) - z @ np.asarray(weight, np.float64).T).sum(-1)
    log_joint = (
        -misfit / (2 * NOISE**2)
        - len(x) * np.log(NOISE * np.sqrt(2 * np.pi))
        - np.square(z).sum(-1) / 2
        - latent_dim / 2 * np.log(2 * np.pi)
    )
    largest = log_joint.max()
    volume = latent_dim * np.log(line[1] - line[0])
    return float(largest + np.log(np.exp(log_joint - largest).sum()) + volume)


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


def draw_cost(found: dict[str, Any]) -> page.Figure:
    figure, axes = drawing.panels(height=2.9)
    dimensions = np.arange(1, 21)
    per_dimension = found["nodes"][-1]
    axes.plot(
        *(dimensions, float(per_dimension) ** dimensions, "--"),
        color=drawing.GREY,
        label=f"{per_dimension} to the power of the dimension",
    )
    axes.plot(found["dimensions"], found["points"], "o", color=drawing.BLUE, label="measured")
    for seconds, name in (
        (3600, "an hour"),
        (3.156e9, "a century"),
        (4.35e17, "age of the universe"),
    ):
        axes.axhline(seconds * DECODES_PER_SECOND, color=drawing.ORANGE, linewidth=0.8)
        axes.text(20, 1.5 * seconds * DECODES_PER_SECOND, name, ha="right", fontsize=8)
    axes.set(
        yscale="log",
        xlabel="latent dimension",
        ylabel="codes on the grid",
        xticks=(1, 5, 10, 15, 20),
    )
    axes.legend(loc="upper left")
    return page.figure(
        figure,
        "The number of grid points grows as a power of the latent dimension: at 10 dimensions it "
        "takes longer than an hour, and at 20 it passes the age of the universe.",
        f"Codes that a grid needs for $\\log p(x)$ within {TOLERANCE} nats in the linear model, "
        "and how long they take at a million a second.",
    )
