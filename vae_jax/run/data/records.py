"""Pictures in a folder of ArrayRecord files, as Grain reads them: files in a file."""

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run import extras
from vae_jax.run.errors import DataError

_FILE = re.compile(r"\.array_?record(-\d+-of-\d+)?$")
_PART = re.compile(r"(?i)(?:^|[-_.])(train|test|validation|valid|val)(?=[-_.])")
_IMAGES = ("image", "image/encoded", "image_raw", "jpg", "png")
_LABELS = ("label", "image/class/text", "image/class/label", "class", "cls")


class Record(NamedTuple):
    """A picture in a file of such, to be read as a file of its own is.

    Attributes:
      file: of the records.
      row: its number there.
    """

    file: Path
    row: int

    @property
    def suffix(self) -> str:
        """None: of a record the content says what it is."""
        return ""

    def __str__(self) -> str:
        return f"{self.file}, record {self.row},"

    @property
    def place(self) -> str:
        return f"{self.file.name}:{self.row}"

    def read_bytes(self) -> bytes:
        """The picture as it was encoded.

        Raises:
          DataError: the record holds none.
        """
        return self.content()[0]

    def content(self) -> tuple[bytes, Any]:
        """The picture as it was encoded, and its label, None where there is none.

        Raises:
          DataError: the record cannot be read, or holds no picture.
        """
        try:
            found: bytes = _opened(self.file)[self.row]
        except Exception as error:  # the reader's, of every type
            brief = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise DataError(f"{self} cannot be read ({brief}): write the file anew") from error
        # No picture begins with the byte that a tf.train.Example begins with.
        return (found, None) if found[:1] != b"\n" else _of_example(found, str(self))


@functools.lru_cache(maxsize=64)
def _opened(file: Path) -> Any:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource([str(file)])


def _of_example(content: bytes, what: str) -> tuple[bytes, Any]:
    extras.check("tensorflow_datasets")
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        features = tf_example_pb2.Example.FromString(content).features.feature
    except Exception as error:  # protobuf's
        raise DataError(
            f"{what} is neither an encoded picture nor a tf.train.Example: write one of these"
        ) from error
    bytes_of = {name: list(of.bytes_list.value) for name, of in features.items()}
    image = next((bytes_of[name][0] for name in _IMAGES if bytes_of.get(name)), None)
    if image is None:
        raise DataError(
            f"{what} has the features {', '.join(sorted(features)) or 'none'}: an encoded picture "
            f"is called {' or '.join(_IMAGES)}"
        )
    for name in _LABELS:
        if name in features:
            values = [of.decode() for of in bytes_of[name]] or list(features[name].int64_list.value)
            if len(values) == 1:
                return image, values[0]
    return image, None


def files_in(folder: Path) -> list[Path]:
    """The ArrayRecord files of a folder."""
    return sorted(path for path in folder.iterdir() if _FILE.search(path.name))


def listed(folder: Path) -> dict[str, tuple[list[Record], np.ndarray | None]]:
    """The pictures of a folder's files and their labels, by the split that the files' names say.

    They are `train`, `test` and maybe `validation` where files are of both of the former, or `all`.

    Raises:
      DataError: a record holds no picture.
      RunError: array_record is not installed.
    """
    extras.check("array_record")
    parts: dict[str, list[Path]] = {}
    for file in files_in(folder):
        word = _PART.search(_FILE.sub("", file.name) + ".")
        part = word[1].lower() if word else "all"
        parts.setdefault("validation" if part.startswith("val") else part, []).append(file)
    if not {"train", "test"} <= parts.keys() or "all" in parts:
        parts = {"all": files_in(folder)}
    return {part: _of_files(files) for part, files in sorted(parts.items())}


def _of_files(files: list[Path]) -> tuple[list[Record], np.ndarray | None]:
    found: list[Record] = []
    for file in files:
        try:
            num = len(_opened(file))
        except Exception as error:  # the reader's, of every type
            brief = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise DataError(f"{file} cannot be read ({brief}): write it anew") from error
        found += [Record(file, row) for row in range(num)]
    labels = [record.content()[1] for record in found]
    if all(label is None for label in labels):
        return found, None
    return found, np.array(["" if label is None else str(label) for label in labels])
