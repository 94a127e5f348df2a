"""Data by their URL, from a server that fails in the ways that servers do."""

import http.server
import io
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest

import vae_jax
from vae_jax.run import data, examples, folder, kinds, loaded_examples, options
from vae_jax.run.commands import train
from vae_jax.run.data import remote, sequences
from vae_jax.run.errors import DataError, RunError, UsageError


class Server(http.server.BaseHTTPRequestHandler):
    """Files by their paths; of a path in `faults` what happens, once each, before it is given."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - of a test
    faults: dict[str, list[str]] = {}  # noqa: RUF012

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        content = self.files.get(self.path)
        if content is None or self.path.startswith("/secret"):
            self.send_error(404 if content is None else 403)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", str(hash(content)))
        self.end_headers()
        if with_body:
            dropped = self.faults.get(self.path) and self.faults[self.path].pop()
            self.wfile.write(content[: len(content) // 2] if dropped else content)
            self.close_connection = True

    def log_message(self, *arguments): ...


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_WAITS", (0.0, 0.0))
    Server.files, Server.faults = {}, {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_what_is_no_url_stays_as_it_is():
    for name in "some/file.npy", "tfds:mnist", "../a b.csv":
        assert remote.local(name) == name


def test_a_file_is_read_once_and_again_when_it_has_changed(server, capsys):
    Server.files["/some.jsonl"] = b"[[1, 2], [3, null]]\n"
    path = Path(remote.local(f"{server}/some.jsonl"))
    assert path.name == "some.jsonl"
    np.testing.assert_array_equal(sequences.read(path)[0], np.float32([[1, 2], [3, np.nan]]))
    assert remote.local(f"{server}/some.jsonl") == str(path)
    assert capsys.readouterr().out.count("reading http") == 1
    Server.files["/some.jsonl"] = b"[[5, 6]]\n"
    assert Path(remote.local(f"{server}/some.jsonl")).read_bytes() == b"[[5, 6]]\n"


def test_a_dropped_connection_is_tried_again_and_nothing_half_is_kept(server, tmp_path):
    Server.files["/a.csv"] = b"x" * 100_000
    Server.faults["/a.csv"] = ["drop"]
    assert Path(remote.local(f"{server}/a.csv")).read_bytes() == b"x" * 100_000
    Server.files["/b.csv"], Server.faults["/b.csv"] = b"y" * 100_000, ["drop"] * 30
    with pytest.raises(DataError, match=r"b.csv cannot be read, tried 3 times"):
        remote.local(f"{server}/b.csv")
    assert not list(tmp_path.rglob("b.csv"))
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_not_there_or_not_allowed_is_one_line(server, monkeypatch):
    Server.files["/secret.csv"] = b"1"
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        remote.local(f"{server}/none.csv")
    with pytest.raises(DataError, match=r"secret.csv may not be read .*logged in") as raised:
        remote.local(f"{server}/secret.csv")
    assert "\n" not in str(raised.value)
    with pytest.raises(RunError, match="nowhere://a cannot be read"):
        remote.local("nowhere://a")
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: exec("import s3fs_that_is_not_there"))
    with pytest.raises(RunError, match="s3fs_that_is_not_there"):
        remote.local("s3://a/b.csv")


def test_a_server_that_cannot_be_reached_is_not_taken_for_one_without_the_file(server):
    with pytest.raises(DataError, match=r"a.csv cannot be read, tried 3 times \(ClientConnector"):
        remote.local("http://127.0.0.1:9/a.csv")


def test_a_folder_keeps_its_names_and_nothing_lies_outside_of_it(server):
    memory = fsspec.filesystem("memory")
    for name in "cats/1.png", "dogs/deep/2.png":
        memory.pipe(f"/pictures/{name}", name.encode())
    path = Path(remote.local("memory://pictures"))
    found = {str(p.relative_to(path)): p.read_text() for p in path.rglob("*.png")}
    assert found == {name: name for name in ("cats/1.png", "dogs/deep/2.png")}

    with pytest.raises(DataError, match=r"called '\.\./3.png', which would lie outside"):
        remote._safe("s3://pictures", "../3.png")
    with pytest.raises(DataError, match="which would lie outside"):
        remote._safe("s3://pictures", "/etc/passwd")


def test_results_are_not_written_to_a_url():
    with pytest.raises(UsageError, match="is a URL: name a folder of this machine"):
        folder.check_writable(Path("s3://bucket/run"))


def test_a_file_of_counts_or_images_is_told_by_what_came(server, capsys):
    images, counts = io.BytesIO(), io.BytesIO()
    x = np.random.default_rng(0).integers(256, size=(30, 4, 4), dtype=np.uint8)
    np.savez(images, images=x)
    np.savez(counts, counts=x[:, 0])
    Server.files = {"/images.npz": images.getvalue(), "/counts.npz": counts.getvalue()}
    kind = train._kind_of(f"{server}/counts.npz", ())
    assert kind is not None
    assert kind.name == "counts"
    assert train._kind_of(f"{server}/images.npz", ()) is None
    capsys.readouterr()
    assert train._kind_of(f"{server}/other.npz", ("--help",)) is None  # nothing is read
    found = data.read(options.OwnData(f"{server}/images.npz"))
    np.testing.assert_array_equal(found["all"].images[np.arange(30)], x[..., None])
    assert capsys.readouterr().out == ""


def test_a_trained_run_is_used_on_what_a_url_names(server):
    """By the batch that its kind makes of it."""
    given = []

    class Parts:
        def given(self, file, config):
            given.append(file)
            return vae_jax.Batch(np.zeros((1, 2))), []

    Server.files["/a.csv"] = b"x\n1\n"
    run = object.__new__(loaded_examples.TrainedExamples)
    run.config, run._parts = {}, Parts()
    run._trained = examples.Trained(kinds.KINDS["table"], None, None, 0, None, {})
    assert len(run.read(f"{server}/a.csv")[0].image) == 1
    assert given[0].read_bytes() == b"x\n1\n"
    for file, message in (
        ("b.h5ad", "the run is on a table and b.h5ad is counts: give .csv or .parquet or .feather"),
        (f"{server}/c.txt", "c.txt is none by its name: give .csv"),
    ):
        with pytest.raises(DataError, match=message):
            run.read(file)


@pytest.mark.long
def test_a_bucket_of_s3(server, monkeypatch):
    """By moto's server, where it and s3fs are installed."""
    moto, boto3 = pytest.importorskip("moto.server"), pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
        monkeypatch.setenv(name, "testing")
    threaded = moto.ThreadedMotoServer(port=0)
    threaded.start()
    host, port = threaded.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket="here")
    client.put_object(Bucket="here", Key="data/walks.jsonl", Body=b"[[1], [0]]\n")
    path = Path(remote.local("s3://here/data/walks.jsonl"))
    np.testing.assert_array_equal(sequences.read(path)[0], [[1], [0]])
    assert (Path(remote.local("s3://here/data")) / "walks.jsonl").is_file()
    with pytest.raises(DataError, match=r"s3://here/none.csv does not exist"):
        remote.local("s3://here/none.csv")
    with pytest.raises(DataError, match=r"s3://elsewhere/a.csv (does not exist|may not be read)"):
        remote.local("s3://elsewhere/a.csv")
    threaded.stop()
