"""The models of the papers' programs: parts against numbers that are known, and short runs."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import special, stats

import vae_jax
from experiments.papers import __main__ as page
from experiments.papers import (
    davidson2018,
    likelihood,
    loaiza2019,
    oord2017,
    rybkin2021,
    study,
    table,
    tomczak2018,
)
from vae_jax import VAE, Bernoulli, ContinuousBernoulli, Normal, quantization
from vae_jax.run.errors import UsageError

PAPERS = (
    *("burda2016", "davidson2018", "loaiza2019", "rainforth2018", "rezende2015", "roeder2017"),
    *("rybkin2021", "sonderby2016", "tomczak2018", "tucker2019", "vahdat2020"),
)
CELLS = {
    f"{paper}/{name}": cell
    for paper in PAPERS
    for name, cell in importlib.import_module(f"experiments.papers.{paper}").CELLS.items()
}


@pytest.mark.parametrize("name", CELLS)
def test_shares_of_a_training_add_up(name):
    cell = CELLS[name]
    assert sum(part.share for part in cell.parts) == pytest.approx(1)
    ranges = {"mnist": (78, 140), "binarized_mnist": (78, 90), "fashion_mnist": (220, 230)}
    for dataset, nats in cell.published.items():
        low, high = ranges[dataset]
        assert low < nats < high


def matrices(model):
    """Shapes of the kernels of a model of 784 pixels."""
    init = model(jnp.full(784, 0.1)).init
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 784)))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sorted(leaf.shape for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path))


def test_hyperspherical_networks_have_the_papers_sizes():
    """784-256-128 and back; a sphere of d dimensions in d + 1 coordinates, one concentration."""
    shared = [(784, 256), (256, 128), (128, 256), (256, 784)]
    normal, spherical = (davidson2018.CELLS[f"{name}-5"].model for name in ("normal", "spherical"))
    assert matrices(normal) == sorted([*shared, (128, 10), (5, 128)])
    assert matrices(spherical) == sorted([*shared, (128, 7), (6, 128)])


def test_gated_networks_have_the_papers_sizes():
    """Layers of 300, each with a gate; two layers of 40 latents by x and z2, and z1 and z2."""
    one = 2 * [(784, 300), (300, 300), (40, 300), (300, 300)] + [(300, 80), (300, 784)]
    assert matrices(tomczak2018.one_layer) == sorted(one)
    two = 2 * [(784, 300), (300, 300), (784, 300), (40, 300), (600, 300)] + 2 * [(300, 80)]
    two += 2 * [(40, 300), (300, 300), (40, 300), (40, 300), (600, 300)] + [(300, 80), (300, 784)]
    assert matrices(tomczak2018.two_layers) == sorted(two)


def test_two_gated_layers_infer_and_generate_from_the_top():
    model = tomczak2018.two_layers(jnp.full(16, 0.1))
    x = jnp.ones((3, 16))
    params = jax.eval_shape(model.init, jax.random.key(0), x)

    def joints(params):
        posterior, prior = model.encode(params, x), model.prior(params)
        decode = lambda z: model.decode(params, z)  # noqa: E731
        drawn = vae_jax.draw(jax.random.key(1), posterior, prior, decode, 5)
        return drawn.z, vae_jax.elbo(x, *drawn)

    z, bound = jax.eval_shape(joints, params)
    assert [part.shape for part in z] == [(5, 3, 40), (5, 3, 40)]
    assert bound.kl.shape == (5, 3)


def test_products_give_the_mixture_of_gaussians():
    rng = np.random.default_rng(0)
    logits, mean = rng.normal(size=7), rng.normal(size=(7, 3))
    scale, z = rng.uniform(0.1, 2.0, size=(7, 3)), rng.normal(size=(2, 5, 3))
    of_each = stats.norm.logpdf(z[..., None, :], mean, scale).sum(-1)
    truth = special.logsumexp(of_each + special.log_softmax(logits), axis=-1)
    components = Normal(*(jnp.asarray(a, jnp.float32) for a in (mean, scale)))
    mixture = tomczak2018.Gaussians(jnp.asarray(logits, jnp.float32), components)
    found = mixture.log_prob(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=2e-4)


def test_use_of_latents_tells_the_layer_that_is_used():
    """One of two latents follows x, whose KL is x^2 / 2; the other is the prior."""
    x = np.random.default_rng(1).normal(size=(600, 1)).astype(np.float32)
    model = VAE(
        lambda key, x, label=None: {},
        lambda params, x, label=None: Normal(x * jnp.array([[1.0, 0.0]]), 1.0),
        lambda params, label=None: Normal(jnp.zeros(2), 1.0),
        lambda params, z, label=None: Normal(z[..., :1], 1.0),
    )
    use = likelihood.use_of_latents(jax.random.key(0), model, {}, jnp.asarray(x))
    assert use.active_units == [1]
    # Of 12,000 draws, each of standard deviation about 1.
    assert use.kl == [pytest.approx(np.square(x).mean() / 2, abs=0.05)]
    row = {"cell": "a", "published": None, "negative_log_likelihood": 80.0, "values": [80.0]}
    row |= {"deviation_over_seeds": None, "active_units": [3, 0], "training_minutes": 1.0}
    assert "COLLAPSED: layer 2" in study.described(row | {"kl_per_layer": [20.0, 0.001]})
    assert "COLLAPSED" not in study.described(row | {"kl_per_layer": [20.0, 0.5]})


def test_the_learned_scale_follows_the_optimal_one_and_does_not_move_the_bound():
    rng = np.random.default_rng(2)
    x, mean = (jnp.asarray(rng.normal(size=(6, 4)), jnp.float32) for _ in range(2))
    z, prior = jnp.zeros((6, 2)), Normal(jnp.zeros(2), 1.0)
    posterior = Normal(jnp.zeros((6, 2)), 1.0)

    def value(log_scale):
        scale = jnp.broadcast_to(jnp.exp(log_scale), mean.shape)
        return rybkin2021.optimal(x, z, posterior, prior, Normal(mean, scale)).value.mean()

    error = np.sqrt(np.square(np.asarray(x - mean)).mean())
    truth = stats.norm.logpdf(x, mean, error).sum(-1).mean()
    below, best, above = (jnp.float32(np.log(error) + shift) for shift in (-0.1, 0.0, 0.1))
    for log_scale in (below, best, above):
        np.testing.assert_allclose(value(log_scale), truth, rtol=1e-5)
    slopes = [float(jax.grad(value)(log_scale)) for log_scale in (below, best, above)]
    assert slopes[0] > 0.1 > 1e-4 > abs(slopes[1])
    assert slopes[2] < -0.1


def test_cross_entropy_lacks_the_constant_of_the_density():
    rng = np.random.default_rng(3)
    x, logits = rng.uniform(size=(5, 4)), rng.normal(size=(5, 4))
    share = special.expit(logits)
    z, prior = jnp.zeros((5, 2)), Normal(jnp.zeros(2), 1.0)
    posterior = Normal(jnp.zeros((5, 2)), 1.0)
    density = ContinuousBernoulli(jnp.asarray(logits, jnp.float32))
    of = (jnp.asarray(x, jnp.float32), z, posterior, prior, density)
    found = loaiza2019.cross_entropy(*of).value
    truth = (special.xlogy(x, share) + special.xlogy(1 - x, 1 - share)).sum(-1)
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    constant = np.log(2 * np.arctanh(1 - 2 * share) / (1 - 2 * share)).sum(-1)
    np.testing.assert_allclose(vae_jax.elbo(*of).value, truth + constant, rtol=1e-4)


def test_the_codebook_has_for_a_gradient_the_way_to_its_averages(monkeypatch):
    """Descent at a rate of one puts every code where `update_codebook` does."""
    monkeypatch.setattr(oord2017.Encoder, "__call__", _project)
    monkeypatch.setattr(oord2017.Decoder, "__call__", _unproject)
    model = oord2017.with_codebook(4, revive_below=0.1, size=2)
    images = np.random.default_rng(4).integers(0, 256, (5, 2, 2, 1), np.uint8)
    params = model.init(jax.random.key(5), jnp.asarray(images, jnp.float32) / 255)
    key = jax.random.key(6)
    gradient, _ = jax.grad(model.loss, has_aux=True)(params, jax.random.clone(key), images)
    observe_key, book_key = jax.random.split(key)
    z = _project(None, vae_jax.binarize(observe_key, images))
    index = quantization.quantize(z, params["codebook"].codes).index
    moved = quantization.update_codebook(book_key, params["codebook"], z, index, revive_below=0.1)
    for old, slope, new in zip(params["codebook"], gradient["codebook"], moved, strict=True):
        np.testing.assert_allclose(old - slope, new, atol=1e-6)
    assert abs(moved.codes - params["codebook"].codes).max() > 1e-3


def _project(module, x):
    return jnp.concatenate([x, 0.3 * x + 0.1], axis=-1)


def _unproject(module, z):
    return Bernoulli(z[..., :1] - z[..., 1:], event_ndims=3)


def test_each_row_is_written_when_it_is_there(tmp_path, capsys):
    results = table.Table(tmp_path, oord2017.Options(), paper="oord2017")
    for i in range(2):
        results.add({"name": f"row {i}"}, f"told of {i}")
        written = json.loads((tmp_path / "results.json").read_text())
        assert [row["name"] for row in written["rows"]] == [f"row {j}" for j in range(i + 1)]
        assert written["paper"] == "oord2017"
        assert written["options"]["num_codes"] == 512
        assert f"told of {i}" in capsys.readouterr().out


def test_options_that_cannot_be_used_are_refused():
    with pytest.raises(UsageError, match="--num-codes is 1"):
        oord2017.check(oord2017.Options(num_codes=1))
    with pytest.raises(UsageError, match="give a time"):
        oord2017.check(oord2017.Options(budget="1"))


@pytest.mark.long  # each compiles a training step and an importance sampler
@pytest.mark.parametrize(
    ("paper", "cell"),
    [
        ("tomczak2018", "vamp"),
        ("tomczak2018", "flow"),
        ("tomczak2018", "vamp-two-layers"),
        ("davidson2018", "spherical-2"),
        ("rezende2015", "planar-10"),
        ("rezende2015", "autoregressive-2"),
        ("sonderby2016", "dense"),
        ("sonderby2016", "convolutions"),
        ("rybkin2021", "optimal"),
        ("rybkin2021", "per-pixel"),
        ("loaiza2019", "bernoulli"),
        ("vahdat2020", "flow-prior-iwae"),
    ],
)
def test_a_cell_on_digits(command, tmp_path, paper, cell):
    given = ("--dataset=digits", "--steps=20", "--num-importance-samples=50", "--num-test=60")
    done = command(f"papers.{paper}", "--cells", cell, *given, f"--output={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    (row,) = result["rows"]
    assert row["published"] is None  # which is MNIST's
    with Image.open(tmp_path / "run" / "samples.png") as picture:  # test images above draws
        assert picture.height == 2 * 9 * 7
        assert picture.width > 12 * 9 * 7
    assert row["kl_per_layer"]
    if "bits_per_dimension" in row:
        assert 0 < row["bits_per_dimension"] < 16
        assert f"{row['bits_per_dimension']:.3f} |" in page.page([result])
    else:
        assert 15 < row["negative_log_likelihood"] < 60
    assert f"| {cell} |" in page.page([result])
    assert "Here of the first 60 test images." in page.page([result])


@pytest.mark.long
def test_codes_of_digits(command, tmp_path):
    given = ("--dataset=digits", "--steps=100", "--num-codes=32", f"--output={tmp_path}/run")
    done = command("papers.oord2017", *given)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    revived, plain, finite = result["rows"]
    assert [row["num_codes"] for row in result["rows"]] == [32, 32, 512]
    # No code is dead after so few steps: the two are one training.
    assert revived["perplexity"] == plain["perplexity"] != finite["perplexity"]
    for row in result["rows"]:
        assert 1 <= row["perplexity"] <= row["num_codes"] * row["codebook_use"] + 1e-3
        assert row["negative_elbo_by_frequency"] < row["negative_elbo"] + 1
    assert "| revived, 32 |" in page.page([result])
