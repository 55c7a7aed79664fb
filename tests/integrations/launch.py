"""Programs of these tests in processes of their own, on one rank or several."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.contract.source import ROOT


def launch(module: str, *words: str, world: int, torchrun: bool = False) -> None:
    """Run a module of the tests; with several ranks under torchrun and gloo. Fails with the end of its errors.

    Args:
      module: of the tests.
      words: that it is given.
      world: ranks.
      torchrun: for one rank too.
    """
    # `accelerate launch --cpu --num_processes 2` starts one process and says nothing; torchrun starts two.
    alone = world == 1 and not torchrun
    launcher = [] if alone else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
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
