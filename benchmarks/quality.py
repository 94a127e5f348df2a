"""Quality per second of training, which is what a user waits for, beside that of rivals.

    python -m benchmarks.quality [--datasets mnist,fashion_mnist] [--only NAME,...] [--seconds N]
                                 [--images N] [--draws N] [--examples N] [--seed N]
                                 [--data-dir DIR] [--manual-dir DIR] [--json FILE]

Our default recipe, that of `python -m experiments.mnist`, and the same with --precision=bfloat16;
each rival twice: with the settings that it publishes, and with our network and the batches, passes
and Adam of --optimizer=adam, as far as it allows. They take turns, a pass each, whoever has trained
least first. Between passes, outside the clock, one evaluator measures all of them alike: log p(x)
of the same test images, binarized once, by importance sampling. With --json the file is written
anew after each measurement, and a chart beside it; Ctrl-C ends it with what there is.
"""

import argparse
import dataclasses
import gc
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from benchmarks import machine, rivals
from benchmarks.rivals import Trainer
from benchmarks.throughput import from_torch, known_names
from benchmarks.workloads import PRECISIONS, Workload
from vae_jax.run import data, defaults, objective, options
from vae_jax.run.errors import DataError
from vae_jax.run.model import make_model, make_optimizer
from vae_jax.run.pixels import measure_pixels

THRESHOLDS = {
    "mnist": (-95.0, -92.0, -90.0, -88.0),
    "fashion_mnist": (-245.0, -240.0, -237.0, -235.0),
    "digits": (-26.0, -24.0, -22.0, -21.0),
}
"""log p(x) in nats, of which the table says when they are reached."""

RATIO = 2.0
"""Of the seconds trained, from one measurement to the next."""


class Contestant(NamedTuple):
    """Somebody who trains, with some settings.

    Attributes:
      name: for --only and the tables.
      settings: "own", as published, or "ours"; of vae_jax with its precision where not float32.
      workload: the network and the rate.
      batch_size: examples a step.
      passes: of the whole training; it trains no longer.
      binarize: the training images "once", "afresh" for each step, or "never".
      make: (workload, batch_size, images, seed=) -> Trainer; see `rivals`.
    """

    name: str
    settings: str
    workload: Workload
    batch_size: int
    passes: int
    binarize: str
    make: Callable[..., Trainer]


def contestants(dataset: data.Dataset, num_examples: int) -> list[Contestant]:
    """All of them, for a data set of whose training images so many are used.

    Their own settings are those of their example of a VAE on MNIST, read in 2026: NumPyro's
    `examples/vae.py` (15 passes), Flax's `examples/vae` (30), PyTorch's `examples/vae` (10),
    pythae's `examples/scripts/reproducibility/vae.py` (500, of which the first 200 are at this
    rate; 89.78 nats is what pythae publishes for it), and artifex's dense `vae_mnist.py`, trained
    as in its quickstart (20).
    """
    pixels = math.prod(dataset.image_shape)
    name: Any = dataset.name
    chosen = options.Options(data=options.Data(dataset=name))
    mesh = jax.make_mesh((1,), ("data",))
    recipe = defaults.settled(chosen, dataset, mesh)
    by_adam = dataclasses.replace(chosen, training=options.Training(optimizer="adam"))
    training, model = defaults.settled(by_adam, dataset, mesh).training, recipe.model
    size, passes, rate = training.batch_size, training.epochs, training.learning_rate
    assert all((model.hidden, model.latent_dim, size, passes, rate))
    widths = "-".join(map(str, (*model.hidden, model.latent_dim)))
    steps = passes * (num_examples // size)
    shape: dict[str, Any] = {"image_shape": (pixels,)}
    ours = Workload(
        f"{pixels}-{widths} silu, {rate:g} falling",
        model.latent_dim,
        model.hidden,
        activation="silu",
        learning_rate=rate,
        num_steps=steps,
        **shape,
    )

    def own(description: str, *of: Any, **more: Any) -> Workload:
        return Workload(f"{pixels}-{description}", *of, **shape, **more)

    def with_ours(name: str, make: Any) -> Contestant:
        return Contestant(name, "ours", ours, size, passes, "afresh", make)

    def of_vae_jax(precision: Any) -> Contestant:
        of = recipe.training
        low = dataclasses.replace(model, precision=precision)
        return Contestant(
            "vae_jax",
            "ours" if precision == "float32" else f"ours, {precision}",
            ours._replace(
                description=f"{pixels}-{widths} silu, {of.optimizer} {of.learning_rate:g} falling",
                num_steps=of.epochs * (num_examples // of.batch_size),
            ),
            *(of.batch_size, of.epochs, "afresh"),
            partial(vae_jax_recipe, dataclasses.replace(recipe, model=low), dataset.image_shape),
        )

    flax, dataloader = rivals.flax_epoch, from_torch("torch_dataloader", binarize="never")
    return [
        *map(of_vae_jax, PRECISIONS),
        Contestant(
            "numpyro",
            "own",
            own("400-50 softplus, 0.001", 50, (400,), activation="softplus"),
            *(128, 15, "afresh", rivals.numpyro_example),
        ),
        with_ours("numpyro", rivals.numpyro_epoch),
        Contestant(
            "flax",
            "own",
            own("500-20 relu, 0.001", 20, (500,)),
            *(128, 30, "once", partial(flax, jit=True, binarize="once")),
        ),
        with_ours("flax", partial(flax, jit=True, binarize="afresh")),
        Contestant(
            "torch",
            "own",
            own("400-20 relu, 0.001", 20, (400,)),
            *(128, 10, "never", dataloader),
        ),
        with_ours("torch", from_torch("torch_tuned", compiled=False)),
        Contestant(
            "pythae",
            "own",
            own("400-40 relu, 0.0001", 40, (400,), learning_rate=1e-4),
            *(100, 200, "once", from_torch("pythae_trainer", binarize="once")),
        ),
        with_ours("pythae", from_torch("pythae_trainer", binarize="afresh")),
        Contestant(
            "artifex",
            "own",
            own("256-128-32 relu, 0.002", 32, (256, 128), learning_rate=2e-3),
            *(128, 20, "never", _from_artifex(binarize="never", kl_warmup_steps=2000)),
        ),
        with_ours("artifex", _from_artifex()),
    ]


NEEDS = {
    "vae_jax": "jax",
    "numpyro": "numpyro",
    "flax": "jax",
    "torch": "torch",
    "pythae": "pythae",
    "artifex": "artifex",
}
"""What must be installed for a name."""


def vae_jax_recipe(
    recipe: options.Options,
    event: tuple[int, ...],
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    seed: int = 0,
) -> Trainer:
    """`python -m experiments.mnist` with its default options, but for what it writes and says."""
    images = images.reshape(-1, *event)
    model = make_model(recipe.model, event, "dynamic", measure_pixels(images, "dynamic"), 10)
    optimizer = make_optimizer(recipe.training, workload.num_steps)
    init_key, key = jax.random.split(jax.random.key(seed))
    params = jax.jit(model.init)(init_key, jnp.zeros((1, *event)))
    state = vae_jax.init_state(key, params, optimizer)
    of_images = len(images) // batch_size, len(images)
    loss = objective.make_loss(recipe.objective, model, vae_jax.binarize, *of_images)
    trainer = rivals.compiled_epochs(state, loss, optimizer, images, batch_size)
    return trainer._replace(model=model)


def _from_artifex(**settings: Any) -> Callable[..., Trainer]:
    def make(*arguments: Any, **more: Any) -> Trainer:
        from benchmarks import rivals_artifex

        trainer: Trainer = rivals_artifex.artifex_epoch(*arguments, **settings, **more)
        return trainer

    return make


def measure(trainer: Trainer, x: np.ndarray, draws: int) -> dict[str, float]:
    """log p(x) of binary images [N, D] under what has been trained so far."""
    assert trainer.model is not None
    assert trainer.params is not None
    x = x.reshape(len(x), *trainer.event)
    of = vae_jax.evaluate(jax.random.key(0), trainer.model, trainer.params(), x, num_samples=draws)
    return {
        "log_likelihood": of.mean,
        "standard_error_of_draws": of.standard_error_of_draws,
        "standard_error_over_images": of.standard_error_over_examples,
    }


def trained(times: list[float], passes: int) -> float:
    """Seconds of so many passes: the first, which compiles, counts as the median of the others."""
    return float(np.median(times[1:] or times)) + sum(times[1:passes])


class Entrant:
    """A contestant in the race, and its row of the result."""

    def __init__(self, contestant: Contestant, images: np.ndarray, seed: int) -> None:
        self.contestant, self.times = contestant, list[float]()
        batch_size = contestant.batch_size
        start = time.perf_counter()
        self.trainer = contestant.make(contestant.workload, batch_size, images, seed=seed)
        self.setup = time.perf_counter() - start
        self.measured: list[dict[str, float]] = []

    @property
    def seconds(self) -> float:
        return trained(self.times, len(self.times)) if self.times else 0.0

    def is_done(self, budget: float) -> bool:
        """Whether its training is over; of two passes at least, lest compilation count."""
        passes = len(self.times)
        lost = bool(self.measured) and not math.isfinite(self.measured[-1]["log_likelihood"])
        return lost or passes >= self.contestant.passes or (passes > 1 and self.seconds >= budget)

    def train(self) -> float:
        """One pass. Returns the loss."""
        start = time.perf_counter()
        loss = self.trainer.run()
        self.times.append(time.perf_counter() - start)
        return loss

    def is_due(self, budget: float) -> bool:
        """Whether it is to be measured: in equal steps of log seconds, and at its end."""
        if not self.measured or self.is_done(budget):
            return True
        last = trained(self.times, int(self.measured[-1]["passes"]))
        return len(self.times) > 1 and self.seconds >= RATIO * last

    def row(self) -> dict[str, Any]:
        of, times = self.contestant, self.times
        compiling = self.setup + max(0.0, times[0] - trained(times, 1))
        return {
            "name": of.name,
            "settings": of.settings,
            "description": of.workload.description,
            "batch_size": of.batch_size,
            "binarize": of.binarize,
            "passes_of_recipe": of.passes,
            "setup_and_compile_seconds": compiling if times[1:] else None,
            "pass_seconds": times,
            "measured": [
                {
                    **{key: value if math.isfinite(value) else None for key, value in m.items()},
                    "seconds": trained(times, int(m["passes"])),
                }
                for m in self.measured
            ],
        }


def race(
    entering: list[Contestant],
    images: np.ndarray,
    x: np.ndarray,
    *,
    budget: float,
    draws: int,
    seed: int,
) -> Iterator[list[dict[str, Any]]]:
    """Their rows, anew after each measurement."""
    entrants = [Entrant(contestant, images, seed) for contestant in entering]
    while running := [entrant for entrant in entrants if not entrant.is_done(budget)]:
        entrant = min(running, key=lambda entrant: entrant.seconds)
        loss = entrant.train()
        if not entrant.is_due(budget):
            continue
        measurement = measure(entrant.trainer, x, draws)
        entrant.measured.append({"passes": len(entrant.times), "loss": loss, **measurement})
        of = entrant.contestant
        print(
            f"{of.name + ', ' + of.settings:23} pass {len(entrant.times):3}"
            f"{entrant.seconds:8.1f} s{'' if entrant.times[1:] else ' with compilation'}   "
            f"loss {loss:8.2f}   "
            f"log p(x) {measurement['log_likelihood']:8.2f}",
            flush=True,
        )
        yield [entrant.row() for entrant in entrants if entrant.measured]


class Reached(NamedTuple):
    """When a threshold was: at `seconds`, or before where the first measurement was above it."""

    seconds: float
    before: bool


def reached(measured: list[dict[str, Any]], threshold: float) -> Reached | None:
    """Between two measurements along a line in log seconds; None where it never was.

    >>> at = [{"seconds": 1.0, "log_likelihood": -100.0}, {"seconds": 4.0, "log_likelihood": -90.0}]
    >>> reached(at, -95.0), reached(at, -80.0), reached(at, -110.0).before
    (Reached(seconds=2.0, before=False), None, True)
    """
    last = None
    for here in measured:
        if here["log_likelihood"] is None:
            return None
        if here["log_likelihood"] >= threshold:
            if last is None:
                return Reached(here["seconds"], before=True)
            rise = here["log_likelihood"] - last["log_likelihood"]
            share = (threshold - last["log_likelihood"]) / rise
            ratio = here["seconds"] / last["seconds"]
            return Reached(last["seconds"] * ratio**share, before=False)
        last = here
    return None


def benchmark(
    chosen: argparse.Namespace, names: list[str], missing: list[str]
) -> Iterator[dict[str, Any]]:
    """What goes into the JSON file, anew after each measurement."""
    result: dict[str, Any] = {
        "benchmark": "quality",
        **machine.describe(),
        "seed": chosen.seed,
        "budget_seconds": chosen.seconds,
        "draws": chosen.draws,
        "load_before": os.getloadavg()[0],
        "missing": missing,
        "datasets": [],
    }
    places = chosen.data_dir, chosen.manual_dir
    # All first: none is found missing when others have been measured.
    for dataset in [data.load(options.Data(name, "dynamic", *places)) for name in chosen.datasets]:
        images = dataset.train.images[: chosen.examples]
        images = images.reshape(len(images), -1)
        grey = dataset.test.images[: chosen.images]
        grey = grey.reshape(len(grey), -1).astype(np.float32) / 255
        x = (np.random.default_rng(0).random(grey.shape, np.float32) < grey).astype(np.float32)
        entering = [c for c in contestants(dataset, len(images)) if c.name in names]
        of_data: dict[str, Any] = {
            "dataset": dataset.name,
            "digest": dataset.digest,
            "num_train": len(images),
            "num_images": len(x),
            "rows": [],
        }
        result["datasets"].append(of_data)
        print(
            f"{dataset.name}: {len(images):,} training images; log p(x) of {len(x):,}", flush=True
        )
        for rows in race(
            entering, images, x, budget=chosen.seconds, draws=chosen.draws, seed=chosen.seed
        ):
            of_data["rows"] = rows
            yield result
        jax.clear_caches()
        gc.collect()


def print_table(result: dict[str, Any]) -> None:
    from benchmarks.report import quality_rows

    for of_data in result["datasets"]:
        head, rows = quality_rows(of_data)
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        print(f"\n{of_data['dataset']}, {result['device']}, {result['cores']} cores")
        for line in (head, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--datasets",
        type=known_names(list(THRESHOLDS)),
        default=["mnist", "fashion_mnist"],
        help=f"of {', '.join(THRESHOLDS)}; mnist,fashion_mnist when not given",
    )
    parser.add_argument("--only", type=known_names(list(NEEDS)), help=f"of {', '.join(NEEDS)}")
    parser.add_argument(
        "--seconds",
        type=machine.positive,
        default=60,
        help="of training for each, of each data set, two passes at least; 60",
    )
    parser.add_argument(
        "--images", type=machine.positive, default=1000, help="of the test set, measured; 1000"
    )
    parser.add_argument(
        "--draws", type=machine.positive, default=500, help="for each in measuring; 500"
    )
    parser.add_argument("--examples", type=machine.positive, help="to train on; all")
    parser.add_argument("--seed", type=int, default=0, help="of the parameters and all noise; 0")
    parser.add_argument("--data-dir", type=Path, help="folder in which the data are prepared")
    parser.add_argument("--manual-dir", type=Path, help="folder of their original files")
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go, and a chart as .png"
    )
    chosen = parser.parse_args()
    if chosen.draws < 2:
        parser.error("--draws is 1: a standard error takes 2 at least")
    if chosen.examples is not None and chosen.examples < 128:
        parser.error(f"--examples is {chosen.examples}: a batch of 128 needs as many at least")
    if not 0 <= chosen.seed < 2**32:
        parser.error(f"--seed is {chosen.seed}: it must be from 0 to 2^32 - 1")
    wanted = chosen.only or list(NEEDS)
    missing = sorted({NEEDS[name] for name in wanted if not importlib.util.find_spec(NEEDS[name])})
    names = [name for name in wanted if NEEDS[name] not in missing]
    if not names:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    result: dict[str, Any] = {"datasets": []}
    interrupted = False
    try:
        for result in benchmark(chosen, names, missing):
            if chosen.json:
                whole = chosen.json.with_suffix(".part")
                whole.write_text(json.dumps(result, indent=1) + "\n")
                whole.replace(chosen.json)
    except DataError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        interrupted = True
    if any(of_data["rows"] for of_data in result["datasets"]):
        print_table(result)
        if chosen.json:
            from benchmarks.report import draw_quality

            draw_quality(result, chosen.json.with_suffix(".png"))
    if missing:
        print(f"\nnot installed, so not measured: {', '.join(missing)}")
    if interrupted:
        raise SystemExit(130)


if __name__ == "__main__":
    machine.run(main)
