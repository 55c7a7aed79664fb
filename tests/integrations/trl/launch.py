"""Programs of these tests in processes of their own, on one rank or several."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.contract.source import ROOT


def launch(module: str, *words: str, world: int) -> None:
    """Run a module of the tests; with several ranks under torchrun and gloo. Fails with the end of its errors."""
    # `accelerate launch --cpu --num_processes 2` starts one process and says nothing; torchrun starts two.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)] if world > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, "-m", module, *words],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), *sys.path]),
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
