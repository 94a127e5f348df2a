"""Every posterior beside every prior that it goes with: two steps, and what is measured of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.run import latents, measure, objective, options
from vae_jax.run.errors import UsageError
from vae_jax.run.model import make_model, observe
from vae_jax.run.options import Model, Objective
from vae_jax.run.pixels import measure_pixels

IMAGES = np.random.default_rng(0).integers(256, size=(8, 3, 3, 1)).astype(np.uint8)
PAIRS = [
    *((posterior, "standard") for posterior in Model.__annotations__["posterior"].__args__),
    *(("normal", prior) for prior in options.LEARNED_PRIORS),
    ("iaf", "flow"),
    ("coupling", "vamp"),
    ("power_spherical", "vamp"),
]
MEASURED = [("normal", "standard"), ("power_spherical", "vamp"), ("coupling", "vamp")]


def small(posterior, prior):
    num = 3 if prior in ("mixture", "vamp") else None
    return Model(
        hidden=(8,),
        latent_dim=3,
        posterior=posterior,
        prior=prior,
        num_components=num,
        num_transforms=2,
    )


@pytest.mark.few(3)
@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_each_pair_trains_two_steps(posterior, prior, monkeypatch):
    monkeypatch.setattr(latents, "_HIDDEN", (8,))
    monkeypatch.setattr(latents, "_CONTEXT", 2)
    chosen = small(posterior, prior)
    pixels = measure_pixels(IMAGES, "dynamic")
    model = make_model(chosen, IMAGES.shape[1:], "dynamic", pixels, 0)
    loss = objective.make_loss(Objective(), model, observe("dynamic", "bernoulli"), 1, 8)

    def step(params, key):
        (value, bound), gradient = jax.value_and_grad(loss, has_aux=True)(params, key, IMAGES)
        return jax.tree.map(lambda p, g: p - 1e-2 * g, params, gradient), value, bound

    # In the shapes of `init`, but no bias is zero and nothing is compiled; the step but lightly.
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((3, 3, 3, 1)))
    rng = np.random.default_rng(0)
    before = jax.tree.map(lambda a: jnp.asarray(0.2 * rng.normal(size=a.shape), a.dtype), shapes)
    step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})
    params, value, bound = step(*step(before, jax.random.key(0))[:1], jax.random.key(1))
    assert np.isfinite(value)
    np.testing.assert_allclose(bound.value, bound.log_likelihood - bound.kl, rtol=1e-5)
    moved = jax.tree.map(lambda a, b: bool((a != b).any() & jnp.isfinite(b).all()), before, params)
    assert all(jax.tree.leaves(moved)), moved
    if (posterior, prior) not in MEASURED:  # a program each
        return
    x = jnp.asarray(IMAGES > 127, jnp.float32)
    found = measure.measure(jax.random.key(1), model, params, x, None, 2)
    assert np.isfinite([found["elbo"], found["log_likelihood"]]).all()
    assert (found["kl_per_dimension"] is None) == (prior != "standard")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"prior": "flow", "conditional": True}, "--prior=flow knows no classes"),
        (
            {"posterior": "power_spherical", "conditional": True},
            "--posterior=power_spherical has no conditional prior",
        ),
        (
            {"posterior": "power_spherical", "prior": "mixture"},
            "--prior=mixture is of all vectors and --posterior=power_spherical of unit ones",
        ),
        ({"num_components": 5}, "--num-components is of a mixture, not of --prior=conditional"),
        ({"num_transforms": 0}, "--num-transforms is 0: it must be 1 or more"),
        ({"prior": "vamp", "num_components": 0}, "--num-components is 0: it must be 1 or more"),
        (
            {"posterior": "coupling", "latent_dim": 1},
            "--posterior=coupling wants 2 latents or more but --latent-dim is 1",
        ),
    ],
)
def test_latents_that_make_no_sense(model, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        options.check(options.Options(model=Model(**model)))


@pytest.mark.parametrize("model", [{"posterior": "full"}, {"prior": "vamp"}])
def test_free_bits_are_of_each_latents_own_kl(model):
    with pytest.raises(UsageError, match="--free-bits is of each latent's own KL"):
        options.check(options.Options(model=Model(**model), objective=Objective(free_bits=0.1)))
