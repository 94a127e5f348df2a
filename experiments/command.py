"""From a shell to a function and back: options, one line for an error, the exit status."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from experiments.data import DataError
from experiments.options import UsageError

INSTALL = {
    "gpu": 'pip install -U "jax[cuda13]" on a machine with an NVIDIA GPU',
    "tpu": 'pip install -U "jax[tpu]" on a TPU machine',
}


class RunError(Exception):
    """A run that cannot go on; its message is the line the user sees."""


class Interrupted(Exception):
    """A run that was asked to stop and has saved itself; its message says how to continue."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def parse(options: type[Any], *, prog: str, default: Any = None) -> Any:
    """The options of the command line, over `default` where it is given."""
    flat = tyro.conf.OmitArgPrefixes
    if default is None:
        return tyro.cli(options, prog=prog, config=(flat, tyro.conf.FlagCreatePairsOff))
    # A flag that is on by default must still be accepted: both --flag and --no-flag are.
    return tyro.cli(options, prog=prog, config=(flat,), default=default)


def option_value(arguments: list[str], name: str) -> str | None:
    """The value of `--name=value` or `--name value`, or None where it is not given."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == name:
            return following
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def run(main: Callable[[], None]) -> None:
    """Runs main; ends the process with status 2 for wrong usage, 1 for failure, one line each."""
    from vae_jax.checkpoint import CheckpointError

    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        main()
    except UsageError as error:
        _exit(2, error)
    except (DataError, RunError, CheckpointError) as error:
        _exit(1, error)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(128 + stop.signum) from None
    except KeyboardInterrupt:
        _exit(130, "interrupted")
    except Exception as error:
        _end_without_peers(error)
        raise


def _exit(status: int, error: object) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
    if _to_watcher is not None:
        sys.stdout.flush()
        os._exit(status)  # an orderly end waits for the others, who may be waiting for this one
    raise SystemExit(status) from None


def _end_without_peers(error: Exception) -> None:
    """Ends a process whose run had others: an error is most often that one of them is gone."""
    import jax

    if _to_watcher is not None and jax.process_count() > 1:
        brief = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        with contextlib.suppress(OSError):
            _to_watcher.sendall(brief.encode())
        os._exit(1)  # an orderly end waits for the processes that are gone


# Where a watched process says why it ends.
_to_watcher: socket.socket | None = None


def _continue_watched(process: str) -> None:
    """Goes on in a child of this process, which waits for its end and says why in one line.

    JAX ends a process whose coordinator is gone from a thread in C++, by abort(): nothing within
    that process can have the last word. If either of the two is killed, the other ends too.
    """
    global _to_watcher
    ours, its = socket.socketpair()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)  # Ctrl-C comes once, from the parent
        ours.close()
        _to_watcher = its

        def end_with_parent() -> None:
            its.recv(1)
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()
        return

    its.close()
    passed_on = set()

    def pass_on(signum: int, _: types.FrameType | None) -> None:
        passed_on.add(signum)
        os.kill(child, signum)

    for signum in signal.SIGINT, signal.SIGTERM:
        signal.signal(signum, pass_on)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    why = ""
    with contextlib.suppress(BlockingIOError):  # what the child has started may have it open
        why = ours.recv(1000, socket.MSG_DONTWAIT).decode(errors="replace")
    if -status in passed_on:
        raise SystemExit(128 - status)
    if status < 0 and not why:
        why = f"{signal.Signals(-status).name}; what JAX says of it, if anything, is above"
    if why:
        print(
            f"error: {process} cannot go on without the others ({why}); go on from the newest "
            "checkpoint with --resume, on as many processes as there are",
            file=sys.stderr,
        )
    raise SystemExit(max(status, 1) if why else status)


def join_processes(coordinator: str | None, num_processes: int | None, process: int | None) -> None:
    """Makes this process one of many, where there is a coordinator; only process 0 prints.

    Raises:
      RunError: the others do not come, or nothing says where they are.
    """
    import jax

    if coordinator is None:
        return
    _continue_watched("this process" if process is None else f"process {process}")
    address = None if coordinator == "auto" else coordinator
    try:
        jax.distributed.initialize(
            address,
            num_processes,
            process,
            initialization_timeout=120,
            # A process that waits in a checkpoint learns only so that another is gone.
            heartbeat_timeout_seconds=30,
        )
    except (ValueError, RuntimeError) as error:
        raise RunError(
            f"--coordinator={coordinator} cannot be joined ({str(error).partition(chr(10))[0]}): "
            "start every process with the HOST:PORT of process 0"
        ) from error
    if jax.process_index():
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def use_accelerator(name: str) -> list[Any]:
    """Makes JAX run on the named kind of device, and returns all of them.

    Raises:
      RunError: there is none.
    """
    import jax

    if name == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif name != "auto":
        try:
            jax.config.update("jax_default_device", jax.local_devices(backend=name)[0])
        except RuntimeError:
            found = ", ".join(sorted({device.platform for device in jax.devices()}))
            raise RunError(
                f"--accelerator={name}, but JAX finds no {name.upper()} (it finds: {found}): "
                f"{INSTALL[name]}, or leave the option out"
            ) from None
    return jax.devices(None if name == "auto" else name)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "vae_jax"))
    # The default of one second leaves out most of what a start-up compiles.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


class StopRequest:
    """Whether SIGINT or SIGTERM has come, so that a loop can end at a step. A second one kills.

    One within a second of the first is the same one, come by another way: a scheduler reaches a
    process itself and through its parent.

    Attributes:
      signum: the signal's number, 0 before it comes.
    """

    signum = 0

    def __enter__(self) -> "StopRequest":
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _: types.FrameType | None) -> None:
        if not self.signum:
            self.signum, self._came = signum, time.monotonic()
        elif time.monotonic() - self._came > 1:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
