"""What to say when a format needs a library that the base install does not bring."""

from __future__ import annotations

from pathlib import Path

from covent.errors import MissingExtraError


def missing_extra(module: str, extra: str, what: Path | str) -> MissingExtraError:
    """The error that names the extra, to be raised where an import failed.

    Args:
        module: the library that is not installed.
        extra: the extra of covent that brings it.
        what: the file that needs it.
    """
    return MissingExtraError(
        f"{what} needs {module}, which is not installed. Install the extra: pip install 'covent[{extra}]'"
    )
