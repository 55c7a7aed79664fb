"""A parent and a child as the demo has them, without anything to train: `python -m tests.support.orphans [child]`."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from covent import stopping


def main() -> None:
    """The parent starts a child, prints its PID, and sleeps; the child sleeps, and ignores that it should stop."""
    if sys.argv[1:2] == ["child"]:
        stopping.end_with_parent()
        with stopping.on_signals():
            print("ready", flush=True)
            time.sleep(600)
        return
    alive, _ours = os.pipe()
    environment = os.environ | ({} if sys.argv[1:2] == ["careless"] else {stopping.PARENT_VARIABLE: str(alive)})
    command = [sys.executable, "-m", "tests.support.orphans", "child"]
    child = subprocess.Popen(command, env=environment, pass_fds=[alive], start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
