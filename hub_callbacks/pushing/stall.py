"""Notices an upload that is dead: no byte moves on any connection, and none is read from a file.

Requests of Python's HTTP clients end by their time-outs. hf_xet has a network stack of its own, in threads
that nobody can end but the end of the process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable

_TCP_INFO_SIZE = 256
_BYTES = struct.Struct("=QQ")
_BYTES_AT = 120
"""tcpi_bytes_acked and tcpi_bytes_received in `struct tcp_info` (linux/tcp.h, since Linux 4.1)."""
_MUCH_READ = 64 * 1024
"""Bytes read between two looks that count as progress; less is what a process reads when nothing happens."""


class StallWatch:
    """Watches this process from its making on.

    Args:
        timeout: Seconds without a byte after which the process counts as stalled.
        read_besides: Tells how many bytes this process has read for something else.

    Attributes:
        sent: Bytes that have reached the other side since, as far as they were seen.

    Without `/proc` nothing is ever stalled.
    """

    def __init__(self, timeout: float, read_besides: Callable[[], int] = lambda: 0) -> None:
        self.sent = 0
        self._read_besides = read_besides
        self._timeout = timeout
        self._connections = _connections()
        self._read = self._read_for_it()
        self._since = time.monotonic()

    def is_stalled(self) -> bool:
        """To be asked every second or so."""
        before = self._connections
        self._connections, read = _connections(), self._read_for_it()
        self.sent += sum(sent - before.get(name, (0, 0))[0] for name, (sent, _) in self._connections.items())
        if read is None:
            return False
        if self._connections != before or read - (self._read or 0) > _MUCH_READ:
            self._since = time.monotonic()
        self._read = read
        return time.monotonic() - self._since > self._timeout

    def _read_for_it(self) -> int | None:
        read = _bytes_read()
        return None if read is None else read - self._read_besides()


def _connections() -> dict[str, tuple[int, int]]:
    """Each connection of this process → bytes that have gone out over it and come in."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError, ValueError, struct.error):
                inode = os.readlink(f"/proc/self/fd/{name}")
                if inode.startswith("socket:"):
                    found[inode] = _bytes_moved(int(name))
    return found


def _bytes_moved(descriptor: int) -> tuple[int, int]:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    acknowledged, received = _BYTES.unpack_from(info, _BYTES_AT)
    return acknowledged, received


def _bytes_read() -> int | None:
    try:
        with open("/proc/self/io", encoding="ascii") as counters:
            return next(int(line.split()[1]) for line in counters if line.startswith("rchar:"))
    except (OSError, StopIteration, ValueError):
        return None
