"""Has the disk write what is in the outbox, so that it survives a loss of power."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .manifest import Push


def make_durable(pushes: Iterable[Push]) -> None:
    """Flushes new pushes: contents first, then the names of what is in each folder, from the inside out.

    This is the pusher's work, as it waits for the gigabytes that a checkpoint has just written. Until it is
    done, a loss of power can leave files of a wrong size; these are noticed and not pushed.
    """
    parents = set()
    for push in pushes:
        for folder, _, files in os.walk(push.folder, topdown=False):
            for file in files:
                flush(os.path.join(folder, file))
            flush(folder)
        parents.add(push.folder.parent)
    for parent in parents:
        flush(parent)
        flush(parent.parent)


def flush(path: str | Path) -> None:
    """Has the disk write a file, or the names of what is in a folder."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return  # sent already
    try:
        os.fsync(file)
    except OSError:
        pass  # a file system that cannot
    finally:
        os.close(file)
