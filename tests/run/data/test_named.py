"""The oracles are the original files, parsed here on their own, and TFDS's own data_source."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from vae_jax.run.data import named
from vae_jax.run.errors import DataError

ROOT = Path(__file__).parents[3]
PARTS = {
    "mnist": {"train": "train", "test": "t10k"},
    "fashion_mnist": {"train": "train", "test": "t10k"},
    "binarized_mnist": {"train": "train", "validation": "valid", "test": "test"},
}


@pytest.fixture
def tfds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow_datasets")


@dataclasses.dataclass
class Tiny:
    """A small data set whose original files, urls and sums TFDS takes for the official ones."""

    name: str
    originals: Path  # the folder of the original files
    raw: dict  # split -> (images, labels), in the order of the original files
    infos: dict  # url -> tfds UrlInfo

    def load(self, data_dir, manual_dir=True):
        manual_dir = self.originals if manual_dir is True else manual_dir
        return named.load(self.name, data_dir=data_dir, manual_dir=manual_dir)


@pytest.fixture
def make_tiny(monkeypatch, tmp_path, tfds):
    def make(name, host="http://127.0.0.1:9"):
        numbers, files, raw = np.random.default_rng(0), {}, {}
        for (split, part), rows in zip(PARTS[name].items(), [40, 12, 11], strict=False):
            if name == "binarized_mnist":
                images = numbers.integers(0, 2, (rows, 28, 28), np.uint8)
                labels = np.full(rows, -1)
                text = io.BytesIO()
                np.savetxt(text, images.reshape(rows, -1), fmt="%d")
                files[f"binarized_mnist_{part}.amat"] = text.getvalue()
                images = images * 255
            else:
                images = numbers.integers(0, 256, (rows, 28, 28), np.uint8)
                labels = numbers.integers(0, 10, rows, np.uint8)
                header = bytes([0, 0, 8, 3, 0, 0, 0, rows, 0, 0, 0, 28, 0, 0, 0, 28])
                file = gzip.compress(header + images.tobytes())
                files[f"{part}-images-idx3-ubyte.gz"] = file
                file = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, rows]) + labels.tobytes())
                files[f"{part}-labels-idx1-ubyte.gz"] = file
            raw[split] = images, labels
        originals = tmp_path / "originals"
        originals.mkdir()
        infos = {}
        for file_name, content in files.items():
            (originals / file_name).write_bytes(content)
            infos[f"{host}/{file_name}"] = tfds.download.checksums.UrlInfo(
                size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=file_name
            )
        monkeypatch.setattr(tfds.builder_cls(name), "url_infos", infos)
        monkeypatch.setattr(named, "_VALIDATION_ROWS", 10)
        monkeypatch.setenv("NO_PROXY", "*")
        return Tiny(name, originals, raw, infos)

    return make


@pytest.fixture
def tiny(make_tiny):
    return make_tiny("mnist")


def rows(images, labels):
    """A multiset of examples, as a sorted list."""
    return sorted(
        (int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)
    )


def assert_same(got, expected):
    for one, other in zip(got[1:4], expected[1:4], strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def in_tfds_order(dataset):
    """TFDS's own splits, put together again from ours."""
    train, validation, test = dataset[1:4]
    if dataset.name == "binarized_mnist":
        return {"train": train, "validation": validation, "test": test}
    return {
        "train": [np.concatenate(pair) for pair in zip(train, validation, strict=True)],
        "test": test,
    }


def is_one_line(error):
    return "\n" not in str(error.value) and "Traceback" not in str(error.value)


def prepared(tmp_path, name="mnist"):
    (folder,) = (tmp_path / "data" / name).glob("[0-9]*")
    return folder


# Parsing


def test_idx_is_parsed():
    content = b"\0\0\x08\x02" + b"\0\0\0\x02" + b"\0\0\0\x03" + bytes([0, 1, 127, 128, 254, 255])
    np.testing.assert_array_equal(named._parse_idx(content), [[0, 1, 127], [128, 254, 255]])


def test_amat_is_parsed_as_by_loadtxt():
    images = np.random.default_rng(0).integers(0, 2, (3, 784))
    text = io.BytesIO()
    np.savetxt(text, images, fmt="%d")
    expected = np.loadtxt(io.BytesIO(text.getvalue())).reshape(3, 28, 28)
    parsed = named._parse_amat(text.getvalue())
    assert parsed.dtype == np.uint8
    np.testing.assert_array_equal(parsed, expected)


# Digits


def test_digits_are_those_of_scikit_learn():
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    dataset = named.load("digits")
    assert [len(split.images) for split in dataset[1:4]] == [1297, 200, 300]
    for images, labels in dataset[1:4]:
        assert images.shape[1:] == (8, 8, 1)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert set(labels) == set(range(10))
    images = np.concatenate([split.images for split in dataset[1:4]])
    labels = np.concatenate([split.labels for split in dataset[1:4]])
    greys = [(value * 255 + 8) // 16 for value in range(17)]
    expected = np.array(greys, np.uint8)[bunch.images.astype(int)]
    assert rows(images, labels) == rows(expected, bunch.target)
    assert (dataset.name, dataset.num_classes, dataset.notice) == ("digits", 10, "")


def test_digits_are_split_as_ever():
    pytest.importorskip("sklearn.datasets")
    assert named.load("digits").test.labels[:10].tolist() == [8, 8, 2, 2, 2, 9, 8, 8, 3, 6]


def test_unknown_name():
    with pytest.raises(DataError, match=r"'emnist'.*auto, mnist, .*digits"):
        named.load("emnist")


# The whole road, on small data


@pytest.mark.parametrize("name", PARTS)
def test_the_examples_are_the_originals_in_the_order_of_tfds(make_tiny, tfds, tmp_path, name):
    tiny = make_tiny(name)
    dataset = tiny.load(tmp_path / "data")
    source = tfds.data_source(name, data_dir=tmp_path / "data")
    for split, (images, labels) in in_tfds_order(dataset).items():
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert images.shape[1:] == (28, 28, 1)
        assert rows(images, labels) == rows(*tiny.raw[split])
        scale = 255 if name == "binarized_mnist" else 1
        np.testing.assert_array_equal(images, [scale * row["image"] for row in source[split]])
        np.testing.assert_array_equal(labels, [row.get("label", -1) for row in source[split]])
    expected = (0, [40, 12, 11]) if name == "binarized_mnist" else (10, [30, 10, 12])
    assert (dataset.num_classes, [len(split.images) for split in dataset[1:4]]) == expected
    assert dataset.name == name
    assert dataset.notice == ""
    assert str(prepared(tmp_path, name)) in dataset.source


def test_the_terminal_stays_clean(tiny, tmp_path, capfd):
    tiny.load(tmp_path / "data")
    output = capfd.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    tiny.load(tmp_path / "data")
    assert capfd.readouterr() == ("", "")


def test_tfrecord_that_tfds_prepared_is_read(tiny, tfds, tmp_path):
    expected = tiny.load(tmp_path / "data")
    builder = tfds.builder("mnist", data_dir=tmp_path / "data")
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    for split, source in builder.as_data_source(deserialize_method=raw).items():
        with open(prepared(tmp_path) / f"mnist-{split}.tfrecord-00000-of-00001", "wb") as file:
            for record in source:  # the sums, which are not read, are zeros
                file.write(len(record).to_bytes(8, "little") + bytes(4) + record + bytes(4))
    for path in [*prepared(tmp_path).glob("*array_record*"), *prepared(tmp_path).glob("*.npz")]:
        path.unlink()
    info = prepared(tmp_path) / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    assert_same(tiny.load(tmp_path / "data"), expected)

    next(prepared(tmp_path).glob("*.npz")).unlink()
    next(prepared(tmp_path).glob("mnist-test.tfrecord*")).write_bytes(b"")
    with pytest.raises(DataError, match="test has 0 of its 12 examples"):
        tiny.load(tmp_path / "data")


@pytest.mark.parametrize("variable", ["TFDS_DATA_DIR", "HOME"])
def test_data_dir_of_tfds_is_the_default(tiny, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    root = tmp_path if variable == "TFDS_DATA_DIR" else tmp_path / "tensorflow_datasets"
    expected = tiny.load(root)
    assert (root / "mnist" / "3.0.1" / "dataset_info.json").is_file()
    assert_same(tiny.load(None, manual_dir=None), expected)


def test_manual_dir_alone_leaves_nothing_in_the_home_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    expected = tiny.load(tmp_path / "data")
    assert_same(tiny.load(None), expected)
    assert_same(tiny.load(None), expected)  # as it is prepared now
    assert not list(home.iterdir())
    assert (tiny.originals / "mnist" / "3.0.1" / "dataset_info.json").is_file()


def test_prepared_data_in_the_home_folder_are_read_and_not_written_to(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "tensorflow_datasets"
    expected = tiny.load(root)
    next(root.rglob("*.npz")).unlink()
    before = sorted(root.rglob("*"))
    dataset = tiny.load(None)
    assert_same(dataset, expected)
    assert sorted(root.rglob("*")) == before
    (note,) = dataset.notes
    assert note.startswith(f"--manual-dir={tiny.originals} is not read: mnist is prepared in")


def test_a_path_that_the_bundled_digits_do_not_need_is_named():
    assert not named.load("digits").notes
    dataset = named.load("digits", data_dir="/data", manual_dir="/nowhere")
    what = "is not read: digits are bundled with scikit-learn"
    assert dataset.notes == (f"--data-dir=/data {what}", f"--manual-dir=/nowhere {what}")


def test_packed_amat_is_taken(make_tiny, tmp_path):
    tiny = make_tiny("binarized_mnist")
    expected = tiny.load(tmp_path / "unpacked")
    for path in tiny.originals.iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert_same(tiny.load(tmp_path / "packed"), expected)
    packed = tiny.originals / "binarized_mnist_valid.amat.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"valid\.amat\.gz is not the original") as error:
        tiny.load(tmp_path / "truncated")
    assert is_one_line(error)


# The cache


@pytest.mark.parametrize("damage", ["none", "truncated", "empty", "flipped", "garbage"])
def test_cache_is_read_or_made_again(tiny, tmp_path, monkeypatch, damage):
    expected = tiny.load(tmp_path / "data")
    (cache,) = prepared(tmp_path).glob("*.npz")
    content = cache.read_bytes()
    middle = len(content) // 2
    cache.write_bytes(
        {
            "none": content,
            "truncated": content[:middle],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "garbage": bytes(100),
        }[damage]
    )
    made = []
    read_prepared = named._read_prepared
    monkeypatch.setattr(named, "_read_prepared", lambda *a: made.append(1) or read_prepared(*a))
    assert_same(tiny.load(tmp_path / "data"), expected)
    assert len(made) == (damage != "none")
    assert_same(tiny.load(tmp_path / "data"), expected)
    assert len(made) == (damage != "none")
    assert [path.suffix for path in prepared(tmp_path).glob("vae_jax*")] == [".npz"]


def test_cache_that_cannot_be_written_is_done_without(tiny, tmp_path, monkeypatch):
    expected = tiny.load(tmp_path / "data")
    (cache,) = prepared(tmp_path).glob("*.npz")
    cache.unlink()

    def full(file, **arrays):
        file.write(b"the beginning")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert_same(tiny.load(tmp_path / "data"), expected)
    assert not list(prepared(tmp_path).glob("vae_jax*"))


# Damage


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "no examples", "empty"])
def test_damaged_prepared_data(tiny, tmp_path, damage):
    expected = tiny.load(tmp_path / "data")
    folder = prepared(tmp_path)
    next(folder.glob("*.npz")).unlink()
    (records,) = folder.glob("mnist-train*")
    content = records.read_bytes()
    if damage == "truncated":
        records.write_bytes(content[:-5000])
    elif damage == "flipped":
        records.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "missing":
        records.unlink()
    elif damage == "no examples":
        (folder / "dataset_info.json").unlink()
    else:
        for path in folder.iterdir():
            path.unlink()
    with pytest.raises(DataError) as error:
        tiny.load(tmp_path / "data")
    assert is_one_line(error)
    assert str(error.value).startswith(str(folder))
    assert str(error.value).endswith("delete it and run again")
    shutil.rmtree(folder)
    assert_same(tiny.load(tmp_path / "data"), expected)


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_original(tiny, tmp_path, damage, name):
    path = tiny.originals / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes(content[:middle] if damage == "truncated" else flipped)
    with pytest.raises(DataError) as error:
        named.load(name, data_dir=tmp_path / "data", manual_dir=tiny.originals)
    assert is_one_line(error)
    size = middle if damage == "truncated" else len(content)
    assert f"{path} is not the original" in str(error.value)
    assert f"got {size} bytes" in str(error.value)
    assert not (tmp_path / "data").exists()
    path.write_bytes(content)
    tiny.load(tmp_path / "data")


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_manual_dir_without_the_files(tiny, tmp_path, name):
    with pytest.raises(DataError, match=r"/nowhere does not hold .*t10k-labels") as error:
        named.load(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "nowhere")
    assert is_one_line(error)
    (tiny.originals / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"/originals does not hold t10k-labels-idx1-ubyte\.gz:"):
        named.load(name, data_dir=tmp_path / "data", manual_dir=tiny.originals)
    assert not (tmp_path / "data").exists()


def test_data_dir_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "data").write_text("a file, where a folder is wanted")
    with pytest.raises(DataError, match=r"/data .*--data-dir") as error:
        tiny.load(tmp_path / "data")
    assert is_one_line(error)


# The network


@pytest.fixture
def server(tmp_path):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "originals")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port():
    """The address of a port that nobody listens to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    return f"http://{address[0]}:{address[1]}"


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_download_and_then_the_download_cache(make_tiny, server, tmp_path, name):
    tiny = make_tiny("mnist", server)
    dataset = named.load(name, data_dir=tmp_path / "data")
    assert (dataset.name, dataset.notice) == ("mnist", "")
    for split, examples in in_tfds_order(dataset).items():
        assert rows(*examples) == rows(*tiny.raw[split])

    shutil.rmtree(prepared(tmp_path))
    for path in tiny.originals.iterdir():  # now nothing is left to download
        path.unlink()
    assert_same(named.load(name, data_dir=tmp_path / "data"), dataset)

    shutil.rmtree(prepared(tmp_path))
    (cached,) = (tmp_path / "data" / "downloads" / "mnist").glob("*train-images*.gz")
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(DataError, match="is not the original") as error:
        named.load(name, data_dir=tmp_path / "data")
    assert str(cached) in str(error.value)


@pytest.mark.parametrize("failure", ["refused", "404", "name server"])
def test_no_network(make_tiny, server, closed_port, tmp_path, monkeypatch, failure):
    make_tiny("mnist", {"refused": closed_port, "404": f"{server}/none"}.get(failure, "http://a.b"))
    monkeypatch.setattr(named, "_PROBE_SECONDS", 0.5)
    released = threading.Event()

    def look_up(*arguments):
        released.wait(60)
        raise socket.gaierror

    if failure == "name server":
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
    started = time.monotonic()
    with pytest.raises(DataError) as error:
        named.load("mnist", data_dir=tmp_path / "data")
    assert time.monotonic() - started < 5
    assert is_one_line(error)
    for word in (str(tmp_path / "data"), "--manual-dir", "--data-dir", "--dataset=digits"):
        assert word in str(error.value)
    assert {"refused": "no answer", "404": "404", "name server": "within 0.5 s"}[failure] in str(
        error.value
    )

    dataset = named.load("auto", data_dir=tmp_path / "data")
    assert dataset.name == "digits"
    assert dataset.notice.startswith("THIS IS NOT MNIST")
    assert str(error.value) in dataset.notice
    assert not (tmp_path / "data").exists()
    released.set()


def test_without_tensorflow_datasets(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r'pip install "vae_jax\[tfds\]"') as error:
        named.load("mnist", data_dir=tmp_path)
    assert is_one_line(error)
    assert 'pip install "vae_jax[tfds]"' in named.load("auto", data_dir=tmp_path).notice


# Two at once, and what is imported


@pytest.mark.parametrize("moment", ["before the builder", "while preparing"])
def test_another_process_prepares_the_same_first(tiny, tfds, tmp_path, monkeypatch, moment):
    place, attribute = {
        "before the builder": (tfds, "builder"),
        "while preparing": (named, "_parse_idx"),  # TFDS is at work in its temporary folder
    }[moment]
    original, nested = getattr(place, attribute), []

    def after_another(*arguments, **options):
        if not nested:
            nested.append(None)
            nested[0] = tiny.load(tmp_path / "data")
        return original(*arguments, **options)

    monkeypatch.setattr(place, attribute, after_another)
    assert_same(tiny.load(tmp_path / "data"), nested[0])
    assert [path.name for path in (tmp_path / "data" / "mnist").iterdir()] == ["3.0.1"]


def python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


LOAD_TINY = """
import json, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow_datasets as tfds
from vae_jax.run.data import named
data_dir, manual_dir, infos = sys.argv[1:]
tfds.builder_cls("mnist").url_infos = {
    url: tfds.download.checksums.UrlInfo(**info) for url, info in json.loads(infos).items()
}
named._VALIDATION_ROWS = 10
dataset = named.load("mnist", data_dir=data_dir, manual_dir=manual_dir)
print("tensorflow" in sys.modules, dataset.train.labels.tolist())
"""


def test_processes_at_once_and_none_imports_tensorflow(tiny, tmp_path):
    trap = tmp_path / "packages" / "tensorflow"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("__version__ = '2.21.0'")
    arguments = (
        tmp_path / "data",
        tiny.originals,
        json.dumps({url: dataclasses.asdict(info) for url, info in tiny.infos.items()}),
    )
    outputs = [None] * 3

    def run(row):
        outputs[row] = python(LOAD_TINY, *arguments, PYTHONPATH=str(trap.parent))

    threads = [threading.Thread(target=run, args=(row,)) for row in range(len(outputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = f"False {tiny.load(tmp_path / 'data').train.labels.tolist()}\n"
    assert outputs == [expected] * 3


def test_digits_and_cached_data_need_no_tensorflow_datasets(tiny, tmp_path):
    tiny.load(tmp_path / "data")
    code = """
import sys
from vae_jax.run.data import named
named.load("digits")
print(len(named.load("mnist", data_dir=sys.argv[1]).test.images))
print({"tensorflow", "tensorflow_datasets", "jax"} & set(sys.modules))
"""
    assert python(code, tmp_path / "data") == "12\nset()\n"


# The real data, where it stands beside the repository


@pytest.mark.long
@pytest.mark.parametrize("name", PARTS)
def test_real_data(tfds, shared_data, tmp_path, name):
    if shared_data is None or not (shared_data / name).is_dir():
        pytest.skip(f"no original {name} beside the repository")
    folder = shared_data / name
    dataset = named.load(name, data_dir=tmp_path, manual_dir=folder)
    started = time.monotonic()
    cached = named.load(name, data_dir=tmp_path)
    assert time.monotonic() - started < 0.5
    assert_same(cached, dataset)

    sizes = [50000, 10000, 10000] if name == "binarized_mnist" else [55000, 5000, 10000]
    assert [len(split.images) for split in dataset[1:4]] == sizes
    source = tfds.data_source(name, data_dir=tmp_path)
    for split, (images, labels) in in_tfds_order(dataset).items():
        part = PARTS[name][split]
        if name == "binarized_mnist":
            text = gzip.decompress((folder / f"binarized_mnist_{part}.amat.gz").read_bytes())
            expected = np.array(text.split(), np.uint8).reshape(-1, 784) * 255
            expected_labels = np.full(len(expected), -1)
        else:
            file = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
            expected = np.array(list(file[16:]), np.uint8).reshape(-1, 784)
            file = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
            expected_labels = list(file[8:])
        assert rows(images, labels) == rows(expected, expected_labels)
        scale = 255 if name == "binarized_mnist" else 1
        for row in range(0, len(images), 1000):
            np.testing.assert_array_equal(images[row], scale * source[split][row]["image"])

    # The first labels of the official build of TFDS 4.9.10, made with tensorflow 2.21.
    official = {"mnist": [4, 1, 0, 7, 8, 1, 2, 7, 1, 6]}
    if name in official:
        assert dataset.train.labels[:10].tolist() == official[name]
