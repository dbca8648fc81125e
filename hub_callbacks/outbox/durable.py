"""Has the disk write what waits, so that it survives a loss of power; and tells what did not survive one."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from pathlib import Path

from .push import Push

DURABLE = "durable"
"""An empty file in the folder of a push: all of the push is on the disk."""

NOT_DURABLE = "not-durable"
"""The same of a push that the disk could not write."""

_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EROFS}
"""What `fsync` says where a file system has none, of folders most often."""


def make_durable(push: Push) -> None:
    """Flushes a push and marks it: contents first, then the names in each folder, from the inside out.

    This is the pusher's work, as it waits for the gigabytes that a checkpoint has just written. What is marked
    survives a loss of power; of what is not, see `may_be_torn`.

    Raises:
        OSError: when the disk could not write it. A second try proves nothing: after a failure the kernel may have
            dropped what it could not write, and says that all is well (`fsync(2)`).
    """
    with _lock_of(push.folder):
        if (push.folder / DURABLE).exists():
            return
        if (push.folder / NOT_DURABLE).exists():
            raise OSError(errno.EIO, "the disk could not write it before", str(push.folder))
        try:
            _flush_all(push)
        except OSError:
            with contextlib.suppress(OSError):
                (push.folder / NOT_DURABLE).touch()
            raise
        if push.boot == boot():  # after a restart of the machine it is too late to know
            # Sent already, or a disk that is full: without its mark it is looked at after a loss of power.
            with contextlib.suppress(OSError):
                (push.folder / DURABLE).touch()
                flush(push.folder)


@functools.lru_cache(maxsize=4096)
def _lock_of(folder: Path) -> threading.Lock:
    """One flush of a push at a time: of two, one may fail and the other not."""
    return threading.Lock()


def _flush_all(push: Push) -> None:
    for place, _, names in os.walk(push.folder, topdown=False):
        for name in names:
            flush(os.path.join(place, name))
        flush(place)
    pushes, outbox, *above = push.folder.absolute().parents
    flush(pushes)
    for file in outbox.iterdir():  # the run's identifier, the ledger
        if file.is_file():
            flush(file)
    for folder in (outbox, *above):
        flush(folder)


def may_be_torn(push: Push) -> bool:
    """Whether the machine has restarted, or is another one, since a push was written that was not marked.

    Its files may be cut short then, or have holes: safetensors first enlarges a file to its final size.
    """
    return push.boot != boot() and not (push.folder / DURABLE).exists()


def has_hole(path: Path) -> bool:
    """Whether something in a file was never written. For what may be torn alone: some file systems with
    compression, ZFS for one, show zeros that were written as holes, too.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return size > 0 and os.lseek(file.fileno(), 0, os.SEEK_HOLE) < size
        except (AttributeError, OSError):  # a system or a file system that cannot say
            return False


@functools.cache
def boot() -> str:
    """Identifies the time since this machine was started, on Linux (`proc(5)`); elsewhere nothing does."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file anew: after a loss of power the old or the new content is there.

    Raises:
        OSError: when the disk cannot take it; the old content is there then.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_bytes(content)
        flush(new)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: str | Path) -> None:
    """Has the disk write a file, or the names of what is in a folder.

    Raises:
        OSError: when it could not. What is not there any more, what may not be opened (a folder above the outbox)
            and file systems that know no flush are none of that.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(file)
