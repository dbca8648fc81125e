"""The files of a push before they go: as they were when they were snapshotted, and without secrets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..outbox.content import is_as_it_was
from ..outbox.durable import has_hole, may_be_torn
from ..outbox.push import CARD, MODEL, Push
from ..outbox.snapshot import Frozen
from .redaction import secret_in
from .schedule import Disk, DiskFile


class ChangedWhileSent(Exception):
    """A file was rewritten while it was uploaded: nothing of it may be committed under the old save's name."""


def is_intact(push: Push) -> bool:
    """Whether all its files are as they were when they were snapshotted."""
    return not changed_slots(push)


def changed_slots(push: Push) -> frozenset[str]:
    """The parts of a push whose files are not those that were snapshotted; with the model goes its card."""
    is_doubtful = may_be_torn(push)

    def is_whole(frozen: Frozen) -> bool:
        return is_as_it_was(frozen, push) and not (is_doubtful and has_hole(push.folder / frozen.stored))

    changed = frozenset(part.slot for part in push.parts if not all(map(is_whole, part.files.values())))
    return changed | {CARD} if MODEL in changed and CARD in push.slots else changed


def check_intact(push: Push) -> None:
    """
    Raises:
        ChangedWhileSent: when a file is not as it was.
    """
    if not is_intact(push):
        raise ChangedWhileSent("a file of the push was rewritten while it was read; nothing was committed")


def note_changed(push: Push, notes: list[str]) -> frozenset[str]:
    """The parts whose files are not those that were snapshotted: what is there belongs to no save, or to another.

    Args:
        notes: Gains what people should know.
    """
    changed = changed_slots(push)
    if changed and may_be_torn(push):
        notes.append(
            f"{', '.join(sorted(changed))} was left out: the machine went down before its files were on the disk. "
            f"What there is of it is in {push.set_aside}"
        )
    elif changed:
        notes.append(
            f"{', '.join(sorted(changed))} was left out: its files were rewritten, cut short or deleted on disk "
            f"before they could be sent. What there is of it is in {push.set_aside}"
        )
    return changed


def files_to_send(push: Push, token: str | None, notes: list[str]) -> dict[str, Path]:
    """Path in the repository → file, without those that hold a secret."""
    files: dict[str, Path] = {}
    for path, frozen in ((path, frozen) for part in push.parts for path, frozen in part.files.items()):
        secret = secret_in(path, push.folder / frozen.stored, [token])
        if secret is None:
            files[path] = push.folder / frozen.stored
        else:
            notes.append(f"{path} was left out: it holds {secret}, or is one")
    return files


def disk_of(pushes: Iterable[Push]) -> Disk:
    """What the files of pushes are on the disk."""
    disk = {}
    for push in pushes:
        for stored in {frozen.stored for frozen in push.frozen()}:
            try:
                stat = (push.folder / stored).stat()
            except OSError:  # a file that is gone takes no room
                continue
            disk[push.id, stored] = DiskFile((stat.st_dev, stat.st_ino), stat.st_size, stat.st_nlink)
    return disk
