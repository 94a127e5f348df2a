"""Quality per second: that the evaluator measures what each library has trained, and the race."""

import importlib.util
import json
import warnings
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import vae_jax
from benchmarks import dense, quality, report, rivals
from benchmarks.workloads import Workload

# These are programs, not the library: they run in JAX's own settings.
pytestmark = pytest.mark.relax


def random_weights(generator, *, num_pixels=6, hidden=5, latent_dim=1):
    def layers(*widths):
        return [
            (generator.normal(size=(i, o)).astype("f"), generator.normal(size=o).astype("f"))
            for i, o in pairwise(widths)
        ]

    (first, (kernel, bias)) = layers(num_pixels, hidden, 2 * latent_dim)
    mean, log_variance = zip(np.split(kernel, 2, axis=1), np.split(bias, 2), strict=True)
    return dense.weights([first, mean, log_variance], layers(latent_dim, hidden, num_pixels))


def test_log_likelihood_of_matrices_by_quadrature():
    """One latent: the integral over a grid, in float64 and NumPy."""
    generator = np.random.default_rng(0)
    weights = random_weights(generator)
    x = (generator.random((4, 6)) < 0.5).astype(np.float32)
    z = np.linspace(-12, 12, 20_001)[:, None]
    (kernel, bias), (last, offset) = weights.decoder
    before = z @ kernel.astype(np.float64) + bias
    logits = before / (1 + np.exp(-before)) @ last + offset
    log_joint = x @ logits.T - np.logaddexp(0, logits).sum(axis=1) - z[:, 0] ** 2 / 2
    exact = logsumexp(log_joint, axis=1) + np.log((z[1, 0] - z[0, 0]) / np.sqrt(2 * np.pi))
    trainer = rivals.Trainer(None, dense.model("silu"), lambda: weights, (6,))
    measured = quality.measure(trainer, x, 20_000)
    # The encoder is random, so the draws are far from the posterior and the error is large.
    assert measured["standard_error_of_draws"] < 0.1
    error = 4 * measured["standard_error_of_draws"]
    np.testing.assert_allclose(measured["log_likelihood"], exact.mean(), atol=error)


def test_log_likelihood_is_that_of_torch_at_the_same_draws():
    torch = pytest.importorskip("torch")
    from benchmarks import rivals_torch

    torch.manual_seed(0)
    workload = Workload("", 2, (5,), activation="silu", image_shape=(6,))
    model = rivals_torch.TorchVAE(workload)
    parts = [model.trunk, model.mean, model.log_variance]
    trainer = rivals_torch.make_trainer(None, workload, parts, model.decoder)
    x = (np.random.default_rng(0).random((3, 6)) < 0.5).astype(np.float32)
    num = 8
    posterior = trainer.model.encode(trainer.params(), x)
    key = jax.random.fold_in(jax.random.key(0), 0)
    z = [vae_jax.sample(jax.random.fold_in(key, s), posterior) for s in range(num)]
    noise = torch.tensor(np.array((jnp.stack(z) - posterior.mean) / posterior.scale))
    with torch.no_grad():
        pixels = torch.from_numpy(x)
        hidden = model.trunk(pixels)
        scale = torch.exp(0.5 * model.log_variance(hidden))
        q = torch.distributions.Normal(model.mean(hidden), scale)
        drawn = q.mean + q.stddev * noise
        prior = torch.distributions.Normal(0.0, 1.0)
        likelihood = torch.distributions.Bernoulli(logits=model.decoder(drawn))
        weight = likelihood.log_prob(pixels.expand(num, -1, -1)).sum(-1)
        weight += (prior.log_prob(drawn) - q.log_prob(drawn)).sum(-1)
        expected = (torch.logsumexp(weight, 0) - np.log(num)).mean()
    measured = quality.measure(trainer, x, num)
    np.testing.assert_allclose(measured["log_likelihood"], float(expected), rtol=1e-5)


def of_torch(name, **options):
    def make(*arguments):
        from benchmarks import rivals_torch

        return getattr(rivals_torch, name)(*arguments, **options)

    return make


def of_artifex(*arguments):
    with warnings.catch_warnings():  # of what it imports
        warnings.simplefilter("ignore")
        from benchmarks import rivals_artifex

    return rivals_artifex.artifex_epoch(*arguments)


TRAINERS = {
    "numpyro": ("numpyro", "silu", rivals.numpyro_epoch),
    "numpyro's example": ("numpyro", "softplus", rivals.numpyro_example),
    "flax": ("flax", "silu", lambda *of: rivals.flax_epoch(*of, jit=True, binarize="afresh")),
    "torch": ("torch", "relu", of_torch("torch_dataloader", binarize="never")),
    "torch, tuned": ("torch", "silu", of_torch("torch_tuned", compiled=False)),
    "pythae": ("pythae", "silu", of_torch("pythae_trainer", binarize="afresh")),
    "artifex": ("artifex", "silu", of_artifex),
}


@pytest.mark.parametrize(("needs", "activation", "make"), TRAINERS.values(), ids=TRAINERS)
def test_parameters_taken_out_have_the_loss_that_the_library_says(needs, activation, make):
    """Of pixels that are 0 or 255, which binarization leaves as they are."""
    if not importlib.util.find_spec(needs):
        pytest.skip(f"{needs} is not installed")
    generator = np.random.default_rng(0)
    images = 255 * generator.integers(0, 2, (4, 16))[generator.integers(0, 4, 512)]
    workload = Workload("", 2, (16,), activation=activation, learning_rate=1e-2, image_shape=(16,))
    trainer = make(workload, 64, images.astype(np.uint8))
    losses = [trainer.run() for _ in range(20)]
    assert losses[-1] < losses[0] - 1
    before = trainer.params()
    loss = trainer.run()
    x = (images / 255).astype(np.float32)

    @jax.jit
    def minus_bound(params):
        posterior, prior = trainer.model.encode(params, x), trainer.model.prior(params)
        z = vae_jax.sample(jax.random.key(0), posterior, 20)
        likelihood = trainer.model.decode(params, z)
        return -vae_jax.elbo(x, z, posterior, prior, likelihood).value.mean()

    bounds = [float(minus_bound(params)) for params in (trainer.params(), before)]
    assert min(bounds) - 0.15 < loss < max(bounds) + 0.15


def a_race(monkeypatch, costs, **options):
    """The rows of contestants {name: (seconds of the first pass, of a later one, passes)}."""
    clock = [0.0]

    def contestant(name, first, later, passes):
        done = []

        def run():
            clock[0] += later if done else first
            done.append(1)
            return 100.0

        def make(workload, batch_size, images, seed):
            return rivals.Trainer(run)

        return quality.Contestant(name, "ours", Workload("", 1, (1,)), 128, passes, "once", make)

    monkeypatch.setattr(quality.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(quality, "measure", lambda *_: {"log_likelihood": -90.0})
    entering = [contestant(name, *cost) for name, cost in costs.items()]
    *_, rows = quality.race(entering, None, None, draws=2, seed=0, **options)
    return {row["name"]: row for row in rows}


def test_a_race_ends_with_the_budget_or_the_recipe_and_leaves_compilation_out(monkeypatch):
    costs = {"fast": (6.0, 1.0, 99), "slow": (3.0, 3.0, 99), "short": (1.0, 1.0, 3)}
    rows = a_race(monkeypatch, costs | {"huge": (50.0, 40.0, 99)}, budget=10)
    assert {name: len(row["pass_seconds"]) for name, row in rows.items()} == {
        "fast": 10,
        "slow": 4,
        "short": 3,
        "huge": 2,
    }
    assert rows["fast"]["setup_and_compile_seconds"] == 5
    assert [m["passes"] for m in rows["fast"]["measured"]] == [1, 2, 4, 8, 10]
    assert [m["seconds"] for m in rows["fast"]["measured"]] == [1, 2, 4, 8, 10]
    assert rows["slow"]["measured"][-1]["seconds"] == 12


def test_a_threshold_is_met_along_a_line_in_log_seconds():
    def at(*pairs):
        return [{"seconds": s, "log_likelihood": value} for s, value in pairs]

    curve = at((1.0, -100.0), (4.0, -90.0), (8.0, -91.0))
    assert quality.reached(curve, -95.0) == quality.Reached(2.0, before=False)
    assert quality.reached(curve, -110.0) == quality.Reached(1.0, before=True)
    assert quality.reached(curve, -89.0) is None
    assert quality.reached(at((1.0, -100.0), (2.0, None)), -90.0) is None


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["quality", *arguments])
    quality.main()


SHORT = "--datasets=digits", "--only=vae_jax", "--seconds=1", "--images=20", "--draws=20"


def test_a_short_run_writes_what_it_prints_and_a_chart(monkeypatch, capsys, tmp_path):
    path = tmp_path / "quality.json"
    run(monkeypatch, *SHORT, "--examples=256", f"--json={path}")
    result = json.loads(path.read_text())
    (of_data,) = result["datasets"]
    row, low = of_data["rows"]
    assert (row["settings"], low["settings"]) == ("ours", "ours, bfloat16")
    assert (of_data["num_train"], of_data["num_images"], result["seed"]) == (256, 20, 0)
    first, last = row["measured"][0], row["measured"][-1]
    assert (first["passes"], last["passes"]) == (1, len(row["pass_seconds"]))
    assert -44.4 < first["log_likelihood"] < last["log_likelihood"] < -15  # 64 log 2 = 44.4
    text = f"{last['log_likelihood']:.2f} +- {last['standard_error_of_draws']:.2f}"
    assert text in capsys.readouterr().out
    assert text in report.page({"quality": result})
    assert path.with_suffix(".png").stat().st_size > 1000


def test_an_interrupt_keeps_what_was_measured(monkeypatch, capsys, tmp_path):
    passes = []

    def one_pass():
        if passes:
            raise KeyboardInterrupt
        passes.append(1)
        return 50.0

    fake = quality.Contestant(
        *("vae_jax", "ours", Workload("", 1, (1,)), 128, 9, "afresh"),
        lambda *_, seed: rivals.Trainer(one_pass),
    )
    measured = ("log_likelihood", "standard_error_of_draws", "standard_error_over_images")
    monkeypatch.setattr(quality, "contestants", lambda *_: [fake])
    monkeypatch.setattr(quality, "measure", lambda *_: dict.fromkeys(measured, -40.0))
    path = tmp_path / "quality.json"
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *SHORT, f"--json={path}")
    assert stopped.value.code == 130
    (row,) = json.loads(path.read_text())["datasets"][0]["rows"]
    assert [m["log_likelihood"] for m in row["measured"]] == [-40.0]
    assert "vae_jax" in capsys.readouterr().out
    assert path.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only=nobody"], "nobody not known: choose from vae_jax"),
        (["--datasets=cifar10"], "cifar10 not known: choose from mnist"),
        (["--seconds=0"], "0: give a whole number from 1"),
        (["--draws=1"], "--draws is 1: a standard error takes 2 at least"),
        (["--examples=100"], "--examples is 100: a batch of 128"),
        (["--seed=-1"], "--seed is -1"),
        (["--json=/nowhere/at/all.json"], "would be in a folder that is not there"),
    ],
)
def test_a_wrong_option_is_named(monkeypatch, capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_who_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(quality.NEEDS, "torch", "nothing_of_this_name")
    with pytest.raises(SystemExit, match="not installed: nothing_of_this_name"):
        run(monkeypatch, "--only=torch")
