"""A filter of system calls: those by which a program would reach the kernel's keys, memory that no limit counts, or the
limits of another process. Runs in a process of its own (`jail`), like `namespaces`. Standard library only."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from covent.verifiers.namespaces import IsolationFailed, call_library

_PR_SET_SECCOMP, _FILTER = 22, 2
# Instructions of the kernel's packet filters: load a word, jump if equal, jump if not less, return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EPERM
# Where the filter's input has the call's number, the kind of processor, and the low half of the first argument.
_NUMBER_AT, _PROCESSOR_AT, _FIRST_AT = 0, 4, 16
_X32 = 0x40000000
_JOIN_SESSION_KEYRING = 1


class _Processor(NamedTuple):
    """The numbers of system calls on one kind of processor, from the kernel's tables."""

    audit: int
    keyctl: int
    denied: tuple[int, ...]
    """add_key, request_key, keyctl; shmget, semget, msgget; setpriority, ioprio_set."""
    own_only: tuple[int, ...]
    """prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr: their first argument is a
    process, 0 for the caller's own."""


_PROCESSORS = {
    "x86_64": _Processor(0xC000003E, 250, (248, 249, 250, 29, 64, 68, 141, 251), (302, 142, 144, 203, 314)),
    "aarch64": _Processor(0xC00000B7, 219, (217, 218, 219, 194, 190, 186, 140, 30), (261, 118, 119, 122, 274)),
}


def leave_keyring() -> None:
    """Join a new session keyring, so that the keys of whoever started this process are out of sight.

    The user's keyring is another one since the process got a namespace of users.

    Raises: IsolationFailed: this processor is not known, or the kernel refuses.
    """
    call_library("syscall", ctypes.c_long(_here().keyctl), ctypes.c_long(_JOIN_SESSION_KEYRING), ctypes.c_long(0))


def filter_calls() -> None:
    """Refuse these calls to this process and all that it starts, for good. Needs `hide_memory` first.

    Raises: IsolationFailed: this processor is not known, or the kernel has no filters.
    """
    instructions = _instructions(_here())
    code = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(code))
    call_library("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), program, ctypes.c_ulong(0), ctypes.c_ulong(0))


def _here() -> _Processor:
    name = os.uname().machine
    if name not in _PROCESSORS or struct.calcsize("P") != 8:
        raise IsolationFailed(f"no filter of system calls for {name}")
    return _PROCESSORS[name]


def _instructions(processor: _Processor) -> bytes:
    """Each is an operation, how far to jump if it holds and if not, and an operand."""
    steps = [
        (_LOAD, 0, 0, _PROCESSOR_AT),
        (_IF_EQUAL, 1, 0, processor.audit),
        (_RETURN, 0, 0, _DENY),  # calls in the form of another processor, which have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if processor is _PROCESSORS["x86_64"]:
        steps += [(_IF_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _DENY)]
    for number in processor.denied:
        steps += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _DENY)]
    for number in processor.own_only:
        steps += [
            (_IF_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _FIRST_AT),
            (_IF_EQUAL, 0, 1, 0),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _DENY),
        ]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)
