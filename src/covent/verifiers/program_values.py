"""Values that may leave a program: plain data as tagged JSON, by exact type, so that no object of a program's own class
reaches what judges it. Standard library only."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 50
MAX_ITEMS = 200_000
_RELATIVE, _ZERO = 1e-9, 1e-12
_AS_DICT, _AS_LIST = (dict, Counter, OrderedDict, defaultdict), (list, deque)


class NotPlain(Exception):
    """A value that is no plain data, or too large; the message says which."""


def encoded(value: Any) -> Any:
    """A value of built-in types as JSON that `decoded` turns into an equal value.

    The dictionaries of `collections` become plain ones, and a deque a list.

    Raises: NotPlain

    Example:
        >>> encoded([1, (2.5, None)])
        {'list': [1, {'tuple': [2.5, None]}]}
    """
    return _encoded(value, 0, [MAX_ITEMS])


def _encoded(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0:
        raise NotPlain(f"a value nested more than {MAX_DEPTH} deep, or of more than {MAX_ITEMS} parts")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if abs(value) < 1 << 53 else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is complex:
        return {"complex": [_encoded(value.real, depth, left), _encoded(value.imag, depth, left)]}
    if kind in _AS_LIST:
        return {"list": [_encoded(item, depth + 1, left) for item in value]}
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [_encoded(item, depth + 1, left) for item in value]}
    if kind in _AS_DICT:
        return {
            "dict": [[_encoded(key, depth + 1, left), _encoded(item, depth + 1, left)] for key, item in value.items()]
        }
    raise NotPlain(f"a value of type {kind.__name__}; only plain data can be judged")


def decoded(data: Any) -> Any:
    """The value that `encoded` was given.

    Raises: NotPlain: the data is none of its output.

    Example:
        >>> decoded(encoded({"a": {1, 2}, "b": (1 << 60, float("inf"))}))
        {'a': {1, 2}, 'b': (1152921504606846976, inf)}
    """
    if not isinstance(data, dict):
        if isinstance(data, list):
            raise NotPlain("a list without a tag")
        return data
    try:
        ((tag, content),) = list(data.items())
        return _DECODERS[tag](content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NotPlain(f"malformed data: {type(error).__name__}") from error


def _items(content: Any) -> list[Any]:
    return [decoded(item) for item in content]


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda content: int(content, 16),
    "float": lambda content: float(content),
    "bytes": bytes.fromhex,
    "complex": lambda content: complex(*_items(content)),
    "list": _items,
    "tuple": lambda content: tuple(_items(content)),
    "set": lambda content: set(_items(content)),
    "frozenset": lambda content: frozenset(_items(content)),
    "dict": lambda content: {decoded(key): decoded(value) for key, value in content},
}


def matches(value: Any, expected: Any) -> bool:
    """Equal plain data, as tests written in JSON mean it: a tuple may stand for a list.

    Where a float is expected, a number may differ by 1e-9 of itself, or from zero by 1e-12. An integer is exact.

    Example:
        >>> matches((1, [0.1 + 0.2]), [1, [0.3]]), matches(True, 1), matches("1", 1)
        (True, False, False)
    """
    if isinstance(value, list | tuple) and isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(matches, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        keys = {str(key): key for key in value}
        return len(keys) == len(value) == len(expected) and all(
            str(key) in keys and matches(value[keys[str(key)]], item) for key, item in expected.items()
        )
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    numbers = isinstance(value, int | float) and isinstance(expected, int | float)
    if numbers and isinstance(expected, float):
        return value == expected or math.isclose(value, expected, rel_tol=_RELATIVE, abs_tol=0 if expected else _ZERO)
    if numbers:
        return bool(value == expected)
    return type(value) is type(expected) and bool(value == expected)
