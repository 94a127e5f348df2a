"""One's own images: an array on disk, a folder of pictures, or any data set of TFDS.

They become uint8 [N, H, W, C], as those of `named`. A .npy file is not read but for the
rows that are asked for, so it can be larger than memory.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vae_jax.run import options
from vae_jax.run.data import named
from vae_jax.run.data.dataset import STREAM_BYTES, Dataset, Split
from vae_jax.run.errors import DataError, UsageError

_MAX_TEST, _MAX_VALIDATION, _LEAST = 10_000, 5_000, 20


class Pictures:
    """Images of a prepared data set of TFDS, decoded when they are asked for.

    Attributes:
      shape: [N, H, W, C]; every image must have it.
      dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, source: Any, name: str, size: int | None, rows: np.ndarray | None = None
    ) -> None:
        self._source, self._name, self._size = source, name, size
        self._rows = np.arange(len(source)) if rows is None else rows
        first = _tfds_picture(source[0], name, size)
        self.shape = (len(self._rows), *first.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        found = np.empty((rows.size, *self.shape[1:]), np.uint8)
        for i, row in enumerate(rows.flat):
            picture = _tfds_picture(self._source[int(row)], self._name, self._size)
            if picture.shape != self.shape[1:]:
                raise DataError(f"{self._name} has images of several sizes: give --image-size")
            found[i] = picture
        return found.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))]

    def take(self, rows: np.ndarray) -> "Pictures":
        """Some of the images, not decoded."""
        return Pictures(self._source, self._name, self._size, self._rows[rows])


def _tfds_picture(example: Any, name: str, size: int | None) -> np.ndarray:
    if "image" not in example:
        raise DataError(f"{name} has no feature 'image'")
    return _picture(np.squeeze(example["image"]), size)


class Rows:
    """Rows of an array on disk as uint8 images, read when they are asked for.

    Attributes:
      shape: [N, H, W, C].
      dtype: uint8, whatever the file's.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, file: np.memmap, what: str, rows: np.ndarray | None = None) -> None:
        self._file, self._what = file, what
        self._rows = np.arange(len(file)) if rows is None else rows
        channels = () if file.ndim == 4 else (1,)
        self.shape = (len(self._rows), *file.shape[1:], *channels)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        found = np.empty((rows.size, *self._file.shape[1:]), self._file.dtype)
        bytes_, size = memoryview(found.reshape(-1).view(np.uint8)), found[:1].nbytes
        # Read, not mapped: pages of a mapped file count as this process's memory. Disks like rows
        # in turn.
        descriptor = os.open(self._file.filename, os.O_RDONLY)
        try:
            for i in np.argsort(rows, axis=None).tolist():
                place = self._file.offset + int(rows.flat[i]) * size
                if os.preadv(descriptor, [bytes_[i * size : (i + 1) * size]], place) != size:
                    raise DataError(f"{self._what} ends before its image {rows.flat[i]}")
        finally:
            os.close(descriptor)
        return as_bytes(found, self._what).reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))]

    def __reduce__(self) -> Any:  # a mapped file would be pickled whole
        file = self._file
        return _reopened, (
            file.filename,
            file.dtype,
            file.offset,
            file.shape,
            self._what,
            self._rows,
        )

    def take(self, rows: np.ndarray) -> "Rows":
        """Some of the rows, unread."""
        return Rows(self._file, self._what, self._rows[rows])


def _reopened(
    path: str, dtype: np.dtype, offset: int, shape: tuple[int, ...], what: str, rows: np.ndarray
) -> Rows:
    return Rows(np.memmap(path, dtype, "r", offset, shape), what, rows)


def load(chosen: options.Data | options.OwnData, *, stream: bool = False) -> Dataset:
    """The data set that the options name; with `stream` pictures of TFDS are decoded later.

    Raises:
      DataError: it cannot be used; one line that says why.
    """
    if isinstance(chosen, options.Data):
        return named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    if chosen.dataset.startswith("tfds:"):
        return _of_tfds(chosen.dataset.removeprefix("tfds:"), chosen, stream)
    path = Path(chosen.dataset)
    if path.is_dir():
        images, labels, names = _of_folder(path, chosen.image_size)
    elif path.suffix in (".npy", ".npz"):
        images, labels = (_of_npy if path.suffix == ".npy" else _of_npz)(path, chosen)
        names = []
    else:
        what = "is no .npy or .npz file and no folder" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}: name an array, a folder of images, or tfds:NAME")
    num_classes = len(names) or int(labels.max(initial=-1)) + 1
    return _split(path.absolute().stem, str(path), images, labels, num_classes)


def as_bytes(images: np.ndarray, what: str) -> np.ndarray:
    """Images as uint8: bytes as they are, truth values and numbers in [0, 1] times 255.

    Raises:
      DataError: a value is NaN, or out of range.
    """
    if images.dtype == np.uint8:
        return images
    kind = images.dtype.kind
    if kind not in "biuf":
        raise DataError(f"{what} holds {images.dtype}: images are bytes, or numbers in [0, 1]")
    if kind == "f" and np.isnan(images).any():
        rows = np.isnan(images).reshape(len(images), -1).any(axis=1)
        raise DataError(
            f"{what} has NaN in {rows.sum()} of {len(rows)} images, the first of them number "
            f"{rows.argmax()}: leave them out"
        )
    most = 255 if kind in "iu" else 1
    low, high = images.min(initial=0), images.max(initial=0)
    if low < 0 or high > most:
        raise DataError(
            f"{what} has values from {low} to {high}: scale them to [0, {most}], the range of "
            f"{images.dtype} images"
        )
    return images.astype(np.uint8) if most == 255 else np.round(images * 255.0).astype(np.uint8)


def _check_shape(shape: tuple[int, ...], what: str) -> None:
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise DataError(
            f"{what} has shape {shape}: images are [N, H, W], or [N, H, W, C] with 1 or 3 channels"
        )


def _check_no_size(chosen: options.OwnData) -> None:
    if chosen.image_size is not None:
        raise UsageError(
            f"--image-size resizes pictures of a folder or of TFDS, and {chosen.dataset} is an "
            "array: leave it out"
        )


def _of_npy(path: Path, chosen: options.OwnData) -> tuple[Rows, np.ndarray]:
    _check_no_size(chosen)
    try:
        file = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({named._brief(error)})") from error
    _check_shape(file.shape, str(path))
    if not file.flags.c_contiguous:
        raise DataError(f"{path} is in Fortran's order: save np.ascontiguousarray of it")
    return Rows(file, str(path)), np.full(len(file), -1, np.int32)


def _of_npz(path: Path, chosen: options.OwnData) -> tuple[np.ndarray, np.ndarray]:
    _check_no_size(chosen)
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception as error:  # zipfile's and NumPy's, of every type
        raise DataError(f"{path} cannot be read ({named._brief(error)})") from error
    key = next(iter(arrays)) if len(arrays) == 1 else chosen.images_key
    if key not in arrays:
        raise DataError(
            f"{path} has no array {key!r} but {', '.join(arrays)}: choose one with --images-key"
        )
    images = arrays[key]
    _check_shape(images.shape, f"{path}, {key!r},")
    images = as_bytes(images, f"{path}, {key!r},")
    labels = arrays.get(chosen.labels_key, np.full(len(images), -1))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}, {chosen.labels_key!r}, is {labels.dtype} of shape {labels.shape}: labels are "
            "integers [N], from 0, or -1 for none"
        )
    if len(labels) != len(images):
        raise DataError(
            f"{path} has {len(images)} images but {len(labels)} labels: give one for each image"
        )
    return images.reshape(*images.shape[:3], -1), labels.astype(np.int32)


def _of_folder(folder: Path, size: int | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The pictures of a folder, and of its sub-folders, whose names are the labels."""
    from PIL import Image

    known = Image.registered_extensions()
    paths = sorted(
        path
        for path in (*folder.glob("*"), *folder.glob("*/*"))
        if path.suffix.lower() in known and path.is_file() and not path.name.startswith(".")
    )
    if not paths:
        raise DataError(
            f"{folder} holds no images, nor do its sub-folders: put them there, in any of "
            "Pillow's formats"
        )
    bar = tqdm(paths, "reading", unit="image", delay=1, leave=False, disable=None)
    pictures = [(path, _picture(path, size)) for path in bar]
    sizes = {picture.shape[:2]: path for path, picture in pictures}
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise DataError(
            f"{folder} holds images of {len(sizes)} sizes, such as {first} of {a[1]}x{a[0]} and "
            f"{second} of {b[1]}x{b[0]}: give --image-size"
        )
    channels = max(picture.shape[2] for _, picture in pictures)  # greys among colours become RGB
    images = np.stack([np.broadcast_to(p, (*p.shape[:2], channels)) for _, p in pictures])
    names = sorted({path.parent.name for path in paths if path.parent != folder})
    number = {name: i for i, name in enumerate(names)}
    labels = [-1 if path.parent == folder else number[path.parent.name] for path in paths]
    return images, np.array(labels, np.int32), names


def _picture(source: Any, size: int | None) -> np.ndarray:
    """A picture, a file or an array, as uint8 [H, W, 1 or 3]."""
    from PIL import Image, ImageOps

    try:
        picture = Image.fromarray(source) if isinstance(source, np.ndarray) else Image.open(source)
        with picture:
            picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith("I;16"):  # Pillow itself would cut off at 255
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            picture = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
            if size is not None:
                picture = ImageOps.fit(picture, (size, size))
            array = np.asarray(picture)
            return array.reshape(*array.shape[:2], -1)
    except Exception as error:  # Pillow's plugins raise every type
        raise DataError(
            f"{source} is no image that Pillow can read ({named._brief(error)}): delete it, or "
            "save it anew"
        ) from error


def _of_tfds(name: str, chosen: options.OwnData, stream: bool) -> Dataset:
    """A data set that TFDS has prepared as array_record; its own test split where it has one."""
    root = Path(chosen.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    try:
        import tensorflow_datasets as tfds

        with named._one_line(
            f"{name} is not prepared as array_record in {root}",
            f"run tfds build {name} --file_format=array_record --data_dir={root} on a machine with "
            "tensorflow",
        ):
            builder = tfds.builder(name, data_dir=root.expanduser())
            sources = builder.as_data_source()
    except ImportError as error:
        raise DataError(
            f'{name} cannot be read ({named._brief(error)}): pip install "vae_jax[tfds]"'
        ) from error

    def labels(part: str) -> np.ndarray:
        # To decode the image would be most of the time.
        skip = {"image": tfds.decode.SkipDecoding()}
        of_part = builder.as_data_source(part, decoders=skip)
        found = (of_part[i].get("label", -1) for i in range(len(of_part)))
        return np.fromiter(found, np.int32, len(of_part))

    def split(part: str) -> Split:
        if not len(sources[part]):
            raise DataError(f"the {part} split of {name} is empty")
        images = Pictures(sources[part], f"the {part} split of {name}", chosen.image_size)
        large = np.prod(images.shape, dtype=np.int64) > STREAM_BYTES
        return Split(images if stream or large else np.asarray(images), labels(part))

    train = split("train")
    num_classes = int(train.labels.max(initial=-1)) + 1
    source = f"TensorFlow Datasets {name}, prepared in {root}"
    if "test" not in sources:
        return _split(name, source, *train, num_classes)
    # All of the train split is trained on, but for the examples that are held out to validate.
    rows = _split_rows(len(train.labels), source)
    validation, rest = rows[1], np.concatenate([rows[2], rows[0]])
    return Dataset(
        name,
        Split(_take(train.images, rest), train.labels[rest]),
        Split(np.asarray(train.images[validation]), train.labels[validation]),
        split("test"),
        num_classes=num_classes,
        source=source,
    )


def _take(images: Any, rows: np.ndarray) -> Any:
    return images.take(rows) if isinstance(images, Rows | Pictures) else images[rows]


def _split_rows(num: int, source: str) -> list[np.ndarray]:
    """The rows to test, to validate and to train on."""
    if num < _LEAST:
        raise DataError(f"{source} has {num} images: {_LEAST} are the least to train and test on")
    num_test, num_validation = min(num // 10, _MAX_TEST), min(num // 10, _MAX_VALIDATION)
    order = np.random.RandomState(0).permutation(num)  # RandomState's stream is frozen
    return np.split(order, [num_test, num_test + num_validation])


def _split(name: str, source: str, images: Any, labels: np.ndarray, num_classes: int) -> Dataset:
    """Three splits, the same ones each time: a tenth to validate and a tenth to test, at most."""
    test, validation, train = _split_rows(len(images), source)
    kept = _take(images, train)
    return Dataset(
        name,
        Split(kept, labels[train]),
        *(Split(images[rows], labels[rows]) for rows in (validation, test)),
        num_classes=num_classes,
        source=source,
    )
