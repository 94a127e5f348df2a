"""What a training step costs as what it works on grows, from batch to devices, and its parts.

    python -m benchmarks.growth [--rounds N] [--sweeps NAME,...] [--json FILE]

The 784-400-20 network of `benchmarks.throughput`, at batch 128 but where the batch is what grows.
All settings take turns in each round. Seeds are models that train at once, each on all of the data;
devices are virtual ones of a CPU, which share its cores and a batch, each in a process of its own.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import vae_jax
from benchmarks import limits, machine, rivals
from benchmarks.workloads import LEARNING_RATE, WORKLOADS, load_images, make_loss, make_model

MLP = WORKLOADS["mlp"]
SWEEPS = {
    "batch": (32, 128, 512, 2048, 8192),
    "latent dimension": (2, 8, 32, 128, 512),
    "draws": (1, 5, 50),
    "pixels": (14**2, 28**2, 56**2, 112**2),
    "data": (7_500, 15_000, 30_000, 60_000),
    "seeds": (1, 2, 4, 8, 16),
    "devices": (1, 2, 4, 8),
    "parts": (
        "nothing",
        "binarization",
        "noise of z",
        "log-likelihood and KL",
        "Adam's moments",
    ),
}
STEPS = 50  # of a pass of seeds, and of devices


class Setting(NamedTuple):
    """A training that is timed.

    Attributes:
      sweep: what grows, or "parts".
      value: how large it is; of a part, what was left out.
      epoch: a pass over `examples` examples that ends when it is done.
      examples: of a pass, those of all seeds.
      batch_size: B.
      compile_seconds: of the pass.
      temporary_bytes: that the compiled passes need beside data, parameters and moments.
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
    num_seeds: int = 1,
    num_devices: int = 1,
) -> Setting:
    """Compiles an epoch of `loss(model)` and makes its first pass."""
    optimizer = optimizer or optax.adam(LEARNING_RATE)
    pixels = images.shape[1]
    model = make_model(MLP._replace(latent_dim=latent_dim, image_shape=(pixels,)))
    init = jax.jit(model.init)
    states = [
        vae_jax.init_state(
            jax.random.key(1 + seed), init(jax.random.key(seed), jnp.zeros((1, pixels))), optimizer
        )
        for seed in range(num_seeds)
    ]
    dataset, sharding = vae_jax.Batch(jnp.asarray(images)), None
    order_of = partial(vae_jax.shuffle, num_examples=len(images), batch_size=batch_size)
    if num_devices > 1:
        mesh = jax.make_mesh((num_devices,), ("data",), (AxisType.Auto,))
        sharding = vae_jax.state_sharding(states[0], mesh)
        key, shuffle = jax.random.key(1), order_of  # made on one device, as a run's order is
        states = [jax.device_put(state, sharding) for state in states]
        dataset = jax.device_put(dataset, NamedSharding(mesh, PartitionSpec()))
        split = NamedSharding(mesh, PartitionSpec(None, "data"))

        def order_of(_: jax.Array, epoch: int) -> jax.Array:
            return jax.device_put(shuffle(key, epoch), split)

    order_of(states[0].key, 0)  # compiled apart
    start = time.perf_counter()
    train_epoch = vae_jax.make_train_epoch(loss(model), optimizer, sharding=sharding)
    passes = rivals.at_once(train_epoch, states, dataset, order_of)
    compile_seconds = time.perf_counter() - start
    examples = passes.run().size * batch_size
    return Setting(
        sweep, value, passes.run, examples, batch_size, compile_seconds, passes.temporary_bytes
    )


def on_devices(num: int) -> dict[str, Any]:
    """A pass on so many virtual devices, timed in a process that has them."""
    return machine.on_virtual_devices(num, "benchmarks.growth", f"--devices={num}")


def measure_here(num: int) -> dict[str, Any]:
    """What `on_devices` asks of its process."""
    images = load_images(128 * STEPS)[0]
    setting = prepare("devices", num, make_loss, images, num_devices=num)
    return {
        "seconds": limits.timed(setting.epoch),
        "compile_seconds": setting.compile_seconds,
        "temporary_bytes": setting.temporary_bytes,
    }


def step_flops(
    *,
    batch: int = 128,
    latents: int = MLP.latent_dim,
    draws: int = 1,
    pixels: int = 784,
) -> int:
    """Of the matrix products of one model's step: forward, and twice back, but not to the bytes."""
    (hidden,) = MLP.hidden
    first = pixels * hidden
    weights = first + hidden * 2 * latents + draws * (latents * hidden + first)
    return 2 * batch * (3 * weights - first)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Each pixel repeated, or some left out: [N, 784] to [N, side * side]."""
    at = np.arange(side) * 28 // side
    return images.reshape(-1, 28, 28)[:, at][:, :, at].reshape(len(images), -1)


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


def settings(images: np.ndarray, sweeps: Sequence[str]) -> list[Setting]:
    """All that is timed in this process, compiled."""
    small = images[: 128 * 100]
    sgd = optax.sgd(LEARNING_RATE)
    # The loss, the images and what else `prepare` takes.
    of_value: dict[str, Callable[[Any], tuple[Any, np.ndarray, dict[str, Any]]]] = {
        "batch": lambda n: (
            make_loss,
            np.resize(images, (max(n * 4, 12_800), 784)),
            {"batch_size": n},
        ),
        "latent dimension": lambda n: (make_loss, small, {"latent_dim": n}),
        "draws": lambda n: (loss_of_draws(n), images[: 128 * max(10, 100 // n)], {}),
        "pixels": lambda n: (
            make_loss,
            resized(images[: 128 * min(100, max(10, 78_400 // n))], math.isqrt(n)),
            {},
        ),
        "data": lambda n: (make_loss, np.resize(images, (n, 784)), {}),
        "seeds": lambda n: (make_loss, images[: 128 * STEPS], {"num_seeds": n}),
        "parts": lambda part: (
            (make_loss, small, {"optimizer": sgd})
            if part == "Adam's moments"
            else (loss_without(part), small, {})
        ),
    }
    made = []
    for sweep in sweeps:
        for value in SWEEPS[sweep] if sweep in of_value else ():
            loss, of_images, more = of_value[sweep](value)
            made.append(prepare(sweep, value, loss, of_images, **more))
    return made


def as_row(
    sweep: str, value: Any, seconds: list[float], examples: int, batch_size: int, of: dict[str, Any]
) -> dict[str, Any]:
    """A row of the result, by the median of passes over so many examples."""
    median = float(np.median(seconds))
    return {
        "sweep": sweep,
        "value": value,
        "batch_size": batch_size,
        "seconds_per_step": median * batch_size / examples,
        "seconds_per_pass": median,
        "examples_per_second": examples / median,
        "compile_seconds": of["compile_seconds"],
        "temporary_bytes": of["temporary_bytes"],
    }


def benchmark(rounds: int, sweeps: Sequence[str]) -> dict[str, Any]:
    images, source = load_images(60_000)
    made = settings(images, sweeps)
    state_loss = make_loss(make_model(MLP))
    params = make_model(MLP).init(jax.random.key(0), jnp.zeros((1, 784)))
    batch = vae_jax.Batch(jnp.zeros((128, 784), jnp.uint8))
    products, repeats = limits.product_loop(limits.step_products(state_loss, params, batch))
    times: list[list[float]] = [[] for _ in made]
    of_devices: dict[int, list[dict[str, Any]]] = {
        num: [] for num in SWEEPS["devices"] if "devices" in sweeps
    }
    product_times = []
    for _ in range(rounds):
        product_times.append(limits.timed(products) / repeats)
        for setting, of_setting in zip(made, times, strict=True):
            of_setting.append(limits.timed(setting.epoch))
        for num, measured in of_devices.items():
            measured.append(on_devices(num))
    rows = [
        as_row(of.sweep, of.value, seconds, of.examples, of.batch_size, of._asdict())
        for of, seconds in zip(made, times, strict=True)
    ]
    for num, measured in of_devices.items():
        seconds = [of["seconds"] for of in measured]
        rows.append(as_row("devices", num, seconds, 128 * STEPS, 128, measured[-1]))
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
    parser.add_argument("--sweeps", help=f"of {', '.join(SWEEPS)}; all, but devices on a CPU alone")
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go; else nowhere"
    )
    parser.add_argument("--devices", type=machine.positive, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.devices:
        print(json.dumps(measure_here(options.devices)))
        return
    on_cpu = jax.default_backend() == "cpu"
    everything = [sweep for sweep in SWEEPS if on_cpu or sweep != "devices"]
    sweeps = options.sweeps.split(",") if options.sweeps else everything
    if unknown := sorted(set(sweeps) - set(SWEEPS)):
        parser.error(f"{', '.join(unknown)} not known: choose from {', '.join(SWEEPS)}")
    result = benchmark(options.rounds, sweeps)
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    machine.run(main)
