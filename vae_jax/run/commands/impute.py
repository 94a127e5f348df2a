"""A table or sequences whose holes are filled by a run on such."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, folder, kinds, options
from vae_jax.run.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Fills what is missing in a table or in sequences.

    Numbers are filled by their median, classes by the most probable.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or hf:ORG/NAME."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A .csv, .parquet or .feather file with the run's columns, other rows or the same; of a run on
    sequences a .jsonl file, where steps at the end that are null are what comes next; or its
    URL."""
    output: Path | None = None
    """The file without holes, of the same endings; filled.csv or filled.jsonl when not given."""
    num_samples: int = 1000
    """Importance samples for each row or sequence."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_at_least(2, num_samples=chosen.num_samples)
    options.check_seed(chosen.seed)
    kind = kinds.of_run(folder.read_stamped(chosen.run))
    if kind is None or not kind.fills:
        what = "images" if kind is None else kind.what
        raise UsageError(
            f"{chosen.run} holds a run on {what}, and impute is for tables and sequences"
        )
    output = Path(f"filled{kind.suffixes[0]}") if chosen.output is None else chosen.output
    folder.check_output(output, kind)
    folder.read_config_of(kind, chosen.run)
    kinds.check_file(kind, chosen.file)

    from vae_jax.run import examples, keys  # after the options, as it brings JAX
    from vae_jax.run.data import remote

    file = Path(remote.local(chosen.file))
    key, trained = keys.of_run(chosen.seed)["impute"], examples.restore(chosen.run)
    filled, lines = kind.parts.fill(key, trained, file, chosen.num_samples)
    for line in lines:
        print(line)
    kind.parts.write(filled, output)
    print(f"{kind.noun}: {output}")
