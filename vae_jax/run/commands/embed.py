"""The codes of images or rows, as a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.run import command, folder, options, output
from vae_jax.run.data import examples
from vae_jax.run.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Encodes images by a trained run: mean and scale of q(z|x) of each latent, in a file.

    A .npz file has the arrays `mean` and `scale` [N, Z], `draws` [N, S, Z] and, where they are
    known, `name`, a file's path in its folder or the row of the array that an image is from, and
    `label`. A .csv or .parquet file has the same in columns, mean_0 and so on, after `row`, the
    place among these images. A .npy file has the means alone. Posteriors that are no Gaussians of
    independent latents have no scale.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    images: options.UsedData = field(default_factory=options.UsedData)
    label: str | None = None
    """Of a conditional run: one class for all images; their own when not given."""
    num_draws: int = 0
    """Draws of each q(z|x) too."""
    output: Path = Path("codes.npz")
    """The file; .npz, .npy, .csv or .parquet."""
    seed: int = 0
    """Of the noise that binarises or dequantises, and of the draws."""


@dataclass(frozen=True)
class RowOptions:
    """Encodes the rows of a table by a run on a table: mean and scale of q(z|x), in a file.

    A .npz file has the arrays `mean` and `scale` [N, Z] and `draws` [N, S, Z]; a .csv or .parquet
    file the same in columns, mean_0 and so on, after `row`; a .npy file the means alone.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    table: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]")] = None
    """A .csv, .parquet or .feather file with the run's columns; the run's own test set when not
    given."""
    data: Path | None = None
    """Where the run's own table lies, if it has moved and DATA is not given."""
    num_draws: int = 0
    """Draws of each q(z|x) too."""
    output: Path = Path("codes.npz")
    """The file; .npz, .npy, .csv or .parquet."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    of_rows = folder.any_holds_table(arguments)
    chosen: Any = command.parse(RowOptions if of_rows else Options, arguments, prog=prog)
    options.check_at_least(0, num_draws=chosen.num_draws)
    options.check_seed(chosen.seed)
    output.check(chosen.output, (*output.COLUMNS, ".npy"))
    means_alone = chosen.output.suffix.lower() == ".npy"
    if chosen.num_draws and means_alone:
        raise UsageError(
            f"--output={chosen.output} holds the means alone and --num-draws is "
            f"{chosen.num_draws}: write a .npz file, or leave the draws out"
        )
    codes, beside = (_of_rows if of_rows else _of_images)(chosen)
    columns = {name: values for name, values in codes._asdict().items() if values is not None}
    output.write_columns({} if means_alone else beside, columns, chosen.output)
    print(f"codes: {chosen.output}, {len(codes.mean):,} of {codes.mean.shape[1]} latents")


def _of_images(chosen: Options) -> tuple[Any, dict[str, Any]]:
    """The codes, and the columns beside them."""
    config = folder.read_config(chosen.run)
    names = folder.classes(config)
    found, label = examples.open_for(config, names, chosen.images, chosen.label)

    from vae_jax.run.loaded import load_images  # after the options, as it brings JAX

    how: dict[str, Any] = {"num_draws": chosen.num_draws, "seed": chosen.seed}
    codes = load_images(chosen.run).encode(found.images, label, **how, progress=True)
    return codes, found.columns()


def _of_rows(chosen: RowOptions) -> tuple[Any, dict[str, Any]]:
    folder.read_table_config(chosen.run)

    from vae_jax.run import loaded_table  # after the options, as it brings JAX

    trained = loaded_table.load_table(chosen.run)
    rows, beside = trained.read(chosen.table, chosen.data)
    how: dict[str, Any] = {"num_draws": chosen.num_draws, "seed": chosen.seed}
    return trained.encode(rows, **how, progress=True), beside
