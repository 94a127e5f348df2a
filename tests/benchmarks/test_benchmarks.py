"""The benchmarks: what they count, what they write, and that the committed page is their own."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from benchmarks import accelerator, evaluation, growth, limits, report, rivals, scaling, startup
from benchmarks.throughput import from_torch
from benchmarks.workloads import WORKLOADS, Workload, make_loss, make_model, make_state
from vae_jax import networks

ROOT = Path(__file__).parents[2]
# These are programs, not the library: they run in JAX's own settings.
pytestmark = pytest.mark.relax


def command(name, *arguments, timeout=300, **environment):
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_flops_are_those_of_the_networks_products():
    """784-400-20: five products forward, two backward for each but the first, which has one."""
    batch, widths = 16, [(784, 400), (400, 40), (20, 400), (400, 784)]
    state, loss, _ = make_state(WORKLOADS["mlp"], "float32")
    data = vae_jax.Batch(jnp.zeros((batch, 784), jnp.uint8))
    counted = sum(p.flops for p in limits.step_products(loss, state.params, data))
    layers = [2 * batch * i * o for i, o in widths]
    assert counted == 3 * sum(layers) - layers[0]


def num_params(shapes):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", WORKLOADS)
def test_all_libraries_train_networks_of_one_size(name):
    """But for the last bias: one number a channel in theirs, one a pixel in ours."""
    workload = WORKLOADS[name]
    key, x = jax.random.key(0), jnp.zeros((1, *workload.image_shape))
    ours = num_params(jax.eval_shape(make_model(workload).init, key, x))
    extra = math.prod(x.shape) - x.shape[-1]
    network = rivals.FlaxVAE(workload)
    assert num_params(jax.eval_shape(network.init, key, x, key)) == ours - extra
    if importlib.util.find_spec("torch"):
        from benchmarks import rivals_torch

        parameters = rivals_torch.TorchVAE(workload).parameters()
        assert sum(p.numel() for p in parameters) == ours - extra


CONVOLUTIONS = {
    "vae_jax": ("jax", rivals.vae_jax_epoch),
    "flax": ("flax", partial(rivals.flax_epoch, jit=True)),
    "numpyro": ("numpyro", rivals.numpyro_epoch),
    "torch-dataloader": ("torch", from_torch("torch_dataloader")),
    "torch-tuned": ("torch", from_torch("torch_tuned", compiled=False)),
    "pythae": ("pythae", from_torch("pythae_trainer")),
}


@pytest.mark.few(2)
@pytest.mark.parametrize(("needs", "make"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_colours_are_learned_by_residual_convolutions(needs, make):
    """Each pixel is on in 10 or 90 % of cases: at best 72 times 0.33 nats, 23.6."""
    if not importlib.util.find_spec(needs):
        pytest.skip(f"{needs} is not installed")
    shape = (4, 6, 3)
    on = np.random.default_rng(0).random(math.prod(shape)) < 0.5
    picture = np.where(on, 229, 26).astype(np.uint8)
    more = {"image_shape": shape, "blocks": 1, "activation": "silu", "learning_rate": 1e-2}
    workload = Workload("", 2, (16,), (8,), **more)
    run = make(workload, 16, np.tile(picture, (256, 1))).run
    losses = [run() for _ in range(8)]
    assert losses[0] > 28
    assert 22 < losses[-1] < 26


def test_pictures_of_torch_have_their_channels_first_and_lie_with_them_last():
    torch = pytest.importorskip("torch")
    from benchmarks import rivals_torch

    images = np.random.default_rng(0).integers(0, 256, (5, 4 * 6 * 3)).astype(np.uint8)
    pixels = rivals_torch.as_pixels(Workload("", 2, (1,), (8,), image_shape=(4, 6, 3)), images)
    np.testing.assert_array_equal(pixels, images.reshape(5, 4, 6, 3).transpose(0, 3, 1, 2))
    batch = pixels[torch.tensor([3, 1])]
    assert batch.is_contiguous(memory_format=torch.channels_last)


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
    ("name", "arguments", "said"),
    [
        ("throughput", ["--only=nobody"], "nobody not known: choose from vae_jax"),
        ("throughput", ["--batch-sizes=0"], "0: give a whole number from 1"),
        ("throughput", ["--batch-sizes=512", "--examples=100"], "--examples=512 or more"),
        ("growth", ["--sweeps=seeds,width"], "width not known: choose from batch, "),
        ("estimators", ["--json=/nowhere/at/all.json"], "would be in a folder that is not there"),
        ("estimators", ["--draws=1", "--only=IWAE, VIMCO"], "--only has IWAE, VIMCO, for which"),
        ("overhead", ["--rounds=0"], "0: give a whole number from 1"),
        ("report", ["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_a_wrong_option_is_named(name, arguments, said):
    process = command(name, *arguments)
    assert process.returncode == 2
    assert said in process.stderr
    assert "Traceback" not in process.stderr


def test_an_interrupt_is_a_line_and_a_status():
    program = "from benchmarks import machine\ndef main(): raise KeyboardInterrupt\n"
    process = subprocess.run(
        [sys.executable, "-c", f"{program}machine.run(main)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 130
    assert process.stderr == "interrupted: what is not in a file is lost\n"


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


@pytest.mark.parametrize(
    ("grown", "loss"),
    [
        ({"batch": 16, "latents": 3}, make_loss),
        ({"pixels": 196}, make_loss),
        ({"draws": 5}, growth.loss_of_draws(5)),
    ],
)
def test_flops_of_what_grows_are_those_of_the_program(grown, loss):
    pixels = grown.get("pixels", 784)
    changed = {"latent_dim": grown.get("latents", 20), "image_shape": (pixels,)}
    model = make_model(WORKLOADS["mlp"]._replace(**changed))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, pixels)))
    batch = vae_jax.Batch(jnp.zeros((grown.get("batch", 128), pixels), jnp.uint8))
    counted = sum(p.flops for p in limits.step_products(loss(model), params, batch))
    assert growth.step_flops(**grown) == counted


def test_pictures_of_another_size():
    images = np.random.default_rng(0).integers(0, 256, (2, 784), np.uint8)
    larger = growth.resized(images, 56).reshape(2, 56, 56)
    np.testing.assert_array_equal(larger[:, 1::2, ::2].reshape(2, 784), images)
    smaller = growth.resized(images, 14).reshape(2, 14, 14)
    np.testing.assert_array_equal(smaller, images.reshape(2, 28, 28)[:, ::2, ::2])


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_seeds_at_once_are_one_program_with_the_numbers_of_each_alone(backend, monkeypatch):
    """To the bit in threads of a CPU; the vmap that an accelerator has, run here, to rounding."""
    import optax

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rtol, atol = (0, 0) if backend == "cpu" else (1e-4, 1e-5)

    traces = []

    def loss(params, key, batch):
        traces.append(1)
        noise = jax.random.normal(key, batch.image.shape)
        return jnp.square(batch.image @ params - noise).mean(), None

    def order_of(key, epoch):
        return vae_jax.shuffle(key, epoch, num_examples=40, batch_size=8)

    optimizer = optax.adam(0.1)
    generator = np.random.default_rng(0)
    dataset = vae_jax.Batch(jnp.asarray(generator.normal(size=(40, 6)), jnp.float32))
    states = [
        vae_jax.init_state(jax.random.key(seed), jnp.eye(6) * seed, optimizer) for seed in range(5)
    ]
    train_epoch = vae_jax.make_train_epoch(loss, optimizer)
    train_epoch.lower(states[0], dataset, order_of(states[0].key, 0), *map(jnp.int32, (0, 5)))
    once = len(traces)
    passes = rivals.at_once(train_epoch, states, dataset, order_of)
    losses = np.concatenate([passes.run(), passes.run()], axis=1)
    assert len(traces) == once
    assert losses.shape == (5, 10)
    for seed, state in enumerate(states):
        found = []
        for epoch in range(2):
            state, metrics = train_epoch(state, dataset, order_of(jax.random.key(seed), epoch))
            found.append(metrics.loss)
        np.testing.assert_allclose(losses[seed], np.concatenate(found), rtol, atol)
        np.testing.assert_allclose(passes.params()[seed], state.params, rtol, atol)


def _growth(**of_sweeps):
    rows = [
        {
            "sweep": sweep.replace("_", " "),
            "value": value,
            "batch_size": 128,
            "seconds_per_step": seconds / (50 * (value if sweep == "seeds" else 1)),
            "seconds_per_pass": seconds,
            "examples_per_second": 6400 / seconds,
            "compile_seconds": 1.0,
            "temporary_bytes": 10**6,
        }
        for sweep, measured in of_sweeps.items()
        for value, seconds in measured.items()
    ]
    described = {"device": "a device", "cores": 1, "versions": {"jax": "0.10.2"}, "rounds": 1}
    return described | {"benchmark": "growth", "products_seconds_per_step": 0.001, "rows": rows}


def test_the_page_says_what_eight_seeds_cost_of_eight_times_one(tmp_path):
    """12 seconds of a pass of eight, where one takes 2: 0.75 of a line."""
    result = _growth(seeds={1: 2.0, 8: 12.0}, batch={32: 1.0, 128: 2.0})
    page = report.page({"growth": result})
    assert "| seeds 8 | 30.00 | 0.75 | " in page
    assert "| seeds | 8 | 8 | 6 | " in page
    assert "| batch | 4 | 4 | 2 | " in page


def test_each_sweep_has_a_panel_with_named_axes(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(report.plt, "close", shown.append)
    sweeps = [sweep for sweep in growth.SWEEPS if sweep != "parts"]
    of_sweeps = {s: {v: float(v) for v in growth.SWEEPS[s]} for s in sweeps}
    report.draw_growth(_growth(**of_sweeps), tmp_path / "growth.png")
    (figure,) = shown
    monkeypatch.undo()
    panels = [axis for axis in figure.axes if axis.axison]
    assert len(panels) == len(sweeps) == 7
    for panel in panels:
        assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
        assert panel.get_xlabel()
        assert panel.get_ylabel() in ("seconds per step", "seconds per pass")
        assert [line.get_label() for line in panel.lines] == ["measured", "linear"]
    report.plt.close(figure)


@pytest.mark.long
def test_growth_on_virtual_devices_writes_the_rows_it_prints(tmp_path, monkeypatch):
    monkeypatch.setitem(growth.SWEEPS, "devices", (1, 2))
    result = growth.benchmark(1, ["devices"])
    assert [(row["sweep"], row["value"]) for row in result["rows"]] == [
        ("devices", 1),
        ("devices", 2),
    ]
    assert all(row["seconds_per_pass"] > 0 for row in result["rows"])


def test_a_process_is_timed_to_its_end_and_its_error_is_told():
    assert startup.whole(["-c", "import time; time.sleep(0.3)"])["seconds"] > 0.3
    with pytest.raises(SystemExit, match="no such thing"):
        startup.whole(["-c", "raise SystemExit('no such thing')"])


def test_the_page_has_imports_and_help_beside_the_first_step():
    described = {"device": "a device", "cores": 1, "versions": {"jax": "0.10.2"}, "rounds": 1}
    rows = [
        {"name": "import jax", "seconds": 0.5, "seconds_least": 0.4, "seconds_most": 0.6},
        {"name": "warm", "seconds": 2, "seconds_least": 1, "seconds_most": 3, "peak_bytes": 4e8},
    ]
    page = report.page({"startup": described | {"benchmark": "startup", "rows": rows}})
    assert "| `import jax` | 0.50 | 0.40 to 0.60 |  |" in page
    assert "| first step, compilation cache filled | 2.00 | 1.00 to 3.00 | 400 |" in page


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


def test_bits_of_a_product_are_those_of_its_format():
    def tf32(x, y):  # the upper 19 of 32 bits: sign, exponent and 10 of the mantissa
        cut = (np.asarray(x, np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32)
        return cut @ np.asarray(y)

    formats = jnp.matmul, tf32, networks.matmul_bfloat16
    assert [accelerator.mantissa_bits(matmul, 32) for matmul in formats] == [23, 10, 7]


def test_what_a_cut_off_part_has_measured_is_kept_and_the_others_go_on(tmp_path, monkeypatch):
    def endless(sizes):
        yield {"steps": 1}
        while True:
            jnp.ones(8).sum().block_until_ready()

    def broken(sizes):
        yield {"steps": 2}
        raise ValueError("one\ntwo")

    parts = {
        "endless": accelerator.Part(endless, 0, 0.2),
        "broken": accelerator.Part(broken, 0, 60),
        "late": accelerator.Part(endless, 1_000_000, 1_000_000),
        "roofline": accelerator.PARTS["roofline"],
        "evaluation": accelerator.PARTS["evaluation"],
    }
    monkeypatch.setattr(accelerator, "PARTS", parts)
    path, sizes = tmp_path / "a.json", accelerator.Sizes("cpu", [], 32, 2**12, images=4, draws=2)
    head = {"device": "a device", "platform": "cpu", "cores": 1, "versions": {}}
    accelerator.benchmark(sizes, head, time.monotonic() + 300, path)
    result = json.loads(path.read_text())
    assert (result["endless"], result["broken"]) == ({"steps": 1}, {"steps": 2})
    assert result["not_run"].keys() == {"endless", "late"}
    assert result["not_run"]["endless"] == "stopped after 0.2 s"
    assert result["failed"] == {"broken": "ValueError: one"}
    assert result["roofline"]["flops_per_second"].keys() > {"bfloat16"}
    text = report.page({"accelerator": result})
    assert "late (needs 1000000 s, has " in text
    assert "4 images by 2 draws" in text


def test_without_an_accelerator_it_says_so():
    process = command("accelerator", JAX_PLATFORMS="cpu")
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "JAX finds neither GPU nor TPU; --platform=cpu rehearses on the CPU"
    ]


@pytest.mark.long
def test_a_rehearsal_measures_every_part(tmp_path):
    path = tmp_path / "accelerator.json"
    process = command("accelerator", "--platform=cpu", f"--json={path}", timeout=900)
    assert process.returncode == 0, process.stderr
    result = json.loads(path.read_text())
    assert (result["not_run"], result["failed"]) == ({}, {})
    assert result.keys() > accelerator.PARTS.keys()
    of = result["command"]
    np.testing.assert_allclose(of["difference"], of["accelerator"][0] - of["cpu"][0])
    assert 0 < abs(of["difference"]) <= 3 * np.hypot(of["accelerator"][1], of["cpu"][1])
    ratios = {row["name"]: row["time_over_one"] for row in result["replicas"]["rows"]}
    assert ratios.keys() == {"vae_jax", "vae_jax-8-replicas", "vae_jax-64-replicas"}
    assert ratios["vae_jax"] == 1
    assert [row["where"] for row in result["data"]["rows"]] == ["device", "host"]
    assert "| difference |" in report.page({"accelerator": result})
