"""The pictures of a run."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image


def grid(images: Any, columns: int) -> Image.Image:
    """Images [N, H, W, C] in [0, 1], row by row, with a thin border; small ones are enlarged."""
    images = np.asarray(images)
    num, height, width, channels = images.shape
    rows = -(-num // columns)
    canvas = np.full((rows * columns, height + 1, width + 1, channels), 0.5)
    canvas[:num, 1:, 1:] = images
    canvas = canvas.reshape(rows, columns, height + 1, width + 1, channels)
    canvas = canvas.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1), channels)
    pixels = np.round(255 * canvas.clip(0, 1)).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    scale = max(1, 56 // height)
    return picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)


def reconstructions(x: Any, reconstructed: Any, columns: int = 16) -> Image.Image:
    """Rows of images, each above a row of their reconstructions; grey where the last is short."""
    num, *shape = np.shape(x)
    columns = min(num, columns)
    padding = [(0, -num % columns), (0, 0), (0, 0), (0, 0)]
    x, reconstructed = (np.pad(a, padding, constant_values=0.5) for a in (x, reconstructed))
    pairs = np.stack([np.reshape(a, (-1, columns, *shape)) for a in (x, reconstructed)], axis=1)
    return grid(pairs.reshape(-1, *shape), columns)


def latent(path: Path, means: np.ndarray, labels: np.ndarray | None, manifold: Any) -> None:
    """Posterior means in two dimensions, coloured by label; the decoded plane where Z = 2.

    Args:
      path: of the PNG.
      means: [N, Z]; of more than two dimensions the first two principal components are shown.
      labels: [N] or None.
      manifold: an image of the decoded plane, or None.
    """
    names = ("z1", "z2")
    if means.shape[1] == 1:
        means, names = np.concatenate([means, np.zeros_like(means)], axis=1), ("z1", "")
    elif means.shape[1] > 2:
        centred = means - means.mean(axis=0)
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        share = np.square(singular[:2]).sum() / np.square(singular).sum()
        means = centred @ directions[:2].T
        names = ("first principal component", f"second (both: {share:.0%} of the variance)")
    figure, axes = plt.subplots(1, 1 if manifold is None else 2, figsize=(7, 6), squeeze=False)
    if manifold is not None:
        figure.set_size_inches(13, 6)
        axes[0, 1].imshow(manifold, cmap="gray", extent=(0, 1, 0, 1))
        axes[0, 1].set(title="decoded plane, by quantiles of the prior", xlabel="z1", ylabel="z2")
    colours: dict[str, Any] = {} if labels is None else {"c": labels, "cmap": "tab10"}
    points = axes[0, 0].scatter(*means[:, :2].T, s=3, alpha=0.6, **colours)
    axes[0, 0].set(title="posterior means of the test set", xlabel=names[0], ylabel=names[1])
    if labels is not None:
        axes[0, 0].legend(*points.legend_elements(num=None), title="label", loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def curves(path: Path, rows: list[dict[str, Any]]) -> None:
    """ELBO and its two terms against the epoch."""
    epochs = [row["epoch"] for row in rows]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    titles = ("ELBO", "log p(x|z)", "KL(q(z|x) || p(z))")
    for axis, term, title in zip(axes, ("elbo", "log_likelihood", "kl"), titles, strict=True):
        for split in ("train", "validation"):
            axis.plot(epochs, [row[f"{split}_{term}"] for row in rows], label=split, marker=".")
        axis.set(title=title, xlabel="epoch", ylabel="nats")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
