"""Encoder and decoder of a trained run, for where only jax is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run import command, extras, folder, output


@dataclass(frozen=True)
class Options:
    """Writes a run's encoder and decoder as StableHLO, parameters inside, for any batch size.

    --output=model.stablehlo gives model.encoder.stablehlo, model.decoder.stablehlo and model.json,
    which says what they take and give. They run on CPU, CUDA and TPU in a process that has jax and
    flatbuffers and no vae_jax: jax.export.deserialize(bytearray(file.read_bytes())).call(x). A
    conditional run's take the numbers of classes too. --output=params.safetensors has the
    parameters alone.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    output: Path = Path("model.stablehlo")
    """NAME.stablehlo, or NAME.safetensors."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    output.check(chosen.output, (".stablehlo", ".safetensors"))
    of_parameters = chosen.output.suffix.lower() == ".safetensors"
    extras.check("safetensors" if of_parameters else "flatbuffers")
    folder.read_config(chosen.run)

    from vae_jax.run.exported import export  # after the options, as it brings JAX
    from vae_jax.run.loaded import load_images

    for file in export(load_images(chosen.run), chosen.output):
        print(f"written: {file}")
