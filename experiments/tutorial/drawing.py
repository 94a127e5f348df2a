"""The figures' common look: five inches wide, so that a phone shows their text legibly."""

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.patheffects import withStroke

WIDTH = 5.0
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666"
"""Okabe and Ito's colours, told apart by the colour-blind, with Tol's purple and a grey."""
CLASSES = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#888888"),
)
"""Tol's muted colours; ten cannot all be told apart, so a class is also named where it lies."""

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
}


def style() -> Any:
    """A context in which figures have the common look."""
    return plt.rc_context(STYLE)


def panels(rows: int = 1, columns: int = 1, height: float = 3.0, **settings: Any) -> Any:
    """A figure and its axes, as `plt.subplots` gives them."""
    return plt.subplots(rows, columns, figsize=(WIDTH, height), **settings)


def images(axes: Any, pictures: Any, columns: int, title: str = "", *, frame: bool = False) -> None:
    """Images [N, H, W, 1] in [0, 1], row by row, dark on light white (or grey) between them."""
    pictures = np.asarray(pictures)[..., 0]
    num, height, width = pictures.shape
    rows = -(-num // columns)
    canvas = np.full((rows * columns, height + 1, width + 1), np.nan)
    canvas[:num, :-1, :-1] = pictures
    canvas = canvas.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    canvas = canvas.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
    if frame:
        axes.set_facecolor("#999999")
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def row_labels(axes: Any, labels: Any, rows: int) -> None:
    """Names the rows of `images`."""
    bottom, top = axes.get_ylim()
    height = (bottom - top) / rows
    axes.set_yticks([top + height * (row + 0.5) for row in range(rows)], labels)
    axes.tick_params(axis="y", length=0)


def column_labels(axes: Any, labels: Any) -> None:
    """Names the columns of `images`, below them."""
    left, right = axes.get_xlim()
    width = (right - left) / len(labels)
    axes.set_xticks([left + width * (column + 0.5) for column in range(len(labels))], labels)
    axes.tick_params(axis="x", length=0)


def box(axes: Any, at: tuple[float, float], text: str, colour: str = "black", **shape: Any) -> None:
    """A box with its label, centred; boxstyle="circle" is a random node."""
    style = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour, **shape}
    axes.text(*at, text, ha="center", va="center", color=colour, bbox=style, fontsize=9, zorder=3)


def arrow(axes: Any, start: Any, end: Any, text: str = "", colour: str = "black") -> None:
    """An arrow, with a label above its middle."""
    style = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)
    middle = (np.asarray(start) + np.asarray(end)) / 2
    axes.text(*middle, text, ha="center", va="bottom", color=colour, fontsize=8)


def plane(axes: Any, title: str) -> None:
    """Axes of a latent plane, with the circle that holds 95 % of N(0, I)."""
    radius = np.sqrt(-2 * np.log(0.05))
    circle = plt.Circle((0, 0), radius, fill=False, linestyle="--", color="black", linewidth=1)
    axes.add_patch(circle)
    axes.set(title=title, xlabel="$z_1$", ylabel="$z_2$", aspect="equal")


def scatter(axes: Any, z: Any, label: Any) -> None:
    """Codes [N, 2], coloured by class, with the class's name at its median."""
    z = np.asarray(z)
    axes.scatter(*z.T, s=5, c=[CLASSES[c] for c in label], alpha=0.7, linewidths=0)
    name_classes(axes, z, label)
    axes.autoscale_view()


def ellipses(axes: Any, mean: Any, scale: Any, colours: Any, deviations: float = 1.0) -> None:
    """Diagonal Gaussians [N, 2] as ellipses of so many standard deviations."""
    mean, scale = np.asarray(mean), np.asarray(scale)
    size = 2 * deviations * scale
    collection = EllipseCollection(
        *(size[:, 0], size[:, 1], np.zeros(len(size))),
        units="xy",
        offsets=mean,
        offset_transform=axes.transData,
        facecolors=[matplotlib.colors.to_rgba(c, 0.25) for c in colours],
        edgecolors=colours,
        linewidths=0.8,
    )
    axes.add_collection(collection)
    axes.scatter(*mean.T, s=2, c=colours, linewidths=0)  # an ellipse can be too small to see
    for corner in (mean - size / 2, mean + size / 2):
        axes.update_datalim(corner)
    axes.autoscale_view()


def name_classes(axes: Any, z: Any, label: Any) -> None:
    """Each class's name at the median of its codes."""
    for c in np.unique(label):
        at = np.median(np.asarray(z)[label == c], axis=0)
        outline = [withStroke(linewidth=2.5, foreground="white")]
        axes.text(
            *at, str(c), weight="bold", ha="center", va="center", path_effects=outline, zorder=5
        )
