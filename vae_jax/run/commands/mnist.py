"""A VAE on MNIST (or Fashion-MNIST, binarized MNIST, scikit-learn's digits)."""

from collections.abc import Sequence
from pathlib import Path

from vae_jax.run import command, folder, options, several


def main(
    arguments: Sequence[str], prog: str, kind: type[options.Options] = options.Options
) -> None:
    several.main(lambda of_run: read(of_run, prog, kind), arguments, prog)


def read(
    arguments: Sequence[str], prog: str, kind: type[options.Options] = options.Options
) -> several.Read:
    """The options of a run on images, and its road."""
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

    def road() -> several.Road:
        from vae_jax.run import images, job  # after the options, as they bring JAX

        return several.Road(
            images.prepare, images.begin, job.announced, images.train, images.conclude
        )

    return chosen, road
