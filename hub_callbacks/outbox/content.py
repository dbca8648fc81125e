"""What the linked files of a push hold, noted while it is known that nobody has written to them.

A new time makes no other file: what cleans up scratch disks by age, backups and some restores give all files one.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path

from ..checkpoints.manifest import sha256_of
from .durable import replace_file
from .push import Push
from .snapshot import COPY_BELOW, Frozen

NOTED = "content.json"
"""In the folder of a push: file → sha256."""


def note_content(push: Push, count: Callable[[int], object] = lambda size: None) -> None:
    """Notes what the files hold that are as they were when they were snapshotted. Reads all of them.

    Args:
        count: Told how many bytes were read.

    Raises:
        OSError: when the disk cannot take the note, or the push is gone; without a note, times decide.
    """
    if (push.folder / NOTED).exists():
        return
    noted = {}
    for frozen in push.frozen():
        if frozen.mtime_ns is None or frozen.stored in noted:
            continue
        with contextlib.suppress(OSError):  # it is damaged; the others are not
            digest = sha256_of(push.folder / frozen.stored)
            count(frozen.size)
            if frozen.is_unchanged(push.folder):
                noted[frozen.stored] = digest
    replace_file(push.folder / NOTED, json.dumps(noted).encode())


def is_as_it_was(frozen: Frozen, push: Push) -> bool:
    """Whether a file is the one that was snapshotted. Its content is read where it has another time, and where
    that costs nothing: a program can give a file that it has rewritten its old time back.

    Raises:
        OSError: when the disk does not say.
    """
    is_unchanged = frozen.is_unchanged(push.folder)
    if frozen.mtime_ns is None or (is_unchanged and frozen.size > COPY_BELOW):
        return is_unchanged
    file = push.folder / frozen.stored
    try:
        noted = json.loads((push.folder / NOTED).read_text(encoding="ascii")).get(frozen.stored)
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return is_unchanged
    stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if noted is None:
        return is_unchanged
    return stat.st_size == frozen.size and _sha256_at(file, stamp) == noted


@functools.lru_cache(maxsize=4096)
def _sha256_at(file: Path, stamp: tuple[int, ...]) -> str:
    """The same, read once for each time that the file was written to."""
    return sha256_of(file)
