"""What a training step costs as batch, latent dimension, draws or data grow, and its parts.

    python -m benchmarks.growth [--rounds N] [--json FILE]

The 784-400-20 network of `benchmarks.throughput`, at batch 128 but where the batch is what grows.
All settings take turns in each round.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from benchmarks import limits, machine
from benchmarks.workloads import LEARNING_RATE, WORKLOADS, load_images, make_loss, make_model

MLP = WORKLOADS["mlp"]
SWEEPS = {
    "batch": (32, 128, 512, 2048, 8192),
    "latent dimension": (2, 8, 32, 128, 512),
    "draws": (1, 5, 50),
    "data": (7_500, 15_000, 30_000, 60_000),
}


class Setting(NamedTuple):
    """A training that is timed.

    Attributes:
      sweep: what grows, or "parts".
      value: how large it is; of a part, what was left out.
      epoch: a pass over `examples` examples that ends when it is done.
      examples: of a pass.
      batch_size: B.
      compile_seconds: of the pass.
      temporary_bytes: that the compiled pass needs beside data, parameters and moments.
    """

    sweep: str
    value: Any
    epoch: Callable[[], Any]
    examples: int
    batch_size: int
    compile_seconds: float
    temporary_bytes: int


def prepare(
    sweep: str,
    value: Any,
    loss: Callable[..., Any],
    images: np.ndarray,
    *,
    batch_size: int = 128,
    latent_dim: int = MLP.latent_dim,
    optimizer: optax.GradientTransformation | None = None,
) -> Setting:
    """Compiles an epoch of `loss(model)` and makes its first pass."""
    optimizer = optimizer or optax.adam(LEARNING_RATE)
    model = make_model(MLP._replace(latent_dim=latent_dim))
    params = model.init(jax.random.key(0), jnp.zeros((1, 784)))
    state = vae_jax.init_state(jax.random.key(1), params, optimizer)
    dataset = vae_jax.Batch(jnp.asarray(images))
    order = vae_jax.shuffle(state.key, 0, num_examples=len(images), batch_size=batch_size)
    steps = jnp.int32(0), jnp.int32(len(order))
    start = time.perf_counter()
    lowered = vae_jax.make_train_epoch(loss(model), optimizer).lower(state, dataset, order, *steps)
    train_epoch = lowered.compile()
    compile_seconds = time.perf_counter() - start
    epoch = 0

    def run() -> Any:
        nonlocal state, epoch
        epoch += 1
        order = vae_jax.shuffle(state.key, epoch, num_examples=len(images), batch_size=batch_size)
        state, metrics = train_epoch(state, dataset, order, *steps)
        return metrics.loss

    jax.block_until_ready(run())
    memory = train_epoch.memory_analysis()
    return Setting(
        sweep, value, run, order.size, batch_size, compile_seconds, memory.temp_size_in_bytes
    )


def loss_of_draws(draws: int) -> Callable[[vae_jax.VAE], Any]:
    """Minus the mean ELBO of S draws of z for each example."""

    def make(model: vae_jax.VAE) -> Any:
        def loss(params: Any, key: jax.Array, batch: vae_jax.Batch) -> tuple[jax.Array, Any]:
            binarize_key, draw_key = jax.random.split(key)
            x = vae_jax.binarize(binarize_key, batch.image)
            posterior = model.encode(params, x)
            z = vae_jax.sample(draw_key, posterior, draws)
            bound = vae_jax.elbo(x, z, posterior, model.prior(params), model.decode(params, z))
            return -bound.value.mean(), bound.value.mean(axis=0)

        return loss

    return make


def loss_without(part: str) -> Callable[[vae_jax.VAE], Any]:
    """The loss with one of its parts left out, which trains nothing of use."""

    def make(model: vae_jax.VAE) -> Any:
        def loss(params: Any, key: jax.Array, batch: vae_jax.Batch) -> tuple[jax.Array, Any]:
            binarize_key, draw_key = jax.random.split(key)
            if part == "binarization":
                x = batch.image.astype(jnp.float32) / 255
            else:
                x = vae_jax.binarize(binarize_key, batch.image)
            posterior = model.encode(params, x)
            noiseless = part == "noise of z"
            z = (
                posterior.mean + posterior.scale
                if noiseless
                else vae_jax.sample(draw_key, posterior)
            )
            likelihood = model.decode(params, z)
            if part == "log-likelihood and KL":
                return -(likelihood.logits * x).sum(-1).mean(), None
            bound = vae_jax.elbo(x, z, posterior, model.prior(params), likelihood)
            return -bound.value.mean(), bound

        return loss

    return make


def settings(images: np.ndarray) -> list[Setting]:
    """All that is timed, compiled."""
    small = images[: 128 * 100]
    made = [
        prepare("batch", b, make_loss, np.resize(images, (max(b * 4, 12_800), 784)), batch_size=b)
        for b in SWEEPS["batch"]
    ]
    made += [
        prepare("latent dimension", n, make_loss, small, latent_dim=n)
        for n in SWEEPS["latent dimension"]
    ]
    made += [
        prepare("draws", s, loss_of_draws(s), images[: 128 * max(10, 100 // s)])
        for s in SWEEPS["draws"]
    ]
    made += [prepare("data", n, make_loss, np.resize(images, (n, 784))) for n in SWEEPS["data"]]
    parts = ("nothing", "binarization", "noise of z", "log-likelihood and KL")
    made += [prepare("parts", part, loss_without(part), small) for part in parts]
    sgd = optax.sgd(LEARNING_RATE)
    made.append(prepare("parts", "Adam's moments", make_loss, small, optimizer=sgd))
    return made


def benchmark(rounds: int) -> dict[str, Any]:
    images, source = load_images(60_000)
    made = settings(images)
    state_loss = make_loss(make_model(MLP))
    params = make_model(MLP).init(jax.random.key(0), jnp.zeros((1, 784)))
    batch = vae_jax.Batch(jnp.zeros((128, 784), jnp.uint8))
    products, repeats = limits.product_loop(limits.step_products(state_loss, params, batch))
    times: dict[int, list[float]] = {i: [] for i in range(len(made))}
    product_times = []
    for _ in range(rounds):
        product_times.append(limits.timed(products) / repeats)
        for i, setting in enumerate(made):
            times[i].append(limits.timed(setting.epoch))
    rows = []
    for i, setting in enumerate(made):
        median = float(np.median(times[i]))
        rows.append(
            {
                "sweep": setting.sweep,
                "value": setting.value,
                "batch_size": setting.batch_size,
                "seconds_per_step": median * setting.batch_size / setting.examples,
                "seconds_per_pass": median,
                "examples_per_second": setting.examples / median,
                "compile_seconds": setting.compile_seconds,
                "temporary_bytes": setting.temporary_bytes,
            }
        )
    return {
        "benchmark": "growth",
        **machine.describe(),
        "data": source,
        "rounds": rounds,
        "products_seconds_per_step": float(np.median(product_times)),
        "rows": rows,
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"{'':36}{'ms/step':>9}{'s/pass':>9}{'compile':>9}{'temporary':>11}")
    for row in result["rows"]:
        name = (
            f"without {row['value']}"
            if row["sweep"] == "parts"
            else f"{row['sweep']} {row['value']}"
        )
        print(
            f"{name:36}{1e3 * row['seconds_per_step']:9.3f}{row['seconds_per_pass']:9.3f}"
            f"{row['compile_seconds']:7.1f} s{row['temporary_bytes'] / 1e6:8.1f} MB"
        )
    print(f"{'matrix products alone':36}{1e3 * result['products_seconds_per_step']:9.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--rounds", type=machine.positive, default=7, help="timed passes of each; 7"
    )
    parser.add_argument("--json", type=Path, help="where the results go")
    options = parser.parse_args()
    result = benchmark(options.rounds)
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
