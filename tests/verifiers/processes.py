"""Which processes of ours are there, seen from outside, and waiting until they are gone."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path


def descendants(pid: int) -> set[int]:
    """All processes under `pid`, as `ps` sees them; zombies are dead already."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    parents = {int(words[0]): int(words[1]) for words in map(str.split, listed.splitlines()) if "Z" not in words[2]}
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of `pids` that still run."""
    found = set()
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z":
            found.add(pid)
    return found


def all_gone(pids: set[int], within_s: float) -> bool:
    """Whether they end in time."""
    deadline = time.monotonic() + within_s
    while alive(pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return int(shown) / 1024


def at_least(count: int, pid: int) -> set[int]:
    """The processes under `pid` once there are so many; fails if there never are."""
    for _ in range(600):
        if len(found := descendants(pid)) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} processes, not {count}")
