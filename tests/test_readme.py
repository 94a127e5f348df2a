"""README.md is true: its Python runs, and its commands have the options that it shows."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"-m ((?:experiments|benchmarks)\.[\w.]+)([^&|;>\n]*)")


def program():
    """The Python blocks in order, blank lines for the prose: tracebacks point into README.md."""
    lines = [""] * TEXT.count("\n")
    for block in BLOCK.finditer(TEXT):
        if block[1] == "python":
            code = block[2].splitlines()
            first = TEXT.count("\n", 0, block.start(2))
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def shown_options():
    """The options that the commands of the bash blocks give to each module."""
    options = {}
    for block in BLOCK.finditer(TEXT):
        if block[1] == "bash":
            for module, arguments in COMMAND.findall(block[2].replace("\\\n", " ")):
                words = shlex.split(arguments, comments=True)
                names = {word.partition("=")[0] for word in words if word.startswith("-")}
                options.setdefault(module, set()).update(names)
    return options


OPTIONS = shown_options()


@pytest.mark.relax  # JAX's own defaults, as a reader has them
def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(program(), README, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("module", OPTIONS)
def test_commands_have_their_options(module):
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=README.parent,
        env={**os.environ, "COLUMNS": "500"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert OPTIONS[module] <= set(re.findall(r"--?[\w-]+", result.stdout))
