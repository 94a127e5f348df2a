"""What a run tells its user instead of a traceback: each message is the line that is printed."""


class UsageError(Exception):
    """An option that cannot be used; exit status 2."""


class DataError(Exception):
    """Data that cannot be had or used: what is wrong, what was got, what to do; exit status 1."""


class RunError(Exception):
    """A run that cannot go on; exit status 1."""


class Diverged(RunError):
    """A run whose loss, parameters or figures are no numbers any more, or far below the first."""


class Interrupted(Exception):
    """A run that was asked to stop and has saved itself; its message says how to continue.

    Attributes:
      signum: of the signal that came.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
