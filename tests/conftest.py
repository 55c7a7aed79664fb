"""The strict suite: one thread, no network, no chance. Warnings are errors and shape checks are on (pyproject.toml)."""

import os

# Before anything imports torch: results depend on the number of threads, and a test must not fetch a model.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "COLUMNS": "120",
}

import socket
from typing import Any

import hypothesis
import pytest

# The run-time shape checks (pyproject.toml) look it up by its dotted name, which needs it to be loaded.
import tests.support.typechecker  # noqa: F401 - imported for what it does

hypothesis.settings.register_profile("strict", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("strict")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails, whether or not the machine has one. Local sockets stay allowed."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"A test tried to open a network connection to {address!r}.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
