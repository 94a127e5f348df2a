"""Makes README.md of results/, the committed results.json of the programs beside it.

    python -m experiments.papers

The table of the project's README.md is made of them too. A test holds both to the results: run this
after one is added.
"""

import json
import re
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
        lines += ["", *section(result)]
    return "\n".join(lines) + "\n"


def section(result: dict[str, Any]) -> list[str]:
    """The lines of one program's results."""
    versions, draws = result["versions"], result["options"].get("num_importance_samples")
    by = f" By {draws:,} draws." if draws else ""
    some = result["options"].get("num_test") or 0
    if 0 < some < _NUM_TEST:
        by += f" Here of the first {some:,} test images."
    return [
        f"## {result['paper']}, {result['device']}",
        "",
        f"`python -m experiments.papers.{result['paper']} {_arguments(result['options'])}`, "
        f"jax {versions['jax']}. {result['protocol']}.{by}",
        "",
        *([result["note"], ""] if "note" in result else []),
        *_TABLES.get(result["paper"], _likelihoods)(result),
        *_picture(result),
    ]


_NUM_TEST = 10_000
"""Of MNIST and its like."""


def _picture(result: dict[str, Any]) -> list[str]:
    """That which the program left, where it is committed beside the result."""
    if "picture" not in result:
        return []
    of = _PICTURES.get(result["paper"], "draws of each cell beneath test images, pixels' means")
    picture = f"![{result['paper']}: {of}]({result['picture']})"
    return ["", picture, "", f"By the same command: {of}."]


_PICTURES = {
    "chen2018": "of the first objective, one latent in each row, from -2 to 2, the others held",
    "kingma2014": "a row for each class, a column for each z",
    "krishnan2017": "notes of test chorales, and of some that the model made up",
    "lopez2018": "each gene in test cells and in cells that the model made up",
    "mattei2019": "each imputer's error and its deviation over the masks",
    "oord2017": "test images, and what comes of their codes",
    "xu2019": "each column of test rows and of rows that the model made up",
}


def summary(results: list[dict[str, Any]], *, most: int | None = None) -> list[str]:
    """A table of the rows with a published number, of each cell the best that was reached.

    Args:
      results: of the programs.
      most: cells of a program, the first of its committed results; all when not given.
    """
    best: dict[str, tuple[float, str]] = {}
    for result in results:
        name, sign, digits, unit = _REACHED.get(result["paper"], _NATS)
        for row in result["rows"]:
            if row.get("published") is None or name not in row:
                continue
            of = f"`{result['paper']}` | {row.get('cell') or row['name']} | {unit}"
            value = sign * row[name]
            reached = (
                _spread(row, name, digits, _OVER.get(result["paper"], "seeds"))
                if row.get("deviation_over_seeds")
                else f"{value:.{digits}f}"
            )
            line = f"| {of} | {row['published']} | {reached} | {result['device']} |"
            best[of] = min(best.get(of, (value, line)), (value, line))
    lines = [
        "| program | cell | lower is better | published | reached | on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    of_program: dict[str, list[str]] = {}
    for of, (_, line) in best.items():
        of_program.setdefault(of.partition(" ")[0], []).append(line)
    return lines + [line for found in of_program.values() for line in found[:most]]


_NATS = ("negative_log_likelihood", 1, 2, "nats")
# By paper: the number of a row, its sign where lower is better, digits, unit.
_REACHED = {
    "kingma2014": ("error", 1, 4, "share wrong"),
    "krishnan2017": ("elbo", -1, 3, "nats a step"),
    "mattei2019": ("error", 1, 3, "squared error"),
}

_OVER = {"mattei2019": "masks"}
"""By paper: what its deviation is over, where not over seeds."""


def _arguments(options: dict[str, Any]) -> str:
    """Those that say what was done."""
    asked = {**options, "cells": " ".join(options.get("cells") or [])}
    hidden = options.get("hidden") or []
    asked["hidden"] = " ".join(map(str, hidden if isinstance(hidden, list) else [hidden]))
    if options.get("dataset") == "mnist":
        asked["dataset"] = None
    length = "steps" if options.get("steps") else "minutes" if "minutes" in options else "budget"
    names = ["cells", "dataset", "size", length, "seeds", "epochs", "beta", "hidden"]
    return " ".join(f"--{n} {asked[n]}" for n in names if asked.get(n))


def _likelihoods(result: dict[str, Any]) -> list[str]:
    """A row a cell; bits per dimension of greys, and minus the ELBO where the paper is about it."""
    of_bound = result["paper"] in ("rezende2015", "sonderby2016")
    of_bits = any("bits_per_dimension" in row for row in result["rows"])
    lines = [
        "| cell | published | reached | of draws | active units | epochs | minutes of training |"
        + " minus the ELBO |" * of_bound
        + " bits per dimension |" * of_bits,
        "| --- | --- | --- | --- | --- | --- | --- |" + " --- |" * (of_bound + of_bits),
    ]
    for row in result["rows"]:
        epochs = " + ".join(f"{part['epochs']:.0f}" for part in row["training"])
        published = "" if row["published"] is None else f"{row['published']:.2f}"
        draws = max(each["standard_error_of_draws"] for each in row["measured"])
        line = (
            f"| {row['cell']} | {published} | {_spread(row, 'negative_log_likelihood', 2)} | "
            f"+- {draws:.3f} | {'+'.join(map(str, row['active_units']))} | {epochs} | "
            f"{row['training_minutes']:.1f} |"
        )
        if of_bound:
            bounds = [each["elbo"] for each in row["measured"]]
            line += f" {-sum(bounds) / len(bounds):.2f} |"
        if of_bits:
            line += f" {row['bits_per_dimension']:.3f} |"
        lines.append(line)
    return lines


def _gaps(result: dict[str, Any]) -> list[str]:
    lines = ["| objective | gap | ELBO | minutes |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| {row['name']} | {_spread(row, 'mutual_information_gap', 3)} | {row['elbo']:.2f} | "
        f"{row['minutes']:.1f} |"
        for row in result["rows"]
    ]


def _codes(result: dict[str, Any]) -> list[str]:
    lines = [
        "| codes | used | perplexity | minus the ELBO | by frequency | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row['name']}, {row['num_codes']} | {row['codebook_use']:.1%} | "
        f"{row['perplexity']:.0f} | {row['negative_elbo']:.2f} | "
        f"{row['negative_elbo_by_frequency']:.2f} | {row['minutes']:.1f} |"
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
        spread = _spread(row, "error", 3, _OVER["mattei2019"])
        lines.append(f"| {row['name']} | {published} | {spread} | {share} |")
    return lines


def _spread(row: dict[str, Any], name: str, digits: int, over: str = "seeds") -> str:
    """A mean, with its deviation over the seeds, or what else, where there are several."""
    text = f"{row[name]:.{digits}f}"
    if row["deviation_over_seeds"] is None:
        return text
    return f"{text} +- {row['deviation_over_seeds']:.{digits}f} ({len(row['values'])} {over})"


def _per_step(result: dict[str, Any]) -> list[str]:
    lines = ["| model | published | minus ELBO | minus log p(x) | epochs | minutes |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    return lines + [
        f"| {row['name']} | {row['published']} | {-row['elbo']:.3f} | "
        f"{-row['log_likelihood']:.3f} | {row['best_epoch']} of {row['epochs']} | "
        f"{row['minutes']:.1f} |"
        for row in result["rows"]
    ]


def _of_cells(result: dict[str, Any]) -> list[str]:
    lines = ["| likelihood | by | ELBO | log p(x) | epochs | seconds | of a core |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    return lines + [
        f"| {row['name'].replace('_', ' ')} | {row['by']} | {row['test_elbo']:.2f} | "
        f"{row['test_log_likelihood']:.2f} | {row['epochs']} | {row['seconds']:.0f} | "
        f"{row['cpu_seconds']:.0f} |"
        for row in result["rows"]
    ]


def _rows(result: dict[str, Any]) -> list[str]:
    lines = [
        "| rows | accuracy | F1 | distance | correlation | copies | nearest | minutes | of CPU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        took = [f"{row[n]:.1f}" if n in row else "" for n in ("minutes", "cpu_minutes")]
        lines.append(
            f"| {row['name']} | {row['accuracy']:.3f} | {row['f1']:.3f} | {row['distance']:.3f} | "
            f"{row['correlation']:.3f} | {row['copies']:.2%} | {row['nearest']:.2%} | "
            f"{' | '.join(took)} |"
        )
    return lines


_TABLES = {
    "chen2018": _gaps,
    "kingma2014": _errors,
    "krishnan2017": _per_step,
    "lopez2018": _of_cells,
    "mattei2019": _imputed,
    "oord2017": _codes,
    "xu2019": _rows,
}


def load() -> list[dict[str, Any]]:
    """The results, by the names of their files; of each its picture, where there is one."""
    found = []
    for path in sorted((FOLDER / "results").glob("*.json")):
        picture = path.with_suffix(".png")
        shown = {"picture": f"results/{picture.name}"} if picture.exists() else {}
        found.append(json.loads(path.read_text()) | shown)
    return found


def front_page(text: str, results: list[dict[str, Any]]) -> str:
    """README.md with the table of the best of each program's first cells."""
    table = "\n".join(summary(results, most=2))
    old = re.compile(r"^\| program \|.*?\n(?!\|)", re.DOTALL | re.MULTILINE)
    return old.sub(lambda _: f"{table}\n", text)


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(page(load()))
    readme = FOLDER.parents[1] / "README.md"
    readme.write_text(front_page(readme.read_text(), load()))
