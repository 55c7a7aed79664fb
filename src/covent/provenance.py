"""Where the running code comes from: what a run header and a bug report must both say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).parent


def commit(package: Path = _PACKAGE) -> str | None:
    """Git commit of the checkout that covent runs from, with `+dirty` if the package differs from it.

    Args:
        package: the folder of the package, `src/covent` in a checkout.

    Returns:
        The full hash; None when covent is installed elsewhere, even inside another project's checkout, and when there
        is no git or no commit.
    """
    checkout, git = package.parents[1], shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return None
    try:
        head = _answer(git, checkout, "rev-parse", "HEAD")
        changes = _answer(git, checkout, "status", "--porcelain", "--", str(package))
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+dirty" if changes else head


def _answer(git: str, checkout: Path, *words: str) -> str:
    command = [git, "-C", str(checkout), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
