"""Output where the terminal or a pipe has an encoding that lacks our characters: said in ASCII, never a crash."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

_ALIKE = str.maketrans({"−": "-", "–": "-", "—": "-", "·": "*", "×": "x", "²": "2", "…": "...", "→": "->", "≥": ">="})


def say_in_any_encoding(*streams: TextIO) -> None:
    """From now on the streams write what their encoding lacks as ASCII, by likeness or by code, instead of failing."""
    codecs.register_error("covent", in_ascii)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="covent")


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    r"""What stands for the characters that could not be encoded; an error handler of `codecs`.

    Example:
        >>> codecs.register_error("covent", in_ascii)
        >>> "R² = −1 · π".encode("ascii", "covent")
        b'R2 = -1 * \\u03c0'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(_ALIKE)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end
