"""From a shell to a function and back: options, one line for an error, the exit status."""

import contextlib
import io
import itertools
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from traceback import format_exception
from typing import Any

from vae_jax.run import extras, processes
from vae_jax.run.errors import DataError, Interrupted, RunError, UsageError


def parse(options: type[Any], arguments: Sequence[str], *, prog: str, default: Any = None) -> Any:
    """The options of a command line, over `default` where it is given.

    Raises:
      UsageError: they cannot be read.
      SystemExit: they ask for help, which has been printed.
    """
    import tyro  # here, as the list of commands needs none of it

    config: tuple[Any, ...] = (tyro.conf.OmitArgPrefixes,)
    how: dict[str, Any] = {"prog": prog, "args": arguments}
    if default is None:
        config = (*config, tyro.conf.FlagCreatePairsOff)
    else:  # a flag that is on by default must still be accepted: both --flag and --no-flag are
        how["default"] = default
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, config=config, **how)
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{_in_one_line(said.getvalue())}; see {prog} --help") from None


def _in_one_line(box: str) -> str:
    """What is wrong, of the parser's box: its first section, and options that may be meant."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:-1]:  # without the border
        line = re.sub(r"^\W ?|\s*\W$", "", line)
        if not re.search(r"\w", line):
            sections.append([])
        elif not line.startswith(" " * 8):  # the help of an option
            sections[-1].append(line.strip())
    text = [" ".join(lines) for lines in sections]
    meant = [section for section in text[1:] if section.startswith("Perhaps")]
    first = re.sub(r"Expected one of \((.*?)\)", _sorted, text[0].partition(" Got errors:")[0])
    return ". ".join([first.rstrip("."), *meant])


def _sorted(choices: re.Match[str]) -> str:
    """The choices of an option, which the parser has in any order, None among them."""
    names = sorted(set(choices[1].split(", ")) - {"'None'"})
    return f"Expected one of {', '.join(names)}"


def option_value(arguments: Sequence[str], name: str) -> str | None:
    """The value of `--name=value` or `--name value`, the last one; None where it is not given."""
    value = None
    for argument, following in itertools.pairwise((*arguments, None)):
        assert argument is not None  # which stands last alone
        if argument == name:
            value = following
        if argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
    return value


def run(main: Callable[[], None]) -> None:
    """Runs main; ends the process with status 2 for wrong usage, 1 for failure, one line each."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    # What a save that failed had begun, Orbax leaves: the failure itself is said.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.unraisablehook = _report_more
    try:
        main()
    except UsageError as error:
        _exit(2, error)
    except (DataError, RunError) as error:
        _exit(1, error)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(128 + stop.signum) from None
    except KeyboardInterrupt:
        _exit(130, "interrupted")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (said := extras.missing(error)):
            _exit(1, said)
        # Not imported for this alone: orbax, which it brings, takes a second.
        checkpoint = sys.modules.get("vae_jax.checkpoint")
        if checkpoint is not None and isinstance(error, checkpoint.CheckpointError):
            _exit(1, error)
        processes.end_without_peers(error)
        raise


_report = sys.unraisablehook


def _report_more(unraisable: Any) -> None:
    error = unraisable.exc_value
    if str(error) != "Event loop is closed" and "orbax" not in "".join(format_exception(error)):
        _report(unraisable)


def _exit(status: int, error: object) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
    if processes.watched():
        sys.stdout.flush()
        os._exit(status)  # an orderly end waits for the others, who may be waiting for this one
    raise SystemExit(status) from None
