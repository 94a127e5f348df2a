"""Squared error is a Gaussian likelihood, and sigma is its exchange rate."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, likelihood_lines, page
from experiments.tutorial.autoencoder import LATENTS, trained_vae
from experiments.tutorial.study import Study

SCALES = (0.05, 0.1, 0.3, 1.0)

GAUSSIAN = (
    r"-\frac{1}{2\sigma^2}\sum_{i=1}^{D}(x_i - \hat{x}_i)^2"
    r" - D\log\sigma - \frac{D}{2}\log 2\pi"
)

TEXT = rf"""
The first term of the bound is the decoder's log-likelihood. What a decoder outputs, $\hat{{x}}$, is
a parameter of a distribution; *which* distribution is a choice, and the choice makes the loss.

**Gaussian.** For $D$ grey pixels, with mean $\hat{{x}}$ and one standard deviation $\sigma$ for
all,

$$ \log p_\theta(x \mid z) = $$

$$ {GAUSSIAN} $$

the squared error, up to $\sigma$ and a constant. For a test image and its reconstruction at
$\sigma = 0.3$, the left side by the library is [[identity.log_prob:.4f]] nats, and the right side
from the squared error, [[identity.squared_error:.4f]], is [[identity.from_squared_error:.4f]].
For the same image, line by line (lines 8 and 9 at the best $\sigma$):

=[gaussian]

**What sigma does.** A squared error without a factor is the choice $\sigma^2 = \tfrac{{1}}{{2}}$,
made without thinking. Since the divergence stays in nats, $\sigma$ is the exchange rate between the
two: a small one makes every pixel dear, a large one makes the code dear. The same VAE, trained with
each:

![balance]

| $\sigma$ | error per pixel | KL, nats | active units | draws sure |
| 0.05 | [[fixed.0.error:.3f]] | [[fixed.0.kl:.1f]]
  | [[fixed.0.active_units]] of [[latent_dim]] | [[fixed.0.sure:.0%]] |
| 0.1 | [[fixed.1.error:.3f]] | [[fixed.1.kl:.1f]]
  | [[fixed.1.active_units]] of [[latent_dim]] | [[fixed.1.sure:.0%]] |
| 0.3 | [[fixed.2.error:.3f]] | [[fixed.2.kl:.1f]]
  | [[fixed.2.active_units]] of [[latent_dim]] | [[fixed.2.sure:.0%]] |
| 1 | [[fixed.3.error:.3f]] | [[fixed.3.kl:.1f]]
  | [[fixed.3.active_units]] of [[latent_dim]] | [[fixed.3.sure:.0%]] |
| learned, [[learned.sigma:.3f]] | [[learned.error:.3f]] | [[learned.kl:.1f]]
  | [[learned.active_units]] of [[latent_dim]] | [[learned.sure:.0%]] |

The error is the root of the mean squared error over pixels and draws, on test images with greys
from 0 to 1. The larger $\sigma$, the fewer dimensions pay for themselves, at $\sigma = 1$
[[fixed.3.active_units]]; where none does, every reconstruction is the mean image.
The last row leaves the choice to the data: $\sigma$ is a parameter, and the bound is highest where
$\sigma^2$ is the mean squared error. Training found $\sigma =$ [[learned.sigma:.3f]], and the error
on the training images is [[learned.train_error:.3f]].

![reconstructions]

**Bernoulli.** For pixels that are on or off, the decoder gives the probability $\hat{{x}}_i$ of on,
and

$$ \log p_\theta(x \mid z) = \sum_{{i=1}}^{{D}} x_i\log\hat{{x}}_i
+ (1 - x_i)\log(1 - \hat{{x}}_i) $$

For the same image, its pixels on or off, and the binary VAE of [#autoencoder]:

=[bernoulli]

It has no $\sigma$ to choose, and a pixel that is wrong for certain costs
without end, where the Gaussian stops at a square.

![pixel]

The binary VAE of [#autoencoder] has a KL of [[bernoulli.kl:.1f]] nats, without a weight having been
chosen. Its bound, [[bernoulli.elbo:.1f]] nats, cannot be compared with those of this chapter: one
is a probability of binary images, the others are densities of grey ones.

> Where write-ups slip: $\sigma$ is a standard deviation. In the Gaussian's exponent stands
$\sigma^2$, in the normaliser $D\log\sigma$, which is $\tfrac{{D}}{{2}}\log\sigma^2$; who drops it
can no longer learn $\sigma$. And a squared error that is *averaged* over the pixels instead of
summed is divided by $D =$ [[identity.num_pixels]]: it is the choice $\sigma^2 = D / 2$, $\sigma =$
[[exercises.averaged:.2f]], beside which every code is too dear.
"""

EXERCISES = (
    (
        "The squared error of the image above doubles. How many nats does that cost at "
        "$\\sigma = 0.3$, and how many at $\\sigma = 1$?",
        "$[[identity.squared_error:.4f]] / (2\\sigma^2)$: [[exercises.doubled.0:.4f]] nats and "
        "[[exercises.doubled.1:.4f]] nats.",
    ),
    (
        "Which $\\sigma$ makes this image most probable, and how much more probable than 0.3 does?",
        "$\\hat\\sigma =$ [[exercises.best:.4f]], the root of the mean squared error, by "
        "[[exercises.gain:.4f]] nats.",
    ),
    (
        "A loss is the squared error *averaged* over the [[identity.num_pixels]] pixels, plus the "
        "divergence. Which $\\sigma$ has its author chosen, and what does the table above let you "
        "expect?",
        "$1 / (2\\sigma^2) = 1 / D$, so $\\sigma = \\sqrt{D / 2} =$ [[exercises.averaged:.4f]]. "
        "Where $\\sigma$ is 1, [[fixed.3.active_units]] of [[latent_dim]] dimensions are left, and "
        "this one is larger still: posterior collapse.",
    ),
    (
        "A pixel is on, and the decoder says $\\hat{x}_i = 0.01$. What does it cost under the "
        "Bernoulli, and what under Gaussians of $\\sigma = 0.3$ and 1 (less their least cost)?",
        "$-\\log 0.01 =$ [[exercises.pixel.0:.4f]] nats; $0.99^2 / (2\\sigma^2) =$ "
        "[[exercises.pixel.1:.4f]] and [[exercises.pixel.2:.4f]] nats.",
    ),
    (
        "Can the log-likelihood of a Gaussian decoder be positive?",
        "Yes, it is the logarithm of a density, which may be above 1. Without any error and at "
        "$\\sigma = 0.05$ it is $-D\\log\\sigma - \\tfrac{D}{2}\\log 2\\pi =$ "
        "[[exercises.positive:.4f]] nats. A Bernoulli's never is.",
    ),
)


def gaussian_loss(model: vae_jax.VAE, sigma: float | None) -> Callable[..., Any]:
    def loss(params, key, batch):
        x = batch.image.astype(jnp.float32) / 255
        posterior = model.encode(params, x)
        z = vae_jax.sample(key, posterior)
        likelihood = model.decode(params, z)  # its scale is learned
        if sigma is not None:
            likelihood = vae_jax.Normal(likelihood.mean, sigma, event_ndims=3)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params), likelihood)
        return -bound.value.mean(), bound

    return loss


def from_squared_error(squared_error, num_pixels, sigma):
    """The Gaussian log-likelihood, as the equation has it."""
    constant = num_pixels / 2 * jnp.log(2 * jnp.pi)
    return -squared_error / (2 * sigma**2) - num_pixels * jnp.log(sigma) - constant


def run(study: Study) -> page.Chapter:
    binary = trained_vae(study, LATENTS).metrics.aux
    last = len(binary.kl) // 10
    model = study.make_model(LATENTS, binarization="none")
    grey = jnp.asarray(study.dataset.test.images[: len(study.x)], jnp.float32) / 255
    trained = {}
    for sigma in (*SCALES, None):
        name = f"grey VAE, sigma {'learned' if sigma is None else sigma}"
        trained[sigma] = study.train(name, model, gaussian_loss(model, sigma)).params
    measured = {sigma: measure(study, model, params, grey) for sigma, params in trained.items()}
    learned = vae_jax.reconstruct(model, trained[None], grey[:1]).scale.mean()
    train_images = study.batch.image[:5000].astype(jnp.float32) / 255
    example = vae_jax.reconstruct(model, trained[None], grey[:1])
    squared_error = jnp.square(grey[0] - example.mean[0]).sum()
    probabilities = vae_jax.reconstruct(
        study.make_model(LATENTS), trained_vae(study, LATENTS).params, study.x[:1]
    ).mean[0]
    image = {
        "grey": flat(grey[0]),
        "reconstruction": flat(example.mean[0]),
        "average": flat(study.batch.image.mean(axis=0) / 255),
        "binary": flat(study.x[0]),
        "probability": flat(probabilities),
    }
    numbers = {
        "latent_dim": LATENTS,
        "identity": {
            "squared_error": squared_error,
            "num_pixels": grey[0].size,
            "log_prob": dataclasses.replace(example, scale=jnp.full_like(example.mean, 0.3))
            .log_prob(grey[:1])
            .sum(),
            "from_squared_error": from_squared_error(squared_error, grey[0].size, 0.3),
        },
        "sigma": SCALES,
        "fixed": [measured[sigma] for sigma in SCALES],
        "learned": {
            **measured[None],
            "sigma": learned,
            "train_error": error(study, model, trained[None], train_images),
        },
        "image": image,
        "derivations": page.derived(
            gaussian=likelihood_lines.gaussian(
                image["grey"], image["reconstruction"], image["average"], 0.3
            ),
            bernoulli=likelihood_lines.bernoulli(image["binary"], image["probability"]),
        ),
        "exercises": exercises(float(squared_error), grey[0].size),
        "bernoulli": {"kl": binary.kl[-last:].mean(), "elbo": binary.value[-last:].mean()},
    }
    numbers = page.plain(numbers)
    figures = {
        "balance": draw_balance(numbers),
        "reconstructions": draw_reconstructions(model, trained, grey[:9]),
        "pixel": draw_pixel(),
    }
    code = (gaussian_loss, from_squared_error)
    return page.Chapter("Likelihood", TEXT, numbers, figures, code, exercises=EXERCISES)


def flat(image: Any) -> np.ndarray:
    return np.asarray(image, np.float64).ravel()


def exercises(squared_error: float, num_pixels: int) -> dict[str, Any]:
    best = np.sqrt(squared_error / num_pixels)
    at_best, at_choice = (
        from_squared_error(squared_error, num_pixels, sigma) for sigma in (best, 0.3)
    )
    return {
        "doubled": [squared_error / (2 * sigma**2) for sigma in (0.3, 1.0)],
        "best": best,
        "gain": at_best - at_choice,
        "averaged": np.sqrt(num_pixels / 2),
        "pixel": [-np.log(0.01), *(0.99**2 / (2 * sigma**2) for sigma in (0.3, 1.0))],
        "positive": from_squared_error(0.0, num_pixels, 0.05),
    }


def error(study: Study, model: vae_jax.VAE, params: Any, x: jax.Array) -> jax.Array:
    """The root of the mean squared error of decoded draws from the posterior."""
    z = vae_jax.sample(study.key("likelihood error"), model.encode(params, x))
    return jnp.sqrt(jnp.square(x - model.decode(params, z).mean).mean())


def measure(study: Study, model: vae_jax.VAE, params: Any, x: jax.Array) -> dict[str, Any]:
    posterior = model.encode(params, x)
    draws = vae_jax.generate(study.key("likelihood draws"), model, params, 1000)
    return {
        "error": error(study, model, params, x),
        "kl": vae_jax.kl_divergence(posterior, model.prior(params)).mean(),
        "active_units": vae_jax.active_units(posterior).sum(),
        "sure": study.sure(draws.mean),
    }


def draw_balance(numbers: dict[str, Any]) -> page.Figure:
    figure, axes = drawing.panels(1, 2, 2.3)
    for panel, name, label in zip(
        axes, ("error", "kl"), ("error per pixel", "KL, nats"), strict=True
    ):
        values = [row[name] for row in numbers["fixed"]]
        panel.plot(numbers["sigma"], values, "o-", color=drawing.BLUE, label="fixed")
        learned = numbers["learned"]
        panel.plot(learned["sigma"], learned[name], "D", color=drawing.ORANGE, label="learned")
        panel.set(xscale="log", xlabel="$\\sigma$", ylabel=label, ylim=(0, 1.1 * max(values)))
        panel.set_xticks(SCALES, [f"{scale:g}" for scale in SCALES])
        panel.minorticks_off()
    axes[0].legend()
    return page.figure(
        figure,
        "Two curves against sigma: the error per pixel is largest at sigma one, the KL falls. The "
        "learned sigma lies between.",
        "What the choice of $\\sigma$ buys, on the test images.",
    )


def draw_reconstructions(
    model: vae_jax.VAE, trained: dict[float | None, Any], x: jax.Array
) -> page.Figure:
    rows = [x, *(vae_jax.reconstruct(model, params, x).mean for params in trained.values())]
    names = ["image", *(f"$\\sigma = {sigma:g}$" for sigma in SCALES), "learned"]
    figure, axes = drawing.panels(height=3.2)
    drawing.images(axes, jnp.concatenate(rows), len(x))
    drawing.row_labels(axes, names, len(rows))
    return page.figure(
        figure,
        "Rows of digits: the images, and their reconstructions, sharp with a small sigma, blurred "
        "with a larger one, most of all with sigma one.",
        "The first test images and their reconstructions.",
    )


def draw_pixel() -> page.Figure:
    figure, axes = drawing.panels(height=2.5)
    mean = np.linspace(0.001, 0.999, 400)
    axes.plot(mean, -np.log(mean), color=drawing.BLUE, label="Bernoulli")
    for sigma, style in ((0.3, "--"), (1.0, ":")):
        cost = (1 - mean) ** 2 / (2 * sigma**2)
        axes.plot(mean, cost, style, color=drawing.ORANGE, label=f"Gaussian, $\\sigma = {sigma:g}$")
    axes.set(xlabel="the decoder's $\\hat{x}_i$", ylabel="cost, nats", ylim=(0, 7))
    axes.legend()
    return page.figure(
        figure,
        "The cost of a pixel that is on against the decoder's output: the Bernoulli's grows "
        "without end towards zero, the Gaussians' are parabolas.",
        "What a pixel with $x_i = 1$ costs, less its least cost.",
    )
