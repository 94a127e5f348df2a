"""A table whose holes are filled by a run on a table like it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, folder, options


@dataclass(frozen=True)
class Options:
    """Fills what is missing in a table: numbers by their median, classes by the most probable."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    table: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A .csv, .parquet or .feather file with the run's columns, other rows or the same."""
    output: Path = Path("filled.csv")
    """The table without holes; .csv, .parquet or .feather."""
    num_samples: int = 1000
    """Importance samples for each row."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_at_least(2, num_samples=chosen.num_samples)
    options.check_seed(chosen.seed)
    folder.check_table(chosen.output)
    folder.read_table_config(chosen.run)

    from vae_jax.run import keys, tabular  # after the options, as it brings JAX
    from vae_jax.run.data import tables

    trained = tabular.restore(chosen.run)
    frame = tables.read(chosen.table, trained.options.data.missing)
    holes = int(frame.isna().sum().sum())
    key = keys.of_run(chosen.seed)["impute"]
    frame, effective, notes = tabular.filled(key, trained, frame, chosen.num_samples)
    for note in notes:
        print(f"note: {note}")
    left = frame.isna().sum()
    print(
        f"{holes - int(left.sum()):,} of {holes:,} missing values filled; of "
        f"{chosen.num_samples} draws a row {effective:.0f} are effective"
    )
    if left.any():
        names = ", ".join(left.index[left > 0][:5])
        print(f"note: {names}: left as they are, as the run did not learn them")
    tables.write(frame, chosen.output)
    print(f"table: {chosen.output}")
