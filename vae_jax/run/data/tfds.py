"""Any data set of images that TensorFlow Datasets has prepared, read without tensorflow."""

import os
from typing import Any

import numpy as np

from vae_jax.run.data import named
from vae_jax.run.data.dataset import (
    STREAM_BYTES,
    Dataset,
    Found,
    assemble,
    content_hash,
)
from vae_jax.run.data.picture import Reading, check, decode
from vae_jax.run.errors import DataError
from vae_jax.run.options import OwnData

_LOOKED_AT = 1000


class Prepared:
    """Images of a prepared data set, decoded when they are asked for.

    Attributes:
      shape: [N, H, W, C]; every image must have it.
      dtype: uint8.
      binary: whether the first thousand have no value but 0 and 1; all are then times 255.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Any, name: str, reading: Reading) -> None:
        self._source, self._name, self._reading = source, name, reading
        self._rows, self.binary = np.arange(len(source)), False
        first = self._decoded(0)
        self.shape = (len(source), *first.shape)
        if first.shape[-1] not in (1, 3):
            raise DataError(
                f"{name} has images of {first.shape[-1]} channels: 1 and 3 can be learned"
            )
        self.binary = all(self._decoded(i).max() <= 1 for i in range(min(len(self), _LOOKED_AT)))

    def __len__(self) -> int:
        return len(self._rows)

    def _decoded(self, row: int) -> np.ndarray:
        example = self._source[row]
        if "image" not in example:
            raise DataError(f"{self._name} has no feature 'image'")
        what = f"{self._name}, image {row},"
        values = decode(np.squeeze(example["image"]), self._reading, what)
        if values.dtype != np.uint8:
            raise DataError(f"{self._name} has images of {values.dtype}: bytes can be learned")
        if self.binary and values.max() > 1:
            raise DataError(f"{self._name} is binary at first, and image {row} is not")
        return values * np.uint8(255) if self.binary else values

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        found = np.empty((rows.size, *self.shape[1:]), np.uint8)
        for i, row in enumerate(rows.flat):
            picture = self._decoded(int(row))
            if picture.shape != self.shape[1:]:
                raise DataError(f"{self._name} has images of several sizes: give --image-size")
            found[i] = picture
        return found.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))]

    def take(self, rows: np.ndarray) -> "Prepared":
        """Some of the images, not decoded."""
        some = object.__new__(Prepared)
        some.__dict__ |= {**self.__dict__, "_rows": self._rows[rows]}
        some.shape = (len(rows), *self.shape[1:])
        return some


def load(name: str, chosen: OwnData, *, stream: bool, by_position: bool = False) -> Dataset:
    """A data set prepared as array_record; its own test split where it has one.

    Args:
      name: of the set.
      chosen: the options.
      stream: decode pictures when they are asked for.
      by_position: split as version 0.1 did, for its runs.

    Raises:
      DataError: it is not there, or is none of images.
    """
    parts, source = read(name, chosen, stream=stream)
    dataset = assemble(name, source, parts, by_position=by_position)
    held_out = dataset.validation
    return dataset._replace(validation=held_out._replace(images=np.asarray(held_out.images)))


def read(name: str, chosen: OwnData, *, stream: bool) -> tuple[dict[str, Found], str]:
    """Its splits, `train` and `test`, or `all` where it has none for testing; and where it is.

    Raises:
      DataError: as `load`.
    """
    reading = Reading(chosen.image_size, chosen.background)
    check(reading)
    builder, sources, root = _prepared(name, chosen)
    if "train" not in sources:
        raise DataError(f"{name} has the splits {', '.join(sources)}, and none called train")

    def found(part: str) -> Found:
        if not len(sources[part]):
            raise DataError(f"the {part} split of {name} is empty")
        what = f"the {part} split of {name}"
        images: Any = Prepared(sources[part], what, reading)
        binary = images.binary
        if not stream and np.prod(images.shape, dtype=np.int64) <= STREAM_BYTES:
            images = np.asarray(images)
        notes = (f"{what}: every value is 0 or 1, so the images are binary",) if binary else ()
        labels, hashes = _labels_and_hashes(builder, part)
        return Found(images, labels, hashes, binary, notes)

    parts = {part: found(part) for part in ("train", "test") if part in sources}
    if "test" not in parts:
        parts = {"all": parts["train"]}
    return parts, f"TensorFlow Datasets {name}, prepared in {root}"


def _prepared(name: str, chosen: OwnData) -> tuple[Any, Any, Any]:
    root = chosen.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        import tensorflow_datasets as tfds

        with named._one_line(
            f"{name} is not prepared as array_record in {root}",
            f"run tfds build {name} --file_format=array_record --data_dir={root} on a machine with "
            "tensorflow",
        ):
            builder = tfds.builder(name, data_dir=os.path.expanduser(root))
            return builder, builder.as_data_source(), root
    except ImportError as error:
        raise DataError(
            f'{name} cannot be read ({named._brief(error)}): pip install "vae_jax[tfds]"'
        ) from error


def _labels_and_hashes(builder: Any, part: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Of each example the feature `label`, and a hash of the image as it is stored.

    The labels are numbers or texts, None where there are none.
    """
    import tensorflow_datasets as tfds

    # To decode the images would be most of the time.
    of_part = builder.as_data_source(part, decoders={"image": tfds.decode.SkipDecoding()})
    first = of_part[0].get("label")
    single = isinstance(first, int | str | bytes | np.generic) and not np.ndim(first)
    labels, hashes = [], np.empty(len(of_part), np.uint64)
    for i in range(len(of_part)):
        example = of_part[i]
        stored = example["image"]
        if isinstance(stored, bytes):
            stored = np.frombuffer(stored, np.uint8)
        hashes[i] = content_hash(np.asarray(stored))
        if single:
            label = example["label"]
            labels.append(label.decode() if isinstance(label, bytes) else label)
    return (np.array(labels) if single else None), hashes
