"""Control characters of every kind are written out, and nothing else is."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from covent.visible import visible

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = "\u061c\u200e\u200f"
"""Letters of no width, to Unicode; they order their neighbours all the same."""


def test_all_characters_of_unicode_one_by_one() -> None:
    """The truth is Unicode's own table, not the ranges of the function."""
    kept = set("\t\n")
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        hidden = char in MARKS or (
            char not in kept
            and (unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in BIDI)
        )
        assert (visible(char) != char) == hidden, hex(code)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("x\u202e 12", r"x\u202e 12"),
        ("a\rb\x9b31m", r"a\x0db\x9b31m"),
        ("file\udc80", r"file\udc80"),
    ],
)
def test_what_is_written_in_their_place(text: str, shown: str) -> None:
    assert visible(text) == shown == visible(shown)
    shown.encode("utf-8")


def test_what_has_a_shape_of_its_own_stays() -> None:
    text = "two\tlines\n of שלום, 東京, naïve, π₁ − 2, 🎲 and \\x1b as it was written"
    assert visible(text) == text
