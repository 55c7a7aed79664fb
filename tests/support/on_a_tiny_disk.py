"""`python -m tests.support.on_a_tiny_disk FOLDER WHOLE`: train where there is no room, make room, and resume."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from covent.errors import DiskError
from covent.store import checkpoint
from covent.tasks import ClockTask
from covent.train.config_file import parse_config
from covent.train.resume import resume
from covent.train.run import train
from tests.support.interrupted import chance_verdict, differences, settings


def main(folder: Path, whole: Path) -> None:
    """Raises: AssertionError when anything is lost."""
    ClockTask.verdict = chance_verdict
    ballast, run = folder / "ballast", folder / "run"
    ballast.write_bytes(bytes(40 * 1024))
    config = parse_config(settings("mini-batches"), source="test")
    stops = 0
    with contextlib.suppress(DiskError):
        train(config, run)
        print("it fits")
        return
    stops += 1
    saved = [path.name for path in checkpoint.numbered(run / checkpoint.FOLDER)]
    for name in saved:
        checkpoint.opened(run / checkpoint.FOLDER / name)
    ballast.unlink()
    os.system(f"mount -o remount,size=4m {folder}")  # noqa: S605 - a path of the test's own
    if (run / "run.json").exists():
        resume(run)
    else:
        train(config, run)
    assert differences(whole, run) == []
    print(f"stopped with {len(saved)} whole checkpoints, and with room resumed identically")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
