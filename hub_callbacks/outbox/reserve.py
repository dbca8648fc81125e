"""Some room on the disk, kept for a disk that is full: a push makes room only when its end is recorded, and that
takes some."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NAME = "reserve"
SIZE = 256 * 1024
"""Bytes. What is freed first is soon taken by the next save; this is for some hundred records until one is not."""
STEP = 16 * 1024
"""Bytes that are given back at a time: some thirty records, and one block of most file systems."""


def keep(root: Path) -> None:
    """Makes the reserve of an outbox, or fills it up, as far as the disk has room for it."""
    with contextlib.suppress(OSError), (root / NAME).open("ab") as file:
        # Zeros need no room where the file system compresses them.
        file.write(os.urandom(max(0, SIZE - file.tell())))


def is_kept(root: Path) -> bool:
    """Whether there is one, of whatever size."""
    return (root / NAME).exists()


def give(root: Path) -> bool:
    """Gives some of it back to the disk; whether there was any."""
    try:
        size = (root / NAME).stat().st_size
        os.truncate(root / NAME, max(0, size - STEP))
    except OSError:
        return False
    return size > 0
