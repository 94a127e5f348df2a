"""`vae-jax`, the console script: its list of commands, and what is missing said in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_jax.run import main
from vae_jax.run.errors import UsageError
from vae_jax.run.main import COMMANDS

ROOT = Path(__file__).parents[2]
SCRIPT = "from vae_jax.run.main import main; main()"


def vae_jax(*arguments, before="", after="pass", cwd=None):
    """The console script in a process of its own, between lines of Python."""
    lines = ["import sys", before, "try:", f"    {SCRIPT}", "finally:", f"    {after}"]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_has_a_line_for_each_command(arguments):
    process = vae_jax(*arguments)
    assert process.returncode == 0, process.stderr
    lines = [line.split(maxsplit=1) for line in process.stdout.splitlines()]
    for name, what in COMMANDS.items():
        assert [name, what] in lines


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        (("nothing",), 2),
        *((((name, "--help"), 0)) for name in COMMANDS),
        *((((name, "--wrong"), 2)) for name in COMMANDS),
        (("mnist", "--epochs=0"), 2),
        (("train", "a.npy", "--epochs=0"), 2),
    ],
)
def test_a_shell_that_asks_for_help_or_errs_waits_for_nothing_heavy(arguments, status):
    heavy = ("jax", "flax", "optax", "orbax", "matplotlib", "sklearn", "tensorflow_datasets")
    process = vae_jax(*arguments, after=f"print({{*{heavy}}} & {{*sys.modules}})")
    assert process.returncode == status, process.stderr
    assert process.stdout.splitlines()[-1] == "set()"
    assert "Traceback" not in process.stderr
    assert "ignore[" not in process.stdout  # a comment, which tyro takes for help


def test_an_unknown_command_is_one_line():
    process = vae_jax("trian")
    assert process.returncode == 2
    assert process.stderr == (f"error: no command 'trian': choose from {', '.join(COMMANDS)}\n")


@pytest.mark.parametrize("columns", ["40", "200"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["mnist", "--epoch=3"],
            "--epoch=3. Perhaps you meant: --epochs {None}|INT; see vae-jax mn",
        ),
        (["mnist", "--epochs=ten"], "parsing --epochs: .* from ['ten']; see vae-jax mnist --help"),
        (
            ["mnist", "--network=foo"],
            "'--network'. Expected one of 'conv', 'gated', 'ladder', .*'top_down'; see vae-jax",
        ),
        (["train"], "Missing from vae-jax train: DATA; see vae-jax train --help"),
    ],
)
def test_an_option_that_cannot_be_read_is_one_line(monkeypatch, columns, arguments, said):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(UsageError) as raised:
        main._choose(arguments)
    text = str(raised.value)
    assert "\n" not in text
    assert re.search(re.escape(said).replace(r"\.\*", ".*"), text), text


def test_version():
    process = vae_jax("--version")
    assert process.returncode == 0
    assert process.stdout.startswith("vae_jax 0.2")


# What is not installed


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("tyro", "run", ("mnist", "--dataset=digits")),
        ("tqdm", "run", ("mnist", "--dataset=digits")),
        ("PIL", "run", ("mnist", "--dataset=digits")),
        ("matplotlib", "run", ("mnist", "--dataset=digits")),
        ("sklearn", "run", ("mnist", "--dataset=digits")),
        ("tensorflow_datasets", "tfds", ("mnist", "--dataset=mnist", "--data-dir=.")),
        ("tensorflow_datasets", "tfds", ("train", "tfds:mnist", "--data-dir=.")),
        ("grain", "stream", ("mnist", "--dataset=digits", "--stream")),
        ("tensorboardX", "tensorboard", ("mnist", "--dataset=digits", "--tensorboard")),
    ],
)
def test_what_is_missing_is_named_with_what_installs_it(tmp_path, package, extra, arguments):
    process = vae_jax(*arguments, before=f"sys.modules[{package!r}] = None", cwd=tmp_path)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert f'pip install "vae_jax[{extra}]"' in line
    assert not list(tmp_path.iterdir()), "something was written"


def test_what_is_missing_for_a_folder_of_pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    process = vae_jax("train", "pictures", before="sys.modules['PIL'] = None", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stderr == 'error: PIL is not installed: pip install "vae_jax[run]"\n'


def test_a_package_that_no_extra_brings_is_not_explained_away(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 4, 4), np.uint8))
    process = vae_jax("train", "a.npy", before="sys.modules['optax'] = None", cwd=tmp_path)
    assert process.returncode == 1
    assert "Traceback" in process.stderr
