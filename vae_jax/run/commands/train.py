"""A VAE on one's own data: pictures, a table, counts, sequences, an array, or tfds:NAME."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_jax.run import command, folder, kinds, options, several
from vae_jax.run.commands import mnist


def main(arguments: Sequence[str], prog: str) -> None:
    several.main(lambda of_run: _read(of_run, prog), arguments, prog)


def _read(arguments: Sequence[str], prog: str) -> several.Read:
    kind, stored = _stored(arguments)
    if kind is None:
        named = (_kind_of(a, arguments) for a in arguments if not a.startswith("-"))
        kind = next((found for found in named if found is not None), None)
    if kind is None:
        return mnist.read(arguments, prog, options.OwnOptions)
    chosen = command.parse(kind.options, arguments, prog=prog, default=stored)
    kinds.check(chosen)
    if stored is not None:
        kinds.check_resumed(chosen, stored)

    def road() -> several.Road:
        from vae_jax.run import learn  # after the options, as it brings JAX

        prepare = functools.partial(learn.prepare, kind)
        return several.Road(prepare, learn.begin, learn.announced, learn.train, learn.conclude)

    return chosen, road


def _kind_of(argument: str, arguments: Sequence[str]) -> kinds.Kind | None:
    """The kind that a file is of; of a .npz its content says, unless images are asked for."""
    keyed = any(a.startswith("--images-key") for a in arguments)
    asked = {"-h", "--help"} & {*arguments}  # nothing is brought here for that
    if argument.lower().endswith(".npz") and not keyed and not ("://" in argument and asked):
        from vae_jax.run.data import matrices, remote

        here = Path(remote.local(argument))
        return kinds.KINDS["counts"] if matrices.are_counts(here) else None
    return kinds.of_file(argument)


def _stored(arguments: Sequence[str]) -> tuple[kinds.Kind | None, Any]:
    """The kind and the options of the run that is to be resumed; None of one on images."""
    output = command.option_value(arguments, "--output")
    if "--resume" not in arguments or output is None:
        return None, None
    kind = kinds.of_run(folder.read_stamped(Path(output)))
    if kind is None:
        return None, None
    return kind, kind.stored_options(folder.read_config_of(kind, Path(output)))
