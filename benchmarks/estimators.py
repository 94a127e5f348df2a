"""What a training step costs under each bound and each estimator of its gradient.

    python -m benchmarks.estimators [--rounds N] [--only "NAME;..."] [--draws K,...] [--json FILE]

The 784-400-20 network of `benchmarks.throughput` at batch 128. All of one number of draws take
turns in each round, beside the ELBO of as many draws.
"""

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vae_jax
from benchmarks import growth, limits, machine
from benchmarks.workloads import load_images
from experiments.gradients import ESTIMATORS, of_values

BATCH = 128
BASELINE = "ELBO, analytic KL"


def grouped(num_draws: int) -> int:
    """How many groups MIWAE and PIWAE make of the draws: of five where there are as many."""
    return max(1, num_draws // 5)


def bounds(num_draws: int) -> dict[str, Callable[..., jax.Array]]:
    """Of (x, z, posterior, prior, decode), those that the draws suffice for."""
    found = {name: e.bound for name, e in ESTIMATORS.items() if num_draws >= e.least_draws}
    return found | {
        "MIWAE": of_values(vae_jax.miwae, num_groups=grouped(num_draws)),
        "CIWAE": of_values(vae_jax.ciwae, beta=0.05),
        "Renyi": of_values(vae_jax.renyi, alpha=0.5),
        "TVO": of_values(vae_jax.tvo, betas=(0.0, 0.1, 0.3, 0.6)),
    }


def loss_of(bound: Callable[..., jax.Array], num_draws: int, model: vae_jax.VAE) -> Any:
    def loss(params: Any, key: jax.Array, batch: vae_jax.Batch) -> tuple[jax.Array, None]:
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, batch.image)
        posterior = model.encode(params, x)
        z = vae_jax.sample(draw_key, posterior, num_draws)
        decode = functools.partial(model.decode, params)
        return -bound(x, z, posterior, model.prior(params), decode).mean(), None

    return loss


def loss_of_piwae(num_draws: int, model: vae_jax.VAE) -> Any:
    """Both objectives in one loss: what is not a network's own is held constant."""

    def loss(params: Any, key: jax.Array, batch: vae_jax.Batch) -> tuple[jax.Array, None]:
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, batch.image)
        posterior = model.encode(params, x)
        z = vae_jax.sample(draw_key, posterior, num_draws)
        held = jax.lax.stop_gradient((z, posterior, params))
        prior, groups = model.prior(params), grouped(num_draws)
        generative = vae_jax.iwae(x, *held[:2], prior, model.decode(params, held[0]))
        likelihood = model.decode(held[2], z)
        inference = vae_jax.miwae(x, z, posterior, prior, likelihood, num_groups=groups)
        return -(generative.value + inference.value).mean(), None

    return loss


NAMES = [*ESTIMATORS, *(n for n in bounds(1) if n not in ESTIMATORS), "PIWAE"]


def benchmark(rounds: int, draws: list[int], only: list[str] | None) -> dict[str, Any]:
    rows = []
    for num_draws in draws:
        images, source = load_images(BATCH * max(4, 40 // num_draws))
        losses = {n: functools.partial(loss_of, b, num_draws) for n, b in bounds(num_draws).items()}
        losses["PIWAE"] = functools.partial(loss_of_piwae, num_draws)
        made = [
            growth.prepare(name, num_draws, loss, images)
            for name, loss in losses.items()
            if only is None or name in (*only, BASELINE)
        ]
        times = np.array([[limits.timed(one.epoch) for one in made] for _ in range(rounds)])
        baseline = times[:, [one.sweep for one in made].index(BASELINE)]
        for setting, column in zip(made, times.T, strict=True):
            steps = setting.examples // BATCH
            rows.append(
                {
                    "name": setting.sweep,
                    "draws": num_draws,
                    "seconds_per_step": float(np.median(column)) / steps,
                    "seconds_per_step_least": float(column.min()) / steps,
                    "seconds_per_step_most": float(column.max()) / steps,
                    "time_over_elbo": float(np.median(column / baseline)),
                    "compile_seconds": setting.compile_seconds,
                    "temporary_bytes": setting.temporary_bytes,
                }
            )
            print_row(rows[-1])
    return {
        "benchmark": "estimators",
        **machine.describe(),
        "data": source,
        "batch_size": BATCH,
        "rounds": rounds,
        "baseline": BASELINE,
        "rows": rows,
    }


def print_row(row: dict[str, Any]) -> None:
    print(
        f"{row['name']:20} K = {row['draws']:2d} {1e3 * row['seconds_per_step']:9.2f} ms a step "
        f"{row['time_over_elbo']:6.2f} of the ELBO's {row['compile_seconds']:6.1f} s to compile "
        f"{row['temporary_bytes'] / 1e6:8.1f} MB",
        flush=True,
    )


def _names(text: str) -> list[str]:
    names = text.split(";")
    if unknown := set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))} not known: choose from {'; '.join(NAMES)}"
        )
    return names


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.estimators", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--rounds", type=machine.positive, default=7, help="timed passes of each; 7"
    )
    parser.add_argument(
        "--draws",
        type=machine.numbers,
        default=[1, 5, 50],
        help="1,5,50 when not given",
    )
    parser.add_argument(
        "--only", type=_names, help=f"beside the ELBO, with ; between them: {'; '.join(NAMES)}"
    )
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go; else nowhere"
    )
    options = parser.parse_args()
    offered = {"PIWAE", *(name for draws in options.draws for name in bounds(draws))}
    if too_few := [name for name in options.only or () if name not in offered]:
        parser.error(f"--only has {'; '.join(too_few)}, for which --draws has too few: give more")
    result = benchmark(options.rounds, options.draws, options.only)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    machine.run(main)
