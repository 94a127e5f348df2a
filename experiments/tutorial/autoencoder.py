"""An autoencoder and a VAE, of the same networks, and what each makes of new codes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.study import SURE, Study, Trained
from experiments.tutorial.whole import variational_loss

LATENTS = 10
NUM_DRAWS = 1000

TEXT = r"""
An **autoencoder** is two networks. The encoder turns an image $x$ into a short code $z$, the
decoder turns the code back into an image, and both are trained until the image that comes out is
the one that went in. Written as a probability, it maximises

$$ \log p_\theta(x \mid z), \qquad z = \mu_\phi(x) $$

where $\mu_\phi(x)$ is the encoder's output and $p_\theta(x \mid z)$ the decoder's. Nothing in this
says where the codes shall lie, or what lies between them.

A **variational autoencoder** (VAE) has the same networks, but its encoder answers with a
distribution, $q_\phi(z \mid x)$: a mean and a standard deviation for every code. It decodes a draw
from it, and it pays for straying from a fixed prior $p(z) = \mathcal{N}(0, I)$. It maximises the
evidence lower bound, or ELBO, which [#bound] derives:

$$ \mathcal{L}(x) = \mathbb{E}_{q_\phi}\left[\log p_\theta(x \mid z)\right]
- \mathrm{KL}\left(q_\phi(z \mid x) \,\|\, p(z)\right) $$

The first term, the reconstruction, is the mean of $\log p_\theta(x \mid z)$ over draws of $z$ from
$q_\phi$. The second is the price: the divergence KL says in one number how far $q_\phi$ is from the
prior, and is zero only where they are the same ([#divergence]).

![architecture]

On this page every encoder and decoder is a fully connected network with two hidden layers of
[[settings.hidden]] units, trained by Adam on batches of [[settings.batch_size]] images for
[[settings.steps]] steps ([[settings.epochs:.0f]] epochs of [[settings.num_train:,]] images); the
learning rate falls from [[settings.learning_rate]] to 0 along a cosine. Pixels are drawn anew,
black or white with their grey value as the probability, each time an image is seen.

Below are the codes of [[num_test]] test images under both, two dimensions each. The autoencoder's
lie wherever training has left them: the standard deviation of a coordinate is
[[code_spread.autoencoder:.1f]]. The VAE's lie where the prior is, with [[code_spread.vae:.1f]],
around zero and next to each other.

![codes]

The use of the prior is to know where to look for new images: draw a code from it and decode. With
[[latent_dim]] latent dimensions the autoencoder makes of such codes what the left half shows, and
the VAE, more often digits, what the right half does.

![draws]

How many of these are digits? A judge counts: a classifier of its own, trained on real digits and on
pictures that are none (shuffled pixels, or four quadrants of four digits), and it has never seen a
generated image. It is *sure* of an image when it gives one digit a probability of [[sure_at]] or
more. A judge can be fooled, and it says nothing of variety. So there are two more figures of merit:
images are drawn, pixels and all, as many as there are real ones beside them, and each set is spread
out in the space of the [[settings.num_components]] principal components of the real ones.
*Precision* is the share of the drawn that lie where real ones are, and *recall* the share of the
real that lie where drawn ones are; to lie among others is to be nearer to one of them than its
third neighbour is (Kynkäänniemi et al. 2019). Of [[num_draws]] draws each, autoencoder | VAE:

| codes | sure | precision | recall |
| $\mathcal{N}(0, I)$, [[latent_dim]] latents | [[sure.autoencoder:.0%]] ❘ [[sure.vae:.0%]]
  | [[fidelity.prior.autoencoder.precision:.0%]] ❘ [[fidelity.prior.vae.precision:.0%]]
  | [[fidelity.prior.autoencoder.recall:.0%]] ❘ [[fidelity.prior.vae.recall:.0%]] |
| a Gaussian fitted to its own codes | [[sure_fitted.autoencoder:.0%]] ❘ [[sure_fitted.vae:.0%]]
  | [[fidelity.fitted.autoencoder.precision:.0%]] ❘ [[fidelity.fitted.vae.precision:.0%]]
  | [[fidelity.fitted.autoencoder.recall:.0%]] ❘ [[fidelity.fitted.vae.recall:.0%]] |
| far from the data: three times that spread | [[sure_far.autoencoder:.0%]] ❘ [[sure_far.vae:.0%]]
  | [[fidelity.far.autoencoder.precision:.0%]] ❘ [[fidelity.far.vae.precision:.0%]]
  | [[fidelity.far.autoencoder.recall:.0%]] ❘ [[fidelity.far.vae.recall:.0%]] |
| $\mathcal{N}(0, I)$, 2 latents | [[sure_2.autoencoder:.0%]] ❘ [[sure_2.vae:.0%]]
  | [[fidelity.plane.autoencoder.precision:.0%]] ❘ [[fidelity.plane.vae.precision:.0%]]
  | [[fidelity.plane.autoencoder.recall:.0%]] ❘ [[fidelity.plane.vae.recall:.0%]] |
| codes of test images, [[latent_dim]] latents
  | [[sure_reconstructed.autoencoder:.0%]] ❘ [[sure_reconstructed.vae:.0%]]
  | [[fidelity.reconstructed.autoencoder.precision:.0%]]
  ❘ [[fidelity.reconstructed.vae.precision:.0%]]
  | [[fidelity.reconstructed.autoencoder.recall:.0%]]
  ❘ [[fidelity.reconstructed.vae.recall:.0%]] |

For comparison: the judge is sure about [[sure_real:.0%]] of real grey test images and
[[sure_noise:.1%]] of noise, and images drawn from real greys of the test set have a precision of
[[fidelity.real.precision:.0%]] and a recall of [[fidelity.real.recall:.0%]]. The second row is the
fairer question to the autoencoder: even where codes are drawn from a Gaussian with their own mean
and covariance, much of the space between them has no meaning. In the last row the codes are of real
images; there the autoencoder, which has nothing else to do, reconstructs better:
[[log_likelihood.autoencoder:.1f]] nats against the VAE's [[log_likelihood.vae:.1f]].

Each of the three can mislead alone. *Precision* is kind to blurs: what lies in the middle of many
digits is near to all of them. *Sure* is kind in the fourth row: a plane is so crowded that there is
little space between the codes, and the autoencoder's decoder, which never saw a noisy code, need
not hedge, where the VAE's answers a code between two images with a grey mean of both. So the judge
is sure of [[sure_2.autoencoder:.0%]] of the autoencoder's draws, when with [[latent_dim]]
dimensions it was of [[sure.autoencoder:.0%]]. *Recall* tells that they leave out more of the real
images than the VAE's do, because the circle that $\mathcal{N}(0, I)$ covers is a small part of
where the autoencoder's codes are.

The space in which images are compared is a choice, and precision and recall depend on it. It was
made for this page after looking at what came out on the 8x8 digits in three of them: principal
components, all pixels, and the judge's answers. The components were taken because they show most
clearly what is said above of the fourth row. So here are the other two, the judge's answers as
logarithms of probabilities, for the same draws from $\mathcal{N}(0, I)$, autoencoder ❘ VAE:

| latents, space | precision | recall |
| [[latent_dim]], pixels
  | [[elsewhere.pixels.prior.autoencoder.precision:.0%]]
  ❘ [[elsewhere.pixels.prior.vae.precision:.0%]]
  | [[elsewhere.pixels.prior.autoencoder.recall:.0%]]
  ❘ [[elsewhere.pixels.prior.vae.recall:.0%]] |
| [[latent_dim]], judge's answers
  | [[elsewhere.judge.prior.autoencoder.precision:.0%]]
  ❘ [[elsewhere.judge.prior.vae.precision:.0%]]
  | [[elsewhere.judge.prior.autoencoder.recall:.0%]]
  ❘ [[elsewhere.judge.prior.vae.recall:.0%]] |
| 2, pixels
  | [[elsewhere.pixels.plane.autoencoder.precision:.0%]]
  ❘ [[elsewhere.pixels.plane.vae.precision:.0%]]
  | [[elsewhere.pixels.plane.autoencoder.recall:.0%]]
  ❘ [[elsewhere.pixels.plane.vae.recall:.0%]] |
| 2, judge's answers
  | [[elsewhere.judge.plane.autoencoder.precision:.0%]]
  ❘ [[elsewhere.judge.plane.vae.precision:.0%]]
  | [[elsewhere.judge.plane.autoencoder.recall:.0%]]
  ❘ [[elsewhere.judge.plane.vae.recall:.0%]] |

A difference that shows in one space alone is a hint and no more.

![far]

The autoencoder is a limit of the VAE. Let the standard deviation of $q_\phi(z \mid x)$ shrink to
$s$: the first term of the bound becomes $\log p_\theta(x \mid \mu_\phi(x))$, but the divergence
grows without end, like $-\log s$ for each dimension. Only when it is dropped is the autoencoder
left. For the trained VAE, with all standard deviations replaced by $s$:

| $s$ | first term, nats | KL, nats |
| 1 | [[limit.log_likelihood.0:.2f]] | [[limit.kl.0:.1f]] |
| 0.1 | [[limit.log_likelihood.1:.2f]] | [[limit.kl.1:.1f]] |
| 0.01 | [[limit.log_likelihood.2:.2f]] | [[limit.kl.2:.1f]] |
| 0.001 | [[limit.log_likelihood.3:.2f]] | [[limit.kl.3:.1f]] |
| $s \to 0$ | [[limit.deterministic:.2f]] | $\infty$ |

> Where write-ups slip: what is maximised is a lower bound of $\log p(x)$; the *loss*, which is
minimised, is its negative, an upper bound of $-\log p(x)$. Calling the loss a lower bound turns the
whole argument upside down.
"""


EXERCISES = (
    (
        "The autoencoder's loss has no term that keeps its codes small. What limits them?",
        "Only the end of training. Codes further apart are easier to tell apart, so training "
        "pushes them out, by less and less: after [[settings.steps]] steps the standard deviation "
        "of a coordinate is [[code_spread.autoencoder:.1f]], where the VAE's is "
        "[[code_spread.vae:.1f]].",
    ),
    (
        "An encoder answers with $\\mu = 0$ and $\\sigma = 1$ in all [[latent_dim]] dimensions for "
        "every image. What is the KL, and what can the decoder do?",
        "The KL is 0: the posterior is the prior. The code says nothing about the image, and the "
        "best that the decoder can do is to draw the mean of all images.",
    ),
    (
        "In the table of the limit, each time that $s$ falls tenfold the KL grows by the same "
        "amount. By which, and why?",
        "By $\\log 10$ nats in each of [[latent_dim]] dimensions, 23.03 in all, since the KL has "
        "$-\\log s$ for each: from $s = 0.01$ to $0.001$ it rose from [[limit.kl.2:.2f]] to "
        "[[limit.kl.3:.2f]].",
    ),
    (
        "Which of the rows of the first table would you show to sell an autoencoder as a "
        "generative model, and what would a critic ask to see beside it?",
        "The fourth, where it comes nearest: with two latents the judge is sure about "
        "[[sure_2.autoencoder:.0%]] of its draws and [[sure_2.vae:.0%]] of the VAE's. The critic "
        "asks for recall: [[fidelity.plane.autoencoder.recall:.0%]] against "
        "[[fidelity.plane.vae.recall:.0%]].",
    ),
    (
        "The judge was trained on pictures that are no digits too. What would it say of noise "
        "otherwise?",
        "A classifier that has ten answers must give one of them, and is often sure of it. With an "
        "eleventh answer, *none*, this one is sure of a digit in [[sure_noise:.1%]] of noise.",
    ),
)


def autoencoder_loss(model: vae_jax.VAE) -> Callable[..., Any]:
    def loss(params, key, batch):
        x = vae_jax.binarize(key, batch.image)
        # One code for each image, the posterior's mean: its scale and the prior play no part.
        likelihood = vae_jax.reconstruct(model, params, x)
        return -likelihood.log_prob(x).mean(), None

    return loss


def trained_autoencoder(study: Study, latent_dim: int) -> Trained:
    model = study.make_model(latent_dim)
    return study.train(f"autoencoder, {latent_dim} latents", model, autoencoder_loss(model))


def trained_vae(study: Study, latent_dim: int) -> Trained:
    model = study.make_model(latent_dim)
    return study.train(f"VAE, {latent_dim} latents", model, variational_loss(model))


def run(study: Study) -> page.Chapter:
    draw_key, noise_key, limit_key = jax.random.split(study.key("autoencoder"), 3)
    train = {"autoencoder": trained_autoencoder, "vae": trained_vae}
    model, flat = study.make_model(LATENTS), study.make_model(2)
    params = {name: trained(study, LATENTS).params for name, trained in train.items()}
    flat_params = {name: trained(study, 2).params for name, trained in train.items()}
    noise = jax.random.normal(draw_key, (NUM_DRAWS, LATENTS))

    sure: dict[str, dict[str, float]] = {
        name: {} for name in ("sure", "sure_fitted", "sure_far", "sure_2", "sure_reconstructed")
    }
    likelihoods, spread, drawn, far, flat_drawn = {}, {}, {}, {}, {}
    fidelity: dict[str, dict[str, Any]] = {
        name: {} for name in ("prior", "fitted", "far", "plane", "reconstructed")
    }
    for name in train:
        code = model.encode(params[name], study.x).mean
        centre, factor = code.mean(axis=0), jnp.linalg.cholesky(jnp.cov(code.T))

        def decode(z: jax.Array, name: str = name) -> jax.Array:
            return model.decode(params[name], z).mean

        drawn[name], far[name] = decode(noise), decode(centre[None] + 3 * noise @ factor.T)
        flat_drawn[name] = flat.decode(flat_params[name], noise[:, :2]).mean
        pictures = {
            "sure": drawn[name],
            "sure_fitted": decode(centre[None] + noise @ factor.T),
            "sure_far": far[name],
            "sure_2": flat_drawn[name],
            "sure_reconstructed": decode(code),
        }
        for (case, images), of in zip(pictures.items(), fidelity.values(), strict=True):
            sure[case][name], of[name] = study.sure(images), study.fidelity(images)
        likelihoods[name] = model.decode(params[name], code).log_prob(study.x).mean()
        spread[name] = flat.encode(flat_params[name], study.x).mean.std(axis=0).mean()

    real = jnp.asarray(study.dataset.test.images[:1000], jnp.float32) / 255
    white = jax.random.bernoulli(noise_key, real.mean(), (NUM_DRAWS, *study.image_shape))
    numbers = {
        "num_test": len(study.x),
        "num_draws": NUM_DRAWS,
        "latent_dim": LATENTS,
        "sure_at": SURE,
        "sure_real": study.sure(real),
        "sure_noise": study.sure(white.astype(jnp.float32)),
        **sure,
        "settings": study.settings,
        "fidelity": {**fidelity, "real": study.fidelity(real)},
        "elsewhere": elsewhere(study, {"prior": drawn, "plane": flat_drawn}),
        "log_likelihood": likelihoods,
        "code_spread": spread,
        "limit": limit(limit_key, model, params["vae"], study.x),
    }
    figures = {
        "architecture": draw_architecture(),
        "codes": draw_codes(flat, flat_params, study),
        "draws": draw_pictures(drawn, "draws from $N(0, I)$", "codes drawn from N(0, I)"),
        "far": draw_pictures(far, "far from the data", "codes three times as far out as the data"),
    }
    code = (autoencoder_loss, variational_loss)
    return page.Chapter(
        "Autoencoder and VAE", TEXT, page.plain(numbers), figures, code, exercises=EXERCISES
    )


def elsewhere(study: Study, drawn: dict[str, dict[str, jax.Array]]) -> dict[str, Any]:
    """The precision and recall of decoded means, by codes and model, in two other spaces."""

    def judged(images: np.ndarray) -> np.ndarray:
        return np.log(np.asarray(study.judge(jnp.asarray(images, jnp.float32))) + 1e-6)

    def flat(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)

    spaces: dict[str, Callable[[np.ndarray], np.ndarray]] = {"pixels": flat, "judge": judged}
    return {
        space: {
            codes: {name: study.fidelity(means, features) for name, means in of.items()}
            for codes, of in drawn.items()
        }
        for space, features in spaces.items()
    }


def limit(key: jax.Array, model: vae_jax.VAE, params: Any, x: jax.Array) -> dict[str, Any]:
    """The two terms of the bound with every posterior scale replaced by s, as s shrinks."""
    mean, prior = model.encode(params, x).mean, model.prior(params)
    bounds = []
    for scale in (1.0, 0.1, 0.01, 0.001):
        posterior = vae_jax.Normal(mean, scale)
        z = vae_jax.sample(key, posterior, 20)
        bounds.append(vae_jax.elbo(x, z, posterior, prior, model.decode(params, z)))
    return {
        "log_likelihood": [bound.log_likelihood.mean() for bound in bounds],
        "kl": [bound.kl.mean() for bound in bounds],
        "deterministic": model.decode(params, mean).log_prob(x).mean(),
    }


def draw_architecture() -> page.Figure:
    figure, axes = drawing.panels(2, 1, 2.6, gridspec_kw={"height_ratios": (1, 2.2)})
    for panel, title, reach in zip(axes, ("autoencoder", "VAE"), (0.5, 1.2), strict=True):
        panel.set(xlim=(0, 10), ylim=(-reach, reach), title=title)
        panel.axis("off")
        drawing.box(panel, (0.35, 0), "$x$")
        drawing.box(panel, (2.1, 0), "encoder\n$\\phi$", drawing.BLUE)
        drawing.box(panel, (8.1, 0), "decoder\n$\\theta$", drawing.ORANGE)
        drawing.box(panel, (9.7, 0), "$\\hat{x}$")
        drawing.arrow(panel, (0.6, 0), (1.4, 0))
        drawing.arrow(panel, (8.8, 0), (9.45, 0))
    autoencoder, vae = axes
    drawing.box(autoencoder, (5.1, 0), "$z = \\mu$")
    drawing.arrow(autoencoder, (2.8, 0), (4.6, 0))
    drawing.arrow(autoencoder, (5.6, 0), (7.4, 0))
    drawing.box(vae, (6, 0), "$\\mu + \\sigma\\epsilon$")
    drawing.arrow(vae, (6.6, 0), (7.4, 0))
    noise = {"boxstyle": "circle,pad=0.3", "facecolor": "#e6e6e6"}
    for text, height, shape in (
        ("\\mu", 0.85, {}),
        ("\\sigma", 0, {}),
        ("\\epsilon", -0.85, noise),
    ):
        drawing.box(vae, (4, height), f"${text}$", **shape)
        drawing.arrow(vae, (4.3, height), (5.4, 0.2 * height))
        if not shape:
            drawing.arrow(vae, (2.8, 0.3 * height), (3.7, height))
    vae.text(3.65, -0.85, "noise, $N(0, I)$", ha="right", va="center", fontsize=8)
    return page.figure(
        figure,
        "Two rows of boxes. Autoencoder: image, encoder, code, decoder, image. VAE: the encoder "
        "gives a mean and a standard deviation, noise makes a code of them, which is decoded.",
        "The same two networks in both. The VAE's encoder answers with a mean and a standard "
        "deviation, and what is decoded is a draw.",
    )


def draw_codes(model: vae_jax.VAE, params: dict[str, Any], study: Study) -> page.Figure:
    figure, axes = drawing.panels(1, 2, 2.7)
    for panel, name, title in zip(axes, params, ("autoencoder", "VAE"), strict=True):
        code = np.asarray(model.encode(params[name], study.x).mean)
        drawing.plane(panel, title)
        drawing.scatter(panel, code, study.label)
    return page.figure(
        figure,
        "Two scatter plots of two-dimensional codes coloured by digit. The autoencoder's codes "
        "spread far outside the dashed circle of the prior, the VAE's fill it.",
        "Codes of the test images, $z = \\mu_\\phi(x)$; a number stands at the median of its "
        "digit's codes. The dashed circle holds 95 % of $\\mathcal{N}(0, I)$. "
        "Note the scales of the axes.",
    )


def draw_pictures(drawn: dict[str, jax.Array], title: str, what: str) -> page.Figure:
    figure, axes = drawing.panels(1, 2, 2.75, gridspec_kw={"wspace": 0.12})
    for panel, name, model in zip(axes, drawn, ("autoencoder", "VAE"), strict=True):
        drawing.images(panel, drawn[name][:36], 6, f"{model}: {title}")
    return page.figure(
        figure,
        f"Two grids of 36 images decoded from {what}: by the autoencoder mostly shapes that are no "
        "digits, by the VAE more of them like digits.",
        f"Decoded means for {what}: the first 36 draws, of the same noise for both.",
    )
