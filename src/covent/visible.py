"""Text from elsewhere made harmless to look at: names, messages and tokens that a run or a log brought along."""

from __future__ import annotations

import re

# C0 and C1 but for tab and newline, DEL, the marks, embeddings, overrides and isolates of the bidirectional algorithm,
# the two separators that end a line in scripts, and surrogates, which no UTF-8 file can hold.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text with its control characters written out, so that it cannot steer a terminal or reorder a line.

    Tabs and newlines stay; everything that has a shape of its own stays, in any script.

    Args:
        text: from anywhere.

    Returns:
        The text with `\x1b` or `\u202e` in the place of such a character; the same text when called again.

    Source: ECMA-48 for C0 and C1; Unicode Annex 9 for the bidirectional controls.

    Example:
        >>> print(visible("a\x1b[31mb\u202e12"))
        a\x1b[31mb\u202e12
        >>> visible("naïve שלום 東京")
        'naïve שלום 東京'
    """
    return _HIDDEN.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
