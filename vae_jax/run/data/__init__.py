"""Data sets from their names, from files and folders, and as streams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_jax.run import options
from vae_jax.run.data import named
from vae_jax.run.data.dataset import Dataset, Found, Split, assemble
from vae_jax.run.errors import DataError, UsageError

__all__ = ["Dataset", "Split", "load", "load_of_run"]


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

        return tfds.load(chosen.dataset.removeprefix("tfds:"), chosen, stream=stream)
    path = Path(chosen.dataset)
    parts = _parts(path, chosen)
    if chosen.test is not None:
        test = _parts(chosen.test, chosen)
        if "all" not in parts or "all" not in test:
            raise UsageError(
                f"--test is {chosen.test} but {path} has splits of its own: leave it out"
            )
        parts = {"train": parts["all"], "test": test["all"]}
        shapes = [part.images.shape[1:] for part in parts.values()]
        if shapes[0] != shapes[1]:
            raise DataError(f"{path} has images of {shapes[0]} and {chosen.test} of {shapes[1]}")
    return assemble(path.absolute().stem, str(path), parts, by_position=by_position)


def _parts(path: Path, chosen: options.OwnData) -> dict[str, Found]:
    """What is found in one place, by the split it is of: `all`, or `train` and the others."""
    from vae_jax.run.data import arrays, pictures

    if path.is_dir():
        return pictures.read_folder(path, pictures.Reading(chosen.image_size, chosen.background))
    if path.suffix in (".npy", ".npz"):
        if chosen.image_size is not None:
            raise UsageError(
                f"--image-size resizes pictures of a folder or of TFDS, and {path} is an array: "
                "leave it out"
            )
        if path.suffix == ".npy":
            return arrays.read_npy(path, chosen.labels)
        return arrays.read_npz(path, chosen.images_key, chosen.labels_key)
    what = "is no .npy or .npz file and no folder" if path.exists() else "does not exist"
    raise DataError(f"{path} {what}: name an array, a folder of pictures, or tfds:NAME")
