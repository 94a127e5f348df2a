"""Training speed beside that of rivals, and beside what the machine can do.

    python -m benchmarks.throughput [--workloads mlp,conv] [--batch-sizes 128,512] [--rounds N]
                                    [--only NAME,...] [--examples N] [--json FILE]

Every contestant does the same work: one VAE, bytes of one size, Adam. They take turns, so that a
busy minute of the machine falls on all of them. MNIST's workloads are the default; those of colour
pictures want their own --batch-sizes and --examples, as one of 128 pixels a side is 48 KB.
"""

import argparse
import gc
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from benchmarks import limits, machine, rivals
from benchmarks.workloads import (
    NUM_EXAMPLES,
    OF_MNIST,
    PRECISIONS,
    WORKLOADS,
    Workload,
    load_images,
    make_state,
)


class Contestant(NamedTuple):
    """Somebody who trains.

    Attributes:
      name: for --only and the tables.
      precision: of the factors of matrix products.
      make: see `rivals`.
      needs: a module that must be installed.
      share: of the examples that it is timed on; less than 1 for the slow.
      replicas: models trained at once.
    """

    name: str
    precision: str
    make: Callable[..., rivals.Trainer]
    needs: str = "jax"
    share: float = 1.0
    replicas: int = 1


def from_torch(name: str, **options: Any) -> Callable[..., rivals.Trainer]:
    """A contestant of `rivals_torch`, which is imported when it is made."""

    def make(*arguments: Any, **more: Any) -> rivals.Trainer:
        from benchmarks import rivals_torch

        trainer: rivals.Trainer = getattr(rivals_torch, name)(*arguments, **options, **more)
        return trainer

    return make


CONTESTANTS = [
    Contestant("vae_jax", "float32", rivals.vae_jax_epoch),
    Contestant("vae_jax", "bfloat16", partial(rivals.vae_jax_epoch, precision="bfloat16")),
    Contestant("vae_jax-step", "float32", rivals.vae_jax_step),
    Contestant("numpyro", "float32", rivals.numpyro_epoch, "numpyro"),
    Contestant("flax", "float32", partial(rivals.flax_epoch, jit=False), share=1 / 20),
    Contestant("flax-jit", "float32", partial(rivals.flax_epoch, jit=True)),
    Contestant("torch-dataloader", "float32", from_torch("torch_dataloader"), "torch"),
    Contestant("torch-tuned", "float32", from_torch("torch_tuned", compiled=False), "torch"),
    Contestant("torch-compile", "float32", from_torch("torch_tuned", compiled=True), "torch"),
    Contestant(
        "torch-compile",
        "bfloat16",
        from_torch("torch_tuned", compiled=True, precision="bfloat16"),
        "torch",
    ),
    Contestant("pythae", "float32", from_torch("pythae_trainer"), "pythae"),
]
REPLICAS = [
    Contestant(
        f"vae_jax-{n}-replicas",
        precision,
        partial(rivals.vae_jax_replicas, replicas=n, precision=precision),
        replicas=n,
    )
    for n in (8, 64)
    for precision in PRECISIONS
]


class Limit(NamedTuple):
    """The least that a training step must do, in one precision.

    Attributes:
      flops: of the matrix products of the loss and its gradient, counted from their jaxpr.
      bytes: parameters and moments read and written once, and the batch's bytes read.
      run: forms the products alone, `repeats` times.
      repeats: of a call of `run`.
    """

    flops: int
    bytes: int
    run: Callable[[], Any]
    repeats: int


def make_limit(workload: Workload, batch_size: int, precision: str) -> Limit:
    state, loss, _ = make_state(workload, precision)
    batch = vae_jax.Batch(jnp.zeros((batch_size, *workload.image_shape), jnp.uint8))
    steps = limits.step_products(loss, state.params, batch)
    moved = 2 * limits.num_bytes((state.params, state.opt_state)) + limits.num_bytes(batch)
    return Limit(sum(p.flops for p in steps), moved, *limits.product_loop(steps))


def time_contestants(
    contestants: list[Contestant],
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    rounds: int,
    bandwidth: float,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each, and the limits. All take their turn in each round, the limits too.

    Times are per NUM_EXAMPLES examples; the first pass compiles, and is apart.
    """
    limit = {precision: make_limit(workload, batch_size, precision) for precision in PRECISIONS}
    limit_times: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    entrants = []
    for contestant in contestants:
        steps = max(1, int(len(images) * contestant.share) // batch_size)
        start = time.perf_counter()
        run = contestant.make(workload, batch_size, images[: steps * batch_size]).run
        run()
        first = time.perf_counter() - start
        print(f"{contestant.name} {contestant.precision}: first pass {first:.1f} s", flush=True)
        entrants.append((contestant, steps * batch_size * contestant.replicas, run, first, []))
    losses = {}
    for _ in range(rounds):
        for precision, least in limit.items():
            limit_times[precision].append(limits.timed(least.run) / least.repeats)
        for contestant, _, run, _, times in entrants:
            name = contestant.name, contestant.precision
            times.append(limits.timed(lambda run=run, name=name: losses.__setitem__(name, run())))
    measured = {}
    for precision, least in limit.items():
        product_seconds = float(np.median(limit_times[precision]))
        measured[precision] = {
            "flops_per_step": least.flops,
            "bytes_per_step": least.bytes,
            "matmul_flops_per_second": least.flops / product_seconds,
            "floor_seconds_per_step": max(product_seconds, least.bytes / bandwidth),
        }
    rows = []
    for contestant, examples, _, first, times in entrants:
        median, own = float(np.median(times)), measured[contestant.precision]
        rate = own["flops_per_step"] * examples / batch_size / median
        rows.append(
            {
                "name": contestant.name,
                "precision": contestant.precision,
                "batch_size": batch_size,
                "seconds_per_epoch": median * NUM_EXAMPLES / examples,
                "seconds_per_epoch_least": min(times) * NUM_EXAMPLES / examples,
                "seconds_per_epoch_most": max(times) * NUM_EXAMPLES / examples,
                "examples_per_second": examples / median,
                "fraction_of_matmul_rate": rate / own["matmul_flops_per_second"],
                "time_over_floor": median * batch_size / examples / own["floor_seconds_per_step"],
                "compile_seconds": max(0.0, first - median),
                "examples_timed": examples,
                "loss": losses[contestant.name, contestant.precision],
            }
        )
    return rows, measured


def benchmark(
    workloads: list[str],
    batch_sizes: list[int],
    rounds: int,
    only: list[str] | None,
    num_examples: int,
) -> Iterator[dict[str, Any]]:
    """What goes into the JSON file, anew after each workload and batch size."""
    on_gpu = jax.default_backend() == "gpu"
    everyone = CONTESTANTS + (REPLICAS if on_gpu or only else [])
    wanted = [c for c in everyone if only is None or c.name in only]
    present = [c for c in wanted if importlib.util.find_spec(c.needs)]
    bandwidth = limits.bandwidth(2**31 if on_gpu else 2**28)
    result: dict[str, Any] = {
        "benchmark": "throughput",
        **machine.describe(),
        "data": "",
        "rounds": rounds,
        "bandwidth_bytes_per_second": bandwidth,
        "missing": sorted({c.needs for c in wanted} - {c.needs for c in present}),
        "limits": [],
        "rows": [],
    }
    sources: list[str] = []
    for name in workloads:
        workload = WORKLOADS[name]
        images, source = load_images(num_examples, workload.image_shape)
        sources.append(f"{source}, {num_examples} images of {images.shape[1]} bytes")
        result["data"] = "; ".join(dict.fromkeys(sources))
        for batch_size in batch_sizes:
            rows, limit = time_contestants(present, workload, batch_size, images, rounds, bandwidth)
            result["limits"].append({"workload": name, "batch_size": batch_size} | limit)
            result["rows"] += [{"workload": name} | row for row in rows]
            print_table(rows, limit, workload.description)
            yield result
            jax.clear_caches()
            gc.collect()


def print_table(rows: list[dict[str, Any]], limit: dict[str, Any], title: str) -> None:
    rates = ", ".join(
        f"{precision} {limit[precision]['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s"
        for precision in PRECISIONS
    )
    print(f"\n{title}, batch {rows[0]['batch_size']}; products of these shapes: {rates}")
    print(f"{'':28}{'s/epoch':>9}{'least':>8}{'most':>8}{'ex/s':>10}{'of rate':>9}{'loss':>9}")
    for row in sorted(rows, key=lambda row: row["seconds_per_epoch"]):
        print(
            f"{row['name'] + ' ' + row['precision']:28}{row['seconds_per_epoch']:9.3f}"
            f"{row['seconds_per_epoch_least']:8.3f}{row['seconds_per_epoch_most']:8.3f}"
            f"{row['examples_per_second']:10.0f}{row['fraction_of_matmul_rate']:9.1%}"
            f"{row['loss']:9.2f}",
            flush=True,
        )


def known_names(known: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(
                f"{', '.join(sorted(unknown))} not known: choose from {', '.join(known)}"
            )
        return names

    return parse


def main() -> None:
    known = list(dict.fromkeys(c.name for c in CONTESTANTS + REPLICAS))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--workloads",
        type=known_names(list(WORKLOADS)),
        default=list(OF_MNIST),
        help=f"of {', '.join(WORKLOADS)}; {', '.join(OF_MNIST)} when not given",
    )
    parser.add_argument(
        "--batch-sizes",
        type=machine.numbers,
        help="128,512,2048 when not given, and 8192 on a GPU",
    )
    parser.add_argument(
        "--rounds", type=machine.positive, default=5, help="timed passes of each; 5"
    )
    parser.add_argument("--only", type=known_names(known), help=f"of {', '.join(known)}")
    parser.add_argument(
        "--examples", type=machine.positive, default=NUM_EXAMPLES, help="in a timed pass; 60000"
    )
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go; else nowhere"
    )
    options = parser.parse_args()
    batch_sizes = options.batch_sizes or [128, 512, 2048] + (
        [8192] if jax.default_backend() == "gpu" else []
    )
    if max(batch_sizes) > options.examples:
        parser.error(f"a batch of {max(batch_sizes)} needs --examples={max(batch_sizes)} or more")
    for result in benchmark(
        options.workloads, batch_sizes, options.rounds, options.only, options.examples
    ):
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    if result["missing"]:
        print(f"\nnot installed, so not timed: {', '.join(result['missing'])}")


if __name__ == "__main__":
    machine.run(main)
