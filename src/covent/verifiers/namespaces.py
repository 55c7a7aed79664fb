"""Cutting a process off from files, network, other processes and privileges, with what the Linux kernel gives anyone.

Runs in a fresh process with one thread (`jail`), never in the trainer. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

_CLONE = {"mount": 0x00020000, "ipc": 0x08000000, "uts": 0x04000000, "user": 0x10000000, "pid": 0x20000000}
_CLONE_NET = 0x40000000
_MS = {"rdonly": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "remount": 32, "bind": 4096, "rec": 16384, "private": 1 << 18}
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_MAX_CAPABILITY = 63
_NOBODY = 65534
SCRATCH = "/scratch"
_LIBRARY = ctypes.CDLL(None, use_errno=True)


class IsolationFailed(Exception):
    """A step of the isolation is not possible here; the message names it."""


def isolate() -> None:
    """Put this process into namespaces of its own: no network, no files but an empty folder, no other processes.

    The caller goes on as process 1 of the new namespaces; the process it was waits for it and ends with it.

    Raises: IsolationFailed
    """
    _be_nobody()
    user, group = os.getuid(), os.getgid()
    call_library("unshare", sum(_CLONE.values()) | _CLONE_NET)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    # Inside, nobody shall be able to make further namespaces, which hold most of the kernel's attack surface.
    with contextlib.suppress(IsolationFailed):
        _write("/proc/sys/user/max_user_namespaces", "0")
    _become_process_one()
    _empty_root()


def _be_nobody() -> None:
    """Root gives its rights up first: the kernel counts no processes of the real root."""
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        # A change of user hides /proc/self from its own process, which must write its maps there.
        _prctl(_PR_SET_DUMPABLE, 1)


def _become_process_one() -> None:
    child = os.fork()
    if child:
        os.closerange(3, 256)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Python's own handler of SIGINT would let a process inside reach process 1.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _empty_root() -> None:
    """The root becomes an empty folder in memory that cannot be written to; nothing of the machine's files is left."""
    _mount(None, "/", None, _MS["rec"] | _MS["private"])
    place = next((folder for folder in ("/tmp", "/var/tmp", "/mnt", "/dev/shm") if os.path.isdir(folder)), None)  # noqa: S108 - only where a scratch mount is put
    if place is None:
        raise IsolationFailed("there is no folder such as /tmp to put the new root on")
    flags = _MS["nosuid"] | _MS["nodev"]
    _mount("tmpfs", place, "tmpfs", flags, "size=64k,nr_inodes=16,mode=755")
    os.mkdir(place + SCRATCH, 0o700)
    os.chdir(place)
    call_library("pivot_root", b".", b".")
    call_library("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    _mount(None, "/", None, flags | _MS["remount"] | _MS["bind"] | _MS["rdonly"])


def empty_root_by_chroot(folder: str) -> None:
    """The same with bubblewrap, which has made the namespaces and the folder, and left the right to this one change.

    In a changed root the kernel lets nobody make namespaces of users, so that no process can get the right to change it
    back.
    """
    try:
        os.chroot(folder)
        os.chdir("/")
        os.chmod("/", 0o500)
    except OSError as error:
        raise IsolationFailed(f"chroot: {error.strerror}") from error


def own_scratch(megabytes: int) -> None:
    """A scratch folder that only this process and what it starts will see, in memory, gone with them."""
    call_library("unshare", _CLONE["mount"] | _CLONE["ipc"])
    flags = _MS["nosuid"] | _MS["nodev"] | _MS["noexec"]
    _mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={megabytes}m,nr_inodes=1024,mode=700")


def hide_memory() -> None:
    """Processes of the same user can no longer look into this one, or its children, or trace them.

    From here on no process of these can gain a privilege that it has not.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    for capability in range(_MAX_CAPABILITY + 1):
        with contextlib.suppress(IsolationFailed):
            _prctl(_PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Give up every privilege."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    call_library("capset", header, nothing)


def limit_resources(*, memory_mb: int, cpu_s: float, files_mb: int, processes: int) -> None:
    """Hard limits that a process can only lower; `processes` counts all of this user inside."""
    limits = {
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_CPU: int(cpu_s) + 2,
        resource.RLIMIT_FSIZE: files_mb << 20,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_NPROC: processes,
    }
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # macOS refuses some of them; it runs programs only where its user asked for that (see `sandbox`).
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    call_library("mount", *words, ctypes.c_ulong(flags), None if options is None else options.encode())


def _prctl(option: int, value: int) -> None:
    call_library("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def call_library(name: str, *arguments: object) -> None:
    """One call of the C library. Raises: IsolationFailed with the call's name and the kernel's reason."""
    function = getattr(_LIBRARY, name, None)
    if function is None:
        raise IsolationFailed(f"the C library has no {name}")
    if function(*arguments) < 0:
        error = ctypes.get_errno()
        raise IsolationFailed(f"{name}: {os.strerror(error)}")


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="ascii")
    except OSError as error:
        raise IsolationFailed(f"{path}: {error.strerror}") from error
