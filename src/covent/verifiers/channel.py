"""JSON messages, and file descriptors with them, over a Unix socket. Nothing that crosses can carry code."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

_HEADER = struct.Struct(">I")
_MAX_BYTES = 256 * 1024 * 1024
_SLICE_S = 0.05
_MAX_FDS = 4


class ChannelTimeout(Exception):
    """Nothing whole arrived, or could be sent, before the deadline."""


class ChannelClosed(Exception):
    """The other end is gone, or sent what is no message."""


class Channel:
    """One end of a connection. Not for two threads at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(left), cls(right)

    def fileno(self) -> int:
        """For `select`, and for handing the end to a child."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closing twice is allowed."""
        self._socket.close()

    def send(
        self,
        message: Any,
        fds: Sequence[int] = (),
        *,
        deadline: float | None = None,
        wait: Callable[[], None] | None = None,
    ) -> None:
        """Send one message.

        Args:
            message: what JSON can hold.
            fds: file descriptors that the receiver gets copies of.
            deadline: on the clock of `time.monotonic`; None waits for ever.
            wait: called at least every 50 ms while nothing moves; may raise.

        Raises:
            ChannelTimeout, ChannelClosed
        """
        data = json.dumps(message).encode()
        data = _HEADER.pack(len(data)) + data
        try:
            self._until_ready(deadline, wait, writing=True)
            sent = socket.send_fds(self._socket, [data], list(fds)) if fds else self._send_some(data)
            while sent < len(data):
                self._until_ready(deadline, wait, writing=True)
                sent += self._send_some(data[sent : sent + (1 << 20)])
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def _send_some(self, data: bytes) -> int:
        try:
            return self._socket.send(data, getattr(socket, "MSG_DONTWAIT", 0))
        except BlockingIOError:
            return 0

    def receive(
        self,
        *,
        deadline: float | None = None,
        wait: Callable[[], None] | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> Any:
        """The next message. Arguments and errors as in `send`; a message above `max_bytes` closes the channel."""
        message, fds = self.receive_fds(deadline=deadline, wait=wait, max_bytes=max_bytes)
        for fd in fds:
            os.close(fd)
        return message

    def receive_fds(
        self,
        *,
        deadline: float | None = None,
        wait: Callable[[], None] | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> tuple[Any, list[int]]:
        """The next message, and the file descriptors that came with it."""
        fds: list[int] = []
        try:
            header = self._read(_HEADER.size, deadline, wait, fds)
            (size,) = _HEADER.unpack(header)
            if size > max_bytes:
                raise ChannelClosed(f"a message of {size} bytes, more than {max_bytes}")
            return json.loads(self._read(size, deadline, wait, fds)), fds
        except BaseException as error:
            for fd in fds:
                os.close(fd)
            if isinstance(error, OSError | ValueError | RecursionError):
                raise ChannelClosed(f"{type(error).__name__}: {error}") from error
            raise

    def _read(self, size: int, deadline: float | None, wait: Callable[[], None] | None, fds: list[int]) -> bytes:
        parts: list[bytes] = []
        while size:
            self._until_ready(deadline, wait, writing=False)
            data, new, _, _ = socket.recv_fds(self._socket, min(size, 1 << 20), _MAX_FDS)
            fds += new
            if not data:
                raise ChannelClosed("the other end closed the connection")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _until_ready(self, deadline: float | None, wait: Callable[[], None] | None, *, writing: bool) -> None:
        ready = select.poll()
        ready.register(self._socket, select.POLLOUT if writing else select.POLLIN)
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise ChannelTimeout
            pause = left if wait is None else _SLICE_S if left is None else min(left, _SLICE_S)
            if ready.poll(None if pause is None else 1000 * pause):
                return
            if wait is not None:
                wait()
