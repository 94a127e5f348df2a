"""Seconds from the start of a process to an import, to help, to a first training step; its memory.

    python -m benchmarks.startup [--rounds N] [--dataset NAME] [--data-dir DIR] [--json FILE]

Cold has an empty compilation cache; warm has what the run before has put there. All take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine

# `import vae_jax` loads nothing of what it names until it is used; the star is all of it.
WITHOUT_STEP = {
    "import jax": ("-c", "import jax"),
    "import vae_jax": ("-c", "import vae_jax"),
    "from vae_jax import *": ("-c", "from vae_jax import *"),
    "python -m experiments.mnist --help": ("-m", "experiments.mnist", "--help"),
}

# The run's own program, but after its first call, of one step, it says when that was and ends.
_FIRST_STEP = """
import json, os, resource, sys, time
import jax
import vae_jax
from vae_jax.run import main

make = vae_jax.make_train_epoch


class FirstStep:
    def __init__(self, epoch):
        self.epoch = epoch

    def lower(self, *arguments):
        self.epoch = self.epoch.lower(*arguments)
        return self

    def compile(self):
        self.epoch = self.epoch.compile()
        return self

    def __call__(self, *arguments):
        jax.block_until_ready(self.epoch(*arguments))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"end": time.time(), "peak_kilobytes": memory}), flush=True)
        os._exit(0)


vae_jax.make_train_epoch = lambda *args, **kwargs: FirstStep(make(*args, **kwargs))
main.run("mnist", "python -m experiments.mnist")
"""


def first_step(arguments: list[str], cache: str) -> dict[str, float]:
    """Seconds from the start of a process to the end of its first step, and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        process = subprocess.run(
            [sys.executable, "-c", _FIRST_STEP, *arguments, f"--output={folder}/run"],
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
            capture_output=True,
            text=True,
        )
    if process.returncode:
        raise SystemExit(process.stderr)
    said = json.loads(process.stdout.splitlines()[-1])
    return {"seconds": said["end"] - start, "peak_bytes": 1024 * said["peak_kilobytes"]}


def whole(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds from the start to the end of a process of Python; its modules are compiled once."""
    start = time.time()
    process = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise SystemExit(process.stderr)
    return {"seconds": time.time() - start}


def benchmark(rounds: int, dataset: str, data_dir: str | None) -> dict[str, Any]:
    arguments = [f"--dataset={dataset}"] + ([f"--data-dir={data_dir}"] if data_dir else [])
    measured: dict[str, list[dict[str, float]]]
    measured = {name: [] for name in (*WITHOUT_STEP, "cold", "warm")}
    for _ in range(rounds):
        for name, command in WITHOUT_STEP.items():
            measured[name].append(whole(command))
        with tempfile.TemporaryDirectory() as cache:
            measured["cold"].append(first_step(arguments, cache))
            measured["warm"].append(first_step(arguments, cache))
    rows = [
        {
            "name": name,
            **{field: float(np.median([m[field] for m in of_name])) for field in of_name[0]},
            "seconds_least": min(m["seconds"] for m in of_name),
            "seconds_most": max(m["seconds"] for m in of_name),
        }
        for name, of_name in measured.items()
    ]
    return {
        "benchmark": "startup",
        **machine.describe(),
        "data": dataset,
        "rounds": rounds,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--rounds", type=machine.positive, default=5, help="5 when not given")
    parser.add_argument(
        "--dataset", default="mnist", help="that experiments.mnist trains on; mnist"
    )
    parser.add_argument("--data-dir", help="folder in which it is prepared")
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go; else nowhere"
    )
    options = parser.parse_args()
    result = benchmark(options.rounds, options.dataset, options.data_dir)
    for row in result["rows"]:
        memory = f", peak memory {row['peak_bytes'] / 1e6:.0f} MB" if "peak_bytes" in row else ""
        print(
            f"{row['name']}: {row['seconds']:.2f} s ({row['seconds_least']:.2f} to "
            f"{row['seconds_most']:.2f}){memory}"
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    machine.run(main)
