"""The papers' programs: what they share against numbers that are known, and one of them run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats

import vae_jax
from experiments.papers import __main__ as page
from experiments.papers import (
    burda2016,
    chen2018,
    krishnan2017,
    likelihood,
    rainforth2018,
    study,
    training,
)
from vae_jax import VAE, Ancestral, Normal
from vae_jax.run.errors import UsageError
from vae_jax.run.plan import Progress

SLOPES = jnp.array([[1.0, -0.5], [0.3, 0.8], [-0.6, 0.2]])


def linear_gaussian():
    """z ~ N(0, I), h = A z + e, x = h + e, with a proposal that is too wide; and its log p(x)."""
    loading = SLOPES.T  # [Z, D]

    def up(x, choose):
        h = choose(Normal(0.5 * x, 0.9))
        choose(Normal(0.4 * h @ SLOPES, 0.9))

    def down(choose):
        choose(Normal(choose(Normal(jnp.zeros(2), 1.0)) @ loading, 1.0))

    model = VAE(
        lambda key, x, label=None: {},
        lambda params, x, label=None: Ancestral(Partial(up, x)),
        lambda params, label=None: Ancestral(down, reverse=True),
        lambda params, z, label=None: Normal(z[0], 1.0),
    )
    covariance = np.asarray(loading.T @ loading) + 2 * np.eye(3)
    return model, stats.multivariate_normal(np.zeros(3), covariance)


def test_the_likelihood_of_two_layers_is_the_exact_one():
    model, truth = linear_gaussian()
    x = np.random.default_rng(0).normal(size=(45, 3)).astype(np.float32)
    found = likelihood.log_likelihood(jax.random.key(0), model, {}, jnp.asarray(x), 5000)
    error = found["standard_error_of_draws"]
    assert 0.001 < error < 0.02
    assert abs(found["value"] - truth.logpdf(x).mean()) < 4 * error
    assert 25 < found["effective_sample_size"] < 5000
    # The means over many groups of draws, of which each bound is one.
    assert found["elbo"] < found["iwae_5"] - 0.1 < found["iwae_50"] - 0.1 < found["value"] - 0.1


def test_replicas_side_by_side_are_those_trained_alone():
    """A loss that is a sum, and an optimizer that is mapped: neither mixes the replicas."""
    data = jnp.asarray(np.random.default_rng(1).normal(size=(20, 4, 3)), jnp.float32)
    start = {"kernel": jax.random.normal(jax.random.key(2), (2, 3, 5))}

    def one(params, key, x, step):
        kernel = params["kernel"]
        return jnp.tanh(x @ kernel).mean() + 0.1 * jnp.square(kernel).sum(), kernel

    def train(params):
        losses = training.side_by_side(one)
        optimizer = training.make_optimizer(0.1, 20, warm_up=2)
        step = vae_jax.make_train_step(losses, optimizer)
        state = vae_jax.init_state(jax.random.key(0), params, optimizer)
        for batch in data:
            state, _ = step(state, batch)
        return np.asarray(state.params["kernel"])

    together = train(start)
    for replica in range(2):
        alone = train({"kernel": start["kernel"][replica : replica + 1]})
        np.testing.assert_allclose(together[replica], alone[0], rtol=1e-4, atol=1e-5)
    # At the end the rate is zero: the last steps of a longer training go further.
    assert abs(together - np.asarray(start["kernel"])).max() > 0.1


@pytest.mark.relax("numpy_dtype_promotion")
def test_the_rate_of_a_part_begins_where_that_of_the_one_before_ended():
    """Each step beside that of a training without an end, whose rate is constant."""
    params, gradient = jnp.zeros((1, 3)), jnp.ones((1, 3))

    def steps(num, length, **part):
        optimizer = training.make_optimizer(0.05, length, warm_up=1, **part)
        state, found = optimizer.init(params), []
        for _ in range(num):
            update, state = optimizer.update(gradient, state, params)
            found.append(float(update[0, 0]))
        return np.array(found)

    def rates(num, **part):
        return steps(num, num, **part) / steps(num, np.inf)

    line = [1.0] * 11 + [0.1 * left for left in range(9, 0, -1)]
    np.testing.assert_allclose(rates(20), line, rtol=1e-5)
    parts = [*rates(14, part=(0.0, 0.7)), *rates(6, part=(0.7, 1.0))]
    np.testing.assert_allclose(parts, line, rtol=1e-5)


def test_steps_are_timed_for_a_while_and_without_the_first_call(monkeypatch):
    times = iter([100.0, 101.0, 104.0])
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(times))
    clock = training._Clock(seconds=3.0)
    for step in (1, 3):
        clock.steps(Progress(num_steps=301, steps_per_epoch=50, batch_size=8, step=step), None)
    with pytest.raises(training._EnoughError):
        clock.steps(Progress(num_steps=301, steps_per_epoch=50, batch_size=8, step=9), None)
    assert clock.seconds_per_step == 4 / 8


def test_piwae_gives_each_network_the_gradient_of_its_own_bound():
    params = {"encoder": jnp.float32(0.7), "decoder": jnp.float32(1.1)}
    images = np.random.default_rng(3).integers(0, 256, (4, 2), np.uint8)
    model = VAE(
        lambda key, x, label=None: params,
        lambda params, x, label=None: Normal(params["encoder"] * x, 0.5),
        lambda params, label=None: Normal(jnp.zeros(2), 1.0),
        lambda params, z, label=None: Normal(params["decoder"] * z, 1.0),
    )

    def gradient(loss):
        of_params = jax.grad(loss(model, 16), has_aux=True)
        return of_params(params, jax.random.key(4), images)[0]

    iwae, miwae = map(study.maximise, (vae_jax.iwae, rainforth2018.miwae))
    found = gradient(rainforth2018.piwae)
    np.testing.assert_allclose(found["decoder"], gradient(iwae)["decoder"], rtol=1e-5)
    np.testing.assert_allclose(found["encoder"], gradient(miwae)["encoder"], rtol=1e-5)
    assert abs(found["encoder"] - gradient(iwae)["encoder"]) > 1e-3


def shapes_of(model):
    """Of the parameters of a model of 784 pixels."""
    init = model(jnp.full(784, 0.1)).init
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 784)))


@pytest.mark.parametrize("name", ["vae-1-one-layer", "iwae-5-two-layers"])
def test_networks_have_the_papers_sizes(name):
    """784-200-200-50 and back, both with biases; two layers 784-200-200-100-100-100-50."""
    params = shapes_of(burda2016.CELLS[name].model)
    sizes = sorted(leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    one = [(784, 200), (200, 200), (200, 100), (50, 200), (200, 200), (200, 784)]
    two = [(784, 200), (200, 200), (200, 200), (100, 100), (100, 100), (100, 100)]
    two += [(50, 100), (100, 100), (100, 200), (100, 200), (200, 200), (200, 784)]
    assert sizes == sorted(one if "one-layer" in name else two)


@pytest.mark.parametrize("budget", ["", "30", "m", "-1m", "0s", "1d"])
def test_a_budget_that_is_no_time_is_refused(budget):
    with pytest.raises(UsageError, match="give a time such as 90s, 30m or 2h"):
        training.seconds(budget)
    assert [training.seconds(text) for text in ("90s", "1.5m", "2h")] == [90, 90, 7200]


def test_the_page_is_that_of_the_results():
    assert (page.FOLDER / "README.md").read_text() == page.page(page.load())


def test_a_command_has_one_width_or_several():
    assert page._arguments({"hidden": 128, "epochs": 9}) == "--epochs 9 --hidden 128"
    assert page._arguments({"hidden": [256, 128], "steps": 5}) == "--steps 5 --hidden 256 128"


def test_the_front_page_has_the_best_of_each_programs_first_cells():
    table = page.summary(page.load(), most=2)
    readme = (page.FOLDER.parents[1] / "README.md").read_text()
    assert "\n".join(table) in readme
    assert page.front_page(readme, page.load()) == readme
    whole = page.summary(page.load())
    assert set(table) < set(whole)


def test_the_best_of_a_cell_is_the_lowest_of_those_with_a_published_number():
    def result(paper, device, *rows):
        return {"paper": paper, "device": device, "rows": rows}

    alone = {"deviation_over_seeds": None}
    vae = {"cell": "vae", "published": 86.76, **alone}
    lines = page.summary(
        [
            result("burda2016", "a", vae | {"negative_log_likelihood": 87.0}),
            result("burda2016", "b", vae | {"negative_log_likelihood": 86.0}),
            result("krishnan2017", "c", {"name": "dmm", "published": 6.87, "elbo": -6.5}),
            result("oord2017", "d", {"name": "codes", "perplexity": 3.0}),
        ]
    )
    assert lines[2:] == [
        "| `burda2016` | vae | nats | 86.76 | 86.00 | b |",
        "| `krishnan2017` | dmm | nats a step | 6.87 | 6.500 | c |",
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("paper", "arguments"),
    [
        ("burda2016", ("--cells", "iwae-5-two-layers", "--steps=300")),
        ("burda2016", ("--cells", "vae-1-one-layer", "--budget=2s")),
        ("rainforth2018", ("--cells", "piwae-8-8", "--steps=30")),
        ("tucker2019", ("--cells", "iwae-5", "--steps=30")),
        ("roeder2017", ("--cells", "path-1", "--steps=30")),
    ],
)
def test_a_cell_on_digits(command, tmp_path, paper, arguments):
    given = ("--dataset=digits", "--seeds=2", "--num-importance-samples=50", "--num-test=60")
    done = command(f"papers.{paper}", *arguments, *given, f"--output={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert row["published"] is None  # which is MNIST's
    assert 15 < row["negative_log_likelihood"] < 45
    assert "2 seeds" in done.stdout
    assert page.page([json.loads((tmp_path / "run" / "results.json").read_text())])


@pytest.mark.long
def test_sprites_in_short(command, tmp_path):
    done = command(
        *("papers.chen2018", "--steps=60", "--seeds=2", "--num-pictures=500", "--num-test=200"),
        *("--batch-size=50", "--hidden=16", f"--output={tmp_path}/run"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["beta-TCVAE", "beta-VAE"]
    assert all(0 <= value <= 1 for row in results["rows"] for value in row["values"])


def test_a_cell_that_is_not_there_is_named_with_those_that_are():
    chosen = study.Options(cells=("vae-2",))
    with pytest.raises(UsageError, match="--cells has vae-2: the cells are vae-1-one-layer, vae-5"):
        study.check(chosen, burda2016.CELLS)
    with pytest.raises(UsageError, match="--beta is"):
        chen2018.check(chen2018.Options(beta=0.5))


def test_chorales_are_padded_and_written_as_midi(tmp_path):
    """The events of the file are read back here, by the format's own rules."""
    path = tmp_path / "chorales.json"
    chorales = [[[60, 64], [60], []], [[108]]]
    path.write_text(json.dumps(dict.fromkeys(krishnan2017.SPLITS, chorales)))
    x = np.asarray(krishnan2017.read(path)["train"])
    assert x.shape == (2, 3, 88)
    assert krishnan2017.num_steps(x) == 4
    assert [list(np.flatnonzero(step == 1) + 21) for step in x[0]] == chorales[0]
    assert np.isnan(x[1, 1:]).all()
    content = krishnan2017.midi(x[0])
    assert content[:4] == b"MThd"
    assert content[8:14] == bytes([0, 0, 0, 1, 1, 224])  # one track, 480 ticks a quarter
    assert content[14:18] == b"MTrk"
    assert int.from_bytes(content[18:22], "big") == len(content) - 22
    # 480 as two septets; the 60 goes on through the second quarter.
    assert content[22:].hex(" ") == (
        "00 90 3c 50 00 90 40 50 83 60 80 40 50 83 60 80 3c 50 00 ff 2f 00"
    )
    for wrong in (
        {"train": [[[60.5, "a"]]]},
        *(dict.fromkeys(krishnan2017.SPLITS, c) for c in BAD),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UsageError, match="has not train, valid and test of lists"):
            krishnan2017.read(path)


BAD = ([], [[[20]]], [[[109]]], [[[-1]]], [[[60.5]]])
