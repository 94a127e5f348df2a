"""A run that is asked to stop ends at a step and saves itself."""

import contextlib
import os
import signal
import threading
import time
import types
from collections.abc import Iterator


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it ends a block as SIGINT does: see `terminable`."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the block; in a thread, which gets none, nothing is done."""

    def end(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """Whether SIGINT or SIGTERM has come, so that a loop can end at a step. A second one kills.

    One within a second of the first is the same one, come by another way: a scheduler reaches a
    process itself and through its parent.

    Args:
      asked: False leaves the signals as they are, as does a thread, which gets none.

    Attributes:
      signum: the signal's number, 0 before it comes.
    """

    signum = 0

    def __init__(self, *, asked: bool = True) -> None:
        self._asked = asked and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "StopRequest":
        signals = (signal.SIGINT, signal.SIGTERM) if self._asked else ()
        self._before = {s: signal.signal(s, self._note) for s in signals}
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
