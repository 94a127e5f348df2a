"""Networks of several layers of latents: their numbers, and codes that have all layers in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax.distributions import given
from vae_jax.run import latents, measure, objective, options, sampler
from vae_jax.run.errors import UsageError
from vae_jax.run.model import expected, make_model
from vae_jax.run.options import Devices, Model, Objective, Options
from vae_jax.run.pixels import measure_pixels
from vae_jax.run.probe import probe
from vae_jax.run.programs import Programs

IMAGES = np.random.default_rng(0).integers(2, size=(6, 4, 4, 1)).astype(np.uint8)
X = jnp.asarray(IMAGES, jnp.float32)
CHOSEN = {
    "ladder": Model(network="ladder", hidden=(6, 5, 4), latent_dim=5),
    "top_down": Model(network="top_down", channels=(4,), blocks=(1, 1), latent_dim=3),
}
SHAPES = {"ladder": ((1,), (2,), (5,)), "top_down": ((2, 2, 3), (4, 4, 3))}


def made_of(name):
    chosen = CHOSEN[name]
    model = make_model(chosen, (4, 4, 1), "dynamic", measure_pixels(IMAGES * 255, "dynamic"), 0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), shapes)
    return name, chosen, model, params


@pytest.fixture(scope="module", params=list(CHOSEN))
def made(request):
    return made_of(request.param)


def test_a_code_has_all_layers_in_turn(made):
    name, chosen, model, params = made
    shapes = latents.layers(chosen, model, params)
    assert shapes == SHAPES[name]
    size = latents.latent_dim(chosen, shapes)
    assert size == sum(np.prod(shape) for shape in shapes)
    programs = Programs(model, params, expected, layers=shapes)
    codes = programs.codes(X, None, num_draws=2)
    assert codes.mean.shape == (6, size)
    assert codes.draws.shape == (6, 2, size)
    assert codes.scale is None

    @jax.jit
    def reconstructed(params):
        mean = model.encode(params, X).mean
        return mean[0], expected(model.decode(params, mean))

    top, decoded = reconstructed(params)
    np.testing.assert_allclose(codes.mean[:, : np.prod(shapes[0])], top.reshape(6, -1), rtol=1e-5)
    np.testing.assert_allclose(programs.decoded(codes.mean, None), decoded, atol=1e-5)


def test_the_kl_of_each_layer_is_measured_and_the_sum_is_the_bounds(made):
    name, _, model, params = made
    found = measure.measure(jax.random.key(0), model, params, X, None, 20)

    @jax.jit
    def draws(params, key):
        posterior, prior = model.encode(params, X), model.prior(params)
        z = vae_jax.sample(key, posterior, 3000)
        return z, given(posterior, z), given(prior, z)

    z, q, p = draws(params, jax.random.key(1))
    # Of each layer by SciPy's densities, over many draws.
    for i, of in enumerate(found["kl_per_layer"]):
        log_q, log_p = (
            stats.norm(part.parts[i].mean, part.parts[i].scale).logpdf(z[i]) for part in (q, p)
        )
        ratio = (log_q - log_p).reshape(3000, 6, -1).sum(axis=2)
        # measure() has the KL of one draw of the layers above.
        np.testing.assert_allclose(of, ratio.mean(), rtol=0.35, atol=0.15, err_msg=f"{name} {i}")
    assert found["kl_per_dimension"] is None
    assert sum(found["kl_per_layer"]) == pytest.approx(found["kl"], rel=0.3)
    assert found["latent_dim"] == found["means"].shape[1]
    assert found["elbo"] < found["log_likelihood"]


def test_a_layer_that_carries_noise_alone_is_said():
    *_, model, params = made_of("ladder")
    # Evidence of a scale of exp(9) leaves the middle layer's posterior where its prior is.
    head = jax.tree.map(jnp.zeros_like, params["encoder"]["MLP_3"])
    (bias,) = [leaf for leaf in jax.tree.leaves(head) if leaf.ndim == 1]
    log_scale = jnp.repeat(jnp.array([0.0, 12.0]), len(bias) // 2)
    params["encoder"]["MLP_3"] = jax.tree.map(
        lambda leaf: log_scale if leaf.ndim == 1 else leaf, head
    )
    found = measure.measure(jax.random.key(0), model, params, X, None, 20)
    assert found["kl_per_layer"][1] < 1e-3
    (said,) = [line for line in found["warnings"] if "collapsed" in line]
    assert said.startswith("layer 2 of 3, the top one being 1, collapsed")
    results = measure.reported(found) | {"num_test": 6}
    assert "KL of each layer" in measure.summary(results)


def test_a_temperature_narrows_every_layer(made):
    _, _, model, params = made

    @jax.jit
    def parts(params, key):
        plain, cold = model.prior(params), sampler.tempered(model, 0.5).prior(params)
        z = vae_jax.sample(key, plain, 2)
        return plain.given(z).parts, cold.given(z).parts

    for one, other in zip(*parts(params, jax.random.key(0)), strict=True):
        np.testing.assert_array_equal(one.mean, other.mean)
        np.testing.assert_allclose(0.5 * one.scale, other.scale)


UNFIT = [
    (Model(network="ladder", conditional=True), {}, "--conditional"),
    (Model(network="top_down", posterior="iaf"), {}, "--posterior=iaf"),
    (Model(network="ladder", prior="vamp"), {}, "--prior=vamp"),
    (Model(network="ladder", precision="bfloat16"), {}, "--precision=bfloat16"),
    (
        Model(network="ladder"),
        {"objective": Objective(gradient="sticking_the_landing")},
        "--gradient=sticking_the_landing",
    ),
    (
        Model(network="ladder"),
        {"objective": Objective(penalty="mmd", penalty_weight=1.0)},
        "--penalty=mmd",
    ),
    (Model(network="top_down"), {"devices": Devices(remat=True)}, "--remat"),
    (Model(network="top_down", channels=(8, 16)), {}, "--channels"),
    (Model(network="top_down", blocks=(0, 0)), {}, "--blocks"),
    (Model(network="ladder", blocks=(1,)), {}, "--blocks"),
    (Model(network="top_down", hidden=(4,)), {}, "--hidden"),
    (Model(network="ladder", channels=(4,)), {}, "--channels"),
]


@pytest.mark.parametrize(
    ("model", "more", "named"), UNFIT, ids=[f"{of[0].network}{of[2]}" for of in UNFIT]
)
def test_what_layers_of_latents_have_not_is_refused_in_a_line(model, more, named):
    with pytest.raises(UsageError) as error:
        options.check(Options(model=model, **more))
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_more_sizes_than_pictures_have_are_refused():
    pixels = measure_pixels(np.zeros((2, 9, 13, 1), np.uint8), "threshold")
    for num, fine in (5, True), (6, False):
        chosen = Model(
            network="top_down", channels=(4,), blocks=(0,) * (num - 1) + (1,), latent_dim=3
        )
        if fine:
            make_model(chosen, (9, 13, 1), "threshold", pixels, 0)
            continue
        with pytest.raises(UsageError, match="--blocks has 6 sizes but pictures of 9 x 13 have 5"):
            make_model(chosen, (9, 13, 1), "threshold", pixels, 0)


def test_stored_options_come_back():
    for model in CHOSEN.values():
        chosen = Options(model=model)
        assert options.from_json(options.to_json(chosen)) == chosen


def test_free_bits_are_of_each_layer(made):
    _, _, model, params = made
    key = jax.random.key(0)
    values = []
    for free in 0.0, 1e3:
        loss = objective.make_loss(Objective(free_bits=free), model, None, 1, 6)
        step = jnp.zeros((), jnp.int32)
        values.append(jax.jit(loss)(params, jax.random.clone(key), X, step))
    (plain, bound), (freed, _) = values
    # More than every layer has: the whole KL costs nothing, but what is free is paid.
    num = len(latents.layers(CHOSEN[made[0]], model, params))
    kl = float(bound.kl.mean())
    assert float(freed - plain) == pytest.approx(num * 1e3 - kl, rel=1e-3)


def test_the_doctor_reads_a_hierarchy():
    *_, model, params = made_of("ladder")
    batch = vae_jax.Batch(np.asarray(X), None)
    splits = {"train": batch, "validation": batch, "test": batch}
    found = probe(jax.random.key(0), model, params, splits)
    size = sum(np.prod(shape) for shape in SHAPES["ladder"])
    assert found.codes["test"].shape == found.of_prior["test"].shape == (6, size)
    assert found.moved.shape == (size,)
    assert found.kl_per_dimension is None
    assert found.code_gain.shape == (6,)
