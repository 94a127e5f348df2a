"""Why p(z|x) is out of reach: what the integral of the evidence costs, by latent dimension."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.linear import NOISE, decode, exact_log_px, exact_posterior
from vae_jax import Normal

TOLERANCE, DIMENSIONS, DECODES_PER_SECOND = 1e-3, (1, 2, 3, 4, 5), 1e6
SECONDS_A_DAY = 24 * 3600


def quadrature(key: jax.Array) -> tuple[dict[str, Any], list[float]]:
    """Grid points that the linear model needs for log p(x) by latent dimension, and seconds."""
    weight_key, x_key, draw_key = jax.random.split(key, 3)
    nodes, points, seconds = [], [], []
    for latent_dim in DIMENSIONS:
        weight, x = a_linear_model(weight_key, x_key, latent_dim)
        exact = float(exact_log_px(x, weight))
        num = next(n for n in range(3, 40) if abs(by_grid(x, weight, n) - exact) < TOLERANCE)
        start = time.perf_counter()
        by_grid(x, weight, num)
        seconds.append(time.perf_counter() - start)
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
    found = {
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
    return found, seconds


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
    axes.legend(loc="lower right")
    return page.figure(
        figure,
        "The number of grid points grows as a power of the latent dimension: at 10 dimensions it "
        "takes longer than an hour, and at 20 far longer than a century.",
        f"Codes that a grid needs for $\\log p(x)$ within {TOLERANCE} nats in the linear model, "
        "and how long they take at a million a second.",
    )
