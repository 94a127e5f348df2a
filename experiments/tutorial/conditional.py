"""A VAE that can be asked for a 2."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.autoencoder import NUM_DRAWS, trained_vae
from experiments.tutorial.study import Study
from experiments.tutorial.whole import conditional_loss
from vae_jax.run import conditional, options

ASKED = 2

TEXT = r"""
The VAE of the first chapters draws digits, but which one is left to chance. Nothing in $p(z)$ or
$p_\theta(x \mid z)$ knows a class, so there is nothing to ask: of [[num_draws]] draws the judge
takes [[unconditional_share:.0%]] for a [[asked]], where a tenth of the data are. Picking codes
by hand where the 2s lie ([#autoencoder]) would be a search, not a model of 2s.

A **conditional** VAE is given the class $c$ everywhere: a model of $p(x \mid c)$, in which the code
only has to hold what the class leaves open. Its bound (Sohn et al. 2015) is the old one with $c$
behind every bar:

$$ \log p_\theta(x \mid c)
\ge \mathbb{E}_{q_\phi(z \mid x, c)}\left[\log p_\theta(x \mid z, c)\right] $$

$$ {} - \mathrm{KL}\left(q_\phi(z \mid x, c) \,\|\, p_\theta(z \mid c)\right) $$

The prior may depend on the class as well: here $p_\theta(z \mid c)$ is a Gaussian for each class,
whose mean and standard deviations are learned.

![twos]

Above, twenty draws of the VAE of [#autoencoder], which cannot be asked; below, twenty of the
conditional one, asked for a [[asked]] each time. They are [[asked]]s, and no two of them are the
same: the code is drawn anew each time, and holds the style. The mean pixel differs between two of
them by [[difference.asked:.2f]], and between two real [[asked]]s by [[difference.real:.2f]]. The
networks are those of [#autoencoder], with the class as [[embedding]] numbers beside the image and
beside the code, and the steps, batches and learning rate are the same.

![grid]

Each row is a class, and each column a style: one draw of noise, put at the same place in every
class's prior. Asked for a [[asked]], [[share_asked:.0%]] of [[num_draws]] draws are taken for one.
Of as many draws of all classes alike, [[agreement:.1%]] are taken for the class that was asked for,
and [[confusion:.1%]] for another digit; the rest the judge takes for no digit.

![priors]

The learned priors are close to each other: the means of the ten are [[prior_spread:.2f]] apart
(standard deviation), with standard deviations of [[prior_scale:.2f]] on average. The class comes in
beside the code, so a place in the plane need not say which digit it is: compare the circle of
[#autoencoder], where every digit had a district of its own. Both models have two latent
dimensions, and the conditional one has both of them for style.

| on test images, nats | unconditional | conditional |
| ELBO | [[elbo.unconditional:.2f]] | [[elbo.conditional:.2f]] |
| of which KL | [[kl.unconditional:.2f]] | [[kl.conditional:.2f]] |
| the same with labels shuffled | | [[elbo.shuffled:.2f]] |

The two bounds are of different things, $\log p(x)$ and $\log p(x \mid c)$, and the second is
allowed to be higher: a label tells up to $\log 10 =$ [[label_nats:.2f]] nats about an image. That
it is higher by more shows that two dimensions are few: a model that need not spend them on the
class is a better model. With wrong labels the bound falls far below: the label is used.

![shuffled]
"""

EXERCISES = (
    (
        "Of the unconditional model's draws, how many must be looked at to find twenty [[asked]]s, "
        "on average?",
        "It gives one in [[unconditional_share:.1%]] of draws, so about "
        "[[draws_for_twenty:.0f]]; the conditional one gives one in [[share_asked:.0%]].",
    ),
    (
        "Why is the KL of the conditional model smaller?",
        "[[kl.conditional:.2f]] against [[kl.unconditional:.2f]] nats: which digit it is need not "
        "be in the code, since decoder, encoder and prior are told.",
    ),
    (
        "What would the bound with shuffled labels be, if the model ignored the label?",
        "That with the right ones, [[elbo.conditional:.2f]] nats. It is [[elbo.shuffled:.2f]]: the "
        "decoder draws the digit that it is told, and the pixels disagree.",
    ),
    (
        "A tenth of the labels in a shuffle stay right by chance. Does that matter here?",
        "A little: of the shuffled labels [[kept:.0%]] are the image's own, and their share of the "
        "mean is as high as before. Labels that are all wrong would do worse still.",
    ),
    (
        "Write $p(x)$ of the conditional model, and say whether it is a better model of images "
        "without labels.",
        "$p(x) = \\sum_c p(c)\\, p(x \\mid c)$, at least $p(c)\\, p(x \\mid c)$ for the right "
        "class. So $\\log p(x)$ is at least [[elbo.conditional:.2f]] minus [[label_nats:.2f]], "
        "[[elbo.without_label:.2f]] nats on average, against the unconditional bound of "
        "[[elbo.unconditional:.2f]].",
    ),
)


def asked(key: jax.Array, model: vae_jax.VAE, params: Any, label: jax.Array) -> jax.Array:
    """An image [N, H, W, 1] for each label [N]."""
    return vae_jax.generate(key, model, params, label=label).mean


def run(study: Study) -> page.Chapter:
    draw_key, elbo_key, shuffle_key, style_key = jax.random.split(study.key("conditional"), 4)
    pixel_key = study.key("pixels of twos")
    model = study.make_model(2, conditional=True)
    trained = study.train(
        "conditional VAE, 2 latents", model, conditional_loss(model), conditional=True
    )
    params, num_classes = trained.params, study.dataset.num_classes
    plain, plain_params = study.make_model(2), trained_vae(study, 2).params

    classes = jnp.arange(NUM_DRAWS) % num_classes
    taken = study.judge(asked(draw_key, model, params, classes)).argmax(axis=-1)
    only = jnp.full(NUM_DRAWS, ASKED)
    twos = asked(draw_key, model, params, only)
    taken_of_asked = study.judge(twos).argmax(axis=-1)
    unasked = vae_jax.generate(draw_key, plain, plain_params, NUM_DRAWS).mean

    taken_unasked = study.judge(unasked).argmax(axis=-1)
    label = jnp.asarray(study.label)
    shuffled = jax.random.permutation(shuffle_key, label)
    bounds = {
        "unconditional": bound(elbo_key, plain, plain_params, study.x, None),
        "conditional": bound(elbo_key, model, params, study.x, label),
        "shuffled": bound(elbo_key, model, params, study.x, shuffled),
    }
    prior = model.prior(params, jnp.arange(num_classes))
    numbers = {
        "num_draws": NUM_DRAWS,
        "asked": ASKED,
        "unconditional_share": (taken_unasked == ASKED).mean(),
        "share_asked": (taken_of_asked == ASKED).mean(),
        "agreement": (taken == classes).mean(),
        "confusion": ((taken != classes) & (taken < num_classes)).mean(),
        "elbo": {
            **{name: terms.value.mean() for name, terms in bounds.items()},
            "without_label": bounds["conditional"].value.mean() - np.log(num_classes),
        },
        "draws_for_twenty": 20 / jnp.mean(taken_unasked == ASKED),
        "kept": (shuffled == label).mean(),
        "difference": {
            "asked": difference(jax.random.bernoulli(pixel_key, twos)),
            "real": difference(study.x[study.label == ASKED]),
        },
        "embedding": options.Model().embedding_dim,
        "kl": {name: terms.kl.mean() for name, terms in bounds.items()},
        "label_nats": np.log(num_classes),
        "prior_scale": prior.scale.mean(),
        "prior_spread": prior.mean.std(axis=0).mean(),
    }
    figures = {
        "twos": draw_twos(unasked[:20], twos[:20]),
        "shuffled": draw_shuffled(study, model, params, shuffled),
        "grid": draw_grid(conditional.by_class(style_key, model, params, num_classes, 9)),
        "priors": draw_priors(study, model, params),
    }
    code = (conditional_loss, asked)
    return page.Chapter(
        "Conditional VAE", TEXT, page.plain(numbers), figures, code, exercises=EXERCISES
    )


def bound(key: jax.Array, model: vae_jax.VAE, params: Any, x: Any, label: Any) -> vae_jax.Bound:
    return vae_jax.autoencode(
        key,
        x,
        lambda x: model.encode(params, x, label),
        model.prior(params, label),
        lambda z: model.decode(params, z, label),
        10,
    )


def difference(images: jax.Array) -> jax.Array:
    """The mean difference of a pixel between one image [N, H, W, 1] and the next."""
    images = images.astype(jnp.float32)
    return jnp.abs(images[1:] - images[:-1]).mean()


def draw_twos(unasked: jax.Array, twos: jax.Array) -> page.Figure:
    figure, axes = drawing.panels(2, 1, 3.1)
    titles = ("not asked: the unconditional VAE", f"asked for a {ASKED}: the conditional VAE")
    for panel, images, title in zip(axes, (unasked, twos), titles, strict=True):
        drawing.images(panel, images, 10, title)
    return page.figure(
        figure,
        f"Above, twenty digits of all kinds. Below, twenty digits that are all a {ASKED}, of "
        "different styles.",
        "The first twenty draws of each, decoded means.",
    )


def draw_shuffled(study: Study, model: vae_jax.VAE, params: Any, label: jax.Array) -> page.Figure:
    x, right = study.x[:12], jnp.asarray(study.label[:12])
    rows = [x] + [vae_jax.reconstruct(model, params, x, c).mean for c in (right, label[:12])]
    figure, axes = drawing.panels(height=1.6)
    drawing.images(axes, np.concatenate(rows), 12)
    drawing.row_labels(axes, ("images", "right labels", "shuffled"), 3)
    drawing.column_labels(axes, [str(c) for c in np.asarray(label[:12])])
    axes.set_xlabel("the shuffled label")
    return page.figure(
        figure,
        "Three rows: test images, their reconstructions, and reconstructions with shuffled labels, "
        "which show the digit of the label instead of the image's.",
        "Told a wrong class, the model draws the digit it is told in the style of the image.",
    )


def draw_grid(images: Any) -> page.Figure:
    figure, axes = drawing.panels(height=5.3)
    drawing.images(axes, images, 9)
    drawing.row_labels(axes, range(10), 10)
    axes.set(xlabel="style", ylabel="class asked for")
    return page.figure(
        figure,
        "A grid of digits: ten rows, each of one class from 0 to 9, and nine columns, each of one "
        "style such as slant and weight.",
        "Decoded means of the conditional VAE: a row for each class, a column for each style.",
    )


def draw_priors(study: Study, model: vae_jax.VAE, params: Any) -> page.Figure:
    classes = np.arange(study.dataset.num_classes)
    prior = model.prior(params, jnp.asarray(classes))
    codes = np.asarray(model.encode(params, study.x, jnp.asarray(study.label)).mean)
    reach = max(3.0, np.quantile(np.abs(codes).max(axis=1), 0.99))
    figure, axes = drawing.panels(2, 5, 2.6, sharex=True, sharey=True)
    for panel, c in zip(axes.flat, classes, strict=True):
        drawing.plane(panel, f"$c = {c}$")
        colour = drawing.CLASSES[c]
        drawing.ellipses(panel, prior.mean[c : c + 1], prior.scale[c : c + 1], [colour])
        panel.scatter(*codes[study.label == c].T, s=3, c=colour, linewidths=0)
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach))
        panel.label_outer()
    return page.figure(
        figure,
        "Ten planes, one for each class, with an ellipse, the prior of the class, and dots, the "
        "codes of its test images: they lie in much the same place in all.",
        "For each class $p_\\theta(z \\mid c)$ as an ellipse of one standard deviation, and the "
        "means of $q_\\phi(z \\mid x, c)$ of its test images as dots (one in a hundred of all is "
        "beyond the edges). The dashed circle holds 95 % of $\\mathcal{N}(0, I)$, for scale.",
    )
