"""The run-time type checker of the suite: beartype, except where it has no answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def checked(function: Decorated) -> Decorated:
    """`function` with its annotations checked at every call.

    beartype refuses `Self` on a method whose class it does not decorate (PEP 673), and a protocol whose instances
    cannot be told at run time (PEP 3119). Pydantic's validators use the one, and tasks are the other: those functions
    stay unchecked, and no function of tensors alone is among them.
    """
    try:
        return beartype(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function
