"""Speed of importance-sampled log p(x), 10000 images by 5000 draws, beside two other schemes.

    python -m benchmarks.evaluation [--images N] [--draws S] [--json FILE]

The network is Burda et al. 2016's with one stochastic layer, 784-200-200-50, untrained: what a draw
costs does not depend on its weights. The other schemes are timed on the first few images.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from benchmarks import machine
from benchmarks.workloads import Workload, load_images
from vae_jax import networks
from vae_jax.evaluation import batched

LATENT_DIM, HIDDEN = 50, (200, 200)
BATCH = 500
MEMORY_DRAWS = (5, 50, 500, 5000)


def make_model() -> tuple[vae_jax.VAE, Any]:
    model = vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * LATENT_DIM,), HIDDEN, activation=jnp.tanh)),
        networks.BernoulliDecoder(networks.MLP((784,), HIDDEN, activation=jnp.tanh)),
        LATENT_DIM,
    )
    return model, model.init(jax.random.key(0), jnp.zeros((1, 784)))


def vae_jax_batches(draws: int) -> Callable[[np.ndarray], float]:
    """`vae_jax.evaluate`, as a run and `experiments.evaluate` measure by it."""
    model, params = make_model()
    key = jax.random.key(0)
    return lambda images: vae_jax.evaluate(key, model, params, images, num_samples=draws).mean


def one_image_at_a_time(draws: int) -> Callable[[np.ndarray], float]:
    """The textbook loop: all draws of an image in one compiled call, its log-mean-exp, the next."""
    model, params = make_model()

    @jax.jit
    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        posterior = model.encode(params, x)
        z = vae_jax.sample(key, posterior, draws)
        return vae_jax.iwae(x, z, posterior, model.prior(params), model.decode(params, z)).value

    def run(images: np.ndarray) -> float:
        return float(
            np.mean([one(jax.random.key(i), jnp.asarray(x)) for i, x in enumerate(images)])
        )

    return run


def pythae_nll(draws: int) -> Callable[[np.ndarray], float]:
    """pythae's own `VAE.get_nll`: image by image, which is encoded again for each of its draws."""
    import torch

    from benchmarks.rivals_torch import make_pythae

    model = make_pythae(Workload("", LATENT_DIM, HIDDEN)).eval()

    @torch.no_grad()
    def run(images: np.ndarray) -> float:
        return float(model.get_nll(torch.from_numpy(images), n_samples=draws, batch_size=100))

    return run


# (name, scheme, module needed, share of the images that it is timed on)
SCHEMES = (
    ("vae_jax", vae_jax_batches, "jax", 1.0),
    ("one-image-at-a-time", one_image_at_a_time, "jax", 1 / 100),
    ("pythae", pythae_nll, "pythae", 1 / 1000),
)


def temporary_bytes(draws: int) -> int:
    """What the compiled program of a batch needs beside its arguments and results."""
    model, params = make_model()
    x = jnp.zeros((BATCH, 784))
    lowered = batched._estimate.lower(model, draws, 1, params, jax.random.key(0), x, None)
    compiled = lowered.compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def benchmark(num_images: int, draws: int) -> dict[str, Any]:
    raw, source = load_images(num_images)
    images = (raw > 127).astype(np.float32)
    result: dict[str, Any] = {
        "benchmark": "evaluation",
        **machine.describe(),
        "data": f"{source}, {num_images} images",
        "num_images": num_images,
        "draws": draws,
        "missing": [],
        "rows": [],
    }
    print(f"{'':22}{'images':>8}{'seconds':>10}{'for all':>12}{'draws/s':>12}{'mean, nats':>12}")
    for name, make, needs, share in SCHEMES:
        if not importlib.util.find_spec(needs):
            result["missing"].append(needs)
            continue
        part = images[: max(1, int(len(images) * share))]
        run = make(draws)
        run(part[:BATCH] if share == 1 else part[:1])  # compiles
        start = time.perf_counter()
        value = run(part)
        seconds = time.perf_counter() - start
        row = {
            "name": name,
            "images_timed": len(part),
            "seconds": seconds,
            "seconds_for_all": seconds * num_images / len(part),
            "draws_per_second": len(part) * draws / seconds,
            "log_likelihood": value,
        }
        result["rows"].append(row)
        print(
            f"{name:22}{len(part):8}{seconds:10.2f}{row['seconds_for_all']:10.0f} s"
            f"{row['draws_per_second']:12.3g}{value:12.2f}",
            flush=True,
        )
    result["temporary_bytes"] = {str(s): temporary_bytes(s) for s in MEMORY_DRAWS}
    print("temporary memory of a batch of 500, MB: ", end="")
    print(", ".join(f"{int(b) / 1e6:.1f} at S={s}" for s, b in result["temporary_bytes"].items()))
    if result["missing"]:
        print(f"not installed, so not timed: {', '.join(result['missing'])}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--images", type=machine.positive, default=10_000, help="10000 when not given"
    )
    parser.add_argument("--draws", type=machine.positive, default=5000, help="of each image; 5000")
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go; else nowhere"
    )
    options = parser.parse_args()
    if options.draws < 2:
        parser.error(f"--draws is {options.draws}: a standard error takes 2 at least")
    result = benchmark(options.images, options.draws)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    machine.run(main)
