"""What bfloat16 products do to the results of `experiments.mnist`, and to its time: a few seeds.

    python -m benchmarks.precision [--seeds 0,1,2] [--json FILE] [-- OPTION ...]

Options after -- go to `experiments.mnist`, such as --data-dir=DIR.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.workloads import PRECISIONS

FIELDS = ("test_elbo", "test_log_likelihood", "train_seconds", "epochs", "num_importance_samples")


def run(precision: str, seed: int, arguments: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.mnist", f"--precision={precision}"]
        command += [f"--seed={seed}", f"--output={folder}/run", *arguments]
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode:
            raise SystemExit(process.stderr)
        results = json.loads(Path(folder, "run", "results.json").read_text())
    return {"precision": precision, "seed": seed, **{field: results[field] for field in FIELDS}}


def benchmark(seeds: list[int], arguments: list[str]) -> dict[str, Any]:
    rows = []
    for seed in seeds:
        for precision in PRECISIONS:
            rows.append(run(precision, seed, arguments))
            print(
                "{precision} seed {seed}: test ELBO {test_elbo:.3f}, log p(x) "
                "{test_log_likelihood:.3f}, trained in {train_seconds:.1f} s".format(**rows[-1]),
                flush=True,
            )
    exact, low = (
        np.array([row["test_elbo"] for row in rows if row["precision"] == precision])
        for precision in PRECISIONS
    )
    return {
        "benchmark": "precision",
        **machine.describe(),
        "rows": rows,
        "elbo_differences": (low - exact).tolist(),
    }


def seeds(text: str) -> list[int]:
    """For argparse."""
    if not all(seed.isdecimal() for seed in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text}: give whole numbers, such as 0,1,2")
    return [int(seed) for seed in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--seeds", type=seeds, default=[0, 1, 2], help="of the runs, in turn; 0,1,2"
    )
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go; else nowhere"
    )
    parser.add_argument("arguments", nargs="*", help="for experiments.mnist, after --")
    options = parser.parse_args()
    result = benchmark(options.seeds, options.arguments)
    differences = ", ".join(f"{d:+.3f}" for d in result["elbo_differences"])
    print(f"bfloat16 less float32, test ELBO in nats: {differences}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    machine.run(main)
