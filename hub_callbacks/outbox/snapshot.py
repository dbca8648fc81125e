"""Freezes the files of a plan, so that nothing that happens to the originals later changes what is pushed.

A hard link costs the same for a kilobyte and for 100 GB, and keeps the data when rotation
(`save_total_limit`) deletes the original. It does share the data with the original, and a run that saves the
same step again writes some files in place (`torch.save` and `shutil.copy` truncate; safetensors writes a new
file): so each file's size and time of modification are noted, and where they are others the content decides (see
`content`). Small files are copied and are safe from that, too. A reflink would be safe from it at any
size, but the kernel first writes the original to the disk (`generic_remap_file_range_prep` in Linux's
fs/remap_range.c): seconds after a checkpoint.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK

COPY_BELOW = 128 * 1024
"""Bytes up to which a file is copied: some four times what a hard link costs, which nobody notices for a few."""

_NO_LINKS = {
    errno.EXDEV,
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.EMLINK,
    errno.ENOSYS,
    errno.EACCES,
    errno.EINVAL,
}


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

    def is_unchanged(self, push_folder: Path) -> bool:
        """Whether it has the size and the time that it had, where a time says anything.

        Raises:
            OSError: when the disk does not say.
        """
        try:
            stat = (push_folder / self.stored).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        is_copy = self.inode not in (None, stat.st_ino)
        return stat.st_size == self.size and (is_copy or self.mtime_ns in (None, stat.st_mtime_ns))


def freeze(
    source: str | Path, push_folder: str | Path, stored: str, copied: bool = False, copy_below: int = COPY_BELOW
) -> Frozen:
    """Puts `source` as it is now into `push_folder / stored`, whose folder is there.

    Args:
        copied: Whether the original may be written to at any time, so that a link is not enough.
        copy_below: Bytes up to which it is copied all the same.

    Raises:
        OSError: when the file is gone or the disk cannot take it.
    """
    target = os.path.join(push_folder, stored)  # of thousands of files, paths that are objects take the most time
    stat = os.lstat(source)
    if S_ISLNK(stat.st_mode):
        source = os.path.realpath(source)
        stat = os.stat(source)
    if not copied and stat.st_size > copy_below and os.access(source, os.R_OK):  # else it is said now
        try:
            os.link(source, target)
            return Frozen(stored, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    shutil.copyfile(source, target)
    return Frozen(stored, os.stat(target).st_size)
