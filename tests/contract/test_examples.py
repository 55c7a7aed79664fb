"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import types

import pytest

from covent.errors import MissingExtraError
from tests.contract.source import Module, modules

_FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

_NOT_EVERYWHERE = {"triton", "verl", "ray", "transfer_queue"}
"""What comes with torch for CUDA only, and what verl's processes have."""


def failures(module: types.ModuleType) -> tuple[int, str]:
    """The number of examples that fail, and what doctest says about them."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=_FLAGS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(example, out=report.append)
    return runner.summarize(verbose=False).failed, "".join(report)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_examples_run(module: Module) -> None:
    try:
        loaded = importlib.import_module(module.name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    except ModuleNotFoundError as error:
        if error.name not in _NOT_EVERYWHERE:
            raise
        pytest.skip(f"{error.name} is not installed")
    failed, report = failures(loaded)
    assert failed == 0, report


def test_a_wrong_example_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    made_up = types.ModuleType("made_up", doc=">>> 1 + 1\n3\n")
    assert failures(made_up)[0] == 1
