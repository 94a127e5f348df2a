"""What the latent variables hold."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.autoencoder import LATENTS, trained_autoencoder, trained_vae
from experiments.tutorial.study import Study

TEXT = r"""
A latent variable is one that is never observed: nobody has written down the slant of a digit, or
the width of its loop. The model supposes a code $z$ behind each image, drawn from
$p(z) = \mathcal{N}(0, I)$, and an image drawn from $p_\theta(x \mid z)$.

An autoencoder answers the question "which code is behind this image?" with a single value. A VAE
answers with a distribution, because many codes could be:
$q_\phi(z \mid x) = \mathcal{N}(\mu, \operatorname{diag}(\sigma^2))$ with a mean $\mu$ and standard
deviations $\sigma$ that the encoder computes from $x$. (A capital $\Sigma$ is a whole covariance
matrix; here it is diagonal, with the *squares* of $\sigma$ on its diagonal.)

![values]

The ellipses have standard deviations of [[posterior_scale:.2f]] on average, where the prior has 1.
Since every point of an ellipse must decode to its image, neighbours must look alike; and the more
images there are beside these 150, the more their ellipses overlap, until the space between them is
filled.

**One dimension at a time.** Of the VAE with [[latent_dim]] latent dimensions: an image is encoded,
one dimension is set to values from $-3$ to $3$, the others stay, and the result is decoded.

![traversal]

The number beside each row is the dimension's divergence from the prior, averaged over the test
images: what it says of an image, in nats. [[active_units]] of [[latent_dim]] are active (the
posterior mean moves with the image); a dimension that is not decodes to the same image whatever its
value.

**Halfway.** Two images $x_1$ and $x_2$ of different digits; their codes' means $z_1$ and $z_2$.
Decoding $\tfrac{1}{2}(z_1 + z_2)$ is not the same as averaging pixels, which shows both digits at
once.

![interpolation]

Of [[num_pairs]] such pairs the judge of [#autoencoder] is sure of a digit in
[[sure_midpoint.latent:.0%]] of the decoded means, and in [[sure_midpoint.pixels:.0%]] of the pixel
averages (of the two reconstructions, so that both are equally smooth).

**The whole plane.** With two dimensions everything the model can draw fits on one picture. Each
cell is decoded at a quantile of the prior, so that every cell has the same probability.

![manifold]
"""

EXERCISES = (
    (
        "Of [[latent_dim]] latent dimensions [[active_units]] are active. What has become of one "
        "that is not, and does it harm?",
        "Posterior collapse: it is the prior for every image, costs no KL, and the decoder does "
        "without it. For the bound it is right: what it could say of an image would cost more nats "
        "than it saves. The smaller the images, the fewer dimensions pay for themselves.",
    ),
    (
        "How would you compute the KL of one dimension, in words, from what the encoder answers?",
        "Its mean and standard deviation give $\\tfrac{1}{2}(\\sigma^2 + \\mu^2 - 1 - "
        "\\log \\sigma^2)$ for an image; then the average over images. The largest here is "
        "[[largest_kl:.2f]] nats.",
    ),
    (
        "All dimensions together say how many nats of an image on average? Compare $\\log 10$, "
        "which is what a label says.",
        "[[sum_kl:.2f]] nats, where a label says 2.30: the code has room for the class and for "
        "more.",
    ),
    (
        "Halfway between two codes the judge is sure less often than at the codes themselves. Why?",
        "It is sure of [[sure_midpoint.latent:.0%]] halfway. On the way from one district to "
        "another there is a border, where the decoder answers with a mixture of both.",
    ),
    (
        "An ellipse's standard deviation of [[posterior_scale:.2f]] in two dimensions: how many "
        "such ellipses fit into the prior's circle of standard deviation 1, by area?",
        "About $1 / \\sigma^2$, so [[ellipses:.0f]]: that is roughly how many kinds of images a "
        "plane can tell apart.",
    ),
)


def halfway(model: vae_jax.VAE, params: Any, x_1: jax.Array, x_2: jax.Array) -> dict[str, Any]:
    """The decoded mean of two codes, and the mean of the two decoded images."""
    steps = vae_jax.interpolate(model, params, x_1, x_2, num=3).mean
    return {"latent": steps[1], "pixels": (steps[0] + steps[2]) / 2}


def traversal(model: vae_jax.VAE, params: Any, x: jax.Array) -> jax.Array:
    """[latent_dim, 7, H, W, 1]: one latent dimension of one image at seven values."""
    return vae_jax.traverse(model, params, x, jnp.linspace(-3.0, 3.0, 7)).mean


def manifold(model: vae_jax.VAE, params: Any, size: int) -> jax.Array:
    """[size^2, H, W, 1]: the plane decoded at the quantiles of N(0, 1), the second axis upwards."""
    quantiles = jax.scipy.special.ndtri((jnp.arange(size) + 0.5) / size)
    z = jnp.stack(jnp.meshgrid(quantiles, -quantiles), axis=-1).reshape(-1, 2)
    return model.decode(params, z).mean


def run(study: Study) -> page.Chapter:
    model, params = study.make_model(LATENTS), trained_vae(study, LATENTS).params
    posterior = model.encode(params, study.x)
    kl = vae_jax.kl_per_dimension(posterior, model.prior(params)).mean(axis=0)
    first, second = pairs(study.label)
    middle = halfway(model, params, study.x[first], study.x[second])
    flat, flat_params = study.make_model(2), trained_vae(study, 2).params
    scale = flat.encode(flat_params, study.x).scale.mean()
    numbers = {
        "latent_dim": LATENTS,
        "posterior_scale": scale,
        "ellipses": 1 / scale**2,
        "kl_per_dimension": kl,
        "largest_kl": kl.max(),
        "sum_kl": kl.sum(),
        "active_units": vae_jax.active_units(posterior).sum(),
        "num_pairs": len(first),
        "sure_midpoint": {name: study.sure(images) for name, images in middle.items()},
    }
    ends = [vae_jax.reconstruct(model, params, study.x[i]).mean for i in (first, second)]
    figures = {
        "values": draw_values(study, flat, flat_params),
        "traversal": draw_traversal(traversal(model, params, study.x[0]), kl),
        "interpolation": draw_interpolation(ends[0], middle, ends[1]),
        "manifold": draw_manifold(manifold(flat, flat_params, 15)),
    }
    code = (halfway, traversal, manifold)
    return page.Chapter(
        "Latent variables", TEXT, page.plain(numbers), figures, code, exercises=EXERCISES
    )


def pairs(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of neighbouring test images with different labels."""
    first = np.arange(len(label) - 1)
    first = first[label[:-1] != label[1:]]
    return first, first + 1


def draw_values(study: Study, model: vae_jax.VAE, params: Any) -> page.Figure:
    x, colours = study.x[:150], [drawing.CLASSES[c] for c in study.label[:150]]
    code = model.encode(trained_autoencoder(study, 2).params, x).mean
    posterior = model.encode(params, x)
    figure, axes = drawing.panels(1, 2, 2.7)
    drawing.plane(axes[0], "autoencoder: a value each")
    drawing.scatter(axes[0], code, study.label[:150])
    drawing.plane(axes[1], "VAE: a distribution each")
    drawing.ellipses(axes[1], posterior.mean, posterior.scale, colours)
    drawing.name_classes(axes[1], posterior.mean, study.label[:150])
    return page.figure(
        figure,
        "Left, the autoencoder's codes as points. Right, the VAE's posteriors as ellipses, spread "
        "over the circle of the prior.",
        "150 test images: their codes, and the ellipses of one standard deviation of their "
        "$q_\\phi(z \\mid x)$. The dashed circle holds 95 % of the prior.",
    )


def draw_traversal(images: jax.Array, kl: jax.Array) -> page.Figure:
    order = np.argsort(-np.asarray(kl))
    figure, axes = drawing.panels(height=5.4)
    drawing.images(axes, images[order].reshape(-1, *images.shape[2:]), 7)
    drawing.row_labels(axes, [f"$z_{{{i + 1}}}$   {kl[i]:.2f} nats" for i in order], len(order))
    drawing.column_labels(axes, [f"{value:+d}" if value else "0" for value in range(-3, 4)])
    axes.set_xlabel("value of the dimension, standard deviations of the prior")
    return page.figure(
        figure,
        "A grid of digits: a row for each latent dimension, a column for each value. In the rows "
        "with a large KL the digit changes its shape, in those with none it stays the same.",
        "The first test image with one dimension changed, most informative dimension first.",
    )


def draw_interpolation(start: jax.Array, middle: dict[str, Any], end: jax.Array) -> page.Figure:
    rows = (start, middle["pixels"], middle["latent"], end)
    columns = 9
    figure, axes = drawing.panels(height=2.3)
    images = np.concatenate([row[:columns] for row in rows])
    drawing.images(axes, images, columns)
    labels = ("first, $x_1$", "pixel average", "decoded\n$(z_1 + z_2) / 2$", "second, $x_2$")
    drawing.row_labels(axes, labels, 4)
    return page.figure(
        figure,
        "Four rows of digits: the first images, the averages of pixels with two digits on top of "
        "each other, the decoded averages of codes with one shape, the second images.",
        "The first pairs of neighbours in the test set with different digits, all as "
        "reconstructions.",
    )


def draw_manifold(images: jax.Array) -> page.Figure:
    figure, axes = drawing.panels(height=4.9)
    drawing.images(axes, images, 15)
    axes.set(xlabel="$z_1$, quantiles of the prior", ylabel="$z_2$, quantiles of the prior")
    return page.figure(
        figure,
        "A grid of 15 by 15 digits that change smoothly from one to another across the plane.",
        "The decoded plane of the VAE with two latent dimensions.",
    )
