"""Several runs side by side: the settings that differ, and what came of them."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_jax.run import folder, hub, output
from vae_jax.run.errors import UsageError
from vae_jax.run.options import BINARY, OF_BYTES


class Comparison(NamedTuple):
    """Runs and, by name, a value of each; None where a run has none.

    Attributes:
      runs: their folders.
      settings: options that differ among them.
      numbers: from results.json, in nats, with the standard errors over the test examples; minutes
        are of the whole run, active units of latent_dim; of drawn images from evaluation.json.
      notes: why numbers do not compare, or are not there.
    """

    runs: list[str]
    settings: dict[str, list[Any]]
    numbers: dict[str, list[Any]]
    notes: list[str]


_NUMBERS = {
    "log_likelihood": "test_log_likelihood",
    "log_likelihood_error": "test_log_likelihood_standard_error_over_images",
    "elbo": "test_elbo",
    "elbo_error": "test_elbo_standard_error_over_images",
    "bits_per_dimension": "test_bits_per_dimension",
    "kl": "test_kl",
    "validation_elbo": "selected_validation_elbo",
    "active_units": "active_units",
    "frechet_distance": "samples_frechet_distance",
    "precision": "samples_precision",
    "recall": "samples_recall",
}


def compare(runs: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Runs side by side, by what their folders say; nothing is computed.

    Args:
      runs: their folders, or hf:ORG/NAME, models of the hub.

    Raises:
      UsageError: a folder holds no run, or one is there twice, or none is given.
      RunError: a model cannot be had from the hub.
    """
    names = [str(Path(run)) for run in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        raise UsageError(
            f"{twice[0]} is given twice: name it once" if twice else "there are no runs: name some"
        )
    paths = [hub.place(name) for name in names]
    configs, results = [_config(path) for path in paths], [_results(path) for path in paths]
    flat = [_settings(config) for config in configs]
    every = list(dict.fromkeys(name for settings in flat for name in settings))
    of_each = {name: [settings.get(name) for settings in flat] for name in every}
    settings = {
        name: values
        for name, values in of_each.items()
        if any(value != values[0] for value in values)
    }
    numbers = {name: [_number(of, key) for of in results] for name, key in _NUMBERS.items()}
    numbers["minutes"] = [_minutes(of) for of in results]
    numbers = {n: values for n, values in numbers.items() if any(v is not None for v in values)}
    missing = [name for name, of in zip(names, results, strict=True) if not of]
    notes = [f"{', '.join(missing)}: no results.json yet"] if missing else []
    return Comparison(names, settings, numbers, notes + _unlike(configs))


def _config(path: Path) -> dict[str, Any]:
    kind = folder.kind_in(path)
    return folder.read_config(path) if kind is None else folder.read_config_of(kind, path)


def _results(path: Path) -> dict[str, Any]:
    """What results.json says, and what evaluation.json does of drawn images."""
    results, again = (_read(path / name) for name in ("results.json", "evaluation.json"))
    if again.get("parameters_sha256") != results.get("parameters_sha256"):  # of another step
        return results
    samples = {name: value for name, value in again.items() if name.startswith("samples_")}
    return {**results, **samples}


def _read(path: Path) -> dict[str, Any]:
    try:
        with folder.reading(path):
            found: Any = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):  # not yet, or half written
        return {}
    return found if isinstance(found, dict) else {}


def _number(results: dict[str, Any], key: str) -> Any:
    """By its name in a run on images, or on what is none; None of what is no number."""
    value = results.get(key, results.get(key.replace("_over_images", "_over_examples")))
    return value if isinstance(value, int | float) else None


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """What was chosen, by option; where it lies and what it leaves is no setting."""
    groups = {name: of for name, of in config["options"].items() if name != "run"}
    flat = {name: value for of in groups.values() for name, value in of.items()}
    for place in "data_dir", "manual_dir":
        flat.pop(place, None)
    return {**flat, "dataset": config["dataset"]}


def _minutes(results: dict[str, Any]) -> float | None:
    seconds = _number(results, "total_seconds")
    if seconds is None:  # of a table
        parts = [_number(results, name) for name in ("train_seconds", "compile_seconds")]
        seconds = None if None in parts else sum(parts)
    return None if seconds is None else seconds / 60


def _unlike(configs: list[dict[str, Any]]) -> list[str]:
    """Why the runs' numbers do not compare, if they do not."""

    def kind(config: dict[str, Any]) -> str:
        likelihood = config["options"]["model"].get("likelihood")
        if likelihood in OF_BYTES:
            return "of bytes"
        if likelihood in BINARY or (likelihood is None and config.get("binarization") != "none"):
            return "of zeros and ones"
        return "densities"

    of: dict[str, list[Any]] = {
        "the data": [config.get("digest") for config in configs],
        "the binarization": [config.get("binarization") for config in configs],
        "the kind of likelihood": [kind(config) for config in configs],
        "what they are conditional on": [
            config["options"]["data"].get("condition")
            or bool(config["options"]["model"].get("conditional"))
            for config in configs
        ],
    }
    return [
        f"{what} are not the same, so nats do not compare"
        if what == "the data"
        else f"{what} is not the same, so nats do not compare"
        for what, values in of.items()
        if len(set(values)) > 1
    ]


def write(found: Comparison, table: Path) -> Path:
    """Writes a comparison as a .csv, a row a run, and as the picture beside it, which is named."""
    output.write_rows({"run": found.runs, **found.settings, **found.numbers}, table)

    from vae_jax.run import figures  # here, as matplotlib takes a second

    picture = table.with_suffix(".png")
    figures.comparison(picture, [Path(run).name for run in found.runs], found.numbers)
    return picture


def lines(found: Comparison) -> list[str]:
    """The comparison as a table for a terminal: a line for each setting and number."""
    rows = [["", *(Path(run).name for run in found.runs)]]
    rows += [[name, *map(_written, values)] for name, values in found.settings.items()]
    for name, values in found.numbers.items():
        if name.endswith("_error"):
            continue
        errors = found.numbers.get(f"{name}_error", [None] * len(values))
        rows.append([name, *map(_with_error, values, errors)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _with_error(value: Any, error: Any) -> str:
    return _written(value) if error is None else f"{_written(value)} +- {error:.2f}"


def _written(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and math.isfinite(value) and value != round(value):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    text = str(value)
    return text if len(text) <= 30 else f"...{text[-27:]}"
