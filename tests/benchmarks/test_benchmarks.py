"""The benchmarks: what they count, what they write, and that the committed page is their own."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from benchmarks import evaluation, limits, report, scaling
from benchmarks.workloads import WORKLOADS, make_state

ROOT = Path(__file__).parents[2]
# These are programs, not the library: they run in JAX's own settings.
pytestmark = pytest.mark.relax


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_flops_are_those_of_the_networks_products():
    """784-400-20: five products forward, two backward for each but the first, which has one."""
    batch, widths = 16, [(784, 400), (400, 40), (20, 400), (400, 784)]
    state, loss, _ = make_state(WORKLOADS["mlp"], "float32")
    data = vae_jax.Batch(jnp.zeros((batch, 784), jnp.uint8))
    counted = sum(p.flops for p in limits.step_products(loss, state.params, data))
    layers = [2 * batch * i * o for i, o in widths]
    assert counted == 3 * sum(layers) - layers[0]


def test_products_of_a_loop_count_as_often_as_it_runs():
    def program(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=5)[0]

    found = limits.products(jax.make_jaxpr(program)(jnp.ones((4, 4))).jaxpr)
    assert [p.flops for p in found] == 5 * [2 * 4**3]


@pytest.mark.long
def test_throughput_writes_the_rows_it_prints(tmp_path):
    path = tmp_path / "throughput.json"
    process = command(
        "throughput",
        *("--workloads=mlp", "--only=vae_jax,pythae", "--batch-sizes=32", "--rounds=1"),
        *("--examples=64", f"--json={path}"),
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(path.read_text())
    ours = [row for row in result["rows"] if row["name"] == "vae_jax"]
    assert {row["precision"] for row in ours} == {"float32", "bfloat16"}
    for row in ours:
        assert row["batch_size"] == 32
        product = row["examples_per_second"] * row["seconds_per_epoch"]
        np.testing.assert_allclose(product, 60_000, rtol=1e-6)
        assert row["fraction_of_matmul_rate"] > 0
        assert np.isfinite(row["loss"])
    assert {row["name"] for row in result["rows"]} | set(result["missing"]) == {"vae_jax", "pythae"}
    assert "vae_jax float32" in process.stdout
    text = report.page({"throughput": result})
    assert f"{ours[0]['seconds_per_epoch']:.2f}" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only=nobody"], "nobody not known: choose from vae_jax"),
        (["--batch-sizes=0"], "0: give 1 or more"),
        (["--batch-sizes=512", "--examples=100"], "--examples=512 or more"),
    ],
)
def test_a_wrong_option_is_named(arguments, said):
    process = command("throughput", *arguments)
    assert process.returncode == 2
    assert said in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.long
def test_schemes_of_evaluation_agree():
    """On the same images; the draws differ, so to within their error."""
    images = (np.random.default_rng(0).random((3, 784)) < 0.2).astype(np.float32)
    ours = evaluation.vae_jax_batches(2000)(images)
    loop = evaluation.one_image_at_a_time(2000)(images)
    np.testing.assert_allclose(ours, loop, atol=2)


def test_memory_of_an_evaluation_does_not_grow_with_the_draws():
    assert evaluation.temporary_bytes(500) < 1.1 * evaluation.temporary_bytes(5)


def test_a_ring_by_hand():
    """Four hosts send six pieces of a quarter each: 6 (100 / 4 / 50 + 0.1) seconds."""
    link = scaling.Link("slow", 50.0, 0.1)
    np.testing.assert_allclose(scaling.allreduce_seconds(4, 100, link), 3.6)
    assert scaling.allreduce_seconds(1, 100, link) == 0
    # 90 % of the time for examples: 32.4 of 36 seconds, at 2 seconds an example.
    batch = scaling.batch_per_host(20, 10, 4, 100, link)
    assert batch == 17
    assert scaling.efficiency(2 * batch, 4, 100, link) >= 0.9
    assert scaling.efficiency(2 * (batch - 1), 4, 100, link) < 0.9
    assert scaling.predict({1: 1.0, 2: 1.5}, (1, 2), 8) == 4.5


def test_scaling_counts_the_networks_arrays_and_products():
    counted = scaling.count(scaling.NETWORKS["default"])
    widths = [(784, 400), (400, 400), (400, 80), (40, 400), (400, 400), (400, 784)]
    assert counted["parameter_bytes"] == 4 * sum(i * o + o for i, o in widths)
    products = sum(2 * i * o for i, o in widths)
    assert counted["flops_per_example"] == 3 * products - 2 * 784 * 400


@pytest.mark.long
def test_virtual_devices_are_timed_in_a_process_of_their_own():
    one, two = (scaling.measure("default", num) for num in (1, 2))
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    assert 0 < one["seconds_per_step"] < 10


def test_an_epoch_neither_retraces_nor_talks_to_the_host():
    import chex
    import optax

    traces = []

    def loss(params, key, batch):
        traces.append(1)
        return jnp.square(params - batch.image).mean(), None

    optimizer = optax.adam(0.1)
    state = vae_jax.init_state(jax.random.key(0), jnp.float32(1), optimizer)
    epoch = vae_jax.make_train_epoch(loss, optimizer)
    dataset = vae_jax.Batch(jax.device_put(np.ones((8, 2), np.float32)))
    orders = [vae_jax.shuffle(state.key, i, num_examples=8, batch_size=2) for i in range(3)]
    state, _ = epoch(state, dataset, orders[0])
    traced = len(traces)
    with jax.transfer_guard("disallow"):
        for order in orders[1:]:
            state, metrics = epoch(state, dataset, order)
    assert len(traces) == traced
    chex.assert_tree_all_finite(metrics.loss)


def test_the_page_is_what_its_results_give():
    results = report.load()
    assert results, "no results are committed"
    assert (ROOT / "benchmarks" / "README.md").read_text() == report.page(results)


@pytest.mark.long
def test_estimators_are_timed_beside_the_elbo(tmp_path):
    path = tmp_path / "estimators.json"
    process = command(
        "estimators", "--rounds=1", "--draws=2", "--only=IWAE, DReG;PIWAE", f"--json={path}"
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(path.read_text())
    ratios = {row["name"]: row["time_over_elbo"] for row in result["rows"]}
    assert ratios.keys() == {"ELBO, analytic KL", "IWAE, DReG", "PIWAE"}
    assert ratios["ELBO, analytic KL"] == 1
    assert f"| IWAE, DReG | {1e3 * result['rows'][1]['seconds_per_step']:.2f}" in report.page(
        {"estimators": result}
    )
    process = command("estimators", "--only=ELBOW")
    assert process.returncode == 2
    assert "ELBOW not known: choose from ELBO; " in process.stderr
