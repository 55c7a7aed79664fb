"""Ctrl-C at any moment of calls in parallel: none of them goes on alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from covent.verifiers.in_parallel import in_parallel


@pytest.mark.parametrize("number", [2, 3])
def test_ctrl_c_while_calls_are_handed_out(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    submit, count = ThreadPoolExecutor.submit, 0

    def interrupted(self: ThreadPoolExecutor, *args: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise KeyboardInterrupt
        return submit(self, *args, **settings)

    def call(item: int, poll: Any) -> None:
        for _ in range(500):
            try:
                poll()
            except Exception:
                ends.append("told")
                raise
            time.sleep(0.01)
        ends.append("alone")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_parallel(call, [1, 2, 3, 4], size=4, poll=lambda: None)
    assert ends == ["told"] * (number - 1)
