"""A trained run in Python, against its network written out in NumPy, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import networks, run
from vae_jax.run import folder, loaded, options, programs
from vae_jax.run.data import conditions
from vae_jax.run.data.columns import Column
from vae_jax.run.errors import UsageError
from vae_jax.run.model import observe
from vae_jax.run.restore import Trained

SHAPE, SIZE, CLASSES = (3, 2, 1), 2, ["cat", "dog", "eel"]
IMAGES = np.random.default_rng(0).integers(256, size=(5, *SHAPE), dtype=np.uint8)


def of_run(conditional=False, binarization="threshold"):
    """An untrained run, whose encoder and decoder are one layer each."""
    condition = networks.ClassCondition(3, 2) if conditional else None
    model = vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * SIZE,), (), event_ndims=3, condition=condition)),
        networks.BernoulliDecoder(networks.MLP(SHAPE, (), condition=condition), event_ndims=3),
        SIZE,
        networks.StandardPrior(SIZE) if conditional else None,
    )
    label = jnp.zeros(1, jnp.int32) if conditional else None
    params = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), label)
    params = jax.tree.map(lambda leaf: 0.3 * leaf, params)  # so that q(z|x) is near p(z|x)
    chosen = options.Options(model=options.Model(latent_dim=SIZE, conditional=conditional))
    config = {"image_shape": list(SHAPE)}
    names = CLASSES if conditional else []
    see = observe(binarization, "bernoulli")
    trained = Trained(model, see, params, 7, chosen, "mine", binarization, names, config)
    return loaded.TrainedRun(trained, None)


@pytest.fixture(scope="module")
def plain():
    return of_run()


@pytest.fixture(scope="module")
def conditional():
    return of_run(conditional=True)


def written_out(params, x):
    """Means and scales, and the pictures of codes, of the network of one layer, in float64."""
    (phi_kernel, phi_bias), (theta_kernel, theta_bias) = (
        _layer(params[name]) for name in ("encoder", "decoder")
    )
    mean, log_scale = np.split(x.reshape(len(x), -1) @ phi_kernel + phi_bias, 2, axis=-1)
    scale = np.exp(10 * np.tanh(log_scale / 10))
    return mean, scale, lambda z: special.expit(z @ theta_kernel + theta_bias)


def _layer(params):
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    (kernel,) = (leaf for leaf in leaves if leaf.ndim == 2)
    (bias,) = (leaf for leaf in leaves if leaf.ndim != 2)
    return kernel, bias.ravel()


def test_codes_and_pictures_are_the_networks(plain):
    binary = (IMAGES > 127).astype(np.float64)
    mean, scale, pictures = written_out(plain.params, binary)
    codes = plain.encode(IMAGES)
    np.testing.assert_allclose(codes.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(codes.scale, scale, rtol=1e-4)
    expected = pictures(mean).reshape(5, *SHAPE)
    np.testing.assert_allclose(plain.decode(codes.mean), expected, rtol=1e-5)
    np.testing.assert_allclose(plain.reconstruct(IMAGES), expected, rtol=1e-5)
    # Of one channel the channel may be left out, and floats are their bytes' shares.
    np.testing.assert_array_equal(plain.encode(IMAGES[..., 0]).mean, codes.mean)
    np.testing.assert_array_equal(plain.encode(IMAGES / 255).mean, codes.mean)
    assert all(isinstance(a, np.ndarray) for a in codes[:2])
    assert codes.draws is None


def test_scores_are_the_integral(plain):
    """log p(x) of two latents by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    weight = np.outer(weights, weights).ravel() / (2 * np.pi)
    binary = (IMAGES > 127).reshape(5, 1, -1)
    p = written_out(plain.params, binary[:, 0])[2](z)[None]
    log_p = np.log(np.where(binary, p, 1 - p)).sum(-1)
    exact = special.logsumexp(log_p, axis=1, b=weight[None])
    scores = plain.score(IMAGES, num_samples=2000)
    assert (np.abs(scores.log_likelihood - exact) < 4 * scores.standard_error + 1e-4).all()
    assert (scores.standard_error < 0.1).all()
    assert (scores.elbo < exact + 0.2).all()  # of few draws
    assert scores.elbo.mean() < exact.mean()
    assert (scores.elbo < scores.reconstruction).all()


def test_an_image_has_its_code_whatever_stands_beside_it(plain, monkeypatch):
    monkeypatch.setattr(programs, "_BATCH", 2)  # of 5 images, three batches
    drawn = of_run(binarization="dynamic")
    codes = drawn.encode(IMAGES)
    np.testing.assert_allclose(drawn.encode(IMAGES[:3]).mean, codes.mean[:3], rtol=1e-6)
    assert np.abs(drawn.encode(IMAGES, seed=1).mean - codes.mean).max() > 1e-3
    pictures = plain.generate(5)
    np.testing.assert_allclose(plain.generate(3), pictures[:3], rtol=1e-6)
    assert np.abs(plain.generate(5, seed=1) - pictures).max() > 1e-3
    assert pictures.shape == (5, *SHAPE)


def test_labels_are_names_or_numbers_of_one_or_all(conditional):
    codes = conditional.encode(IMAGES, "dog").mean
    for label in (1, np.int64(1), ["dog"] * 5, np.ones(5, int), ["dog", 1, "dog", 1, 1]):
        np.testing.assert_array_equal(conditional.encode(IMAGES, label).mean, codes)
    assert np.abs(conditional.encode(IMAGES, "eel").mean - codes).max() > 1e-3
    each = conditional.generate(3, CLASSES)
    for row, name in enumerate(CLASSES):
        np.testing.assert_allclose(conditional.generate(3, name)[row], each[row], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda r: r.encode(IMAGES[..., 0, :]), ValueError, r"images have shape \(5, 3, 1, 1\)"),
        (lambda r: r.encode(IMAGES[:0]), ValueError, r"shape \(0, 3, 2, 1\): give \[N, 3, 2, 1\]"),
        (lambda r: r.encode(IMAGES.astype(int)), TypeError, "images have dtype int64: give bytes"),
        (lambda r: r.encode(IMAGES * 1.0), ValueError, "images have values from .* to 2"),
        (lambda r: r.encode(IMAGES * np.nan), ValueError, "images have values from nan"),
        (lambda r: r.encode(IMAGES, 1), TypeError, "a label was given but the run is uncondit"),
        (lambda r: r.decode(np.zeros((4, 3))), ValueError, r"z has shape \(4, 3\): give codes"),
        (lambda r: r.decode(np.zeros((0, 2))), ValueError, r"z has shape \(0, 2\): give codes"),
        (lambda r: r.generate(0), ValueError, "num is 0: give 1 or more"),
        (lambda r: r.generate(1, temperature=0), ValueError, "temperature is 0: give a positive"),
        (lambda r: r.encode(IMAGES, num_draws=-1), ValueError, "num_draws is -1: give 0 or more"),
        (lambda r: r.interpolate(*IMAGES[:2], 1), ValueError, "steps is 1: a line with both its"),
        (lambda r: r.traverse(IMAGES, of=5), ValueError, "of is 5: give 2 or more, and one of 5"),
        (lambda r: r.score(IMAGES, seed=-1), UsageError, "--seed is -1"),
    ],
)
def test_what_cannot_be_is_refused(plain, call, error, said):
    with pytest.raises(error, match=said):
        call(plain)


@pytest.mark.parametrize(
    ("label", "error", "said"),
    [
        (None, TypeError, "the run is conditional: give a label, one of cat, dog, eel"),
        ("cow", ValueError, "label 'cow' is no class of the run: give one of cat, dog, eel"),
        (3, ValueError, "label 3 is no class of the run"),
        (1.0, ValueError, "label 1.0 is no class of the run"),
        (["cat", "dog"], ValueError, "2 labels of 5: give one for all, or one for each"),
    ],
)
def test_labels_that_there_are_not(conditional, label, error, said):
    with pytest.raises(error, match=said):
        conditional.encode(IMAGES, label)


def test_bytes_are_asked_for_by_a_likelihood_of_bytes(plain):
    of_bytes = of_run()
    of_bytes._likelihood = "categorical"
    with pytest.raises(TypeError, match="the run's likelihood, categorical, is of bytes"):
        of_bytes.encode(IMAGES / 255)


def test_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        run.load(tmp_path)
    folder.write_json(tmp_path / "config.json", {**folder.stamp(), "kind": "table"})
    with pytest.raises(UsageError, match="holds no run on a table"):
        run.load(tmp_path)


def test_pictures_go_where_they_are_asked_to(plain, monkeypatch):
    monkeypatch.setattr(programs, "_BATCH", 2)  # of 5 images, three batches
    out = np.full((5, *SHAPE), -1.0, np.float32)
    assert plain.reconstruct(IMAGES, out=out) is out
    np.testing.assert_array_equal(out, plain.reconstruct(IMAGES))


def test_a_line_ends_at_its_ends(plain, conditional):
    line = plain.interpolate(IMAGES[0], IMAGES[1], 5)
    assert line.shape == (5, *SHAPE)
    _, _, pictures = written_out(plain.params, np.zeros((1, 6)))
    mean = written_out(plain.params, (IMAGES[:2] > 127).astype(np.float64))[0]
    z = mean[0] + np.linspace(0, 1, 5)[:, None] * (mean[1] - mean[0])
    np.testing.assert_allclose(line, pictures(z).reshape(5, *SHAPE), rtol=1e-5)
    # From one class to another.
    between = conditional.interpolate(IMAGES[0], IMAGES[0], 2, ["cat", "dog"])
    for row, name in enumerate(("cat", "dog")):
        expected = conditional.reconstruct(IMAGES[:1], name)[0]
        np.testing.assert_allclose(between[row], expected, rtol=1e-5)


def test_a_run_that_uses_no_latent_has_none_to_traverse(plain):
    made = plain.traverse(IMAGES[:1])  # of one image no mean varies
    assert made.pictures.shape == (0, 9, *SHAPE)


def test_what_is_usual_is_so_for_images_of_the_same_kind():
    """Under their own distribution p values are uniform."""
    rng = np.random.default_rng(0)
    values = run.typicality(rng.normal(-90, 5, 4000), rng.normal(-90, 5, 4000)).p_value
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    far = run.typicality([-60.0, -120.0], rng.normal(-90, 5, 4000))
    np.testing.assert_allclose(far.p_value, 1 / 4001)
    # Too many that are all as likely as usual are told together.
    alike, other = (rng.normal(centre, 2, 400) for centre in (-90, -88))
    usual = rng.normal(-90, 5, 4000)
    assert run.typicality(alike, usual).of_all < 3 < run.typicality(other, usual).of_all
    assert (run.typicality(other, usual).p_value > 0.05).all()
    with pytest.raises(ValueError, match=r"and reference \(1,\): give \[N\] and \[M\], the ref"):
        run.typicality([-60.0], [-90.0])


def test_draws_have_the_posteriors_moments(plain):
    codes = plain.encode(IMAGES, num_draws=4000)
    error = codes.scale / np.sqrt(4000)
    assert (np.abs(codes.draws.mean(1) - codes.mean) < 5 * error).all()
    np.testing.assert_allclose(codes.draws.std(1), codes.scale, rtol=0.06)
    # Those of an image are the same whatever stands after it.
    alone = plain.encode(IMAGES[:2], num_draws=4000)
    np.testing.assert_allclose(alone.draws, codes.draws[:2], rtol=1e-5, atol=1e-6)


def test_a_run_with_conditions_is_told_names_and_values():
    """A linear run, whose picture's logits are c's number and class: the oracle is NumPy's."""
    columns = (
        Column("age", "number", "", "float64", centre=50.0, spread=10.0, low=20, high=80),
        Column("site", "category", "", "object", levels=("a", "b")),
    )
    condition = networks.ColumnsCondition((0, 2), 3)
    model = vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * SIZE,), (), event_ndims=3, condition=condition)),
        networks.BernoulliDecoder(networks.MLP(SHAPE, (), condition=condition), event_ndims=3),
        SIZE,
        networks.StandardPrior(SIZE, label_ndims=1),
    )
    params = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros((1, 2)))
    rows = np.array([[-1.0, 0.0], [2.0, 1.0]], np.float32)  # a of 40, b of 70
    config = {"image_shape": list(SHAPE), **conditions.stored(columns, rows)}
    chosen = options.Options(model=options.Model(latent_dim=SIZE))
    see = observe("threshold", "bernoulli")
    trained = loaded.TrainedRun(
        Trained(model, see, params, 7, chosen, "mine", "threshold", [], config), None
    )
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params["decoder"])]
    by_shape = {leaf.shape: leaf for leaf in leaves}
    kernel, table, bias = by_shape[6, 6], by_shape[2, 3], by_shape[SHAPE]
    z = np.array([[0.5, -1.0], [0.1, 0.2]])
    given = np.concatenate([z, [[-1.0], [2.0]], table[[0, 1]]], axis=1)
    expected = special.expit(given @ kernel + bias.ravel()).reshape(2, *SHAPE)
    label = {"age": [40, 70], "site": ["a", "b"]}
    np.testing.assert_allclose(trained.decode(z, label), expected, rtol=1e-5)
    np.testing.assert_allclose(trained.decode(z, rows), expected, rtol=1e-5)
    codes = [trained.encode(IMAGES, {"age": age, "site": "a"}).mean for age in (40, 70)]
    assert not np.allclose(*codes)
    made = trained.generate(6, {"age": 40, "site": "a"})
    np.testing.assert_array_equal(made, trained.generate(6, np.tile(rows[:1], (6, 1))))
    assert trained.generate(6).shape == (6, *SHAPE)
    with pytest.warns(RuntimeWarning, match="age=90 is outside of what the run saw, 20.0 to 80.0"):
        trained.generate(2, {"age": 90})
    for wrong, error, message in (
        (None, TypeError, "conditional on age, site: give a mapping"),
        ({"age": 40}, ValueError, "'site': the run is conditional on age, site"),
        ({"age": 40, "site": "c"}, ValueError, "has the site c, which the run does not know"),
    ):
        with pytest.raises(error, match=message):
            trained.encode(IMAGES, wrong)
    with pytest.raises(UsageError, match="has site=c: give one of a, b"):
        trained.generate(2, {"site": "c"})
