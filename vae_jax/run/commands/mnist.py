"""A VAE on MNIST (or Fashion-MNIST, binarized MNIST, scikit-learn's digits)."""

from collections.abc import Sequence
from pathlib import Path

from vae_jax.run import command, folder, options


def main(
    arguments: Sequence[str], prog: str, kind: type[options.Options] = options.Options
) -> None:
    stored = None
    if "--resume" in arguments:
        # What is not said again is as it was: the stored options are the defaults.
        output = command.option_value(arguments, "--output")
        if output is not None:
            stored = folder.read_options(Path(output))
            kind = type(stored)
    chosen = command.parse(kind, arguments, prog=prog, default=stored)
    options.check(chosen)
    if stored is not None:
        options.check_resumed(chosen, stored)

    from vae_jax.run import images  # after the options, as it brings JAX

    images.run(chosen, prog)
