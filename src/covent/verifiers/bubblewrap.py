"""The sandbox's way of isolation where only bubblewrap may make namespaces, as some systems have it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from covent.errors import IsolationError

ROOT = "/empty"
"""Where the folder is that becomes everything a program sees."""

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin")


def bubblewrap_command(readable: Sequence[str], scratch_mb: int) -> list[str]:
    """What comes before a command to put it into namespaces of its own: no network, no other processes, few files.

    The command can still give up these files for the empty folder at `ROOT`, and has to.

    Args:
        readable: folders that the interpreter needs to start.
        scratch_mb: size of the folder at `ROOT`.

    Raises: IsolationError: bubblewrap is not installed, or would be run by root, whose processes nobody counts.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise IsolationError("bwrap is not installed")
    if os.geteuid() == 0:
        raise IsolationError("bwrap is not used by root")
    system = [word for folder in _SYSTEM for word in ("--ro-bind-try", folder, folder)]
    needed = [word for folder in readable for word in ("--ro-bind-try", folder, folder)]
    return [
        *(program, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
        *("--as-pid-1", "--die-with-parent", "--cap-add", "CAP_SYS_CHROOT", *system, *needed),
        *("--size", str(scratch_mb << 20), "--tmpfs", ROOT, "--dir", f"{ROOT}/scratch", "--chdir", ROOT, "--"),
    ]


def needed_folders(packages: str) -> list[str]:
    """What the interpreter reads until it is cut off: itself, its standard library, and covent.

    Args:
        packages: the folder that holds covent.
    """
    found = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    return list(dict.fromkeys([*found, os.path.join(packages, "covent")]))
