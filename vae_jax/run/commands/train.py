"""A VAE on one's own data: a table, a .npy or .npz array, a folder of pictures, or tfds:NAME."""

from collections.abc import Sequence
from pathlib import Path

from vae_jax.run import command, folder, options, table_options
from vae_jax.run.commands import mnist


def main(arguments: Sequence[str], prog: str) -> None:
    stored = _stored_table(arguments)
    if stored is None and not any(map(_is_table, arguments)):
        mnist.main(arguments, prog, options.OwnOptions)
        return
    chosen = command.parse(table_options.Options, arguments, prog=prog, default=stored)
    table_options.check(chosen)
    if stored is not None:
        table_options.check_resumed(chosen, stored)

    from vae_jax.run import tabular  # after the options, as it brings JAX

    tabular.run(chosen, prog)


def _is_table(argument: str) -> bool:
    return not argument.startswith("-") and argument.lower().endswith(table_options.SUFFIXES)


def _stored_table(arguments: Sequence[str]) -> table_options.Options | None:
    """The options of the run on a table that is to be resumed; None of any other."""
    output = command.option_value(arguments, "--output")
    if "--resume" not in arguments or output is None:
        return None
    config = folder.read_stamped(Path(output))
    return table_options.from_json(config["options"]) if folder.is_of_table(config) else None
