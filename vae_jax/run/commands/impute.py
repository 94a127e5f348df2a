"""Images, a table or sequences whose holes are filled by a run on such."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.run import command, folder, kinds, options, output
from vae_jax.run.data import examples
from vae_jax.run.data.dataset import spread
from vae_jax.run.errors import DataError, UsageError

_SHOWN, _DRAWN = 64, 3


@dataclass(frozen=True)
class Options:
    """Fills the missing pixels of images by a run that has learned from such.

    Each is filled by its mean given those that are there, weighed by importance (Mattei & Frellsen
    2019); these stay as they are. A .npz file has floats in [0, 1] `images` [N, H, W, C] beside
    `name` and `label`, a .npy file these alone, a folder a PNG file for each; and NAME_examples.png
    up to 64 of those with holes, above what they were filled with. A run on a table or sequences
    has other options: impute RUN --help.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    images: options.UsedData = field(default_factory=options.UsedData)
    output: Path = Path("filled.npz")
    """A new folder, a .npz or .npy file, or a picture, which is NAME_examples.png alone."""
    num_draws: int = 0
    """Of all images, each filled at random by what may be there, NAME_1 and so on: for an analysis
    that is repeated over them. The picture has the first three."""
    num_samples: int = 1000
    """Importance samples for each image."""
    seed: int = 0
    """Of the draws, and of the noise that binarises."""


@dataclass(frozen=True)
class ExampleOptions:
    """Fills what is missing in a table or in sequences.

    Numbers are filled by their median, classes by the most probable.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A .csv, .parquet or .feather file with the run's columns, other rows or the same; of a run on
    sequences a .jsonl file, where steps at the end that are null are what comes next; or its
    URL."""
    output: Path | None = None
    """The file without holes, of the same endings; filled.csv or filled.jsonl when not given."""
    num_draws: int = 0
    """Of the whole file, each filled at random by what may be there, NAME_1 and so on: for an
    analysis that is repeated over them."""
    num_samples: int = 1000
    """Importance samples for each row or sequence."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    kind = folder.kind_among(arguments)
    chosen: Any = command.parse(ExampleOptions if kind else Options, arguments, prog=prog)
    options.check_at_least(2, num_samples=chosen.num_samples)
    options.check_at_least(0, num_draws=chosen.num_draws)
    options.check_seed(chosen.seed)
    if kind is None:
        _fill_images(chosen)
    else:
        _fill_examples(chosen, kind)


def _places(path: Path, num_draws: int) -> list[Path]:
    """Of what is filled, and of each draw: NAME_1 and so on."""
    stem, dot, endings = path.name.partition(".")
    return [path, *(path.with_name(f"{stem}_{i + 1}{dot}{endings}") for i in range(num_draws))]


def _fill_images(chosen: Options) -> None:
    config = folder.read_config(chosen.run)
    if not config.get("pixels", {}).get("missing"):
        raise UsageError(
            f"{chosen.run} has learned from whole images, and cannot tell what is missing of one: "
            "train on a .npz file with an array `observed`"
        )
    alone = output.is_picture(chosen.output)
    places = _places(chosen.output, 0 if alone else chosen.num_draws)
    for place in places:
        output.check_pictures(place)
    found, label = examples.open_for(config, folder.classes(config), chosen.images, None)

    import numpy as np

    images = np.asarray(found.images)
    rows = np.flatnonzero(np.isnan(images).any(axis=(1, 2, 3)))
    if not len(rows):
        raise DataError(
            f"nothing is missing in {found.source}: give a .npz file with an array `observed`"
        )
    shown = rows[spread(len(rows), _SHOWN)]
    if alone:
        images, label = images[shown], None if label is None else label[shown]
        rows = shown = np.arange(len(images))

    from vae_jax.run import holes, loaded  # after the options, as it brings JAX

    trained = loaded.load_images(chosen.run)
    how: dict[str, Any] = {"num_samples": chosen.num_samples, "seed": chosen.seed}
    filled = trained.impute(images, label, num_draws=chosen.num_draws, **how)
    num = int(np.isnan(images).sum())
    for line in holes.said(num, num, chosen.num_samples, filled.effective_sample_size, "image"):
        print(line)
    if not alone:
        for made, place in zip((filled.filled, *filled.draws), places, strict=True):
            _write(made, found, place)
        print(f"images: {', '.join(map(str, places[:4]))}{', ...' * (len(places) > 4)}")
    _draw(images, filled, shown, chosen.output)


def _write(made: Any, found: examples.Examples, path: Path) -> None:
    match path.suffix.lower():
        case ".npz":
            output.write_columns(found.columns(), {"images": made}, path)
        case ".npy":
            output.write_columns({}, {"images": made}, path)
        case _:
            with output.pictures(path, made.shape, found.places) as out:
                out[: len(made)] = made


def _draw(images: Any, filled: Any, rows: Any, path: Path) -> None:
    """Writes the images with holes above what they were filled with, and a few draws of it."""
    from vae_jax.run import figures  # here, as matplotlib takes a second

    each = {"image": images, "mean": filled.filled}
    each |= {f"draw {i + 1}": made for i, made in enumerate(filled.draws[:_DRAWN])}
    picture = figures.beneath([of[rows] for of in each.values()], tuple(each))
    place = path if output.is_picture(path) else path.with_name(f"{path.stem}_examples.png")
    folder.save_picture(picture, place)
    print(f"picture: {place}")


def _fill_examples(chosen: ExampleOptions, kind: kinds.Kind) -> None:
    if not kind.fills:
        raise UsageError(
            f"{chosen.run} holds a run on {kind.what}, and impute is for images, tables and "
            "sequences"
        )
    path = Path(f"filled{kind.suffixes[0]}") if chosen.output is None else chosen.output
    folder.check_output(path, kind)
    folder.read_config_of(kind, chosen.run)
    kinds.check_file(kind, chosen.file)

    from vae_jax.run import examples, keys  # after the options, as it brings JAX
    from vae_jax.run.data import remote

    key, trained = keys.of_run(chosen.seed)["impute"], examples.restore(chosen.run)
    file = Path(remote.local(chosen.file))
    filled, lines = kind.parts.fill(key, trained, file, chosen.num_samples, chosen.num_draws)
    for line in lines:
        print(line)
    places = _places(path, chosen.num_draws)
    for made, place in zip((filled.filled, *filled.draws), places, strict=True):
        kind.parts.write(made, place)
    print(f"{kind.noun}: {', '.join(map(str, places[:4]))}{', ...' * (len(places) > 4)}")
