"""The folder of a run is of one process, and what is wrong with one is said in one line."""

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vae_jax.run import folder, overwritten
from vae_jax.run.errors import RunError, UsageError

ROOT = Path(__file__).parents[2]


def test_a_folder_is_of_one_process(tmp_path):
    folder.create(tmp_path / "run", "", overwrite=False)
    program = f"""
from pathlib import Path
from vae_jax.run import folder
from vae_jax.run.errors import RunError
for use in folder.lock, lambda path: folder.create(path, "", overwrite=True):
    try:
        use(Path({str(tmp_path / "run")!r}))
    except RunError as error:
        print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    said = process.stdout.splitlines()
    assert len(said) == 2, process.stderr
    for line in said:
        owner = f"process {os.getpid()} on {os.uname().nodename}"
        assert f"run is in use by another process, last written by {owner}: wait" in line


def test_a_lock_ends_with_its_process(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from vae_jax.run import folder
folder.create(Path({str(tmp_path / "run")!r}), "", overwrite=False)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)
    assert process.returncode == -signal.SIGKILL
    # Nothing but hidden files is there, so a new run may begin.
    assert folder.create(tmp_path / "run", "", overwrite=False) == tmp_path / "run"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(RunError, match=r"cannot write .*run: Is a directory; name another"):
        folder.lock(tmp_path / "run")


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(RuntimeWarning, match=r"run cannot be locked \(No locks available\): see"):
        folder.create(tmp_path / "run", "", overwrite=False)


def test_of_links_in_a_run_that_is_overwritten_the_links_alone_go(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("all of it")
    folder.create(run, "", overwrite=False)
    folder.unlock(run)
    (run / "config.json").write_text("{}")
    for name in ("checkpoints", "tensorboard"):
        (run / name).symlink_to(elsewhere)
    (run / "results.json").symlink_to(elsewhere / "kept")
    (run / "damaged").symlink_to(tmp_path / "nowhere")
    folder.create(run, "", overwrite=True)
    assert not (run / "config.json").exists()
    overwritten.gone(run)
    assert [path.name for path in run.iterdir()] == [".lock"]
    assert (elsewhere / "kept").read_text() == "all of it"


def test_a_run_that_cannot_be_moved_is_where_it_was(tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    rename = os.rename

    def refuse(path, to):
        if path.name == "config.json":
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(path, to)

    monkeypatch.setattr(overwritten.os, "rename", refuse)
    with pytest.raises(RunError, match=r"cannot write .*run: Permission denied"):
        folder.create(run, "", overwrite=True)
    assert (run / "config.json").read_text() == "{}"
    assert {path.name for path in run.iterdir()} == {".lock", "config.json", "checkpoints"}


def test_what_one_that_was_killed_had_set_aside_goes_with_the_next(tmp_path):
    (tmp_path / "config.json").write_text("first")
    folder.create(tmp_path, "", overwrite=True)
    folder.unlock(tmp_path)
    (tmp_path / "config.json").write_text("second")
    folder.create(tmp_path, "", overwrite=True)
    assert overwritten.put_back(tmp_path)
    assert (tmp_path / "config.json").read_text() == "second"
    assert not overwritten.put_back(tmp_path)


def test_what_is_no_number_is_null_in_json(tmp_path):
    """Infinity and NaN are Python's own words: no other reader of JSON takes them."""

    def refuse(word):
        raise AssertionError(word)

    figures = {"a": math.inf, "b": [math.nan, 1.5], "c": {"d": -math.inf}, "e": (2,)}
    folder.write_json(tmp_path / "a.json", figures)
    folder.append_metrics(tmp_path, {"step": 1, **figures})
    folder.append_metrics(tmp_path, {"step": 2, "a": 0.5})
    written = [(tmp_path / "a.json").read_text()]
    written += (tmp_path / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(text, parse_constant=refuse) for text in written]
    expected = {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": [2]}
    assert found == [expected, {"step": 1, **expected}, {"step": 2, "a": 0.5}]
    first, second = folder.read_metrics(tmp_path, 2)
    assert math.isnan(first["a"])
    assert second["a"] == 0.5


def test_a_config_that_cannot_be_read_now_is_not_taken_for_none(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(RunError, match=r"cannot read .*config.json \(Stale file handle\): nothing"):
        folder.read_config(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '"options"',
        "{}",
        '{"options": []}',
        '{"options": {"data": {}}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_config_is_one_line(tmp_path, content):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"holds no run( of this program)? \(\w+Error: "):
        folder.read_config(tmp_path)
