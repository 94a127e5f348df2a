"""A trained model to the Hugging Face hub."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, extras, folder, published


@dataclass(frozen=True)
class Options:
    """Puts a run's model on the Hugging Face hub: safetensors, JSON, its card and its pictures.

    vae_jax.run.load("hf:ORG/NAME") has it back, on any machine. No checkpoint goes along, and
    nothing says where the data lie. Name the licence in README.md of the run first.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ORG/NAME")]
    """Of the model on the hub; it is made where it is not there."""
    private: bool = False
    """Of a new one: for its owners alone."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    extras.check("huggingface_hub", "safetensors")
    folder.read_stamped(chosen.run)

    from vae_jax.run import hub  # after the options, as it brings JAX
    from vae_jax.run.loaded_examples import load

    hub.check(chosen.name.removeprefix(hub.PREFIX))
    of_stranger = published.is_one(chosen.run)
    with published.reading(chosen.run) if of_stranger else contextlib.nullcontext():
        address = hub.push(load(chosen.run), chosen.run, chosen.name, private=chosen.private)
    print(f"model: {address}")
