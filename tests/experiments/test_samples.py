"""Draws of a run's samplers: where its codes lie, of the class that was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from experiments import samples
from vae_jax.run.errors import UsageError
from vae_jax.run.restore import Trained


def brightness(params, x, label=None):
    """The codes of flat pictures: their grey, and nothing."""
    grey = x.mean(axis=(-3, -2))
    return vae_jax.Normal(jnp.concatenate([grey, jnp.zeros_like(grey)], axis=-1), 0.02)


def flat(params, z, label=None):
    return vae_jax.Normal(jnp.tile(z[..., :1, None, None], (2, 2, 1)), 1.0, event_ndims=3)


MODEL = vae_jax.VAE(
    None, brightness, lambda params, label=None: vae_jax.Normal(jnp.zeros(2), 1.0), flat
)


def test_each_sampler_draws_where_its_density_is():
    """Dark pictures of class 0 and bright ones of class 1: N(0, I) knows of neither."""
    rng = np.random.default_rng(0)
    labels = (np.arange(400) % 2).astype(np.int32)
    greys = np.where(labels, 0.9, 0.3) + 0.01 * rng.normal(size=400)
    images = np.broadcast_to(greys[:, None, None, None], (400, 2, 2, 1)).astype(np.float32)
    blank = [None] * len(Trained._fields)
    trained = Trained(*blank)._replace(
        model=MODEL, observe=lambda key, x: x, params=0.0, classes=["dark", "bright"]
    )
    found = samples.draws(jax.random.key(0), trained, images, labels, 100, seed=0)
    greys = {name: np.asarray(drawn)[:, 0, 0, 0] for name, (drawn, _) in found.items()}
    asked = found["mixture of each class"][1]
    assert [len(drawn) for drawn in greys.values()] == [100] * 3
    np.testing.assert_array_equal(np.bincount(asked), [50, 50])
    for label, grey in enumerate((0.3, 0.9)):
        of_class = greys["mixture of each class"][asked == label]
        np.testing.assert_allclose(of_class, grey, atol=0.1)
    near = {n: ((abs(g - 0.3) < 0.1) | (abs(g - 0.9) < 0.1)).mean() for n, g in greys.items()}
    assert near["mixture"] > 0.95
    assert near["prior"] < 0.5
    assert found["prior"][1] is found["mixture"][1] is None


class Judge:
    """Sure of the first two images, and right of the first."""

    def judge(self, images):
        return jnp.asarray([[0.95, 0.05, 0.0], [0.95, 0.05, 0.0], [0.4, 0.3, 0.3]])

    def fidelity(self, images):
        return {"precision": 0.5, "recall": 0.25}


def test_as_asked_is_of_sure_images_alone():
    found = samples.judged(Judge(), None, np.array([0, 1, 0]))
    expected = {"sure": 2 / 3, "precision": 0.5, "recall": 0.25, "sure_and_as_asked": 1 / 3}
    assert found == pytest.approx(expected)
    assert "sure_and_as_asked" not in samples.judged(Judge(), None, None)


@pytest.mark.parametrize(
    ("config", "option", "said"),
    [
        ({"binarization": "none", "num_classes": 10}, {}, "name a run of labelled images"),
        ({"binarization": "dynamic", "num_classes": 0}, {}, "is of images with 0 classes"),
        ({"binarization": "dynamic", "num_classes": 2}, {"num": 5}, "--num is 5: it must be 20"),
    ],
)
def test_what_is_not_compared_is_refused_in_a_line(config, option, said):
    with pytest.raises(UsageError, match=said):
        samples.check(config, samples.Options("runs/x", **option))
