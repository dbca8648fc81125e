"""Which large files each user sent. A hash is no secret: who only knows it commits nothing that others sent."""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .durable import sync_file

_LINE = re.compile(r"(\S+) ([0-9a-f]{64})")


class Senders:
    """Kept in a file that only grows, a line for each user and content.

    Args:
        path: The file; made where missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._sent: defaultdict[str, set[bytes]] = defaultdict(set)
        path.touch()
        sync_file(path.parent)
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if match := _LINE.fullmatch(line.rstrip("\n")):
                    self._sent[match[1]].add(bytes.fromhex(match[2]))

    def add(self, user: str, sha256s: Iterable[str]) -> None:
        """Notes what a user sent; it is on the disk afterwards."""
        with self._lock:
            sent = self._sent[user]
            if not (new := {bytes.fromhex(sha256) for sha256 in sha256s} - sent):
                return
            with self._path.open("a", encoding="utf-8") as file:
                # The line's end comes first, so that a line which a loss of power cut off spoils no other.
                file.writelines(f"\n{user} {sha256.hex()}" for sha256 in new)
                file.flush()
                os.fsync(file.fileno())
            sent |= new

    def has(self, user: str, sha256: str) -> bool:
        """Whether this user sent it, ever."""
        return user in self._sent and bytes.fromhex(sha256) in self._sent[user]
