"""Very deep VAEs (Child 2021), small: a top-down residual VAE on dynamic MNIST.

    python -m experiments.papers.child2021 --size=large --minutes=10 --manual-dir=FOLDER

The paper has no MNIST. Other hierarchies without autoregression, negative log p(x) in nats: ResNet
VAE with a RealNVP prior 78.49, NVAE 78.01 (Vahdat & Kautz 2020, 42 V100-hours).

Reads the original files, for machines that have no TensorFlow Datasets.
"""

import gzip
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.papers import table
from vae_jax import networks
from vae_jax.evaluation import batched
from vae_jax.run import command, figures, options
from vae_jax.run.errors import DataError, UsageError

PROTOCOL = (
    "negative log p(x) of MNIST's test images, binarised once, in nats; trained on 60,000 images "
    "binarised anew at every step; importance sampling from q(z|x). The paper has no MNIST; other "
    "hierarchies without autoregression reached 78.49 (ResNet VAE with a RealNVP prior) and 78.01 "
    "(NVAE)"
)

SIZES: dict[str, dict[str, Any]] = {
    # For two CPU cores: all but the first and the last convolution are at 7 x 7.
    "small": {"width": 64, "blocks": (0, 0, 4), "dtype": jnp.float32, "batch_size": 100},
    "large": {"width": 96, "blocks": (0, 6, 8), "dtype": jnp.bfloat16, "batch_size": 256},
    "tiny": {"width": 8, "blocks": (0, 1, 1), "dtype": jnp.float32, "batch_size": 20},
}


@dataclass(frozen=True)
class Options:
    """Trains a small VDVAE on MNIST, and measures it."""

    manual_dir: Path
    """The folder with the original files."""
    size: Literal["small", "large", "tiny"] = "small"
    """large is for a GPU, tiny for a look."""
    minutes: float = 60.0
    """Of training."""
    steps: int | None = None
    """In place of minutes."""
    learning_rate: float = 2e-3
    """Adam's, for the first half of the steps; from there it falls to zero along a half cosine."""
    warm_up: int = 2000
    """Steps of a smaller KL."""
    average_decay: float = 0.999
    """Of the moving average of the parameters, which is what is measured."""
    num_importance_samples: int = 500
    """Draws for log p(x) of each test image."""
    num_test: int = 10_000
    """Test images that are measured."""
    seed: int = 0
    """Of the parameters and all noise."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/child2021-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


def check(chosen: Options) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    names = ("steps", "warm_up", "num_test")
    given = {name: getattr(chosen, name) for name in names}
    options.check_at_least(1, **{name: value for name, value in given.items() if value is not None})
    options.check_at_least(2, num_importance_samples=chosen.num_importance_samples)
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)
    if not 0 < chosen.minutes < math.inf:
        raise UsageError(f"--minutes is {chosen.minutes}: it must be positive and finite")
    if not 0 <= chosen.average_decay < 1:
        raise UsageError(f"--average-decay is {chosen.average_decay}: it must be in [0, 1)")


def make_model(size: dict[str, Any], mean: jax.Array) -> vae_jax.VAE:
    """q(z|x) and p(x, z) of as many layers as there are blocks."""
    shared = {key: size[key] for key in ("width", "blocks", "dtype")}
    bias = networks.constant_bias(networks.logit(mean))
    decoder = networks.TopDown((28, 28, 1), bias_init=bias, **shared)
    return vae_jax.make_top_down(networks.BottomUp(**shared), decoder)


def make_loss(model: vae_jax.VAE, warm_up: int) -> Any:
    """Minus the bound, with the KL's weight rising over the first steps, lest layers close."""
    beta = optax.linear_schedule(0.1, 1.0, warm_up)
    return vae_jax.make_loss(
        model,
        observe=vae_jax.binarize,
        penalty=lambda bound, z, posterior, prior, step: vae_jax.weighted_kl(bound.kl, beta(step)),
    )


def make_optimizer(rate: float, total: float) -> optax.GradientTransformation:
    """Adam, at a constant rate for half of the steps and then down along a half cosine.

    The number of steps is in the state: it is known once the first ones have been timed, and the
    program need not be compiled anew.
    """
    adam = optax.chain(optax.clip_by_global_norm(200.0), optax.scale_by_adam(b2=0.99))

    def init(params: Any) -> Any:
        return adam.init(params), jnp.float32(total), jnp.int32(0)

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        of_adam, total, count = state
        updates, of_adam = adam.update(gradient, of_adam, params)
        step = count.astype(jnp.float32)
        past = jnp.clip(2 * step / total - 1, 0.0, 1.0)
        now = rate * jnp.minimum((step + 1) / 500, 1.0) * (1 + jnp.cos(jnp.pi * past)) / 2
        return jax.tree.map(lambda u: -now * u, updates), (of_adam, total, count + 1)

    return optax.GradientTransformation(init, update)


def planned(state: Any, total: int) -> Any:
    """The optimizer's state with another number of steps to come down in."""
    of_adam, _, count = state
    return of_adam, jnp.float32(total), count


def train(key: jax.Array, model: vae_jax.VAE, images: jax.Array, chosen: Options) -> Any:
    """The averaged parameters after the time or the steps that were asked for, and the steps."""
    init_key, train_key = jax.random.split(key)
    batch_size = SIZES[chosen.size]["batch_size"]
    optimizer = make_optimizer(chosen.learning_rate, math.inf)
    params = jax.jit(model.init)(init_key, jnp.zeros((1, 28, 28, 1)))
    state = vae_jax.init_state(train_key, params, optimizer, average=True)
    steps_of = vae_jax.make_train_epoch(
        make_loss(model, chosen.warm_up), optimizer, average_decay=chosen.average_decay
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{size:,} parameters, {len(model.prior(params).mean)} layers of latents", flush=True)

    def order(epoch: int) -> Any:
        return vae_jax.shuffle(train_key, epoch, num_examples=len(images), batch_size=batch_size)

    per_epoch = len(images) // batch_size
    start, step, total = time.perf_counter(), 0, chosen.steps or 2**30
    compiled = start
    while step < total:
        epoch, place = divmod(step, per_epoch)
        # Parts short enough to be timed at the start, and to be told of later.
        part = {0: 1, 1: 25}.get(step, max(1, per_epoch // 2))
        stop = min(place + part, per_epoch, place + total - step)
        state, metrics = steps_of(state, images, order(epoch), place, stop)
        bound = jax.tree.map(lambda m: float(np.nanmean(m)), metrics.aux)
        now, step = time.perf_counter(), step + stop - place
        if step == 1:
            compiled = now
            continue
        each = (now - compiled) / (step - 1)
        if chosen.steps is None and 2 * step < total:  # the rate is constant until then
            total = step + max(1, int((60 * chosen.minutes - (now - start)) / each))
            state = state._replace(opt_state=planned(state.opt_state, total))
        print(
            f"{(now - start) / 60:6.2f} min, step {step} of {total}, epoch {step / per_epoch:.2f}, "
            f"{each * 1e3:.1f} ms a step: bound {bound.value:.2f}, KL {bound.kl:.2f}",
            flush=True,
        )
    return state.average, step


@partial(jax.jit, static_argnums=(0, 1, 2))
def estimate(
    model: vae_jax.VAE, num_samples: int, chunk_size: int, params: Any, key: jax.Array, x: jax.Array
) -> Any:
    """log p(x) of a batch, its bound, and the KL and the active units of each layer."""
    bound_key, weight_key = jax.random.split(key)
    of = model.encode(params, x), model.prior(params), partial(model.decode, params)
    drawn = vae_jax.draw(bound_key, *of)
    likelihood = vae_jax.log_likelihood(
        weight_key, x, *of, num_samples=num_samples, chunk_size=chunk_size
    )
    return (
        likelihood,
        vae_jax.elbo(x, *drawn).value,
        vae_jax.kl_per_layer(drawn.posterior, drawn.prior),
        vae_jax.active_units_per_layer(drawn.posterior, drawn.prior),
    )


def measure(key: jax.Array, model: vae_jax.VAE, params: Any, x: jax.Array, num_samples: int) -> Any:
    """Negative log p(x), minus the ELBO, and how each layer is used, told of as they come."""
    rows, chunk = (250, 20) if jax.default_backend() != "cpu" else (20, 10)
    rows, chunk = min(rows, len(x)), math.gcd(chunk, num_samples)
    values, errors, bounds, kls, units = [], [], [], [], []
    begun = told = time.perf_counter()
    for i, start in enumerate(range(0, len(x) - rows + 1, rows)):
        part = x[start : start + rows]
        found = estimate(model, num_samples, chunk, params, jax.random.fold_in(key, i), part)
        likelihood, bound, kl, active = jax.device_get(found)
        values.append(likelihood.value)
        errors.append(likelihood.standard_error)
        bounds.append(bound)
        kls.append(kl.mean(axis=0))
        units.append([of_layer.sum() for of_layer in active])
        if time.perf_counter() - told > 5 or start + 2 * rows > len(x):
            told, value = time.perf_counter(), np.concatenate(values)
            print(
                f"{len(value)} images, {num_samples} draws, {told - begun:.0f} s: -log p(x) "
                f"{-value.mean():.3f} +- {batched.standard_error(value):.2f}, -ELBO "
                f"{-np.mean(bounds):.3f}",
                flush=True,
            )
    value, error, kl = np.concatenate(values), np.concatenate(errors), np.mean(kls, axis=0)
    counts, sizes = np.mean(units, axis=0), [of_layer.size for of_layer in active]
    for i, (nats, count, size) in enumerate(zip(kl, counts, sizes, strict=True), start=1):
        collapsed = ": COLLAPSED, it carries noise alone" if nats < 0.01 else ""
        print(f"layer {i:2}: KL {nats:6.3f} nats, {count:.0f} of {size} units active{collapsed}")
    return {
        "num_test": len(value),
        "num_importance_samples": num_samples,
        "negative_log_likelihood": float(-value.mean()),
        "standard_error_of_draws": float(np.sqrt(np.square(error).sum()) / len(value)),
        "standard_error_over_images": batched.standard_error(value),
        "negative_elbo": float(-np.mean(bounds)),
        "kl_per_layer": kl.round(4).tolist(),
        "active_units": [round(count) for count in counts.tolist()],
        "collapsed_layers": [i for i, nats in enumerate(kl.tolist(), start=1) if nats < 0.01],
    }


def read(folder: Path, part: str) -> np.ndarray:
    """Images [N, 28, 28, 1] of an original file; its header is 16 bytes.

    Raises:
      DataError: it is not there, or is none.
    """
    path = folder / f"{part}-images-idx3-ubyte.gz"
    try:
        content = gzip.decompress(path.read_bytes())
        return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path} ({reason}): name MNIST's folder") from None


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog="python -m experiments.papers.child2021")
    check(chosen)
    table.begin(chosen)
    images, test = jnp.asarray(read(chosen.manual_dir, "train")), read(chosen.manual_dir, "t10k")
    output = table.open_folder(chosen, "child2021")
    results = table.Table(output, chosen, paper="child2021", protocol=PROTOCOL, dataset="mnist")
    key, test_key, train_key = jax.random.split(jax.random.key(chosen.seed), 3)
    x = jax.jit(vae_jax.binarize)(test_key, jnp.asarray(test))[: chosen.num_test]
    mean = jnp.asarray(images.mean(axis=0) / 255, jnp.float32)
    model = make_model(SIZES[chosen.size], mean)
    start, cpu = time.perf_counter(), time.process_time()
    params, steps = train(train_key, model, images, chosen)
    trained = time.perf_counter()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    np.savez(
        output / "params.npz",
        **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves},
    )
    measured = measure(test_key, model, params, x, chosen.num_importance_samples)
    epochs = steps * SIZES[chosen.size]["batch_size"] / len(images)
    row = {
        "cell": f"{chosen.size}, {len(measured['kl_per_layer'])} layers",
        "published": None,
        **measured,
        "deviation_over_seeds": None,
        "values": [measured["negative_log_likelihood"]],
        "measured": [measured],
        "training": [{"steps": steps, "epochs": epochs}],
        "training_minutes": (trained - start) / 60,
        "measuring_minutes": (time.perf_counter() - trained) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
    }
    drawn = vae_jax.generate(key, model, params, 12).mean
    pictures = {"test images": x[:12], chosen.size: drawn[: len(x)]}
    figures.rows_of(pictures).save(output / "samples.png")
    results.add(row, f"-log p(x) {row['negative_log_likelihood']:.3f} nats")
    results.end()


if __name__ == "__main__":
    command.run(main)
