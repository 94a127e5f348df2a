"""The VAE of the image programs and its optimizer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax import run
from vae_jax.run.model import make_model, make_optimizer, measure_pixels, slower_where_wide
from vae_jax.run.options import Model, Training


@pytest.mark.relax("numpy_dtype_promotion")
def test_a_very_wide_kernel_is_moved_as_far_as_one_of_3072_inputs():
    """What Adam moves the sum over n inputs that are all 1 by is n learning rates."""
    shapes = {"narrow": (3072, 2), "wide": (49_152, 2), "conv": (3, 3, 1024, 2)}
    params = {name: {"kernel": jnp.zeros(shape)} for name, shape in shapes.items()}
    params["table"] = {"embedding": jnp.zeros((9000, 2))}  # looked up, not summed
    gradient = jax.tree.map(jnp.ones_like, params)
    moved, expected = (
        optimizer.update(gradient, optimizer.init(params))
        for optimizer in (slower_where_wide(optax.adam(1e-3)), optax.adam(1e-3))
    )
    chex.assert_trees_all_equal(moved[1], expected[1])  # Adam's own state
    for name in "narrow", "table":
        chex.assert_trees_all_equal(moved[0][name], expected[0][name])
    for name in "narrow", "wide", "conv":
        sums = moved[0][name]["kernel"].sum(axis=tuple(range(len(shapes[name]) - 1)))
        np.testing.assert_allclose(sums, -3.072, rtol=1e-4)


@pytest.mark.relax("numpy_dtype_promotion")
def test_pictures_of_128_by_128_do_not_blow_up():
    """At Adam's own rate the loss of these eight steps is 6e11."""
    grey = np.random.default_rng(0).random((64, 1, 1, 1), dtype=np.float32)
    images = np.broadcast_to(grey, (64, 128, 128, 3))
    model = make_model(
        Model(hidden=(32,), latent_dim=4),
        images.shape[1:],
        "none",
        measure_pixels(images, "none"),
        0,
    )
    fitted = run.fit(
        jax.random.key(0),
        vae_jax.make_loss(model),
        model.init(jax.random.key(1), images[:1]),
        make_optimizer(Training(learning_rate=1e-3), 8),
        images,
        run.Plan(epochs=2, batch_size=16),
    )
    assert fitted.rows[-1]["train_loss"] < 100 * images[0].size
