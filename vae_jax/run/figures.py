"""The pictures of a run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from vae_jax.run.data.columns import as_numbers

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont


def grid(images: Any, columns: int) -> Image.Image:
    """Images [N, H, W, C] in [0, 1], row by row, with a thin border; small ones are enlarged.

    What is missing, NaN, is grey.
    """
    images = np.nan_to_num(np.asarray(images), nan=0.5)
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


def reconstructions(
    x: Any, reconstructed: Any, names: tuple[str, str], columns: int = 16
) -> Image.Image:
    """Rows of images, each above a row of their reconstructions; see `beneath`."""
    return beneath((x, reconstructed), names, columns)


def beneath(each: Sequence[Any], names: tuple[str, ...], columns: int = 16) -> Image.Image:
    """Rows of images, beneath them what became of them; grey where the last rows are short.

    Args:
      each: [N, H, W, C], the images, and what became of them in one way or several.
      names: what is written before the rows of each.
      columns: images a row.
    """
    num, *shape = np.shape(each[0])
    columns = min(num, columns)
    padding = [(0, -num % columns), (0, 0), (0, 0), (0, 0)]
    padded = (np.pad(a, padding, constant_values=0.5) for a in each)
    rows = np.stack([np.reshape(a, (-1, columns, *shape)) for a in padded], axis=1)
    picture = grid(rows.reshape(-1, *shape), columns)
    return named_rows(picture, names, len(each) * len(rows))


def rows_of(images: Mapping[str, Any]) -> Image.Image:
    """A row of images [N, H, W, C] for each name, as many in each."""
    picture = grid(np.concatenate(list(images.values())), len(next(iter(images.values()))))
    return named_rows(picture, tuple(images), len(images))


def named_rows(picture: Image.Image, names: tuple[str, ...], rows: int) -> Image.Image:
    """The picture with a margin, in which the names stand before its rows, in turn."""
    height = picture.height // rows
    font = ImageFont.load_default(min(16, max(8, height // 3)))
    margin = 8 + math.ceil(max(font.getlength(name) for name in names))
    named = Image.new(picture.mode, (margin + picture.width, picture.height), "white")
    named.paste(picture, (margin, 0))
    draw = ImageDraw.Draw(named)
    for row in range(rows):
        place = (margin - 4, round((row + 0.5) * height))
        draw.text(place, names[row % len(names)], "black", font, anchor="rm")
    return named


_LEAST = np.finfo(np.float32).tiny


def latent(
    path: Path,
    means: np.ndarray,
    labels: np.ndarray | None,
    names: tuple[str, ...],
    manifold: Any,
) -> None:
    """Posterior means in two dimensions, coloured by class; the decoded plane where Z = 2.

    Args:
      path: of the PNG.
      means: [N, Z]; of more than two dimensions the first two principal components are shown.
      labels: [N], the classes' numbers, -1 for none; or None.
      names: of the classes.
      manifold: an image of the decoded plane, or None.
    """
    axis_names = ("z1", "z2" if means.shape[1] == 2 else "")
    if means.shape[1] > 2:
        centred = means - means.mean(axis=0)
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        share = np.square(singular[:2]).sum() / max(np.square(singular).sum(), _LEAST)
        means = centred @ directions[:2].T
        axis_names = (
            "first principal component",
            f"second (both: {share:.0%} of the variance)",
        )
    if means.shape[1] == 1:  # of one latent, or of one image
        means = np.concatenate([means, np.zeros_like(means)], axis=1)
    figure, axes = plt.subplots(1, 1 if manifold is None else 2, figsize=(8, 6), squeeze=False)
    if manifold is not None:
        figure.set_size_inches(14, 6)
        axes[0, 1].imshow(manifold, cmap="gray", extent=(0, 1, 0, 1))
        axes[0, 1].set(title="decoded plane, by quantiles of the prior", xlabel="z1", ylabel="z2")
    _scatter(axes[0, 0], means[:, :2], labels, names)
    axes[0, 0].set(
        title="posterior means of the test set", xlabel=axis_names[0], ylabel=axis_names[1]
    )
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _scatter(
    axes: Any, points: np.ndarray, labels: np.ndarray | None, names: tuple[str, ...]
) -> None:
    """Points [N, 2], a colour for each class, named beside the axes where the names have room."""
    if labels is None:
        axes.scatter(*points.T, s=3, alpha=0.6)
        return
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "turbo", len(names))
    if len(names) > 20:  # a scale of their numbers
        axes.scatter(*points[labels < 0].T, s=3, alpha=0.6, color="lightgrey")
        few = labels >= 0
        drawn = axes.scatter(*points[few].T, s=3, alpha=0.6, c=labels[few], cmap=colours)
        axes.figure.colorbar(drawn, ax=axes, label="number of the class")
        return
    for label in range(-1, len(names)):
        of_class = points[labels == label]
        if len(of_class):
            name, colour = ("none", "lightgrey") if label < 0 else (names[label], colours(label))
            axes.scatter(*of_class.T, s=3, alpha=0.6, color=colour, label=_written(name, label))
    axes.legend(title="label", loc="upper left", bbox_to_anchor=(1, 1), markerscale=3)


def _written(name: str, label: int, most: int = 20) -> str:
    """A name for a legend, cut; the class's number where the font has not all of its letters."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    if not all(map(font.get_char_index, map(ord, name))):
        return f"number {label}"
    name = name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
    # Matplotlib omits what begins with an underscore, and sets what has dollars as mathematics.
    return f" {name}".replace("$", r"\$")


_WHY = (
    "train: mean over an epoch's steps, while the model was learning; validation: at the epoch's "
    "end, on other images, which may be easier: it may lie above"
)


_MOST_COLUMNS, _MOST_BARS = 25, 12


def marginals(path: Path, real: Any, generated: Any, columns: Any) -> None:
    """Each column's values in a table beside those in rows that a model made.

    Args:
      path: of the picture.
      real: a frame.
      generated: another of the same columns.
      columns: those to draw, `Column`s; up to 25 are.
    """
    shown = list(columns)[:_MOST_COLUMNS]
    across = min(5, len(shown))
    down = -(-len(shown) // across)
    figure, axes = plt.subplots(down, across, figsize=(3 * across, 2.4 * down), squeeze=False)
    for axis in axes.ravel()[len(shown) :]:
        axis.axis("off")
    for axis, column in zip(axes.ravel(), shown, strict=False):
        of_both = [frame[column.name].dropna() for frame in (real, generated)]
        if column.num_classes:
            names = of_both[0].value_counts().index[:_MOST_BARS].tolist()
            for place, values in zip((-0.2, 0.2), of_both, strict=True):
                shares = [float((values == name).mean()) for name in names]
                axis.bar(np.arange(len(names)) + place, shares, 0.4)
            labels = [str(name).strip()[:9] for name in names]
            axis.set_xticks(range(len(names)), labels, rotation=60, fontsize=6)
        else:
            both = [np.asarray(as_numbers(v, column.kind), np.float64) for v in of_both]
            low, high = np.quantile(np.concatenate(both), [0.005, 0.995])
            for values in both:
                axis.hist(values.clip(low, high), 30, range=(low, high), density=True, alpha=0.5)
            axis.tick_params(labelsize=6)
        axis.set_title(column.name[:28], fontsize=8)
        axis.set_yticks([])
    figure.legend(["test rows", "generated"], loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def genes(path: Path, real: Any, generated: Any) -> None:
    """Each gene's mean and share of zeros, in test cells and in cells that a model made.

    Args:
      path: of the picture.
      real: counts [N, D].
      generated: counts [M, D].
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 5))
    least = 0.5 / max(len(real), len(generated))
    means = [np.maximum(counts.mean(axis=0), least) for counts in (real, generated)]
    zeros = [(counts == 0).mean(axis=0) for counts in (real, generated)]
    for axis, of_both, name in zip(axes, (means, zeros), ("mean", "share of zeros"), strict=True):
        axis.scatter(*of_both, s=4, alpha=0.5)
        ends = [min(map(np.min, of_both)), max(map(np.max, of_both))]
        axis.plot(ends, ends, color="grey", linewidth=1)
        axis.set(title=f"{name} of each gene", xlabel="test cells", ylabel="generated cells")
    axes[0].set(xscale="log", yscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def sequences(path: Path, real: Sequence[Any], generated: Sequence[Any]) -> None:
    """Sequences of the test set, left, beside some that a model made.

    Args:
      path: of the picture.
      real: [T_i, D] each, as lines where a step has few numbers, else as a picture, steps from left
        to right. Each number fills the range that it has in all of them.
      generated: as many.
    """
    every = np.concatenate([*real, *generated])
    low, high = np.nanmin(every, axis=0), np.nanmax(every, axis=0)
    both = [(one - low) / np.where(high > low, high - low, 1) for one in (*real, *generated)]
    longest, few = max(map(len, both)), every.shape[1] <= _MOST_LINES
    size = (12, 1.4 * len(real))
    figure, axes = plt.subplots(len(real), 2, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axis, one in zip(axes.T.ravel(), both, strict=True):
        if few:
            axis.plot(one, linewidth=1)
        else:
            axis.imshow(one.T, aspect="auto", origin="lower", vmin=0, vmax=1, cmap="viridis")
        axis.set_xlim(-0.5, longest - 0.5)
        axis.tick_params(labelsize=6)
    axes[0, 0].set_title("test sequences")
    axes[0, 1].set_title("generated sequences")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


_MOST_LINES = 4


def curves(path: Path, rows: list[dict[str, Any]], chosen: dict[str, Any] | None = None) -> None:
    """ELBO and its two terms against the epoch, and why validation may lie above training.

    Args:
      path: of the picture.
      rows: of all epochs.
      chosen: that of the epoch which is the result; it is marked.
    """
    epochs = [row["epoch"] for row in rows]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    titles = ("ELBO", "log p(x|z)", "KL(q(z|x) || p(z))")
    for axis, term, title in zip(axes, ("elbo", "log_likelihood", "kl"), titles, strict=True):
        for split in ("train", "validation"):
            axis.plot(epochs, [row[f"{split}_{term}"] for row in rows], label=split, marker=".")
        if chosen is not None:
            label = f"the result, epoch {chosen['epoch']}"
            axis.axvline(chosen["epoch"], color="black", linestyle=":", label=label)
        axis.set(title=title, xlabel="epoch", ylabel="nats")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.text(0.5, 0.01, _WHY, ha="center", va="bottom", fontsize="small")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def comparison(path: Path, names: list[str], numbers: dict[str, list[Any]]) -> None:
    """Each run's log p(x) and ELBO with two standard errors, and its minutes.

    Args:
      path: of the picture.
      names: of the runs.
      numbers: from `vae_jax.run.comparison`.
    """
    figure, axes = plt.subplots(
        1, 2, figsize=(11, 1.5 + 0.4 * len(names)), sharey=True, width_ratios=(3, 1)
    )
    place = np.arange(len(names))
    for name, shift in ("log_likelihood", -0.12), ("elbo", 0.12):
        if name in numbers:
            values, errors = (
                np.array(numbers.get(of, [None] * len(names)), np.float64)
                for of in (name, f"{name}_error")
            )  # None is NaN
            title = {"log_likelihood": "log p(x)", "elbo": "ELBO"}[name]
            axes[0].errorbar(values, place + shift, xerr=2 * errors, fmt="o", label=title)
    axes[0].legend()
    axes[0].set(xlabel="nats, test set, with two standard errors")
    axes[0].set_yticks(place, [_written(name, i, 40) for i, name in enumerate(names)])
    axes[0].invert_yaxis()
    axes[0].grid(alpha=0.3)
    axes[1].barh(place, np.nan_to_num(np.array(numbers.get("minutes", place * 0), np.float64)))
    axes[1].set(xlabel="minutes")
    figure.tight_layout()
    partial = path.with_name(f".{path.name}.partial.png")
    figure.savefig(partial, dpi=100)
    partial.replace(path)
    plt.close(figure)
