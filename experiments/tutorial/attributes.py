"""Latent attributes that one can see: what codes say of pictures whose factors are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import KNeighborsRegressor

import vae_jax
from experiments import sprites
from experiments.tutorial import drawing, page
from experiments.tutorial.autoencoder import autoencoder_loss
from experiments.tutorial.study import BATCH_SIZE, Study, Trained
from experiments.tutorial.whole import variational_loss
from vae_jax import networks

LATENTS, HIDDEN, NUM_TRAIN, NUM_DRAWS, NEIGHBOURS = 6, 128, 10_000, 500, 5
FACTORS = {
    "x": "place, left to right",
    "y": "place, bottom to top",
    "scale": "size",
    "angle": "angle",
}
MIDDLE = sprites.Factors(shape=1, scale=4, angle=5, x=15, y=15)

TEXT = r"""
What do latent variables stand for? With digits nobody can say: there is no list of slants. So here
is a world in which everything is known. The program draws it itself: a square, an ellipse or a
heart, of one of 6 sizes, at one of 40 angles and one of 32 x 32 places, as in dSprites
(Matthey et al. 2017).

![world]

An autoencoder and a VAE are trained on [[num_train:,]] such pictures, with [[latent_dim]] latent
dimensions, two hidden layers of [[hidden]] units, and the steps, batches and learning rate of
[#autoencoder], which are here [[epochs:.0f]] epochs. Neither is told a factor. Then one factor of
one ellipse is moved while the others stay, and the codes are watched. For each factor the graphs
show the dimension that moves most with it: the autoencoder answers with a single value, the VAE
with a range.

![ranges]

How much of each factor do all [[latent_dim]] codes together tell? The factor of each of
[[num_test:,]] new pictures is predicted as the mean of the [[neighbours]] whose codes are nearest
to its own; $R^2$ is the share of the variance that is predicted. The angle is that of ellipses, by
the sine and the cosine of twice its value, which are the same after half a turn. And how wide is
the VAE's range in the dimension that is shown, where the prior's is 1?

| factor | autoencoder, $R^2$ | VAE, $R^2$ | VAE's range, mean $\sigma$ |
| place, left to right | [[explained.autoencoder.x:.2f]] | [[explained.vae.x:.2f]] |
[[width.x:.2f]] |
| place, bottom to top | [[explained.autoencoder.y:.2f]] | [[explained.vae.y:.2f]] |
[[width.y:.2f]] |
| size | [[explained.autoencoder.scale:.2f]] | [[explained.vae.scale:.2f]]
  | [[width.scale:.2f]] |
| angle | [[explained.autoencoder.angle:.2f]] | [[explained.vae.angle:.2f]] | [[width.angle:.2f]] |

A range is narrow where the picture depends on the code a great deal: a sprite that is a little off
its place has many wrong pixels, and the VAE pays the nats to say exactly where it is. What would
cost more nats than it saves in pixels is not said at all, and its range is that of the prior. A
range is that of a whole dimension, which may serve several factors: the one that turns with the
angle moves with the places too, and is narrow for their sake. The autoencoder's values tell the
places as well and the angle better, but not how much a value matters: it has no range to compare
with. Nothing in either loss asks for one dimension for each factor. Where a curve bends back, the
factor is folded over several dimensions; a dimension for each factor, where it is found, is not to
be relied on (Locatello et al. 2019).

**Turning one knob.** A sprite is encoded by the VAE and one dimension is moved from $-2$ to $2$,
the most informative first:

![knobs]

**Codes that no picture has.** Codes are drawn from $\mathcal{N}(0, I)$, which is outside the
autoencoder's data and inside the VAE's, and from a Gaussian three times as wide as each model's own
codes, which is outside of both.

![outside]

What comes out is compared with [[num_compared:,]] sprites: the mean number of wrong pixels of
1024, against the most similar of them, is

| codes | autoencoder | VAE |
| of new sprites | [[wrong.own.autoencoder:.0f]] | [[wrong.own.vae:.0f]] |
| $\mathcal{N}(0, I)$ | [[wrong.prior.autoencoder:.0f]] | [[wrong.prior.vae:.0f]] |
| three times as wide | [[wrong.far.autoencoder:.0f]] | [[wrong.far.vae:.0f]] |

The VAE's decoder has seen draws from all over the prior, and makes sprites of them, if blurred
ones. The autoencoder's has seen its own codes and nothing between or beside them, and makes clouds
and crumbs.
"""

EXERCISES = (
    (
        "The range for the place from left to right is [[width.x:.2f]] wide. How many nats does it "
        "cost at least, and what does the VAE have for them?",
        "$\\tfrac{1}{2}(\\sigma^2 + \\mu^2 - 1 - \\log \\sigma^2)$ is at least $-\\log \\sigma - "
        "\\tfrac{1}{2}$, here [[least_nats:.2f]] nats. A sprite beside its place is wrong on two "
        "sides, and each pixel that is wrong for certain costs more than that.",
    ),
    (
        "Why are the sine and the cosine of *twice* the angle used for the ellipse's angle?",
        "After half a turn an ellipse is itself again: angles 0 and 180 degrees are one picture, "
        "and no code can tell them apart. Twice the angle takes both to the same value.",
    ),
    (
        "Would the graphs of the VAE look the same for another seed?",
        "In shape, not in place: any dimension can be the one for a factor, and with the other "
        "sign, for both leave the prior and the bound as they are.",
    ),
    (
        "How many nats does the VAE spend on a sprite in all, and how many would it take to name "
        "one exactly?",
        "It spends [[kl:.1f]]. Naming one of 737,280 takes $\\log 737280 = 13.5$ nats, if every "
        "sprite were told from every other.",
    ),
    (
        "A code of zeros: what do the two decoders make of it?",
        "The VAE a sprite-like blob, since zero is the middle of its prior. The autoencoder "
        "whatever lies there: zero means nothing to it. Draws near zero are in the first row of "
        "the figure.",
    ),
)


def codes_along(model: vae_jax.VAE, params: Any, factor: str) -> tuple[np.ndarray, vae_jax.Normal]:
    """All values of one factor, the others in the middle, and q(z|x) of their pictures."""
    values = np.arange(sprites.SIZES._asdict()[factor])
    pictures = sprites.draw(MIDDLE._replace(**{factor: values}))
    return values, model.encode(params, jnp.asarray(pictures))


def explained(code: np.ndarray, target: np.ndarray) -> float:
    """R^2 of targets [N, K] predicted from the nearest codes [N, Z], half from the other half."""
    half = len(code) // 2
    predict = KNeighborsRegressor(NEIGHBOURS).fit(code[:half], target[:half]).predict
    away, whole = predict(code[half:]) - target[half:], target[half:] - target[half:].mean(axis=0)
    return float(1 - np.square(away).sum() / np.square(whole).sum())


def run(study: Study) -> page.Chapter:
    generator = np.random.default_rng(study.seed)
    model = make_model()
    batch = vae_jax.Batch(pictures_of(sprites.sample_factors(generator, NUM_TRAIN)), None)
    trained = {
        name: study.train(f"sprites, {name}", model, loss(model), batch=batch)
        for name, loss in (("autoencoder", autoencoder_loss), ("vae", variational_loss))
    }
    factors = sprites.sample_factors(generator, 4000)
    pictures = sprites.draw(factors)
    # Of squares and hearts the angle has another symmetry.
    ellipses = sprites.sample_factors(generator, 4000)._replace(shape=1)
    twice = 2 * np.pi * np.asarray(ellipses.angle) / 20
    codes = {n: model.encode(t.params, jnp.asarray(pictures)) for n, t in trained.items()}
    shares: dict[str, dict[str, float]] = {}
    for name, of in trained.items():
        code = np.asarray(codes[name].mean, np.float64)
        shares[name] = {
            f: explained(code, getattr(factors, f)[:, None]) for f in ("x", "y", "scale")
        }
        turned = np.asarray(model.encode(of.params, jnp.asarray(sprites.draw(ellipses))).mean)
        shares[name]["angle"] = explained(turned, np.stack([np.sin(twice), np.cos(twice)], axis=1))
    drawn = draws(study.key("sprites outside"), model, trained, codes)
    library = np.asarray(batch.image, np.float32) / 255
    params = trained["vae"].params
    kl = vae_jax.kl_per_dimension(codes["vae"], model.prior(params)).mean(axis=0)
    width = {}
    for factor in FACTORS:
        _, along = codes_along(model, params, factor)
        width[factor] = along.scale[:, moving(along)].mean()
    numbers = {
        "num_train": NUM_TRAIN,
        "num_test": len(pictures),
        "num_compared": len(library),
        "latent_dim": LATENTS,
        "hidden": HIDDEN,
        "epochs": study.steps * BATCH_SIZE / NUM_TRAIN,
        "neighbours": NEIGHBOURS,
        "explained": shares,
        "width": width,
        "least_nats": -np.log(width["x"]) - 0.5,
        "kl": kl.sum(),
        "wrong": {
            row: {name: wrong_pixels(images, library) for name, images in of.items()}
            for row, of in drawn.items()
        },
    }
    figures = {
        "world": draw_world(pictures),
        "ranges": draw_ranges(model, trained),
        "knobs": draw_knobs(model, params, np.asarray(kl)),
        "outside": draw_outside(drawn),
    }
    code = (codes_along, explained)
    return page.Chapter(
        "Latent attributes", TEXT, page.plain(numbers), figures, code, exercises=EXERCISES
    )


def make_model() -> vae_jax.VAE:
    hidden = (HIDDEN, HIDDEN)
    encoder = networks.Encoder(networks.MLP((2 * LATENTS,), hidden=hidden, event_ndims=3))
    decoder = networks.BernoulliDecoder(networks.MLP((32, 32, 1), hidden=hidden), event_ndims=3)
    return vae_jax.make_vae(encoder, decoder, LATENTS)


def pictures_of(factors: sprites.Factors) -> jax.Array:
    return jnp.asarray(np.round(255 * sprites.draw(factors)).astype(np.uint8))


def moving(along: vae_jax.Normal) -> int:
    """The dimension whose mean moves most, beside how wide it is."""
    mean, scale = np.asarray(along.mean), np.asarray(along.scale)
    return int((mean.std(axis=0) / scale.mean(axis=0)).argmax())


def draws(
    key: jax.Array, model: vae_jax.VAE, trained: dict[str, Trained], codes: dict[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    noise = jax.random.normal(key, (NUM_DRAWS, LATENTS))
    rows: dict[str, dict[str, np.ndarray]] = {"own": {}, "prior": {}, "far": {}}
    for name, of in trained.items():
        mean = codes[name].mean
        factor = jnp.linalg.cholesky(jnp.cov(mean.T))
        far = mean.mean(axis=0)[None] + 3 * noise @ factor.T
        for row, z in (("own", mean[:NUM_DRAWS]), ("prior", noise), ("far", far)):
            rows[row][name] = np.asarray(model.decode(of.params, z).mean)
    return rows


def wrong_pixels(images: np.ndarray, library: np.ndarray) -> float:
    """The absolute difference of images [N, H, W, 1] from the nearest of a library's, summed."""
    # For pictures of 0 and 1, |a - b| = a + b - 2 a b, which is a product of matrices.
    a, b = images.reshape(len(images), -1), np.round(library).reshape(len(library), -1)
    distance = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - 2 * a @ b.T
    return float(distance.min(axis=1).mean())


def draw_world(pictures: np.ndarray) -> page.Figure:
    figure, axes = drawing.panels(height=1.9)
    drawing.images(axes, pictures[:30], 10, frame=True)
    return page.figure(
        figure,
        "Thirty pictures, each with a square, an ellipse or a heart of some size, angle and place.",
        "Thirty of the pictures that the program draws.",
    )


def draw_ranges(model: vae_jax.VAE, trained: dict[str, Trained]) -> page.Figure:
    figure, axes = drawing.panels(2, 4, 3.6)
    for row, (name, of) in zip(axes, trained.items(), strict=True):
        for panel, (factor, title) in zip(row, FACTORS.items(), strict=True):
            values, along = codes_along(model, of.params, factor)
            mean = np.asarray(along.mean)
            if name == "autoencoder":
                dimension = int(mean.std(axis=0).argmax())
                panel.plot(values, mean[:, dimension], ".", color=drawing.BLUE, markersize=4)
                panel.set_title(title.replace(", ", ",\n"))
            else:
                dimension = moving(along)
                middle, scale = mean[:, dimension], np.asarray(along.scale)[:, dimension]
                settings = {"color": drawing.ORANGE, "alpha": 0.35, "linewidth": 0}
                panel.fill_between(values, middle - 2 * scale, middle + 2 * scale, **settings)
                panel.plot(values, middle, color=drawing.ORANGE)
                panel.set_xlabel(factor)
                panel.set_ylim(-3.5, 3.5)
    axes[0, 0].set_ylabel("autoencoder:\na value")
    axes[1, 0].set_ylabel("VAE:\na distribution")
    return page.figure(
        figure,
        "Four columns, one for each factor. Above, the autoencoder's code as points; below, the "
        "VAE's mean as a line in a band of two standard deviations.",
        "The dimension of the code that moves most as one factor of an ellipse moves. The bands "
        "hold two standard deviations of $q_\\phi(z \\mid x)$ to either side.",
    )


def draw_knobs(model: vae_jax.VAE, params: Any, kl: np.ndarray) -> page.Figure:
    x = jnp.asarray(sprites.draw(MIDDLE))[0]
    images = vae_jax.traverse(model, params, x, jnp.linspace(-2.0, 2.0, 9)).mean
    order = np.argsort(-kl)
    figure, axes = drawing.panels(height=3.6)
    drawing.images(axes, images[order].reshape(-1, *images.shape[2:]), 9, frame=True)
    drawing.row_labels(axes, [f"$z_{{{i + 1}}}$   {kl[i]:.2f} nats" for i in order], len(order))
    drawing.column_labels(
        axes, [f"{value:+.1f}" if value else "0" for value in np.linspace(-2, 2, 9)]
    )
    axes.set_xlabel("value of the dimension")
    return page.figure(
        figure,
        "A row for each latent dimension and a column for each value: along some rows the sprite "
        "moves, along others it grows or changes its form.",
        "One ellipse with one dimension of its code set to nine values. Beside each dimension, "
        "what it says of a sprite on average.",
    )


def draw_outside(drawn: dict[str, dict[str, np.ndarray]]) -> page.Figure:
    figure, axes = drawing.panels(2, 1, 3.3)
    for panel, name, title in zip(
        axes, ("autoencoder", "vae"), ("autoencoder", "VAE"), strict=True
    ):
        rows = [drawn[row][name][:10] for row in ("own", "prior", "far")]
        drawing.images(panel, np.concatenate(rows), 10, title, frame=True)
        drawing.row_labels(panel, ("codes of sprites", "$N(0, I)$", "3 x as wide"), 3)
    return page.figure(
        figure,
        "Decoded sprites. For codes of sprites both models show sprites; for codes of the prior "
        "the VAE shows blurred sprites and the autoencoder clouds and crumbs, far out as well.",
        "Decoded means: of codes of new sprites, of codes of the prior, and of codes three times "
        "as far out as each model's own.",
    )
