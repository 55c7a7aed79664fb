"""Optional libraries: which extra brings them, and what to say when one is missing."""

from __future__ import annotations

from importlib import import_module

from covent.errors import MissingExtraError

EXTRAS = {"train": ("torch", "transformers", "tokenizers", "jaxtyping")}
"""The modules that covent imports for each extra."""

HINTS = {
    "train": " On Linux plain pip brings torch with CUDA, several gigabytes; README.md, “Which torch?”, says how to get"
    " the CPU build."
}
"""What to know before an extra is installed."""


def require_extra(extra: str, purpose: str) -> None:
    """Import the modules of an extra, so that a missing one is reported before any work is done.

    Args:
        extra: a key of `EXTRAS`.
        purpose: who needs it, for the message, for example `covent train`.

    Raises:
        MissingExtraError: one of the modules is not installed. A module that is installed and fails to import keeps its
            own error, since installing it again would not help.
    """
    for module in EXTRAS[extra]:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise MissingExtraError(
                f"{purpose} needs {module}, which is not installed. Install the extra: pip install"
                f" 'covent[{extra}]'.{HINTS.get(extra, '')}"
            ) from error
