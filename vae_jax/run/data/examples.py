"""What a trained run is used on: images in their order, with their places and their classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run import data, kinds, options
from vae_jax.run.data import conditions, named, pictures, remote
from vae_jax.run.data.columns import Column
from vae_jax.run.data.dataset import Dataset, Found, spread, take
from vae_jax.run.data.picture import Reading
from vae_jax.run.errors import DataError, UsageError


class Examples(NamedTuple):
    """Images to encode, score or reconstruct.

    Attributes:
      images: [N, H, W, C], bytes or floats in [0, 1], or what is read like them.
      labels: [N], the names of their classes, "" for none; None where none has one.
      places: [N], files' paths in their folder, or rows of the array that they are from; None where
        that is their place among these.
      source: where they are from.
      notes: lines for the user.
      told: float32 [N, C], of a run with conditions.
    """

    images: Any
    labels: np.ndarray | None
    places: np.ndarray | None
    source: str
    notes: tuple[str, ...] = ()
    told: np.ndarray | None = None

    def columns(self) -> dict[str, np.ndarray]:
        """What stands beside each one's numbers: name, where it is not the row, and label."""
        found = {"name": self.places, "label": self.labels}
        return {name: values for name, values in found.items() if values is not None}


def read(config: Mapping[str, Any], chosen: options.UsedData) -> Examples:
    """The images that the options name, as the run takes them.

    Args:
      config: of the run, its config.json.
      chosen: the options.

    Raises:
      DataError: they cannot be read, or are none that the run could have seen.
      UsageError: an option does not go with them.
    """
    asked = options.from_json(dict(config["options"]))
    if chosen.dataset is None:
        found = own(config, chosen.split or "test", chosen)
    elif chosen.dataset in named.NAMES[1:]:
        _check_left_out(chosen, f"{chosen.dataset} is a named data set", "data", "resize", *_FILES)
        where = chosen.data_dir or asked.data.data_dir
        dataset = named.load(chosen.dataset, data_dir=where)
        found = _of_dataset(dataset, chosen.split or "test")
    else:
        found = _of_files(config, chosen)
    _check_alike(found, config)
    return found


def own(config: Mapping[str, Any], split: str, chosen: options.UsedData | None = None) -> Examples:
    """A split of the data that the run was trained on.

    Args:
      config: of the run, its config.json.
      split: train, validation or test.
      chosen: where the data now lie.

    Raises:
      DataError: they are not there, or are others.
      UsageError: an option does not go with them.
    """
    return _of_dataset(_own(config, chosen or options.UsedData()), split)


def every_split(config: Mapping[str, Any], where: str | None = None) -> dict[str, Examples]:
    """The train, validation and test set of the run's own data, which are read once.

    Args:
      config: of the run, its config.json.
      where: they lie, if they have moved.

    Raises:
      DataError, UsageError: as `own`.
    """
    dataset = _own(config, options.UsedData(data=where))
    return {split: _of_dataset(dataset, split) for split in ("train", "validation", "test")}


def _own(config: Mapping[str, Any], chosen: options.UsedData) -> Dataset:
    _check_left_out(chosen, "the run's own data are read as in the run", "resize", *_FILES)
    where = options.moved(options.from_json(dict(config["options"])).data, chosen.data)
    if chosen.data_dir is not None:
        where = dataclasses.replace(where, data_dir=chosen.data_dir)
    return data.load_of_run(config, where)


_FILES = ("labels", "images_key", "labels_key")


def _check_left_out(chosen: options.UsedData, why: str, *names: str) -> None:
    """Raises UsageError for an option that such data have no use for."""
    for name in names:
        if getattr(chosen, name):
            raise UsageError(f"--{name.replace('_', '-')} is given but {why}: leave it out")


def _of_dataset(dataset: Dataset, split: str) -> Examples:
    images, labels = getattr(dataset, split)
    names = np.array([*dataset.names, ""])  # -1 is the last
    return Examples(
        images,
        names[labels] if dataset.num_classes else None,
        dataset.places.get(split),
        f"the {split} set of {dataset.source}",
        dataset.notes,
        dataset.told.get(split),
    )


def _of_files(config: Mapping[str, Any], chosen: options.UsedData) -> Examples:
    """A folder, an array or a prepared data set: all of it, or the split that is asked for."""
    assert chosen.dataset is not None
    _check_left_out(chosen, "it is of the run's own data, and DATA is given", "data")
    kinds.check_file(None, chosen.dataset)
    asked = options.from_json(dict(config["options"])).data
    here = remote.local(chosen.dataset)
    pictures_of = chosen.dataset.startswith("tfds:") or Path(here).is_dir()
    how: dict[str, Any] = {name: getattr(chosen, name) for name in (*_FILES, "data_dir")}
    if isinstance(asked, options.OwnData) and asked.condition is not None:
        how["condition"] = asked.condition
        if here.lower().endswith(".npy"):
            raise DataError(
                f"{chosen.dataset} is a .npy file, which has no columns, and the run is told "
                f"{asked.condition}: save the images and these as arrays of one .npz file"
            )
    if chosen.dataset.startswith("tfds:"):
        how["data_dir"] = chosen.data_dir or asked.data_dir
    if pictures_of:
        how |= _reading(config, asked, resize=chosen.resize)
    else:
        _check_left_out(chosen, f"{chosen.dataset} is no folder of pictures", "resize")
    channels = config["image_shape"][-1]
    parts = data.read(options.OwnData(here, **how), channels=channels)
    if any(part.missing for part in parts.values()) and not config["pixels"].get("missing"):
        raise DataError(
            f"{chosen.dataset} has missing pixels and the run has learned from whole images: fill "
            "them, or leave `observed` out"
        )
    columns = conditions.of_run(config)
    if "all" in parts:
        _check_left_out(chosen, f"{chosen.dataset} has no splits", "split")
        return _of_found(parts["all"], chosen.dataset, columns)
    split = chosen.split or "test"
    if split not in parts:
        raise UsageError(
            f"--split is {split} but {chosen.dataset} has {' and '.join(parts)}: name one of these"
        )
    return _of_found(parts[split], f"the {split} set of {chosen.dataset}", columns)


def _reading(
    config: Mapping[str, Any], asked: options.Data | options.OwnData, *, resize: bool
) -> dict[str, Any]:
    """How the run's pictures are read: to its size, on its background."""
    own_data = isinstance(asked, options.OwnData)
    size = asked.image_size if isinstance(asked, options.OwnData) else None
    if resize and size is None:
        height, width, _ = config["image_shape"]
        if height != width:
            raise UsageError(
                f"--resize makes squares but the run's pictures are {height} x {width}: leave it "
                "out, and give pictures of that size"
            )
        size = height
    background = asked.background if isinstance(asked, options.OwnData) else "white"
    return {"image_size": size, **({"background": background} if own_data else {})}


def _of_found(found: Found, source: str, columns: Sequence[Column]) -> Examples:
    labels = None
    if found.labels is not None:
        labels = found.labels.astype(str)
        labels = np.where(labels == "-1", "", labels)
    told = None if found.told is None else conditions.given(found.told, columns, source)
    return Examples(found.images, labels, found.places, source, found.notes, told)


def picture(path: Path, config: Mapping[str, Any], *, resize: bool = False) -> np.ndarray:
    """One picture from a file, [H, W, C], read as the run's are.

    Raises:
      DataError: it cannot be read, or is none that the run could have seen.
    """
    asked = options.from_json(dict(config["options"])).data
    how = _reading(config, asked, resize=resize)
    reading = Reading(how["image_size"], how.get("background", "white"), config["image_shape"][-1])
    images = pictures.read_file(path, reading)
    _check_alike(Examples(images, None, None, str(path)), config)
    one: np.ndarray = images[0]
    return one


def _check_alike(found: Examples, config: Mapping[str, Any]) -> None:
    """Raises DataError for images that the run could not have been trained on."""
    shape, wanted = tuple(found.images.shape[1:]), tuple(config["image_shape"])
    if shape != wanted:
        of_these, of_run = (" x ".join(map(str, of)) for of in (shape, wanted))
        raise DataError(
            f"{found.source} has images of {of_these} and the run of {of_run}: give such "
            "(--resize makes them of a folder's pictures, and of greys colours, not greys of these)"
        )
    likelihood = config["options"]["model"].get("likelihood")
    if likelihood in options.OF_BYTES and found.images.dtype != np.uint8:
        raise DataError(
            f"{found.source} has {found.images.dtype} images and the run's likelihood, "
            f"{likelihood}, is of bytes: give uint8"
        )


def with_classes(
    found: Examples, config: Mapping[str, Any], names: list[str], label: str | None
) -> tuple[Examples, Any]:
    """The images whose class is known, and the classes that a conditional run is to be told.

    Args:
      found: from `read`.
      config: of the run.
      names: of its classes.
      label: one for all, as the user asked; None for the images' own.

    Returns:
      The images, and None for an unconditional run, a name, or the name of each.

    Raises:
      DataError: an image is of no class of the run.
      UsageError: the label is none of the run's, or is missing.
    """
    label = check_label(config, names, label, needed=False)
    if conditions.of_run(config):
        return found, found.told
    if label is not None or not config["options"]["model"].get("conditional"):
        return found, label
    shown = _shown(names)
    if found.labels is None:
        raise UsageError(
            f"the run is conditional and {found.source} has no labels: give --label, {shown}"
        )
    labels = found.labels
    unknown = sorted(set(labels.tolist()) - {*names, ""})
    if unknown:
        raise DataError(
            f"{found.source} has the class {unknown[0]}, which the run does not know: give "
            f"--label, {shown}"
        )
    rows = np.flatnonzero(labels != "")
    if not len(rows):
        raise UsageError(f"no image of {found.source} has a label: give --label, {shown}")
    if len(rows) < len(labels):
        left_out = f"{len(labels) - len(rows):,} images without a label are left out"
        places = rows if found.places is None else found.places[rows]
        found = Examples(
            take(found.images, rows),
            labels[rows],
            places,
            found.source,
            (*found.notes, left_out),
        )
    return found, labels[rows].tolist()


def check_label(
    config: Mapping[str, Any], names: list[str], label: str | None, *, needed: bool = True
) -> str | None:
    """The label, if the run can be told it.

    Raises:
      UsageError: it is none of the run's, or is missing where it is needed.
    """
    if label is not None and (columns := conditions.of_run(config)):
        told = ", ".join(column.name for column in columns)
        raise UsageError(
            f"--label is {label} but the run is conditional on {told}, which the images bring: "
            "leave it out"
        )
    if not config["options"]["model"].get("conditional"):
        if label is not None:
            raise UsageError(f"--label is {label} but the run is unconditional: leave it out")
    elif label is None and needed:
        raise UsageError(f"the run is conditional: give --label, {_shown(names)}")
    elif label is not None and label not in names:
        raise UsageError(f"--label is {label}: give {_shown(names)}")
    return label


def _shown(names: list[str]) -> str:
    return f"one of the classes {', '.join(names[:20])}{', ...' * (len(names) > 20)}"


def open_for(
    config: Mapping[str, Any], names: list[str], chosen: options.UsedData, label: str | None
) -> tuple[Examples, Any]:
    """What a command uses a run on, said in a line, and the classes that a run is told of it.

    Args:
      config: of the run, its config.json.
      names: of its classes.
      chosen: the options.
      label: as in `with_classes`.

    Raises:
      DataError, UsageError: as `read` and `with_classes`.
    """
    found, labels = with_classes(read(config, chosen), config, names, label)
    print(f"{len(found.images):,} images: {found.source}")
    for note in found.notes:
        print(f"note: {note}")
    return found, labels


def some(found: Examples, labels: Any, most: int) -> tuple[Any, Any]:
    """`most` images at most, evenly spaced, as folders lie class by class; and their labels.

    Args:
      found: the images.
      labels: of `with_classes`.
      most: images.
    """
    rows = spread(len(found.images), most)
    if isinstance(labels, list):
        labels = [labels[row] for row in rows]
    elif isinstance(labels, np.ndarray):
        labels = labels[rows]
    return found.images[rows], labels
