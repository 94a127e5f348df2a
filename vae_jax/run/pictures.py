"""The pictures that a trained model of images makes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import vae_jax
from vae_jax.run import classifier, conditional, figures
from vae_jax.run.model import expected


def of_images(
    key: jax.Array, model: vae_jax.VAE, params: Any, x: jax.Array, label: jax.Array | None
) -> dict[str, Image.Image]:
    """reconstructions.png of test images, and samples.png from the prior."""
    likelihood = vae_jax.reconstruct(model, params, x, label)
    # With labels, one image for each of theirs.
    samples = vae_jax.generate(key, model, params, 64 if label is None else (), label)
    return {
        "reconstructions.png": figures.reconstructions(
            classifier.unit(x), expected(likelihood), ("test", "reconstruction")
        ),
        "samples.png": figures.grid(expected(samples), 8),
    }


def decoded_plane(model: vae_jax.VAE, params: Any) -> Image.Image:
    """A latent of two dimensions, decoded at the prior's quantiles: equal prior mass each."""
    quantiles = jax.scipy.special.ndtri((jnp.arange(20) + 0.5) / 20)
    z = jnp.stack(jnp.meshgrid(quantiles, -quantiles), axis=-1).reshape(-1, 2)
    return figures.grid(expected(model.decode(params, z)), 20)


def of_classes(
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    x: jax.Array,
    label: jax.Array,
    num_classes: int,
) -> dict[str, Image.Image]:
    """samples_by_class.png, and style_transfer.png of the first test image of each class."""
    samples = conditional.by_class(key, model, params, num_classes, 16)
    first = np.unique(label, return_index=True)[1]
    changed = conditional.transferred(model, params, x[first], label[first], num_classes)
    return {
        "samples_by_class.png": figures.grid(samples, 16),
        "style_transfer.png": figures.grid(changed, 1 + num_classes),
    }
