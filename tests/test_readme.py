"""README.md and the site are true: their Python runs, and their commands have their options."""

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import vae_jax
from vae_jax import networks, run

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md")))
}
# Indented in a tab.
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'^ *--8<-- "(.*)"$', re.MULTILINE)
COMMAND = re.compile(r"-m ((?:experiments|benchmarks)\.[\w.]+)([^&|;>\n]*)")
CONSOLE = re.compile(r"^vae-jax (\w+)([^&|;>\n]*)", re.MULTILINE)


def program(text):
    """The Python blocks in order, blank lines for the prose: tracebacks point into the page."""
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        if block[2] == "python":
            code = textwrap.dedent(block[3]).splitlines()
            first = text.count("\n", 0, block.start(3))
            lines[first : first + len(code)] = code
    return "\n".join(lines)


PROGRAMS = {name: program(text) for name, text in PAGES.items() if program(text).strip()}


def shown(pattern):
    """Each command of the bash blocks that fits, and its words."""
    for text in PAGES.values():
        for block in BLOCK.finditer(text):
            if block[2] == "bash":
                for name, arguments in pattern.findall(block[3].replace("\\\n", " ")):
                    yield name, shlex.split(arguments, comments=True)


def options_of(words):
    return {word.partition("=")[0] for word in words if word.startswith("-")}


OPTIONS = {}
for module, words in shown(COMMAND):
    OPTIONS.setdefault(module, set()).update(options_of(words))


@pytest.mark.relax  # JAX's own defaults, as a reader has them
@pytest.mark.parametrize("page", PROGRAMS)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAMS[page], ROOT / page, "exec"), {"__name__": "__main__"})


def test_a_file_that_a_page_shows_is_run_by_a_test():
    files = {name.partition(":")[0] for text in PAGES.values() for name in SNIPPET.findall(text)}
    # By this file, by test_tutorial_programs.py, by test_compose.py and by test_schedulers.py; the
    # report has no Python.
    tested = {"README.md", "experiments/tutorial/whole.py", "benchmarks/README.md"}
    tested |= {f"docs/pages/scripts/train{ending}" for ending in (".sbatch", "-jobset.yaml")}
    tested |= {
        f"experiments/compose/{path.name}" for path in (ROOT / "experiments/compose").iterdir()
    }
    assert files
    assert files <= tested


@pytest.mark.parametrize("module", OPTIONS)
def test_commands_have_their_options(module):
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "500"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert OPTIONS[module] <= set(re.findall(r"--?[\w-]+", result.stdout))


def test_the_console_commands_have_their_options(monkeypatch, capsys):
    """By the help that the data of the command line get: a table's options are not a picture's."""
    monkeypatch.setenv("COLUMNS", "500")
    commands = list(shown(CONSOLE))
    assert {"train", "generate", "impute", "export"} <= {name for name, _ in commands}
    for name, words in commands:
        main = importlib.import_module(f"vae_jax.run.commands.{name}").main
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*(w for w in words if not w.startswith("-")), "--help"], f"vae-jax {name}")
        offered = set(re.findall(r"--?[\w-]+", capsys.readouterr().out))
        assert options_of(words) <= offered, (name, words)


def test_every_public_name_is_documented():
    """By itself: a child has its parent's docstring, and a dataclass without one its signature."""
    public = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in (vae_jax, networks, run)
        for name in module.__all__
    }
    for name, value in public.items():
        found = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
        assert found, name
        assert not found.startswith(f"{name.rpartition('.')[2]}("), name
