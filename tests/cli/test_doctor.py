"""`covent doctor`: what it reports, and that it finds what is wrong."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import covent
from covent.cli import doctor
from covent.cli.doctor import below_floor, product_problems
from covent.cli.main import main


def test_a_sound_installation_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    printed = capsys.readouterr()
    line = json.loads(printed.out)
    assert line["healthy"] is True
    assert line["problems"] == []
    assert line["facts"]["covent"] == covent.__version__
    assert line["facts"]["numpy"] == np.__version__
    assert line["facts"]["torch_threads"] == torch.get_num_threads()
    block = printed.err.splitlines()
    assert [name for name in line["facts"] if not any(row.startswith(f"{name} ") for row in block)] == []


def test_what_is_missing_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda library: None if library == "torch" else version(library))
    assert main(["doctor"]) == 0, "an extra that is not installed is no fault"
    printed = capsys.readouterr().out
    (row,) = [row for row in printed.splitlines() if row.startswith("torch ")]
    assert row.endswith("not installed (pip install 'covent[train]')")
    assert "torch_threads" not in printed


class NoDriver(Exception):
    """As pynvml.NVMLError where there is no driver."""

    def __str__(self) -> str:
        return "NVML Shared Library Not Found"


def _no_driver() -> None:
    raise NoDriver


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (None, "unknown (nvidia-ml-py is not installed)"),
        (SimpleNamespace(NVMLError=NoDriver, nvmlInit=_no_driver), "none (NVML Shared Library Not Found)"),
    ],
)
def test_why_no_gpu_is_seen(library: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch, the rest of the extra that brings nvidia-ml-py, is installed here."""
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert doctor._machine()["gpu"] == said


def test_a_problem_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_floors", lambda: {"numpy": "999.1"})
    assert main(["doctor", "--json"]) == 1
    line = json.loads(capsys.readouterr().out)
    assert line["healthy"] is False
    assert "covent needs 999.1" in line["problems"][0]


@pytest.mark.parametrize(
    ("version", "floor", "too_old"),
    [
        ("2.10.0", "2.10", False),
        ("2.9.1", "2.10", True),
        ("2.13.0+cpu", "2.10", False),
        ("5.5.2", "5.5.3", True),
        ("0.8.0", "0.8", False),
        ("2.10", "2.10.0", False),
        ("3.0.0rc1", "2.99", False),
    ],
)
def test_versions_compare_as_numbers(version: str, floor: str, too_old: bool) -> None:
    assert bool(below_floor({"torch": version}, {"torch": floor})) is too_old


def test_the_matrix_product_of_this_machine_is_sound() -> None:
    assert product_problems("cpu", torch.matmul) == []


def test_an_unsound_matrix_product_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    (noisy,) = product_problems("cpu", lambda a, b: a @ b + 1e-13 * torch.randn(64, 64, generator=generator))
    assert "differently" in noisy
    (wrong,) = product_problems("cpu", lambda a, b: (a.float() @ b.float()).double())
    assert "wrong" in wrong
