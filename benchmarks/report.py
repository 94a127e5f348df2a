"""Writes benchmarks/README.md and its charts from the JSON files in benchmarks/results.

python -m benchmarks.report
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from benchmarks import growth as grown
from benchmarks import machine, quality
from benchmarks import scaling as scaled
from benchmarks.workloads import WORKLOADS

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
Result = dict[str, Any]

_HEAD = """# Benchmarks

Made by `python -m benchmarks.report` from the JSON files in `results/`: edit neither. Each section
names the command that measured it; give it another `--json FILE` to keep your own. Times are
medians of passes that take turns within one run, compile time apart.
"""


_THROUGHPUT = ["", "", "s / epoch", "least to most", "examples / s", "of rate", "over floor"]
_THROUGHPUT += ["time over vae_jax float32", "compile, s"]


def page(results: dict[str, Result]) -> str:
    """The text of README.md from {file name without its ending: result}."""
    parts = [_HEAD]
    for name, result in sorted(results.items(), key=lambda item: _ORDER.index(_kind(item))):
        parts.append(_SECTIONS[_kind((name, result))](name, result))
    return "\n".join(parts)


def _kind(item: tuple[str, Result]) -> str:
    return str(item[1]["benchmark"])


def _where(name: str, result: Result) -> str:
    versions = ", ".join(
        f"{package} {version}"
        for package, version in result["versions"].items()
        if version != "not installed"
    )
    return f"{result['device']}, {result['cores']} cores; {versions}. `results/{name}.json`.\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def throughput(name: str, result: Result) -> str:
    parts = [
        f"## Training: `python -m benchmarks.throughput` ({result['platform']}, jax "
        f"{result['versions']['jax']})\n",
        _where(name, result),
        f"{result['data']}; {result['rounds']} rounds. Memory bandwidth "
        f"{result['bandwidth_bytes_per_second'] / 1e9:.0f} GB/s. *Of rate* is the model's FLOPs "
        "over the rate at which this machine forms the same matrix products and nothing else, in "
        "the same rounds; *over floor* the time over max(FLOPs / rate, bytes / bandwidth).\n",
    ]
    if any(WORKLOADS[limit["workload"]].blocks for limit in result["limits"]):
        parts.append(
            "Of residual convolutions that rate is of our products, whose factors, pixels beside "
            "their neighbours, come from memory: a convolution that writes none can pass 100 %.\n"
        )
    if result["missing"]:
        parts.append(f"Not installed, so not timed: {', '.join(result['missing'])}.\n")
    parts += _timed(result)
    parts.append(f"![Seconds per epoch of each contestant](results/{name}.png)\n")
    return "\n".join(parts)


def _timed(result: Result) -> list[str]:
    """A line and a table for each workload and batch size of `throughput`."""
    parts = []
    for limit in result["limits"]:
        rows = [
            row
            for row in result["rows"]
            if (row["workload"], row["batch_size"]) == (limit["workload"], limit["batch_size"])
        ]
        ours = next(
            (r for r in rows if (r["name"], r["precision"]) == ("vae_jax", "float32")), rows[0]
        )
        rates = ", ".join(
            f"{precision} {limit[precision]['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s"
            for precision in ("float32", "bfloat16")
        )
        parts.append(
            f"**{WORKLOADS[limit['workload']].description}, batch {limit['batch_size']}**; "
            f"products: {rates}\n"
        )
        parts.append(
            _table(
                _THROUGHPUT,
                [
                    [
                        row["name"],
                        row["precision"],
                        f"{row['seconds_per_epoch']:.2f}",
                        f"{row['seconds_per_epoch_least']:.2f} to "
                        f"{row['seconds_per_epoch_most']:.2f}",
                        f"{row['examples_per_second']:,.0f}",
                        f"{row['fraction_of_matmul_rate']:.0%}",
                        f"{row['time_over_floor']:.2f}",
                        f"{row['seconds_per_epoch'] / ours['seconds_per_epoch']:.2f}",
                        f"{row['compile_seconds']:.1f}",
                    ]
                    for row in sorted(rows, key=lambda row: row["seconds_per_epoch"])
                ],
            )
        )
    return parts


def quality_rows(of_data: Result) -> tuple[list[str], list[list[str]]]:
    """The table of one data set: head, and rows by what was reached at the end."""
    thresholds = quality.THRESHOLDS[of_data["dataset"]]

    def when(row: Result, threshold: float) -> str:
        at = quality.reached(row["measured"], threshold)
        return "" if at is None else f"{'<' if at.before else ''}{at.seconds:.1f}"

    head = ["", "settings", "network, rate", "batch", "binarized", "s / pass", "compile, s"]
    head += [f"s to {threshold:g}" for threshold in thresholds]
    head += ["last log p(x), nats", "after, s", "passes"]
    order = sorted(
        of_data["rows"], key=lambda row: -(row["measured"][-1]["log_likelihood"] or -1e9)
    )
    rows = []
    for row in order:
        last, compiling = row["measured"][-1], row["setup_and_compile_seconds"]
        value = last["log_likelihood"]
        end = "diverged"
        if value is not None:
            end = f"{value:.2f} +- {last['standard_error_of_draws']:.2f}"
        rows.append(
            [
                row["name"],
                row["settings"],
                row["description"],
                str(row["batch_size"]),
                row["binarize"],
                f"{np.median(row['pass_seconds'][1:] or row['pass_seconds']):.2f}",
                "" if compiling is None else f"{compiling:.1f}",
                *(when(row, threshold) for threshold in thresholds),
                end,
                f"{last['seconds']:.0f}",
                f"{last['passes']} of {row['passes_of_recipe']}",
            ]
        )
    return head, rows


def quality_section(name: str, result: Result) -> str:
    parts = [
        "## Quality per second of training: `python -m benchmarks.quality`\n",
        _where(name, result),
        f"Test log p(x) by importance sampling of {result['draws']} draws, of images binarized "
        "once, against seconds of training alone. *own* are the settings that a library "
        "publishes, *ours* the network, batch, rate, passes and binarization of our recipe by "
        "--optimizer=adam, as far as it allows, and of vae_jax the default: pythae's rate falls "
        "pass by pass without a warm-up, PyTorch's loop is there the tuned one of the section on "
        "training. All start from their library's first weights, vae_jax with the output's bias at "
        "the pixels' mean. "
        f"Each trained for {result['budget_seconds']} s, two passes at least and no more than its "
        "recipe has, whoever had trained least next; one evaluator measured all. The first pass "
        "counts as the median of the others, the rest of it as compilation. Between measurements "
        "the time is read off a line in log seconds; < is before the first. A cell is empty where "
        f"it was not reached. One seed, {result['seed']}.\n",
    ]
    if result["missing"]:
        parts.append(f"Not installed, so not measured: {', '.join(result['missing'])}.\n")
    for of_data in result["datasets"]:
        errors = [row["measured"][-1]["standard_error_over_images"] or 0 for row in of_data["rows"]]
        parts += [
            f"**{of_data['dataset']}**, {of_data['num_train']:,} training images, "
            f"{of_data['num_images']:,} test images, the same for all; of other images all values "
            f"would move together, by a standard error of {np.median(errors):.1f} nats.\n",
            _table(*quality_rows(of_data)),
        ]
    parts.append(f"![log p(x) against seconds of training](results/{name}.png)\n")
    return "\n".join(parts)


def evaluation(name: str, result: Result) -> str:
    memory = ", ".join(
        f"{count / 1e6:.1f} MB at {draws}" for draws, count in result["temporary_bytes"].items()
    )
    return "\n".join(
        [
            "## log p(x) by importance sampling: `python -m benchmarks.evaluation`\n",
            _where(name, result),
            f"784-200-200-50, {result['num_images']:,} images by {result['draws']:,} draws; the "
            "slower schemes are timed on fewer images.\n",
            _table(
                ["", "images timed", "seconds", "for all images, s", "draws / s"],
                [
                    [
                        row["name"],
                        f"{row['images_timed']:,}",
                        f"{row['seconds']:.2f}",
                        f"{row['seconds_for_all']:.0f}",
                        f"{row['draws_per_second']:,.0f}",
                    ]
                    for row in result["rows"]
                ],
            ),
            f"Temporary memory of the compiled batch of 500 images, by draws: {memory}.\n",
        ]
    )


def growth(name: str, result: Result) -> str:
    sweeps: dict[str, list[Result]] = {}
    for row in result["rows"]:
        sweeps.setdefault(row["sweep"], []).append(row)
    parts = sweeps.pop("parts", [])
    return "\n".join(
        [
            "## What grows: `python -m benchmarks.growth`\n",
            _where(name, result),
            f"784-400-20, batch 128 unless said; {result['rounds']} rounds. Of seeds, models that "
            "train at once, a step is one model's and a pass that of all. *Over linear* is the "
            "cost (a step's, of data and seeds a pass's) over that of the sweep's first row times "
            "as much: 8 seeds cost at most 8 times one where it is at most 1.\n",
            _table(
                _GROWTH,
                [
                    [
                        f"{sweep} {row['value']}",
                        f"{1e3 * row['seconds_per_step']:.2f}",
                        f"{_grown(row, rows[0]) / (row['value'] / rows[0]['value']):.2f}",
                        f"{_step_flops(row) / row['seconds_per_step'] / 1e9:.0f}",
                        f"{row['examples_per_second']:,.0f}",
                        f"{row['seconds_per_pass']:.2f}",
                        f"{row['compile_seconds']:.1f}",
                        f"{row['temporary_bytes'] / 1e6:.1f}",
                    ]
                    for sweep, rows in sweeps.items()
                    for row in rows
                ],
            ),
            f"![Cost against {', '.join(sweeps)}](results/{name}.png)\n",
            "From the first row of a sweep to its last, times as much: what grows, the "
            "multiplications and additions of its products, the time; and why time is no line.\n",
            _table(
                ["", "grows", "FLOPs", "time", ""],
                [
                    [
                        sweep,
                        f"{rows[-1]['value'] / rows[0]['value']:.3g}",
                        f"{_flops(rows[-1]) / _flops(rows[0]):.3g}",
                        f"{_grown(rows[-1], rows[0]):.3g}",
                        _WHY[sweep],
                    ]
                    for sweep, rows in sweeps.items()
                ],
            ),
            "Where a step's time goes: what it costs with one part left out.\n",
            _table(
                ["left out", "ms / step"],
                [[str(row["value"]), f"{1e3 * row['seconds_per_step']:.2f}"] for row in parts]
                + [
                    [
                        "all but the matrix products",
                        f"{1e3 * result['products_seconds_per_step']:.2f}",
                    ]
                ],
            ),
        ]
    )


_GROWTH = ["", "ms / step", "over linear", "GFLOP/s", "examples / s", "s / pass"]
_GROWTH += ["compile, s", "temporary, MB"]
_OF_A_PASS = ("data", "seeds")  # else of a step


def _cost(row: Result) -> float:
    return float(row["seconds_per_pass" if row["sweep"] in _OF_A_PASS else "seconds_per_step"])


def _grown(row: Result, first: Result) -> float:
    return _cost(row) / _cost(first)


def _step_flops(row: Result) -> int:
    named = {"batch": "batch", "latent dimension": "latents", "draws": "draws", "pixels": "pixels"}
    sweep = row["sweep"]
    return grown.step_flops(**({named[sweep]: row["value"]} if sweep in named else {}))


def _flops(row: Result) -> int:
    """Of the products of what `_cost` is of."""
    return _step_flops(row) * (row["value"] if row["sweep"] in _OF_A_PASS else 1)


_WHY = {
    "batch": "a step updates all parameters and starts each operation once, however few examples "
    "share that; a large batch's arrays, rows of pixels, leave the caches",
    "latent dimension": "only the layers beside z grow: of few latents the others are nearly all",
    "draws": "a step encodes and binarizes once for all draws; the arrays of many leave the caches",
    "pixels": "the layers beside z do not grow; the others' weights, gradients and moments do, and "
    "once they leave the caches the update waits for memory",
    "data": "a line: a step does not know how many examples there are",
    "seeds": "a line or less: on a CPU each model's pass is a call of its own, as many at once as "
    "there are cores, which share one model's step less well; on an accelerator all are one call",
    "devices": "they share the cores, so nothing is won; each updates a copy of all parameters, "
    "multiplies fewer rows at a time, and waits for the others' gradients",
}


def estimators(name: str, result: Result) -> str:
    draws = list(dict.fromkeys(row["draws"] for row in result["rows"]))
    cells = {(row["name"], row["draws"]): row for row in result["rows"]}
    names = list(dict.fromkeys(row["name"] for row in result["rows"]))
    spread = max(r["seconds_per_step_most"] / r["seconds_per_step_least"] for r in result["rows"])
    columns = (
        ("seconds_per_step", lambda seconds: f"{1e3 * seconds:.2f}"),
        ("time_over_elbo", lambda ratio: f"{ratio:.2f}"),
    )
    return "\n".join(
        [
            "## Bounds and gradients: `python -m benchmarks.estimators`\n",
            _where(name, result),
            f"784-400-20, batch {result['batch_size']}, {result['rounds']} rounds: a step's time "
            f"beside that of *{result['baseline']}* with as many draws, the median of the rounds' "
            "ratios. MIWAE and PIWAE take groups of five draws. The rounds of one of them differed "
            f"by a factor of up to {spread:.1f}.\n",
            _table(
                ["", *(f"{what}, K = {k}" for k in draws for what in ("ms / step", "over ELBO"))],
                [
                    [
                        name,
                        *(
                            text(cells[name, k][field]) if (name, k) in cells else ""
                            for k in draws
                            for field, text in columns
                        ),
                    ]
                    for name in names
                ],
            ),
        ]
    )


def startup(name: str, result: Result) -> str:
    return "\n".join(
        [
            "## Start of a process: `python -m benchmarks.startup`\n",
            _where(name, result),
            "*First step* is of `experiments.mnist`. `import vae_jax` loads what it names when it "
            "is used, so the star has what a program waits for that uses all of it, JAX, flax and "
            f"optax with it. {result['rounds']} rounds.\n",
            _table(
                ["", "seconds", "least to most", "peak memory, MB"],
                [
                    [
                        _STARTED.get(row["name"], f"`{row['name']}`"),
                        f"{row['seconds']:.2f}",
                        f"{row['seconds_least']:.2f} to {row['seconds_most']:.2f}",
                        f"{row['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in row else "",
                    ]
                    for row in result["rows"]
                ],
            ),
        ]
    )


_STARTED = {
    "cold": "first step, compilation cache empty",
    "warm": "first step, compilation cache filled",
}


def precision(name: str, result: Result) -> str:
    return "\n".join(
        [
            "## bfloat16 products: `python -m benchmarks.precision`\n",
            _where(name, result),
            _table(
                ["", "seed", "epochs", "test ELBO, nats", "test log p(x), nats", "training, s"],
                [
                    [
                        row["precision"],
                        str(row["seed"]),
                        str(row["epochs"]),
                        f"{row['test_elbo']:.2f}",
                        f"{row['test_log_likelihood']:.2f}",
                        f"{row['train_seconds']:.0f}",
                    ]
                    for row in result["rows"]
                ],
            ),
            "bfloat16 less float32, test ELBO in nats: "
            + ", ".join(f"{d:+.3f}" for d in result["elbo_differences"])
            + ".\n",
        ]
    )


def scaling(name: str, result: Result) -> str:
    hosts = result["paper"][0]["num_hosts"]
    descriptions = {row["network"]: row["description"] for row in result["rows"]}
    return "\n".join(
        [
            "## Many hosts, on paper: `python -m benchmarks.scaling`\n",
            _where(name, result),
            "A step of N hosts takes F B / (N R) + 2 (N - 1) / N P / W + 2 (N - 1) L seconds: F "
            "FLOPs an example (products of loss and gradient, counted from the jaxpr), batch B, "
            "R FLOP/s a host, and the all-reduce in a ring of P bytes of gradients over links of W "
            "bytes/s one way and latency L. Nothing is hidden behind anything else: the worse "
            "case.\n",
            _table(
                [
                    "",
                    "MFLOP / example",
                    "gradients, MB",
                    "update's reads and writes, MB",
                    "here, GFLOP/s",
                ],
                [
                    [
                        row["description"],
                        f"{row['flops_per_example'] / 1e6:.2f}",
                        f"{row['parameter_bytes'] / 1e6:.2f}",
                        f"{row['update_bytes'] / 1e6:.1f}",
                        f"{row['flops_per_second'] / 1e9:.0f}",
                    ]
                    for row in result["rows"]
                ],
            ),
            f"Least batch of each host at which N hosts stay {result['efficiency']:.0%} efficient. "
            "*This machine* works at the rate measured here, *accelerator* at "
            f"{result['accelerator_flops_per_second'] / 1e12:.0f} TFLOP/s; that and the links are "
            "assumed, not measured.\n",
            _table(
                ["", "host", "link", "latency, us", *(f"N = {n}" for n in hosts)],
                [
                    [
                        descriptions[row["network"]],
                        row["host"],
                        row["link"]["name"],
                        f"{1e6 * row['link']['latency']:.0f}",
                        *(f"{batch:,}" for batch in row["batch_per_host"]),
                    ]
                    for row in result["paper"]
                ],
            ),
            f"The model against virtual devices of this machine, batch {result['batch_size']}, the "
            f"least of {result['rounds']} processes. They share its cores, so the products take as "
            "long as on one; each device more updates its own copy of the parameters and takes "
            "part in the ring: a line in N, drawn through two of the measurements. The line meant "
            "at first was that through 1 and 2, and it misses; that through 2 and 4 was taken "
            "after the measurements were seen, on the guess that a program for one device, which "
            "has no ring, is another one: its one prediction, 8, is no blind test. A third model, "
            "bytes over the bandwidth of memory, was off by up to 118 % and is left out. Other "
            "work ran on the machine: processes of one setting differed by up to 40 %.\n",
            _table(
                ["", "devices", "ms / step", "from 1 and 2", "off by", "from 2 and 4", "off by"],
                [
                    [
                        row["description"],
                        str(of["num_devices"]),
                        f"{1e3 * of['seconds_per_step']:.2f}",
                        *(
                            text
                            for field in ("from_1_and_2", "from_2_and_4")
                            for text in (
                                f"{1e3 * of[field]:.2f}",
                                f"{of[field] / of['seconds_per_step'] - 1:+.0%}",
                            )
                        ),
                    ]
                    for row in result["rows"]
                    for of in row["devices"]
                ],
            ),
            f"![Predicted and measured steps, and efficiency on paper](results/{name}.png)\n",
        ]
    )


def accelerator(name: str, result: Result) -> str:
    parts = [
        f"## A {result['platform'].upper()}, in minutes: `python -m benchmarks.accelerator`\n",
        _where(name, result),
    ]
    for what, why in (result["not_run"] | result["failed"]).items():
        parts.append(f"Not measured in full: {what} ({why}).\n")
    if "roofline" in result:
        of = result["roofline"]
        rates = [f"{n} {r / 1e12:.3g} TFLOP/s" for n, r in of["flops_per_second"].items()]
        if moved := of.get("bandwidth_bytes_per_second"):
            rates.append(f"bandwidth {moved / 1e9:,.0f} GB/s")
        parts.append(
            f"Products of {of['side']} x {of['side']} matrices: {', '.join(rates)}. By default "
            f"they keep {of['mantissa_bits']} bits of a factor's mantissa: float32 has 23, TF32 "
            "10, bfloat16 7.\n"
        )
    for part in ("training large-mlp", "training mlp", "replicas"):
        if part in result:
            parts += _timed(result[part])
    if "replicas" in result:
        ratios = [
            f"{row['name']} {row['precision']} {row['time_over_one']:.2f}"
            for row in result["replicas"]["rows"]
        ]
        parts.append(f"A pass of all models over a pass of one: {', '.join(ratios)}.\n")
    if "data" in result:
        of = result["data"]
        parts += [
            f"784-512-512-128 by `fit`, {of['images']:,} images, batch {of['batch_size']}:\n",
            _table(
                ["images on the", "s / pass"],
                [[row["where"], f"{row['seconds_per_pass']:.3f}"] for row in of["rows"]],
            ),
        ]
    if "evaluation" in result:
        parts.append(
            "log p(x) of {images:,} images by {draws:,} draws, 784-200-200-50: {seconds:.1f} s.\n"
            "".format(**result["evaluation"])
        )
    if "command" in result:
        of = result["command"]
        parts.append(
            "`python -m experiments.mnist`, {dataset}, passes: {epochs}, nothing compiled before: "
            "{seconds:.1f} s from start to pictures, of which compilation of the training "
            "{compile_seconds:.1f} and training {train_seconds:.1f}.\n".format(**of)
        )
        rows = [
            [where, *(f"{of[key][i]:.4f}" for i in (0, 1))]
            for where, key in ((of["device"], "accelerator"), ("CPU", "cpu"))
            if key in of
        ]
        if "cpu" in of:
            rows.append(
                ["difference", f"{of['difference']:+.4f}", f"{of['error_of_difference']:.4f}"]
            )
        parts += [
            f"log p(x) of its {of['num_test']:,} test images by {of['num_importance_samples']} "
            "draws, in nats, the CPU's from the saved run and by other draws:\n",
            _table(["", "test log p(x)", "standard error of the draws"], rows),
        ]
    return "\n".join(parts)


_SECTIONS: dict[str, Callable[[str, Result], str]] = {
    "throughput": throughput,
    "quality": quality_section,
    "growth": growth,
    "estimators": estimators,
    "evaluation": evaluation,
    "startup": startup,
    "precision": precision,
    "scaling": scaling,
    "accelerator": accelerator,
}
_ORDER = list(_SECTIONS)


def draw_throughput(result: Result, path: Path) -> None:
    cases = [(limit["workload"], limit["batch_size"]) for limit in result["limits"]]
    figure, axes = plt.subplots(
        1, len(cases), figsize=(4.2 * len(cases), 3.6), layout="constrained", squeeze=False
    )
    for axis, case in zip(axes[0], cases, strict=True):
        rows = [r for r in result["rows"] if (r["workload"], r["batch_size"]) == case]
        rows.sort(key=lambda row: -row["seconds_per_epoch"])
        names = [f"{row['name']} {row['precision']}" for row in rows]
        seconds = [row["seconds_per_epoch"] for row in rows]
        colours = ["#0072B2" if r["name"].startswith("vae_jax") else "#999999" for r in rows]
        axis.barh(names, seconds, color=colours)
        axis.set(xscale="log", xlabel="seconds per epoch", title=f"{case[0]}, batch {case[1]}")
        axis.bar_label(axis.containers[0], fmt="%.3g", padding=2, fontsize=8)
        axis.margins(x=0.15)
        axis.tick_params(labelsize=8)
        axis.minorticks_off()  # their labels overlap where the axis spans a decade
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_quality(result: Result, path: Path) -> None:
    shown = [of_data for of_data in result["datasets"] if of_data["rows"]]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(5.6 * len(shown), 4.4), layout="constrained", squeeze=False
    )
    for axis, of_data in zip(axes[0], shown, strict=True):
        values = []
        for row in of_data["rows"]:
            there = [m for m in row["measured"] if m["log_likelihood"] is not None]
            own, us = row["settings"] == "own", row["name"] == "vae_jax"
            default = us and row["settings"] == "ours"
            values += [m["log_likelihood"] for m in there]
            axis.semilogx(
                [m["seconds"] for m in there],
                [m["log_likelihood"] for m in there],
                "o:" if own else "o-" if default or not us else "o--",
                color=_COLOURS[row["name"]],
                linewidth=2.5 if us else 1.2,
                markersize=4 if us else 3,
                label="vae_jax" if default else f"{row['name']}, {row['settings']}",
            )
        if values:
            top, low = max(values), min(values)
            axis.set_ylim(max(low, top - _SHOWN_NATS) - 1, top + 2)
        thresholds = quality.THRESHOLDS[of_data["dataset"]]
        for threshold in thresholds:
            axis.axhline(threshold, color="#DDDDDD", linewidth=0.8, zorder=0)
        axis.set(xlabel="seconds of training", ylabel="test log p(x), nats")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set_title(f"{of_data['dataset']}: solid our network", fontsize=9)
    axes[0][-1].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=80)
    plt.close(figure)


_COLOURS = {
    "vae_jax": "#0072B2",
    "numpyro": "#009E73",
    "flax": "#E69F00",
    "torch": "#D55E00",
    "pythae": "#CC79A7",
    "artifex": "#666666",
}
_SHOWN_NATS = 30
"""Below the best; what is worse leaves the chart."""


def draw_growth(result: Result, path: Path) -> None:
    sweeps = list(dict.fromkeys(r["sweep"] for r in result["rows"] if r["sweep"] != "parts"))
    num_rows = math.ceil(len(sweeps) / 4)
    figure, axes = plt.subplots(
        num_rows, 4, figsize=(13, 3.2 * num_rows), layout="constrained", squeeze=False
    )
    for axis, sweep in zip(axes.flat, sweeps, strict=False):
        rows = [row for row in result["rows"] if row["sweep"] == sweep]
        x, y = [row["value"] for row in rows], [_cost(row) for row in rows]
        axis.loglog(x, y, "o-", color="#0072B2", label="measured")
        axis.loglog(x, [y[0] * v / x[0] for v in x], ":", color="#999999", label="linear")
        axis.set(
            xlabel=_AXES.get(sweep, sweep),
            ylabel=f"seconds per {'pass' if sweep in _OF_A_PASS else 'step'}",
            ylim=(min(y) / 1.5, 2 * max(y)),
        )
        axis.set_xticks(x, [f"{value:,}" for value in x])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=8, loc="lower right")
    for axis in axes.flat[len(sweeps) :]:
        axis.axis("off")
    figure.savefig(path, dpi=80)
    plt.close(figure)


_AXES = {
    "pixels": "pixels of an image",
    "data": "examples of a pass",
    "seeds": "seeds trained at once",
    "devices": "virtual devices, same cores",
}


def draw_scaling(result: Result, path: Path) -> None:
    num = len(result["rows"])
    figure, axes = plt.subplots(1, num + 1, figsize=(3.6 * num + 4, 3.4), layout="constrained")
    for axis, row in zip(axes, result["rows"], strict=False):
        x = [of["num_devices"] for of in row["devices"]]
        for field, style, label in (
            ("seconds_per_step", "o", "measured"),
            ("from_1_and_2", ":", "from 1 and 2"),
            ("from_2_and_4", "-", "from 2 and 4"),
        ):
            axis.plot(x, [1e3 * of[field] for of in row["devices"]], style, label=label)
        axis.set(xlabel="virtual devices, same cores", ylabel="ms per step", ylim=(0, None))
        axis.set_title(row["description"], fontsize=9)
        axis.legend(fontsize=8)
    row = result["rows"][0]
    batches = np.geomspace(1, 1e7, 200)
    for link in dict.fromkeys(tuple(p["link"].values()) for p in result["paper"]):
        seconds = batches * row["flops_per_example"] / result["accelerator_flops_per_second"]
        of = [scaled.efficiency(s, 8, row["parameter_bytes"], scaled.Link(*link)) for s in seconds]
        axes[-1].semilogx(batches, of, label=link[0])
    axes[-1].axhline(result["efficiency"], color="#999999", linestyle=":")
    axes[-1].set(xlabel="batch per accelerator", ylabel="efficiency of 8")
    axes[-1].set_title(f"{row['description']}, on paper", fontsize=9)
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def load() -> dict[str, Result]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__.partition("\n")[0]
    ).parse_args()
    results = load()
    for name, result in results.items():
        draw = {
            "throughput": draw_throughput,
            "quality": draw_quality,
            "growth": draw_growth,
            "scaling": draw_scaling,
        }.get(result["benchmark"])
        if draw:
            draw(result, RESULTS / f"{name}.png")
    (FOLDER / "README.md").write_text(page(results))
    print(f"{FOLDER / 'README.md'}: {len(results)} results")


if __name__ == "__main__":
    machine.run(main)
