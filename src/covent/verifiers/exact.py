r"""T0: the last marked answer of a text, compared as a string and as a rational number. Linear time, no evaluation.

An answer is marked by `\boxed{…}`, by `<answer>…</answer>`, or by `####` before it; the mark that begins last counts.
Two answers are equal if they are the same text after `normal_form`, or the same rational number, or comma-separated
lists of such.
"""

from __future__ import annotations

import re
from fractions import Fraction

from covent.verifiers.verdict import Judgement, Verdict

MAX_RESPONSE_CHARS = 20_000
"""Longer responses are judged by their end, where the final answer stands."""
MAX_ANSWER_CHARS = 1_000
"""A longer answer is no answer: it is never compared."""

_OPENINGS = ("\\boxed", "\\fbox", "<answer>", "####")
_SPACES = re.compile(r"\s+")
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|limits|[!,;:])|\$|\\[()\[\]]")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\{([^{}]*)\}")
_FRACTION = re.compile(r"(-?)\\frac(?:\{(-?[0-9]+)\}\{(-?[0-9]+)\}|([0-9])([0-9]))")
_MIXED = re.compile(r"(-?)([0-9]+)\\frac\{([0-9]+)\}\{([0-9]+)\}")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_QUOTIENT = re.compile(r"([+-]?[0-9]+)/([+-]?[0-9]+)")


def marked_answer(text: str) -> str | None:
    r"""What the last mark of a text encloses; None if there is no mark, or the last one is not closed.

    Example:
        >>> marked_answer(r"so \boxed{1}, no: \boxed{\frac{1}{2}} it is")
        '\\frac{1}{2}'
        >>> marked_answer("17 - 3 = 14\n#### 14"), marked_answer("it is 14")
        ('14', None)
    """
    text = text[-MAX_RESPONSE_CHARS:]
    start, opening = max((text.rfind(opening), opening) for opening in _OPENINGS)
    if start < 0:
        return None
    rest = text[start + len(opening) :]
    if opening == "####":
        return rest.split("\n", 1)[0].strip() or None
    if opening == "<answer>":
        inside, closing, _ = rest.partition("</answer>")
        return inside.strip() if closing and inside.strip() else None
    return _braced(rest)


def _braced(rest: str) -> str | None:
    """The content of the brace group that `rest` begins with."""
    rest = rest.lstrip(" ")
    if not rest.startswith("{"):
        return None
    depth = 0
    for i, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:i].strip() or None
    return None


def normal_form(answer: str) -> str:
    r"""An answer without what does not change it: spaces, `$`, `\left`, `\text{}`, a final full stop.

    Example:
        >>> normal_form(r"$\left( 1,\ \dfrac{1}{2} \right)$.")
        '(1,\\frac{1}{2})'
    """
    text = _TEXT.sub(r"\1", answer.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    text = _DROPPED.sub("", text.replace("\\ ", "").replace("−", "-"))
    return _SPACES.sub("", text).removesuffix(".")


def rational(answer: str) -> Fraction | None:
    r"""The rational number that a normal form writes; None if it writes something else.

    Example:
        >>> rational("1,234.5"), rational(r"-1\frac{1}{2}"), rational("3/0"), rational("x")
        (Fraction(2469, 2), Fraction(-3, 2), None, None)
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    if _THOUSANDS.fullmatch(answer):
        answer = answer.replace(",", "")
    if _DECIMAL.fullmatch(answer):
        return Fraction(answer)
    if match := _QUOTIENT.fullmatch(answer):
        return _quotient(match[1], match[2])
    if match := _MIXED.fullmatch(answer):
        part = _quotient(match[3], match[4])
        return None if part is None else (-1 if match[1] else 1) * (int(match[2]) + part)
    if match := _FRACTION.fullmatch(answer):
        value = _quotient(match[2] or match[4], match[3] or match[5])
        return None if value is None else -value if match[1] else value
    return None


def _quotient(numerator: str, denominator: str) -> Fraction | None:
    return Fraction(int(numerator), int(denominator)) if int(denominator) else None


def equal_answers(answer: str, truth: str) -> bool:
    r"""Whether two answers are the same text, number, or list of such.

    Example:
        >>> equal_answers("0.5", r"\frac12"), equal_answers("(1, 2)", "(1,2.0)"), equal_answers("1,2", "2,1")
        (True, True, False)
    """
    if max(len(answer), len(truth)) > MAX_ANSWER_CHARS:
        return False
    return _equal_forms(normal_form(answer), normal_form(truth))


def _equal_forms(answer: str, truth: str) -> bool:
    if answer == truth:
        return bool(answer)
    value, true_value = rational(answer), rational(truth)
    if value is not None or true_value is not None:
        return value == true_value
    parts, true_parts = answer.split(","), truth.split(",")
    if len(parts) < 2 or len(parts) != len(true_parts):
        return False
    if _brackets(answer) != _brackets(truth):
        return False
    return all(
        part == true_part or _equal_numbers(part.strip("()[]"), true_part.strip("()[]"))
        for part, true_part in zip(parts, true_parts, strict=True)
    )


def _brackets(form: str) -> tuple[str, str]:
    """What opens and closes a tuple or an interval; empty for a bare list."""
    return form[0] if form[0] in "([" else "", form[-1] if form[-1] in ")]" else ""


def _equal_numbers(answer: str, truth: str) -> bool:
    value = rational(answer)
    return value is not None and value == rational(truth)


def voted_answer(response: str) -> str | None:
    r"""What a response answers, with equal answers written the same; None if it marks none.

    Answers are told apart as text and as rational numbers; whether `2x` is `x + x` is not asked.

    Example:
        >>> voted_answer(r"\boxed{0.50}"), voted_answer(r"\boxed{\frac12}"), voted_answer("a half")
        ('1/2', '1/2', None)
    """
    answer = marked_answer(response)
    if answer is None or len(answer) > MAX_ANSWER_CHARS:
        return None
    form = normal_form(answer)
    value = rational(form)
    return (form or None) if value is None else str(value)


def judge_exactly(response: str, truth: str) -> Judgement:
    r"""The verdict on a response whose final answer is marked.

    Args:
        response: what the model wrote.
        truth: the right answer, bare or marked in a worked solution.

    Example:
        >>> judge_exactly(r"thus \boxed{ 1/2 }", "0.5").verdict, judge_exactly("1/2", "0.5").verdict
        (<Verdict.RIGHT: 'right'>, <Verdict.UNPARSABLE: 'unparsable'>)
    """
    answer = marked_answer(response)
    if answer is None:
        return Judgement.of(Verdict.UNPARSABLE)
    return Judgement.of(Verdict.RIGHT if equal_answers(answer, bare_truth(truth)) else Verdict.WRONG)


def bare_truth(truth: str) -> str:
    """The right answer of a row: what its last mark encloses, or all of it."""
    return marked_answer(truth) or truth.strip()
