"""Several runs side by side, as a table and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, comparison, extras, folder, output
from vae_jax.run.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Shows runs side by side: the settings that differ, numbers with errors, minutes.

    Errors are standard errors over the test examples. The file has a row for each run; beside it is
    NAME.png, log p(x) and the ELBO with two standard errors, and minutes.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folders of runs, or hf:ORG/NAME, two or more; or one folder of several, as --seeds leaves."""
    output: Path = Path("compare.csv")
    """The table; .csv."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    runs = [r for of in chosen.runs for r in [of / name for name in folder.runs_in(of)] or [of]]
    if len(runs) < 2:
        raise UsageError("there is nothing to compare: name two runs or more")
    output.check(chosen.output, (".csv",))
    found = comparison.compare(runs)
    for line in comparison.lines(found):
        print(line)
    for note in found.notes:
        print(f"note: {note}")
    extras.check("matplotlib")
    picture = comparison.write(found, chosen.output)
    print(f"table: {chosen.output}   picture: {picture}")
