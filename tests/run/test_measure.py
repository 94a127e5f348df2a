"""What a run measures at its end."""

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.run import measure
from vae_jax.run.model import Pixels, make_model
from vae_jax.run.options import Model

PIXELS = Pixels(np.full((6, 6, 1), 0.5, np.float32), 1.0, 0.0, 1.0)


def test_the_hash_tells_parameters_apart():
    params = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    changed = {**params, "b": np.array([1, 1 + 2**-23], np.float32)}
    assert measure.sha256(params) == measure.sha256(dict(reversed(params.items())))
    assert measure.sha256(params) != measure.sha256(changed)


def test_active_units_do_not_count_what_the_label_alone_tells():
    """Posteriors equal to their priors, whose means differ from class to class."""
    model = make_model(
        Model(latent_dim=3, hidden=(8,), conditional=True),
        (6, 6, 1),
        "threshold",
        PIXELS,
        10,
    )
    label, x = jnp.arange(10), jnp.ones((10, 6, 6, 1))
    params = model.init(jax.random.key(0), x, label)
    ignoring = model._replace(encode=lambda params, x, label=None: model.prior(params, label))
    test = measure.measure(jax.random.key(1), ignoring, params, x, label, 2)
    assert test["active_units"] == 0
    assert test["means"].var(axis=0).max() > 0.01
    np.testing.assert_allclose(test["kl_per_dimension"], 0, atol=1e-6)
