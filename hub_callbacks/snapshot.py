"""Freezes the files of a plan, so that nothing that happens to the originals later changes what is pushed.

A hard link costs the same for a kilobyte and for 100 GB, and keeps the data when rotation
(`save_total_limit`) deletes the original. It does share the data with the original, and a run that saves the
same step again writes some files in place (`torch.save` and `shutil.copy` truncate; safetensors writes a new
file): so each file's size and time of modification are noted, and the pusher leaves a file alone that does
not have them any more. Small files are copied and are safe from that, too.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

COPY_BELOW = 128 * 1024
"""Bytes up to which a file is copied: about what a hard link costs."""

_FICLONE = 0x40049409  # linux/fs.h
_NO_LINKS = {
    errno.EXDEV,
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.EMLINK,
    errno.ENOSYS,
    errno.EACCES,
    errno.EINVAL,
}
_without_reflinks: set[int] = set()
"""Devices that were seen to have none."""


@dataclass(frozen=True)
class Frozen:
    """A file as it was when it was snapshotted.

    Args:
        stored: Where it lies, relative to the folder of its push.
        size: Bytes.
        mtime_ns: Time of modification in nanoseconds, for a file that is shared with its original (a hard
            link); `None` for one that cannot change.
        inode: Number of the shared file. Under another one it is a copy of the outbox, which `cp`, `scp` and `tar`
            give times of their own.
    """

    stored: str
    size: int
    mtime_ns: int | None = None
    inode: int | None = None

    def is_intact(self, push_folder: Path) -> bool:
        try:
            stat = (push_folder / self.stored).stat()
        except OSError:
            return False
        is_copy = self.inode not in (None, stat.st_ino)
        return stat.st_size == self.size and (is_copy or self.mtime_ns in (None, stat.st_mtime_ns))


def freeze(source: Path, push_folder: Path, stored: str, copied: bool = False) -> Frozen:
    """Puts `source` as it is now into `push_folder / stored`.

    Args:
        copied: Whether the original may be written to at any time, so that a link is not enough.

    Raises:
        OSError: when the file is gone or the disk cannot take it.
    """
    target = push_folder / stored
    target.parent.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(source)
    stat = os.stat(real)
    if copied or stat.st_size <= COPY_BELOW:
        shutil.copyfile(real, target)
        return Frozen(stored, target.stat().st_size)
    if stat.st_dev not in _without_reflinks:
        if _reflink(real, target):
            return Frozen(stored, stat.st_size)
        _without_reflinks.add(stat.st_dev)
    try:
        os.link(real, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(real, target)
        return Frozen(stored, target.stat().st_size)
    return Frozen(stored, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _reflink(source: str, target: Path) -> bool:
    """A copy that shares its blocks until one side is written to (btrfs, XFS and others have it)."""
    try:
        import fcntl
    except ImportError:
        return False
    with open(source, "rb") as original:
        clone = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            fcntl.ioctl(clone, _FICLONE, original.fileno())
            return True
        except OSError:
            os.unlink(target)
            return False
        finally:
            os.close(clone)
