"""`vae-jax`: what one does with a VAE, from a shell."""

import importlib
import sys

from vae_jax.run import command
from vae_jax.run.errors import UsageError

COMMANDS = {
    "train": "a VAE on your own data: pictures, tables, counts, sequences, arrays, or tfds:NAME",
    "mnist": "a VAE on MNIST, Fashion-MNIST, binarized MNIST or scikit-learn's digits",
    "generate": "images, rows or cells from a trained run: draws, of a class, images as another",
    "evaluate": "log p(x) of a trained run's test set; what the images that it draws are worth",
    "embed": "the codes of images, rows, cells or sequences by a trained run",
    "score": "how likely they are to a trained run, and which are odd",
    "reconstruct": "images after encoding and decoding, as files or one picture",
    "interpolate": "the pictures between two, along a line between their codes",
    "traverse": "what each latent of a trained run does to a picture",
    "diagnose": "what ails a trained run: twelve illnesses, each with its number and a remedy",
    "explore": "a page of a trained run: its map, a slider for each latent, the decoded picture",
    "compare": "several runs: the settings that differ, numbers with errors, minutes",
    "export": "encoder and decoder as StableHLO, for where only jax is, or safetensors",
    "push": "a trained run's model to the Hugging Face hub, as safetensors and JSON",
    "impute": "images, a table or sequences whose holes are filled by a run on such",
}

_HELP = """usage: vae-jax COMMAND [options]

Variational autoencoders in JAX.

{commands}

vae-jax COMMAND --help lists the options of a command. A run leaves its numbers, its pictures and
its checkpoints in one folder, runs/DATA-TIME or --output.
"""


def main() -> None:
    """The console script."""
    command.run(lambda: _choose(sys.argv[1:]))


def run(name: str, prog: str) -> None:
    """A command under another name, such as python -m experiments.mnist."""
    command.run(lambda: _start(name, sys.argv[1:], prog))


def _choose(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = (f"  {name:12s}{what}" for name, what in COMMANDS.items())
        print(_HELP.format(commands="\n".join(lines)), end="")
    elif arguments[0] == "--version":
        import vae_jax

        print(f"vae_jax {vae_jax.__version__}")
    elif arguments[0] not in COMMANDS:
        raise UsageError(f"no command {arguments[0]!r}: choose from {', '.join(COMMANDS)}")
    else:
        _start(arguments[0], arguments[1:], f"vae-jax {arguments[0]}")


def _start(name: str, arguments: list[str], prog: str) -> None:
    arguments = _brought(name, arguments)
    importlib.import_module(f"vae_jax.run.commands.{name}").main(arguments, prog)


def _brought(name: str, arguments: list[str]) -> list[str]:
    """The arguments with a folder in place of RUN, or of --init-from, that is hf:ORG/NAME."""
    if not any("hf:" in of for of in arguments):
        return arguments
    from vae_jax.run import hub  # here, as few commands need it

    trains = name in ("train", "mnist")
    option = "--init-from=" if trains else ""
    found = (i for i, of in enumerate(arguments) if hub.is_of_hub(of.removeprefix(option)))
    at = next(found, None)
    if at is None or name == "compare" or {"-h", "--help"} & {*arguments}:
        return arguments
    # Before RUN stands no other; what comes after it, of push, is a name and no model to have.
    if any(not of.startswith("-") for of in arguments[:at]) and not trains:
        return arguments
    of_hub = arguments[at].removeprefix(option)
    return [*arguments[:at], f"{option}{hub.place(of_hub)}", *arguments[at + 1 :]]
