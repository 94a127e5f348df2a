"""A run that is to be overwritten: out of the way, and gone once the new one has begun."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

_ASIDE = ".overwritten"


def set_aside(folder: Path, contents: Sequence[str]) -> None:
    """Moves what a run left, of links the links alone, to where `put_back` finds it.

    Args:
      folder: of the run.
      contents: names of what runs leave, config.json the first.

    Raises:
      OSError: it cannot be moved; it is where it was.
    """
    aside = folder / _ASIDE
    gone(folder)  # of one that was killed
    aside.mkdir()
    # config.json last: until it is moved the folder holds a run, if a damaged one.
    try:
        for name in reversed(contents):
            if os.path.lexists(folder / name):
                os.rename(folder / name, aside / name)
    except OSError:
        put_back(folder)
        raise


def put_back(folder: Path) -> bool:
    """Puts a run that was set aside where it was; whether there is one."""
    aside = folder / _ASIDE
    if not aside.is_dir():
        return False
    for path in sorted(aside.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, folder / path.name)
    aside.rmdir()
    return True


def gone(folder: Path) -> None:
    """Deletes a run that was set aside."""
    shutil.rmtree(folder / _ASIDE, ignore_errors=True)
