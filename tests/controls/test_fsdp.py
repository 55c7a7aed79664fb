"""Weights and responses spread over FSDP2 ranks: the choice and the gradient are those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.contract.source import ROOT
from tests.support.sharded_update import CONTROLS, moved_model, optimizer_batch, update
from tests.support.tolerances import TIGHT


def test_two_ranks_update_as_one_process(tmp_path: Path) -> None:
    words = ["2", str(tmp_path / "store"), str(tmp_path / "result")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.sharded_update", *words],
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [json.loads(Path(tmp_path / f"result.{rank}").read_text()) for rank in range(2)]
    # Neither rank held all weights.
    assert all(part["shard"] < 0.6 for part in parts)
    for name in CONTROLS:
        truth = update(moved_model(), optimizer_batch(), name, None)
        chosen = sorted(parts[0][name]["chosen"] + parts[1][name]["chosen"])
        assert chosen == sorted(truth["chosen"])
        assert parts[0][name]["chosen"] and parts[1][name]["chosen"]
        # Chosen by each rank for itself, they are others.
        assert sorted(parts[0]["of_own_rows"][name] + parts[1]["of_own_rows"][name]) != chosen
        for part in parts:
            for weight, gradient in truth["gradient"].items():
                found = torch.tensor(part[name]["gradient"][weight], dtype=torch.float64)
                assert torch.allclose(found, torch.tensor(gradient, dtype=torch.float64), rtol=0, atol=TIGHT)
