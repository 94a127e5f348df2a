"""Data fidelity, the regulariser, and both."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.autoencoder import NUM_DRAWS
from experiments.tutorial.bound import NUM_IMAGES, grid_terms
from experiments.tutorial.latent import halfway, pairs
from experiments.tutorial.study import SURE, Study

CASES = {"fidelity": (1.0, 0.0), "regulariser": (0.0, 1.0), "both": (1.0, 1.0)}
"""The weights of the two terms."""
TITLES = {"fidelity": "fidelity only", "regulariser": "regulariser only", "both": "both"}

TEXT = r"""
The loss, which is minimised, is the negative of the bound. It has two terms, and each alone fails
in its own way:

$$ -\mathcal{L}(x) = \text{data fidelity} + \text{regulariser} $$

$$ \text{data fidelity} = -\mathbb{E}_{q_\phi(z \mid x)}\left[\log p_\theta(x \mid z)\right] $$

$$ \text{regulariser} = \mathrm{KL}\left(q_\phi(z \mid x) \,\|\, p(z)\right) $$

The same networks with two latent dimensions, trained three times:

![ellipses]

| trained with | reconstruction | KL | ELBO |
| data fidelity only | [[fidelity.log_likelihood:.1f]]
  | [[fidelity.kl:.1f]] | [[fidelity.elbo:.1f]] |
| regulariser only | [[regulariser.log_likelihood:.1f]]
  | [[regulariser.kl:.4f]] | [[regulariser.elbo:.1f]] |
| both | [[both.log_likelihood:.1f]] | [[both.kl:.1f]] | [[both.elbo:.1f]] |

Reconstruction is $\mathbb{E}_q[\log p_\theta(x \mid z)]$; all are in nats, means over the test
images. The ELBO has both terms at weight one, whatever was trained. And this is what draws from the
prior are worth:

| trained with | $\log p(x)$ | digits drawn | sure | precision | recall |
| data fidelity only | [[fidelity.log_px:.1f]] | [[fidelity.digits:.1f]] | [[fidelity.sure:.0%]]
  | [[fidelity.precision:.0%]] | [[fidelity.recall:.0%]] |
| regulariser only | [[regulariser.log_px:.1f]]
  | [[regulariser.digits:.1f]] | [[regulariser.sure:.0%]]
  | [[regulariser.precision:.0%]] | [[regulariser.recall:.0%]] |
| both | [[both.log_px:.1f]] | [[both.digits:.1f]] | [[both.sure:.0%]]
  | [[both.precision:.0%]] | [[both.recall:.0%]] |

$\log p(x)$ is that of [[num_images]] test images under all the codes of the prior, by the grid of
[#bound]; the ELBO of the same images is [[fidelity.elbo_of_these:.1f]],
[[regulariser.elbo_of_these:.1f]] and [[both.elbo_of_these:.1f]], below it as it must be. *Digits
drawn* is how many different digits are among [[num_draws]] draws:
the exponential of the entropy of the judge's classes, 10 at best. *Sure* is the share that the
judge is sure about; precision and recall are those of [#autoencoder].

Why is the judge so sure of the decoder that was trained for fidelity only, [[fidelity.sure:.0%]]
against [[both.sure:.0%]]? Because sureness rewards hard edges and says nothing of variety. That
decoder never saw a noisy code, so it need not hedge between the images that could have been meant,
and the circle of the prior holds only the few digits whose codes happen to lie there: it draws
[[fidelity.digits:.1f]] kinds of digits where both terms give [[both.digits:.1f]], and reaches
[[fidelity.recall:.0%]] of the real images against [[both.recall:.0%]]. The decoder that was trained
with the regulariser alone draws noise. Precision can be too kind to it,
[[regulariser.precision:.0%]] here: noise around the mean image lies in the middle of all digits,
and where they crowd the middle is among them. No one of these figures tells the whole. The judge
sees noise at once, recall sees what is missing, [[regulariser.recall:.0%]] here, and $\log p(x)$,
where it can be had, sees both.

**Data fidelity only.** Noise in the code costs reconstruction and nothing pays for it, so the
encoder makes the ellipses small beside the distances between them: their standard deviation is
[[fidelity.scale:.3f]], that of their centres [[fidelity.spread:.1f]]. This is an autoencoder again.
It reconstructs best, and the prior is not where its codes are: [[fidelity.inside:.0%]] of them lie
in the circle that holds 95 % of the prior, against [[both.inside:.0%]] with both terms.

**Regulariser only.** Every $q_\phi(z \mid x)$ becomes the prior itself: all ellipses are the unit
circle, on top of each other. The codes say nothing about the image, and the decoder was never asked
for anything.

**Both.** The ellipses lie side by side in the circle of the prior, near enough to share its space,
far enough to tell images apart; there would be overlaps if more than 150 were drawn.

![samples]

**Between two classes.** What does each latent space hold halfway between two images of different
digits? The first two rows are the images, the third is the average of their pictures, and then come
the decoded $\tfrac{1}{2}(z_1 + z_2)$ of the three.

![between]

Of [[num_pairs]] such halfway points the judge is sure of a digit in [[fidelity.halfway:.0%]] with
fidelity only, in [[regulariser.halfway:.0%]] with the regulariser only, in [[both.halfway:.0%]]
with both, and in [[sure_average:.0%]] of the averages of pictures. It is sure of a digit *other
than the two* in [[fidelity.third:.0%]], [[regulariser.third:.0%]] and [[both.third:.0%]]: on a
plane the way between two districts often leads through a third.

> Where write-ups slip: with the regulariser only, the posteriors do *not* settle apart from each
other as neat clusters of unit size, and nothing keeps images of one digit together. The smallest
possible value of the term is zero, reached when $q_\phi(z \mid x) = p(z)$ for every $x$; here it is
[[regulariser.kl:.4f]], the ellipses' centres have a standard deviation of
[[regulariser.spread:.3f]] and their own is [[regulariser.scale:.3f]].
"""


EXERCISES = (
    (
        "What is the ELBO of the model with the regulariser only, if its decoder had been allowed "
        "to learn?",
        "That of a model without a code: every pixel on its own, with its mean as the probability. "
        "As it is the decoder never moved, and reaches [[regulariser.elbo:.1f]] nats.",
    ),
    (
        "With fidelity only the KL was not trained, and is [[fidelity.kl:.1f]] nats. Where does it "
        "come from?",
        "From narrow ellipses far out: $-\\log \\sigma$ is about [[fidelity.minus_log_scale:.1f]] "
        "for each of two dimensions, and half the squared distance from zero makes most of the "
        "rest.",
    ),
    (
        "Weights of 1 and 0.5, a beta of 0.5: where would the ellipses be?",
        "Between the first graph and the third, smaller and further apart than with both terms: "
        "trained so, their standard deviation is [[half.scale:.2f]] and that of their centres "
        "[[half.spread:.2f]]. The reconstruction, [[half.log_likelihood:.1f]] nats, is better than "
        "with both, and the ELBO, with both terms at weight one, is [[half.elbo:.1f]].",
    ),
    (
        "The judge is sure of [[fidelity.sure:.0%]] with fidelity only and of [[both.sure:.0%]] "
        "with both. Does that make them equally good at generating?",
        "No: a decoder that never saw a noisy code draws hard edges, but here of "
        "[[fidelity.digits:.1f]] kinds of digits, against [[both.digits:.1f]], and with a recall "
        "of [[fidelity.recall:.0%]] against [[both.recall:.0%]].",
    ),
    (
        "Which of the three would you choose if you only had to compress the training images, and "
        "could send codes to any precision?",
        "Fidelity only, at [[fidelity.log_likelihood:.1f]] nats for the pixels. But codes to any "
        "precision are not free: sending them under the prior costs the KL, and then both terms "
        "together are best, with [[both.elbo:.1f]] against [[fidelity.elbo:.1f]] nats.",
    ),
)


def weighted_loss(model: vae_jax.VAE, fidelity: float, regulariser: float) -> Callable[..., Any]:
    def loss(params, key, batch):
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, batch.image)
        posterior = model.encode(params, x)
        z = vae_jax.sample(draw_key, posterior)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params), model.decode(params, z))
        objective = fidelity * bound.log_likelihood - regulariser * bound.kl
        return -objective.mean(), bound

    return loss


def run(study: Study) -> page.Chapter:
    model = study.make_model(2)
    params = {
        case: study.train(
            f"{TITLES[case]}, 2 latents", model, weighted_loss(model, *weights)
        ).params
        for case, weights in CASES.items()
    }
    first, second = pairs(study.label)
    numbers: dict[str, Any] = {
        "num_draws": NUM_DRAWS,
        "num_images": NUM_IMAGES,
        "num_pairs": len(first),
        "sure_average": study.sure((study.x[first] + study.x[second]) / 2),
    }
    for case in CASES:
        numbers[case] = measure(study, model, params[case])
    half = study.train("beta 0.5, 2 latents", model, weighted_loss(model, 1.0, 0.5))
    numbers["half"] = measure(study, model, half.params)
    figures = {
        "ellipses": draw_ellipses(study, model, params),
        "samples": draw_samples(study, model, params),
        "between": draw_between(study, model, params),
    }
    code = (weighted_loss, halfway)
    return page.Chapter(
        "The three loss cases", TEXT, page.plain(numbers), figures, code, exercises=EXERCISES
    )


def measure(study: Study, model: vae_jax.VAE, params: Any) -> dict[str, Any]:
    draw_key, sample_key = jax.random.split(study.key("loss cases"))
    posterior, prior = model.encode(params, study.x), model.prior(params)
    z = vae_jax.sample(draw_key, posterior, 20)
    bound = vae_jax.elbo(study.x, z, posterior, prior, model.decode(params, z))
    drawn = vae_jax.generate(sample_key, model, params, NUM_DRAWS).mean
    draws = study.judge(drawn)
    first, second = pairs(study.label)
    middle = study.judge(halfway(model, params, study.x[first], study.x[second])["latent"])
    kind = middle.argmax(axis=-1)
    other = (kind != study.label[first]) & (kind != study.label[second])
    third = other & (middle[:, :-1].max(axis=-1) >= SURE)
    classes = jnp.bincount(draws[:, :-1].argmax(axis=-1), length=10) / len(draws)
    inside = jnp.square(posterior.mean).sum(axis=-1) < -2 * jnp.log(0.05)
    terms = jax.jit(lambda x: grid_terms(model, params, x))(study.x[:NUM_IMAGES])
    return {
        "log_likelihood": bound.log_likelihood.mean(),
        "kl": bound.kl.mean(),
        "elbo": bound.value.mean(),
        "log_px": terms["log_px"].mean(),
        "elbo_of_these": bound.value[:, :NUM_IMAGES].mean(),
        "inside": inside.mean(),
        "digits": jnp.exp(jax.scipy.special.entr(classes).sum()),
        "sure": (draws[:, :-1].max(axis=-1) >= SURE).mean(),
        **study.fidelity(drawn),
        "halfway": (middle[:, :-1].max(axis=-1) >= SURE).mean(),
        "third": third.mean(),
        "minus_log_scale": -jnp.log(posterior.scale).mean(),
        "scale": posterior.scale.mean(),
        "spread": posterior.mean.std(axis=0).mean(),
    }


def draw_ellipses(study: Study, model: vae_jax.VAE, params: dict[str, Any]) -> page.Figure:
    label = study.label[:150]
    colours = [drawing.CLASSES[c] for c in label]
    figure, axes = drawing.panels(1, 3, 2.1)
    for panel, case in zip(axes, CASES, strict=True):
        posterior = model.encode(params[case], study.x[:150])
        drawing.plane(panel, TITLES[case])
        drawing.ellipses(panel, posterior.mean, posterior.scale, colours)
        if case != "regulariser":
            drawing.name_classes(panel, posterior.mean, label)
        panel.set_ylabel("")
    axes[0].set_ylabel("$z_2$")
    return page.figure(
        figure,
        "Three graphs of posterior ellipses. Fidelity only: specks spread far beyond the prior. "
        "Regulariser only: all ellipses are one circle. Both: ellipses side by side in the "
        "circle of the prior.",
        "The posteriors of 150 test images, one standard deviation, coloured by digit; the dashed "
        "circle holds 95 % of the prior. Note the scales.",
    )


def draw_samples(study: Study, model: vae_jax.VAE, params: dict[str, Any]) -> page.Figure:
    figure, axes = drawing.panels(1, 3, 1.95, gridspec_kw={"wspace": 0.12})
    for panel, case in zip(axes, CASES, strict=True):
        draws = vae_jax.generate(study.key("loss case pictures"), model, params[case], 25)
        drawing.images(panel, np.asarray(draws.mean), 5, TITLES[case])
    return page.figure(
        figure,
        "Three grids of 25 images decoded from draws of the prior: with the regulariser only all "
        "are the same grey, with both terms they are digits.",
        "Decoded draws from the prior: the first 25, the same codes for all three.",
    )


def draw_between(study: Study, model: vae_jax.VAE, params: dict[str, Any]) -> page.Figure:
    columns = 9
    first, second = (rows[:columns] for rows in pairs(study.label))
    x_1, x_2 = study.x[first], study.x[second]
    rows = {"$x_1$": x_1, "$x_2$": x_2, "average of\npictures": (x_1 + x_2) / 2}
    for case in CASES:
        rows[TITLES[case]] = halfway(model, params[case], x_1, x_2)["latent"]
    figure, axes = drawing.panels(height=3.3)
    drawing.images(axes, np.concatenate([np.asarray(row) for row in rows.values()]), columns)
    drawing.row_labels(axes, list(rows), len(rows))
    return page.figure(
        figure,
        "Six rows: two rows of test images, their averages with two digits on top of each other, "
        "and what three models decode halfway: grey noise with the regulariser only, else shapes "
        "that are or resemble digits.",
        "Neighbours in the test set with different digits, black and white as the models see them.",
    )
