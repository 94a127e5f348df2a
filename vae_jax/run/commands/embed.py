"""The codes of images, rows, cells or sequences, as a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.run import command, extras, folder, kinds, options, output
from vae_jax.run.data import examples
from vae_jax.run.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Encodes images by a trained run: mean and scale of q(z|x) of each latent, in a file.

    A .npz file has the arrays `mean` and `scale` [N, Z], `draws` [N, S, Z] and, where they are
    known, `name`, a file's path in its folder or the row of the array that an image is from, and
    `label`. A .csv or .parquet file has the same in columns, mean_0 and so on, after `row`, the
    place among these images. A .npy file has the means alone. Posteriors that are no Gaussians of
    independent latents have no scale. A run on a table, counts or sequences has other options:
    embed RUN --help.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
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
class ExampleOptions:
    """Encodes rows of a table, cells or sequences by a run on such: mean and scale of q(z|x).

    A .npz file has the arrays `mean` and `scale` [N, Z] and `draws` [N, S, Z]; a .csv or .parquet
    file the same in columns, mean_0 and so on, after `row`; a .npy file the means alone. A .h5ad
    file is that of DATA, with the means as obsm["X_vae"]. Sequences' latents at every step are
    [N, T, Z], without a scale.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    file: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]")] = None
    """A file such as the run's, or its URL: with its columns, its genes, or as many numbers a step;
    the run's own test set when not given."""
    data: str | None = None
    """Where the run's own file lies, if it has moved and DATA is not given."""
    num_draws: int = 0
    """Draws of each q(z|x) too."""
    output: Path = Path("codes.npz")
    """The file; .npz, .npy, .csv, .parquet, or of counts .h5ad."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    kind = folder.kind_among(arguments)
    chosen: Any = command.parse(ExampleOptions if kind else Options, arguments, prog=prog)
    options.check_at_least(0, num_draws=chosen.num_draws)
    options.check_seed(chosen.seed)
    if kind is not None and chosen.output.suffix.lower() == ".h5ad":
        _check_cells(chosen, kind)
    else:
        output.check(chosen.output, (*output.COLUMNS, ".npy"))
    means_alone = chosen.output.suffix.lower() == ".npy"
    if chosen.num_draws and means_alone:
        raise UsageError(
            f"--output={chosen.output} holds the means alone and --num-draws is "
            f"{chosen.num_draws}: write a .npz file, or leave the draws out"
        )
    codes, beside = (_of_examples if kind else _of_images)(chosen)
    if chosen.output.suffix.lower() == ".h5ad":
        from vae_jax.run.data import matrices, remote

        matrices.write_codes(Path(remote.local(chosen.file)), codes.mean, chosen.output)
    else:
        columns = {name: values for name, values in codes._asdict().items() if values is not None}
        output.write_columns({} if means_alone else beside, columns, chosen.output)
    print(f"codes: {chosen.output}, {len(codes.mean):,} of {codes.mean.shape[-1]} latents")


def _check_cells(chosen: ExampleOptions, kind: kinds.Kind) -> None:
    """Raises UsageError where there are no cells to write codes beside."""
    given = str(chosen.file)
    if kind.name != "counts" or not given.lower().endswith(".h5ad"):
        raise UsageError(
            f"--output={chosen.output} is DATA with the codes of its cells, and DATA is {given}: "
            "name a .h5ad file for a run on counts, or write .npz"
        )
    extras.check("anndata")
    folder.check_place(chosen.output)


def _of_images(chosen: Options) -> tuple[Any, dict[str, Any]]:
    """The codes, and the columns beside them."""
    config = folder.read_config(chosen.run)
    names = folder.classes(config)
    found, label = examples.open_for(config, names, chosen.images, chosen.label)

    from vae_jax.run.loaded import load_images  # after the options, as it brings JAX

    how: dict[str, Any] = {"num_draws": chosen.num_draws, "seed": chosen.seed}
    codes = load_images(chosen.run).encode(found.images, label, **how, progress=True)
    return codes, found.columns()


def _of_examples(chosen: ExampleOptions) -> tuple[Any, dict[str, Any]]:
    from vae_jax.run import loaded_examples  # after the options, as it brings JAX

    trained = loaded_examples.load_examples(chosen.run)
    batch, beside = trained.read(chosen.file, chosen.data)
    how: dict[str, Any] = {"num_draws": chosen.num_draws, "seed": chosen.seed}
    return trained.encode(batch, **how, progress=True), beside
