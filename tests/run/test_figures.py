"""The pictures of a run: rows and classes have names, and nothing lies on the points."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from vae_jax.run import figures
from vae_jax.run.data import dataset

NUMBERS = np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, which are otherwise closed when they are written."""
    found = []
    monkeypatch.setattr(plt, "close", found.append)
    yield found
    monkeypatch.undo()
    plt.close("all")


@pytest.mark.parametrize("shape", [(20, 8, 8, 1), (3, 1, 1, 3), (17, 70, 64, 3)])
def test_rows_of_reconstructions_are_named_and_the_images_are_as_they_were(shape):
    x, other = NUMBERS.random(shape), NUMBERS.random(shape)
    picture = np.asarray(figures.reconstructions(x, other, ("test", "reconstruction")))
    columns = min(16, shape[0])
    pairs = np.full((-(-shape[0] // columns), 2, columns, *shape[1:]), 0.5)
    for i in range(shape[0]):
        pairs[i // columns, :, i % columns] = x[i], other[i]
    grid = np.asarray(figures.grid(pairs.reshape(-1, *shape[1:]), columns))
    np.testing.assert_array_equal(picture[:, -grid.shape[1] :], grid)
    margin = picture[:, : -grid.shape[1]]
    for row in np.array_split(margin, 2 * len(pairs)):
        assert row.min() < 100  # something is written in it
        assert row.max() == 255
    test, reconstruction = np.array_split(margin, 2 * len(pairs))[:2]
    inked = [
        np.flatnonzero((row < 200).reshape(len(row), row.shape[1], -1).any((0, 2)))
        for row in (test, reconstruction)
    ]
    assert inked[1][0] < inked[0][0]  # the longer name begins further left
    assert np.ptp(inked[0]) > 5


@pytest.mark.parametrize("sizes", [[100] * 10, [3, 500, 40], [1], [64], [65], [5, 5]])
def test_what_is_shown_of_a_set_that_lies_class_by_class_is_of_every_class(sizes):
    label = np.repeat(np.arange(len(sizes)), sizes)
    rows = dataset.spread(len(label), 64)
    assert len(rows) == len(set(rows.tolist())) == min(len(label), 64)
    shown = np.bincount(label[rows], minlength=len(sizes))
    expected = np.array(sizes) * len(rows) / len(label)
    assert (np.abs(shown - expected) < 1).all()


@pytest.mark.parametrize(
    ("num", "dim", "num_classes"), [(300, 5, 10), (300, 2, 15), (300, 1, 3), (1, 5, 2), (40, 5, 9)]
)
def test_the_legend_of_latents_names_the_classes_beside_the_points(
    tmp_path, drawn, num, dim, num_classes
):
    names = ("_hidden", "a$x$b", "\u732b", "caf\u00e9", *map(str, range(40)))[:num_classes]
    labels = np.arange(num) % num_classes
    figures.latent(tmp_path / "a.png", NUMBERS.normal(size=(num, dim)), labels, names, None)
    axes = drawn[0].axes[0]
    legend = axes.get_legend()
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert legend.get_window_extent().x1 <= drawn[0].bbox.x1
    written = [text.get_text() for text in legend.get_texts()]
    expected = [" _hidden", r" a\$x\$b", "number 2", " caf\u00e9", *(f" {i}" for i in range(40))]
    assert written == expected[: min(num, num_classes)]
    assert sum(len(points.get_offsets()) for points in axes.collections) == num


def test_many_classes_have_a_scale_and_images_without_a_label_are_grey(tmp_path, drawn):
    labels, names = np.arange(300) % 200 - 1, tuple(map(str, range(199)))
    means = NUMBERS.normal(size=(300, 3))
    figures.latent(tmp_path / "a.png", means, labels, names, None)
    axes, scale = drawn[0].axes
    assert scale.get_ylabel() == "number of the class"
    assert axes.get_legend() is None
    grey, coloured = axes.collections
    assert len(grey.get_offsets()) == (labels < 0).sum()
    np.testing.assert_array_equal(coloured.get_array(), labels[labels >= 0])
    figures.latent(tmp_path / "b.png", means, np.minimum(labels, 1), ("a", "b"), None)
    texts = drawn[1].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == [" none", " a", " b"]


def test_curves_say_why_validation_may_lie_above_training(tmp_path, drawn):
    names = [f"{s}_{t}" for s in ("train", "validation") for t in ("elbo", "log_likelihood", "kl")]
    rows = [{"epoch": i, **dict.fromkeys(names, -1.0 / i)} for i in (1, 2)]
    figures.curves(tmp_path / "a.png", rows)
    (caption,) = drawn[0].texts
    assert "while the model was learning" in caption.get_text()
    assert "it may lie above" in caption.get_text()
    bottom = min(axes.get_tightbbox().y0 for axes in drawn[0].axes)
    assert caption.get_window_extent().y1 <= bottom
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 1300


def test_the_epoch_that_is_the_result_is_marked_in_the_curves(drawn, tmp_path):
    terms = [f"{split}_{t}" for split in ("train", "validation") for t in ("elbo", "kl")]
    terms += ["train_log_likelihood", "validation_log_likelihood"]
    rows = [{"epoch": epoch, **dict.fromkeys(terms, -1.0)} for epoch in (1, 2, 3)]
    figures.curves(tmp_path / "a.png", rows, rows[1])
    figures.curves(tmp_path / "b.png", rows)
    marked, plain = drawn
    for axis in marked.axes:
        assert [2, 2] in [list(line.get_xdata()) for line in axis.lines]
    assert "the result, epoch 2" in [t.get_text() for t in marked.axes[0].get_legend().texts]
    assert {len(axis.lines) for axis in plain.axes} == {2}
