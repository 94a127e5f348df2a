"""A run of many processes: how they find each other, and what is said when one of them is gone."""

import contextlib
import os
import signal
import socket
import sys
import threading
import types

from vae_jax.run.errors import RunError

# Where a watched process says why it ends.
_to_watcher: socket.socket | None = None


def watched() -> bool:
    """Whether another process waits for this one's end."""
    return _to_watcher is not None


def end_without_peers(error: Exception) -> None:
    """Ends a process whose run had others: an error is most often that one of them is gone."""
    import jax

    if _to_watcher is not None and jax.process_count() > 1:
        brief = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        with contextlib.suppress(OSError):
            _to_watcher.sendall(brief.encode())
        os._exit(1)  # an orderly end waits for the processes that are gone


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
