"""Image data sets as uint8 arrays, through TensorFlow Datasets but never through tensorflow."""

import contextlib
import gzip
import hashlib
import io
import os
import sys
import threading
import uuid
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.run.data.dataset import Dataset, Split, digest_of
from vae_jax.run.errors import DataError

NAMES = ("auto", "mnist", "fashion_mnist", "binarized_mnist", "digits")

_VERSIONS = {"mnist": "3.0.1", "fashion_mnist": "3.0.1", "binarized_mnist": "1.0.0"}
_PARTS = {  # the splits of TFDS, and what the original files call them
    "mnist": {"train": "train", "test": "t10k"},
    "fashion_mnist": {"train": "train", "test": "t10k"},
    "binarized_mnist": {"train": "train", "validation": "valid", "test": "test"},
}
_NAMES_OF_CLASSES = tuple(map(str, range(10)))
_VALIDATION_ROWS = 5000
_PROBE_SECONDS = 3.0


class _Unavailable(DataError):
    """The data set cannot be had here and now; the only error that `auto` falls back on."""


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads the data set called `name`, one of `NAMES`, or raises `DataError`.

    mnist, fashion_mnist and binarized_mnist are those of TensorFlow Datasets, looked for prepared
    in `data_dir` (default: `$TFDS_DATA_DIR`, then `~/tensorflow_datasets`), as the original files
    in `manual_dir`, in the download cache and last on the network. They are prepared in `data_dir`
    as array_record, and the decoded arrays are cached beside it; where `manual_dir` is given and no
    `data_dir`, in `manual_dir`, so that nothing is written where nobody said. mnist and
    fashion_mnist have no validation split: the last 5000 rows of the train split are held out.
    binarized_mnist (Larochelle's static binarization) brings its own, and has no labels.

    digits are scikit-learn's bundled 8x8 images, without a download. auto is mnist where it can
    be had within seconds, else digits and a `notice`.
    """
    if name == "digits":
        given = {"--data-dir": data_dir, "--manual-dir": manual_dir}
        what = "is not read: digits are bundled with scikit-learn"
        unread = tuple(f"{option}={path} {what}" for option, path in given.items() if path)
        return _digits()._replace(notes=unread)
    if name == "auto":
        try:
            return load("mnist", data_dir=data_dir, manual_dir=manual_dir)
        except _Unavailable as error:
            notice = f"THIS IS NOT MNIST but scikit-learn's 8x8 digits, because {error}"
            return _digits()._replace(notice=notice)
    if name not in _VERSIONS:
        raise DataError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")

    root, first_choice = _roots(name, data_dir, manual_dir)
    folder = root / name / _VERSIONS[name]
    notes: tuple[str, ...] = ()
    if manual_dir is not None and root != Path(manual_dir).expanduser() and folder.exists():
        notes = (f"--manual-dir={manual_dir} is not read: {name} is prepared in {folder}",)
    cache = folder / "vae_jax_uint8.npz"
    arrays = _read_cache(cache)
    if arrays is None:
        arrays = _load_tfds(name, root, folder, manual_dir)
        if root == first_choice:
            _write_cache(cache, arrays)
    train, test = (Split(arrays[f"{s}_images"], arrays[f"{s}_labels"]) for s in ("train", "test"))
    if name == "binarized_mnist":
        validation = Split(arrays["validation_images"], arrays["validation_labels"])
    else:
        validation = Split(*(rows[-_VALIDATION_ROWS:] for rows in train))
        train = Split(*(rows[:-_VALIDATION_ROWS] for rows in train))
    binary = name == "binarized_mnist"
    names = () if binary else _NAMES_OF_CLASSES
    source = f"TensorFlow Datasets {name} {_VERSIONS[name]}, prepared in {folder}"
    digest = digest_of(*(array for split in (train, validation, test) for array in split))
    return Dataset(
        name,
        train,
        validation,
        test,
        len(names),
        source,
        names=names,
        digest=digest,
        num_images=sum(len(split.labels) for split in (train, validation, test)),
        binary=binary,
        notes=notes,
    )


def _roots(name: str, data_dir: Any, manual_dir: Any) -> tuple[Path, Path]:
    """Where the data set is prepared, or is to be; and where it is, if it is nowhere yet."""
    named, default = data_dir or os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets"
    places = [Path(p).expanduser() for p in ([named] if named else [manual_dir, default]) if p]
    there = (place for place in places if (place / name / _VERSIONS[name]).exists())
    return next(there, places[0]), places[0]


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f'digits cannot be read ({_brief(error)}): pip install "vae_jax[run]"'
        ) from error
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    order = np.random.RandomState(0).permutation(len(images))  # RandomState's stream is frozen
    train, validation, test = (
        Split(images[rows], labels[rows]) for rows in np.split(order, [1297, 1497])
    )
    source = "scikit-learn's bundled digits"
    return Dataset(
        "digits",
        train,
        validation,
        test,
        num_classes=10,
        source=source,
        names=_NAMES_OF_CLASSES,
        digest=digest_of(images, labels),
        num_images=len(images),
    )


def _read_cache(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with open(path, "rb") as file, np.load(file) as arrays:  # a zip: every array has its CRC
            return dict(arrays)
    except Exception:  # absent, truncated or corrupt: it is made again
        return None


def _write_cache(path: Path, arrays: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):  # a read-only data_dir is slower, not an error
        try:
            with open(partial, "wb") as file:
                np.savez(file, **arrays)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _load_tfds(
    name: str, root: Path, folder: Path, manual_dir: str | os.PathLike[str] | None
) -> dict[str, np.ndarray]:
    # TFDS warns, prints and draws progress bars while it is imported and while it prepares.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            import tensorflow_datasets as tfds

            tfds.disable_progress_bar()
            with _one_line(f"{name} cannot be prepared in {root}", "try another --data-dir"):
                if not folder.exists():
                    _prepare(tfds, name, root, folder, manual_dir)
            with _one_line(f"{folder} is no prepared {name}", "delete it and run again"):
                return _read_prepared(tfds, name, root, folder)
        except ImportError as error:
            raise _Unavailable(
                f'{name} cannot be read ({_brief(error)}): pip install "vae_jax[tfds]", or choose '
                "--dataset=digits"
            ) from error


@contextlib.contextmanager
def _one_line(what: str, advice: str, kind: type[DataError] = DataError) -> Iterator[None]:
    """Turns the errors of TFDS, of any type and many lines, into a `DataError`."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except Exception as error:
        raise kind(f"{what} ({_brief(error)}): {advice}") from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _prepare(
    tfds: Any, name: str, root: Path, folder: Path, manual_dir: str | os.PathLike[str] | None
) -> None:
    """Runs the official builder with only its reading of files, tensorflow's, replaced."""
    from PIL import Image

    builder = tfds.builder(name, data_dir=root, version=folder.name, file_format="array_record")
    if folder.exists():  # another process was first, and this builder may only read
        return
    files = _original_files(tfds, builder, root, manual_dir)

    def examples(
        images: np.ndarray, labels: np.ndarray | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for row, image in enumerate(images):  # the row is the key that TFDS shuffles by
            label = {} if labels is None else {"label": int(labels[row])}
            yield row, {"image": Image.fromarray(image), **label}

    def originals(part: str) -> tuple[np.ndarray, ...]:
        if name == "binarized_mnist":
            return (_parse_amat(files[f"binarized_mnist_{part}.amat"]),)
        pair = files[f"{part}-images-idx3-ubyte.gz"], files[f"{part}-labels-idx1-ubyte.gz"]
        return tuple(_parse_idx(gzip.decompress(file)) for file in pair)

    builder._split_generators = lambda dl_manager: {
        split: examples(*originals(part)) for split, part in _PARTS[name].items()
    }
    print(f"Preparing {name} in {folder}: once, about 15 s", file=sys.stderr, flush=True)
    try:
        builder.download_and_prepare()
    except OSError:
        if not folder.exists():  # else another process was first to prepare it
            raise


def _original_files(
    tfds: Any, builder: Any, root: Path, manual_dir: str | os.PathLike[str] | None
) -> dict[str, bytes]:
    """The bytes of the original files by name, with the SHA-256 sums that TFDS wants."""
    from tensorflow_datasets.core.download.resource import get_dl_fname

    name, downloads, infos = builder.name, root / "downloads", builder.url_infos
    paths: dict[str, Any] = {}
    for url, info in infos.items():
        if manual_dir is None:
            places = [downloads / name / get_dl_fname(url, info.checksum)]
        else:
            place = Path(manual_dir, info.filename).expanduser()
            places = [place, place.with_name(f"{place.name}.gz")]
        paths[url] = next((place for place in places if place.is_file()), None)
    missing = [url for url, path in paths.items() if path is None]
    if missing:
        names = ", ".join(infos[url].filename for url in missing)
        if manual_dir is not None:
            raise DataError(f"--manual-dir={manual_dir} does not hold {names}: put the files there")
        what = f"{name} is not in {root} and cannot be downloaded"
        advice = f"give a --manual-dir with {names}, a prepared --data-dir or --dataset=digits"
        with _one_line(what, advice, _Unavailable):
            _probe(missing[0])
            print(f"Downloading {names}", file=sys.stderr, flush=True)
            manager = tfds.download.DownloadManager(
                download_dir=downloads, url_infos=infos, dataset_name=name
            )
            paths |= manager.download({url: url for url in missing})
    return {info.filename: _checked_bytes(paths[url], info) for url, info in infos.items()}


def _checked_bytes(path: Path, info: Any) -> bytes:
    content = path.read_bytes()
    if path.name == f"{info.filename}.gz":
        with contextlib.suppress(OSError, EOFError, zlib.error):  # what is left has another sum
            content = gzip.decompress(content)
    digest = hashlib.sha256(content).hexdigest()
    if digest != info.checksum:
        raise DataError(
            f"{path} is not the original {info.filename}: got {len(content)} bytes with sha256 "
            f"{digest[:8]}..., not {int(info.size)} with {info.checksum[:8]}...; delete it and "
            "fetch it again"
        )
    return content


def _probe(url: str) -> None:
    """Raises unless `url` answers within seconds: TFDS itself would try for three minutes."""
    import requests

    failure = [f"no answer within {_PROBE_SECONDS:g} s"]

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=_PROBE_SECONDS) as response:
                failure[0] = "" if response.ok else f"HTTP status {response.status_code}"
        except requests.RequestException:
            failure[0] = "no answer"

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up has no time-out of its own
    thread.start()
    thread.join(_PROBE_SECONDS)
    if failure[0]:
        raise ConnectionError(f"{failure[0]} from {url}")


def _parse_idx(content: bytes) -> np.ndarray:
    """The uint8 array of an IDX file: 0, 0, 8 for uint8, the rank, big-endian sizes, values."""
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _parse_amat(content: bytes) -> np.ndarray:
    """The 28x28 images of an .amat file: lines of 784 digits 0 or 1 with a space between."""
    return (np.frombuffer(content, np.uint8)[::2] - ord("0")).reshape(-1, 28, 28)


def _read_prepared(tfds: Any, name: str, root: Path, folder: Path) -> dict[str, np.ndarray]:
    """The decoded arrays of a prepared data set, in TFDS's own order."""
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    parse = tf_example_pb2.Example.FromString
    builder = tfds.builder(name, data_dir=root, version=folder.name)
    arrays: dict[str, np.ndarray] = {}
    for split in _PARTS[name]:
        examples = [parse(record) for record in _records(tfds, builder, split)]
        expected = builder.info.splits[split].num_examples
        if len(examples) != expected:
            raise ValueError(f"{split} has {len(examples)} of its {expected} examples")
        features = [example.features.feature for example in examples]
        pngs = [feature["image"].bytes_list.value[0] for feature in features]
        images = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])[..., None]
        if name == "binarized_mnist":
            images, labels = images * np.uint8(255), [-1] * len(images)
        else:
            labels = [feature["label"].int64_list.value[0] for feature in features]
        arrays |= {f"{split}_images": images, f"{split}_labels": np.array(labels, np.int32)}
    return arrays


def _records(tfds: Any, builder: Any, split: str) -> Iterator[bytes]:
    """The serialized examples of a split; TFDS itself needs tensorflow to read tfrecord."""
    if builder.info.file_format.value == "tfrecord":
        for path in builder.info.splits[split].filepaths:
            with open(path, "rb") as file:  # a record: length (8), CRC (4), content, CRC (4)
                while header := file.read(12):
                    yield file.read(int.from_bytes(header[:8], "little"))
                    file.read(4)
    else:
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split, deserialize_method=raw)
        yield from source.__getitems__(range(len(source)))
