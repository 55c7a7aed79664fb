"""Logs in wandb's binary `.wandb` files, which need the `wandb` extra for their record types.

The file is a LevelDB log: blocks of 32 KiB, records cut at their ends; its records are protocol buffers.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from covent.logs.extras import missing_extra
from covent.logs.json_rows import run_of_rows
from covent.logs.rows import LogError, LoggedRun, numbers

MAGIC = b":W&B"
"""The first bytes of every `.wandb` file."""

_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_FILE_HEADER_BYTES = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_wandb(path: Path, *, step: str | None = None) -> list[LoggedRun]:
    """The history of one run.

    Raises:
        MissingExtraError: wandb is not installed.
        LogError: the file is damaged, or holds no history.
    """
    try:
        from wandb.proto.wandb_internal_pb2 import Record
    except ModuleNotFoundError as error:
        raise missing_extra("wandb", "wandb", path) from error
    from google.protobuf.message import DecodeError

    rows: list[tuple[int, dict[str, float | None]]] = []
    name = path.stem
    notes: list[str] = []
    for number, payload in enumerate(records(path, notes), start=1):
        record = Record()
        try:
            record.ParseFromString(payload)
        except DecodeError as error:
            raise LogError(
                f"{path}: record {number} cannot be decoded: {error}. Sync or copy the run again."
            ) from error
        if record.HasField("run"):
            name = record.run.display_name or name
        items = record.history.item or record.request.partial_history.item
        values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        if values:
            rows.append((number, numbers(values)))
    if not rows:
        raise LogError(f"{path} holds no history. Was the run stopped before it logged anything?")
    return [run_of_rows(path, name, "wandb file", rows, step, notes)]


def records(path: Path, notes: list[str] | None = None) -> Iterator[bytes]:
    """The records of a LevelDB log, put together again.

    A record that the end of the file cuts off was being written when the run died, or lost when the file was copied: it
    is left out, and a sentence goes to `notes`.

    Raises:
        LogError: no wandb header, a record type that does not exist, or bytes that are not those that were written.
    """
    notes = [] if notes is None else notes
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise LogError(f"{path} does not begin like a .wandb file; it may be empty or damaged. Sync the run again.")
    at, parts, whole = _FILE_HEADER_BYTES, b"", _FILE_HEADER_BYTES
    while at + _HEADER.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            at += left
            continue
        checksum, length, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        if kind == 0 and length == 0:
            # Zeros fill the rest of a block that was reserved and not used.
            at += left - _HEADER.size
            continue
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            raise LogError(f"{path}: byte {at} begins no record (type {kind}). Sync or copy the run again.")
        if at + length > len(data):
            break
        if zlib.crc32(data[at : at + length], zlib.crc32(bytes([kind]))) != checksum:
            raise LogError(
                f"{path}: the record at byte {at} was damaged after it was written. Sync or copy the run again."
            )
        parts = data[at : at + length] if kind in (_FULL, _FIRST) else parts + data[at : at + length]
        at += length
        if kind in (_FULL, _LAST):
            yield parts
            parts, whole = b"", at
    if data[whole:].strip(b"\x00"):
        notes.append(
            f"{path.name} ends in the middle of a record (byte {len(data)}): that record, and whatever the run logged"
            " after it, is not in the file."
        )
