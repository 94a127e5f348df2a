"""Data sets from their names, from files and folders, and as streams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_jax.run import options
from vae_jax.run.data import conditions, named, remote
from vae_jax.run.data.dataset import Dataset, Found, Split, assemble
from vae_jax.run.errors import DataError, UsageError

__all__ = ["Dataset", "Split", "load", "load_of_run", "read"]


def load_of_run(
    config: Mapping[str, Any], chosen: options.Data | options.OwnData, *, stream: bool = False
) -> Dataset:
    """The data of a run, from where the options say that they are now.

    Args:
      config: of the run, its config.json.
      chosen: the options.
      stream: as for `load`.

    Raises:
      DataError: they are not what the run saw, or cannot be used.
    """
    dataset = load(chosen, stream=stream, by_position="digest" not in config)
    then, now = config.get("num_images"), dataset.num_images
    if config.get("digest", dataset.digest) != dataset.digest:
        what = (
            f"{now:,} images where the run saw {then:,}"
            if now != then
            else f"{now:,} as before, but not the same ones, or not in the same order"
        )
        raise DataError(
            f"the data in {dataset.source} are not those of the run: {what}. Name the place where "
            "those are, or start a new run, which --init-from lets begin with this one's parameters"
        )
    return dataset


def load(
    chosen: options.Data | options.OwnData, *, stream: bool = False, by_position: bool = False
) -> Dataset:
    """The data set that the options name.

    Args:
      chosen: the options.
      stream: decode pictures of TensorFlow Datasets when they are asked for.
      by_position: split as version 0.1 did, for its runs.

    Raises:
      DataError: it cannot be used; one line that says why.
      UsageError: an option does not go with it.
    """
    if isinstance(chosen, options.Data):
        return named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    if chosen.dataset.startswith("tfds:"):
        from vae_jax.run.data import tfds

        name = _of_tfds(chosen)
        return tfds.load(name, chosen, stream=stream, by_position=by_position)
    path = Path(remote.local(chosen.dataset))
    parts, asked = _parts(path, chosen.test, chosen), conditions.names(chosen.condition)
    parts = {name: conditions.complete(part, asked, str(path)) for name, part in parts.items()}
    dataset = assemble(path.absolute().stem, str(path), parts, by_position=by_position)
    return conditions.numbered(dataset, asked) if asked else dataset


def read(chosen: options.OwnData, *, channels: int = 1) -> dict[str, Found]:
    """What is there, by the split it is of, unassembled: `all`, or `train` and the others.

    Args:
      chosen: the options.
      channels: of pictures, so many at least.

    Raises:
      DataError, UsageError: as `load`.
    """
    if chosen.dataset.startswith("tfds:"):
        from vae_jax.run.data import tfds

        return tfds.read(_of_tfds(chosen), chosen, stream=False)[0]
    return _parts(Path(remote.local(chosen.dataset)), chosen.test, chosen, channels)


def _of_tfds(chosen: options.OwnData) -> str:
    unused = ("test", "labels", "images_key", "labels_key", "condition")
    _check_unused(chosen, chosen.dataset, "prepared by TFDS", *unused)
    return chosen.dataset.removeprefix("tfds:")


def _parts(
    path: Path, test: Path | None, chosen: options.OwnData, channels: int = 1
) -> dict[str, Found]:
    """What is found, by the split it is of: `all`, or `train` and the others."""
    from vae_jax.run.data import arrays, pictures
    from vae_jax.run.data.picture import Reading

    of_pictures, *others = [_is_folder(place) for place in (path, test) if place is not None]
    if others not in ([], [of_pictures]):
        raise UsageError(
            f"{path} and --test={test} are of two kinds: give two folders or two files"
        )
    if of_pictures:
        _check_unused(chosen, path, "a folder", "images_key", "labels_key", "labels", "data_dir")
        reading = Reading(chosen.image_size, chosen.background, channels)
        return pictures.read_folder(path, reading, test, tuple(conditions.names(chosen.condition)))
    _check_unused(chosen, path, "an array", "image_size", "background", "data_dir")

    def read(place: Path) -> dict[str, arrays.Looked]:
        if place.suffix.lower() == ".npz":
            _check_unused(chosen, place, "a .npz file", "labels")
            told = tuple(conditions.names(chosen.condition))
            return arrays.read_npz(place, chosen.images_key, chosen.labels_key, told)
        _check_unused(chosen, place, "a .npy file", "images_key", "labels_key")
        if chosen.condition is not None:
            raise UsageError(
                f"the model is told {chosen.condition} and {place} is a .npy file, which has no "
                "columns: save the images and these as arrays of one .npz file"
            )
        return arrays.read_npy(place, chosen.labels)

    looked = read(path)
    if test is not None:
        if chosen.labels is not None:
            raise UsageError(
                f"--labels={chosen.labels} has none for --test={test}: save images and labels of "
                "both as .npz files, and leave it out"
            )
        of_test = read(test)
        if "all" not in looked or "all" not in of_test:
            raise UsageError(f"--test is {test} but there are splits of their own: leave it out")
        looked = {"train": looked["all"], "test": of_test["all"]}
    return arrays.scaled(looked)


def _is_folder(path: Path) -> bool:
    """Whether a place holds pictures; else it holds an array."""
    try:
        if path.is_dir():
            return True
        what = "is no .npy or .npz file and no folder" if path.exists() else "does not exist"
        if path.exists() and path.suffix.lower() in (".npy", ".npz"):
            return False
    except OSError as error:  # of a name that none can have
        what = f"cannot be looked for ({error.strerror})"
    if path.suffix.lower() in (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"):
        raise DataError(f"{path} {what}: unpack it")
    raise DataError(
        f"{path} {what}: name an array, a folder of pictures, tfds:NAME, or a .csv, .parquet, "
        ".feather, .h5ad, .mtx or .jsonl file"
    )


def _check_unused(chosen: options.OwnData, path: Path | str, kind: str, *names: str) -> None:
    """Raises UsageError for an option that data of this kind have no use for."""
    for name in names:
        if getattr(chosen, name) != options.OwnData.__dataclass_fields__[name].default:
            raise UsageError(
                f"--{name.replace('_', '-')} is {getattr(chosen, name)} and {path} is {kind}: "
                "leave it out"
            )
