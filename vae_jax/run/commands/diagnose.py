"""What ails a trained run, in plain words, each with its number, its threshold and a remedy."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, folder, options


@dataclass(frozen=True)
class Options:
    """Looks a finished run over for illnesses, on up to 1,000 examples of each of its own splits.

    Collapsed latents, a decoder that ignores z or the label, over- and underfitting, too few
    latents, a likelihood that cannot fit the data, a proposal too narrow for log p(x), a prior
    where no codes are, a learning rate that has not fallen, too few epochs. Each is said with its
    number, the threshold, and a remedy; what too few examples or epochs cannot tell is not judged.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    data: str | None = None
    """Where the run's own data lie, if they have moved."""
    output: Path | None = None
    """The findings as JSON; diagnosis.json in the run's folder when not given."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_seed(chosen.seed)
    output = chosen.output or folder.beside(chosen.run, "diagnosis.json")
    folder.read_stamped(chosen.run)
    folder.check_place(output)

    from vae_jax.run import diagnosis, loaded_examples  # after the options, as it brings JAX

    trained = loaded_examples.load(chosen.run)
    print(f"measuring up to 1,000 of each split of {trained.config['dataset']}", file=sys.stderr)
    findings = trained.diagnose(chosen.data, seed=chosen.seed)
    for line in diagnosis.lines(findings):
        print(line)
    folder.write_json(
        output,
        {
            "run": str(chosen.run),
            "step": trained.step,
            "seed": chosen.seed,
            "ill": [finding.name for finding in findings if finding.ill],
            "findings": [finding._asdict() for finding in findings],
        },
    )
    print(f"findings: {output}")
