"""What a GPU or TPU makes of this library, within a few minutes: one JSON, part by part.

    python -m benchmarks.accelerator [--minutes 10] [--json FILE] [--data-dir DIR] [--platform cpu]

The parts come in the order of worth, and the file is written whenever one has measured something;
what did not fit into the time is named there under not_run. `experiments.mnist` comes first, before
this process takes the device: of a GPU JAX holds three quarters of the memory, a TPU whole.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from benchmarks import evaluation, limits, machine, throughput
from benchmarks.workloads import WORKLOADS, load_images, make_state
from vae_jax import run
from vae_jax.run import folder

_COMMAND = ("dataset", "epochs", "num_test", "num_importance_samples", "test_elbo")
_COMMAND += ("train_seconds", "compile_seconds", "num_devices", "device")


class Sizes(NamedTuple):
    """How much is measured.

    Attributes:
      platform: JAX's name of the kind of device.
      mnist: options of `experiments.mnist`.
      side: of the square matrices whose products are timed.
      bytes_moved: of the array that the bandwidth is measured on.
      examples: of a pass; ten times as many where data on the device and the host are compared.
      batch_sizes: of training; the first for replicas, the last for data on the host.
      rounds: timed passes.
      images: whose log p(x) is estimated.
      draws: for each of them.
    """

    platform: str
    mnist: list[str]
    side: int = 8192
    bytes_moved: int = 2**31
    examples: int = 60_000
    batch_sizes: tuple[int, ...] = (128, 512, 2048, 8192)
    rounds: int = 5
    images: int = 10_000
    draws: int = 5000


def python(arguments: list[str], **environment: str) -> str:
    """What a process of Python prints; RuntimeError with its last word where it fails."""
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        said = process.stderr.strip().splitlines() or ["it says nothing"]
        raise RuntimeError(f"{arguments[1]} ended with status {process.returncode}: {said[-1]}")
    return process.stdout


def command(sizes: Sizes) -> Iterator[Any]:
    """`experiments.mnist` with nothing compiled before, and log p(x) of what it saved by the CPU.

    Both estimates are of the same parameters, test images and number of draws, not the same draws.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place, cache = f"{temporary}/run", {"JAX_COMPILATION_CACHE_DIR": f"{temporary}/cache"}
        options = [f"--accelerator={sizes.platform}", "--num-devices=1", f"--output={place}"]
        start = time.perf_counter()
        python(["-m", "experiments.mnist", *options, *sizes.mnist], **cache)
        value: dict[str, Any] = {"seconds": time.perf_counter() - start}
        results = json.loads(Path(place, "results.json").read_text())
        value |= {field: results[field] for field in _COMMAND}
        value |= {"accelerator": _log_likelihood(results)}
        print(f"{value['seconds']:.1f} s, of which training {value['train_seconds']:.1f}")
        yield value
        options = [f"--num-samples={results['num_importance_samples']}", "--num-generated=0"]
        python(["-m", "experiments.evaluate", place, *options], **cache, JAX_PLATFORMS="cpu")
        again = json.loads(Path(place, "evaluation.json").read_text())
    if again["parameters_sha256"] != results["parameters_sha256"]:
        raise RuntimeError("what the run saved has other parameters than those that it measured")
    (one, error), (other, of_other) = value["accelerator"], _log_likelihood(again)
    value |= {"cpu": (other, of_other), "difference": one - other}
    value["error_of_difference"] = math.hypot(error, of_other)
    value["equal"] = abs(one - other) <= 3 * value["error_of_difference"]
    print("log p(x): {accelerator}, by the CPU {cpu}".format(**value))
    yield value
    if not value["equal"]:
        raise RuntimeError(f"log p(x) by the accelerator is {value['difference']:+.4f} nats off")


def _log_likelihood(results: dict[str, Any]) -> tuple[float, float]:
    """Of the test set, in nats, and the error that the draws make."""
    return results["test_log_likelihood"], results["test_log_likelihood_standard_error"]


def roofline(sizes: Sizes) -> Iterator[Any]:
    """Square products by JAX's default, in all bits of float32 and in bfloat16; bandwidth."""
    value = {"side": sizes.side, "mantissa_bits": mantissa_bits(jnp.matmul), "flops_per_second": {}}
    for name, dtype, precision in (
        ("float32 by default", jnp.float32, "default"),
        ("float32 in full", jnp.float32, "highest"),
        ("bfloat16", jnp.bfloat16, "default"),
    ):
        factor, numbers = (sizes.side, sizes.side), (((1,), (0,)), ((), ()))
        product = limits.Product(factor, factor, numbers, dtype, 2 * sizes.side**3)
        with jax.default_matmul_precision(precision):
            form, repeats = limits.product_loop([product])
            rate = product.flops * repeats / limits.seconds(form)
        value["flops_per_second"][name] = rate
        print(f"products, {name}: {rate / 1e12:.3g} TFLOP/s", flush=True)
        yield value
    value["bandwidth_bytes_per_second"] = limits.bandwidth(sizes.bytes_moved)
    yield value


def mantissa_bits(matmul: Callable[[jax.Array, jax.Array], jax.Array], side: int = 1024) -> int:
    """Those that a product keeps of its float32 factors: all 23, of TF32 10, of bfloat16 7."""
    x = 1 + 0.5 ** jnp.arange(1, 24, dtype=jnp.float32)
    rows = jnp.ones((side, side)).at[:23].set(x[:, None])
    return int((matmul(rows, jnp.eye(side))[:23, 0] == x).sum())


def training(sizes: Sizes, workload: str) -> Iterator[Any]:
    """Each batch size in both precisions."""
    of = [workload], list(sizes.batch_sizes), sizes.rounds, ["vae_jax"], sizes.examples
    return throughput.benchmark(*of)


def replicas(sizes: Sizes) -> Iterator[Any]:
    """One model, and 8 and 64 at once, each over all examples."""
    names = ["vae_jax", *(contestant.name for contestant in throughput.REPLICAS)]
    of = ["mlp"], [sizes.batch_sizes[0]], sizes.rounds, names, sizes.examples
    for value in throughput.benchmark(*of):
        one = {}
        for row in value["rows"]:  # the one model's come first
            seconds = row["examples_timed"] / row["examples_per_second"]
            row["time_over_one"] = seconds / one.setdefault(row["precision"], seconds)
            print("{name} {precision}: {time_over_one:.2f} of the time of one".format(**row))
        yield value


def log_likelihood(sizes: Sizes) -> Iterator[Any]:
    """log p(x) of many images by many draws."""
    raw, _ = load_images(sizes.images)
    images, estimate = (raw > 127).astype(np.float32), evaluation.vae_jax_batches(sizes.draws)
    first = limits.timed(lambda: estimate(images[: evaluation.BATCH]))
    value = {"images": sizes.images, "draws": sizes.draws, "first_batch_seconds": first}
    value["seconds"] = limits.timed(lambda: estimate(images))
    print(f"{sizes.images} images by {sizes.draws} draws: {value['seconds']:.2f} s")
    yield value


def data(sizes: Sizes) -> Iterator[Any]:
    """Passes over images that the device holds, and over those that the host sends."""
    images, batch_size = load_images(10 * sizes.examples)[0], sizes.batch_sizes[-1]
    state, loss, optimizer = make_state(WORKLOADS["large-mlp"], "float32")
    value: dict[str, Any] = {"images": len(images), "batch_size": batch_size, "rows": []}
    for where, stream in ("device", False), ("host", True):
        plan = run.Plan(epochs=1 + sizes.rounds, batch_size=batch_size, stream=stream)
        of = jax.random.key(0), loss, state.params, optimizer, vae_jax.Batch(images), plan
        passes = [row["seconds"] for row in run.fit(*of).rows[1:]]
        value["rows"].append({"where": where, "seconds_per_pass": float(np.median(passes))})
        print("images on the {where}: {seconds_per_pass:.3f} s a pass".format(**value["rows"][-1]))
        yield value


class Part(NamedTuple):
    """What gives its results so far, again and again; the seconds without which it is left out."""

    measure: Callable[[Sizes], Iterator[Any]]
    least: float
    most: float


PARTS = {
    "command": Part(command, 45, 180),
    "roofline": Part(roofline, 10, 60),
    "training large-mlp": Part(partial(training, workload="large-mlp"), 15, 150),
    "evaluation": Part(log_likelihood, 10, 60),
    "replicas": Part(replicas, 20, 150),
    "data": Part(data, 15, 60),
    "training mlp": Part(partial(training, workload="mlp"), 15, 120),
}


class OutOfTimeError(Exception):
    """A part has come to its limit."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError when they are over, once the main thread is back in Python."""

    def stop(*_: Any) -> None:
        raise OutOfTimeError(f"stopped after {seconds:.3g} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)  # again, where somebody swallows it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def benchmark(sizes: Sizes, head: dict[str, Any], end: float, path: Path) -> dict[str, Any]:
    """What goes into the file, and did; `end` is of time.monotonic."""
    result = {"benchmark": "accelerator", **head, "seconds": {}, "not_run": {}, "failed": {}}
    for name, part in PARTS.items():
        print(f"\n{name}", flush=True)
        start = time.monotonic()
        try:
            if end - start < part.least:
                raise OutOfTimeError(f"needs {part.least} s, has {max(0, end - start):.0f}")
            with limit(min(end - start, part.most)):
                for value in part.measure(sizes):
                    result[name] = value
                    folder.write_json(path, result)
        except OutOfTimeError as error:
            result["not_run"][name] = str(error)
            print(f"not run: {error}")
        except Exception as error:  # of any kind: the other parts are measured all the same
            brief = str(error).partition("\n")[0]
            result["failed"][name] = f"{type(error).__name__}: {brief}"
            print(f"failed: {result['failed'][name]}")
        result["seconds"][name] = time.monotonic() - start
        folder.write_json(path, result)
    return result


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="in which all of it must be done; 10"
    )
    parser.add_argument(
        "--json",
        type=machine.result_file,
        default=Path("accelerator.json"),
        help="where the results go; accelerator.json",
    )
    parser.add_argument("--data-dir", type=Path, help="folder in which MNIST is prepared")
    parser.add_argument(
        "--platform",
        choices=["cpu"],
        help="cpu rehearses all of it in small sizes; else the GPU or TPU that JAX finds",
    )
    options = parser.parse_args()
    if not 0 < options.minutes < math.inf:
        parser.error(f"--minutes is {options.minutes}: give a number above 0")
    if options.data_dir and not options.data_dir.is_dir():
        parser.error(f"--data-dir is {options.data_dir}: there is no such folder")
    if options.platform:
        os.environ["JAX_PLATFORMS"] = "cpu"  # of the processes; this one has read it already
        jax.config.update("jax_platforms", "cpu")
    try:
        head = json.loads(python(["-m", "benchmarks.machine"]).splitlines()[-1])
    except RuntimeError as error:
        parser.exit(2, f"JAX finds no device: {error}\n")
    if head["platform"] == "cpu" and not options.platform:
        parser.exit(2, "JAX finds neither GPU nor TPU; --platform=cpu rehearses on the CPU\n")
    place = [f"--data-dir={options.data_dir.resolve()}"] if options.data_dir else []
    sizes = Sizes(head["platform"], place)
    if options.platform:
        few = ["--epochs=1", "--num-importance-samples=20", *(place or ["--dataset=digits"])]
        sizes = Sizes("cpu", few, 128, 2**20, 64, (32,), 1, 20, 10)
    result = benchmark(sizes, head, start + 60 * options.minutes, options.json)
    print(f"\n{options.json}, after {(time.monotonic() - start) / 60:.1f} minutes")
    for name, why in result["not_run"].items():
        print(f"not run: {name}, which {why}")
    if result["failed"]:
        sys.exit(f"failed: {', '.join(result['failed'])}")
    if len(result["not_run"]) == len(PARTS):
        sys.exit("nothing was measured: give more --minutes")


if __name__ == "__main__":
    machine.run(main)
