"""Makes README.md of results/, the committed results.json of the programs beside it.

    python -m experiments.papers

A test holds the page to the results: run this after one is added.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def page(results: list[dict[str, Any]]) -> str:
    """The page of some programs' results, one section each."""
    lines = [
        "# Published numbers, and those reached",
        "",
        "Made by `python -m experiments.papers` from `results/`, which holds what each program "
        "wrote. A row that is missing was not run.",
    ]
    for result in results:
        versions = result["versions"]
        lines += [
            "",
            f"## {result['paper']}, {result['device']}",
            "",
            f"`python -m experiments.papers.{result['paper']} {_arguments(result['options'])}`, "
            f"jax {versions['jax']}. {result['protocol']}.",
            "",
            *([result["note"], ""] if "note" in result else []),
            *_TABLES.get(result["paper"], _likelihoods)(result),
        ]
    return "\n".join(lines) + "\n"


def _arguments(options: dict[str, Any]) -> str:
    """Those that say what was done."""
    asked = {**options, "cells": " ".join(options.get("cells") or [])}
    names = ["cells", "steps" if options.get("steps") else "budget", "seeds", "epochs", "beta"]
    return " ".join(f"--{n} {asked[n]}" for n in names if asked.get(n))


def _likelihoods(result: dict[str, Any]) -> list[str]:
    lines = [
        "| cell | published | reached | of draws | active units | epochs | minutes of training |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        epochs = " + ".join(f"{part['epochs']:.0f}" for part in row["training"])
        published = "" if row["published"] is None else f"{row['published']:.2f}"
        draws = max(each["standard_error_of_draws"] for each in row["measured"])
        lines.append(
            f"| {row['cell']} | {published} | {_spread(row, 'negative_log_likelihood', 2)} | "
            f"+- {draws:.3f} | {'+'.join(map(str, row['active_units']))} | {epochs} | "
            f"{row['training_minutes']:.1f} |"
        )
    return lines


def _gaps(result: dict[str, Any]) -> list[str]:
    lines = ["| objective | gap | ELBO | minutes |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| {row['name']} | {_spread(row, 'mutual_information_gap', 3)} | {row['elbo']:.2f} | "
        f"{row['minutes']:.1f} |"
        for row in result["rows"]
    ]


def _errors(result: dict[str, Any]) -> list[str]:
    lines = ["| model | published | wrong | minutes |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| {row['name']} | {'' if row['published'] is None else row['published']} | "
        f"{_spread(row, 'error', 4)} | {row['minutes']:.1f} |"
        for row in result["rows"]
    ]


def _imputed(result: dict[str, Any]) -> list[str]:
    lines = [
        "| imputer | published | mean squared error | of 90 % covered |",
        "| --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        published = "" if row["published"] is None else row["published"]
        covered = row.get("coverage", [])
        share = f"{sum(covered) / len(covered):.1%}" if covered else ""
        lines.append(f"| {row['name']} | {published} | {_spread(row, 'error', 3)} | {share} |")
    return lines


def _spread(row: dict[str, Any], name: str, digits: int) -> str:
    """A mean, with its deviation over the seeds where there are several."""
    text = f"{row[name]:.{digits}f}"
    if row["deviation_over_seeds"] is None:
        return text
    return f"{text} +- {row['deviation_over_seeds']:.{digits}f} ({len(row['values'])} seeds)"


_TABLES = {"chen2018": _gaps, "kingma2014": _errors, "mattei2019": _imputed}


def load() -> list[dict[str, Any]]:
    """The results, by the names of their files."""
    return [json.loads(path.read_text()) for path in sorted((FOLDER / "results").glob("*.json"))]


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(page(load()))
