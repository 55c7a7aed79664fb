"""The errors a user can meet. One root; each error also is the standard type it refines.

A message says what is wrong, the value that was found, what is allowed, and what to do. To add an error: subclass
`CoventError` and the closest standard type, set `exit_code` if the command line should not end with 2, and say in the
docstring when it is raised.
"""

from difflib import get_close_matches


class CoventError(Exception):
    """Root of every error that covent raises on purpose."""

    exit_code = 2


class ConfigError(CoventError, ValueError):
    """A setting is unknown, has the wrong type, or lies outside its range."""


class MissingPathError(CoventError, FileNotFoundError):
    """A file or folder that a command needs is not there, or is not what it should be."""


class RunExistsError(CoventError, FileExistsError):
    """A run would overwrite the folder of another."""


class StoreError(CoventError, ValueError):
    """A run folder exists but cannot be read: a broken row, an unknown schema version, a missing header."""


class RunLockedError(CoventError, BlockingIOError):
    """Another process writes to the run folder; the message names its host and PID."""


class CheckpointError(CoventError, RuntimeError):
    """A run cannot go on, because none of its checkpoints is whole; it never starts afresh by itself."""

    exit_code = 3


class ChangedRunError(CoventError, ValueError):
    """A run was to be resumed under other settings, data, threads, device or versions; the message lists them."""


class DiskError(CoventError, OSError):
    """The disk is full, read-only or broken; what was saved before is still valid."""

    exit_code = 4


class FitError(CoventError, ValueError):
    """The law cannot be fitted to what was given."""


class ShapeError(CoventError, ValueError):
    """Tensors or arrays whose shapes do not belong together."""


class PrecisionError(CoventError, TypeError):
    """Numbers too coarse for what is measured of them."""


class EmptyMaskError(CoventError, ValueError):
    """A mean was asked for over no element at all."""


class NonFiniteError(CoventError, ArithmeticError):
    """A loss, gradient or log-probability is NaN or infinite; the message names the first such tensor."""

    exit_code = 1

    def __init__(self, message: str, *, tensor: str = "") -> None:
        """Args:
        message: for a person.
        tensor: name of the first bad tensor, where it is one.
        """
        super().__init__(message)
        self.tensor = tensor


class EngineError(CoventError, RuntimeError):
    """A foreign engine (TRL, verl) is not one that covent knows: its version, or what covent hooks into."""


class VerifierError(CoventError, RuntimeError):
    """Responses cannot be judged: no child can be started, or too large a share of verdicts are errors."""

    exit_code = 1


class IsolationError(VerifierError):
    """This machine cannot isolate the programs of a code task, and running them without was not asked for."""

    exit_code = 2

    def __init__(self, message: str, *, cause: str = "") -> None:
        """Args:
        message: for a person who wants to run one.
        cause: which step is not possible, or what a program can still see.
        """
        super().__init__(message)
        self.cause = cause or message


class DataError(CoventError, ValueError):
    """A row of a data set cannot be used; the message names file and line."""


class DemoError(CoventError, RuntimeError):
    """A run of the demo ended badly; the message holds the end of its log."""

    exit_code = 1


class BenchError(CoventError, RuntimeError):
    """A program that a benchmark calls ended badly; its own output says why."""

    exit_code = 1


class TrackerError(CoventError, RuntimeError):
    """A tracker cannot be reached or does not take rows; the run folder has them all."""

    exit_code = 1


class MissingExtraError(CoventError, ImportError):
    """An optional library is needed; the message names the extra that brings it."""


def suggestion(word: str, known: list[str]) -> str:
    """The sentence that follows an unknown word: the closest known one, or all of them if none is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(known))}."
