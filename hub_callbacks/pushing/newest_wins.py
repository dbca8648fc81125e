"""Which of the pushes that wait still have something to say, and which give way when the disk fills up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..outbox.push import Push
from ..training.plan import LAST_CHECKPOINT

REPOSITORY = ""
"""Stands for the slot of a push without any: it only makes sure of the repository."""

Done = dict[tuple[str, str], str]
"""Place and slot → number of the newest push that is on the Hub."""


def slots_of(push: Push) -> frozenset[str]:
    return push.slots or frozenset({REPOSITORY})


def taken_over(
    pending: Sequence[Push],
    done: Mapping[tuple[str, str], str],
    refused: Collection[str] = (),
    held: Collection[str] = (),
) -> dict[str, dict[str, str]]:
    """What of each push a later push to the same place writes too.

    Args:
        pending: The pushes that wait, oldest first.
        done: What is on the Hub already. An older push never overwrites it, whatever made it late.
        refused: Numbers of pushes that the Hub does not take for what is in them: these take over nothing.
        held: Numbers of pushes that are half done.

    Returns:
        Number of a push → slot → number of the newest push that has taken it over. Pushes with `keep`, those
        that are held, and the best checkpoint give way only to what is on the Hub: the newest checkpoint refers
        to the best one, and whoever continues from it finds that in the history.
    """
    newest = dict(done)
    best: dict[str, int | None] = {}
    over: dict[str, dict[str, str]] = {}
    for push in reversed(pending):
        place = push.target.place
        over[push.id] = {}
        for slot in slots_of(push):
            is_best = slot == LAST_CHECKPOINT and push.step == best.get(place)
            by = (done if push.keep or push.id in held or is_best else newest).get((place, slot))
            if by is not None and int(by) > int(push.id):
                over[push.id][slot] = by
        if LAST_CHECKPOINT in push.slots:
            best.setdefault(place, push.retention.best)
        if push.id not in refused:
            for slot in slots_of(push):
                newest[place, slot] = max(newest.get((place, slot), push.id), push.id, key=int)
    return over


def giving_way(pending: Sequence[Push], limit: int, busy: str | None = None) -> dict[str, frozenset[str]]:
    """What gives way when pushes that wait keep more on disk than they may.

    Only what nothing else keeps counts: copies, and files whose original was deleted. First goes what a later
    push writes too (that is there with `keep` only), then the rest, `checkpoint-N/` folders: the oldest first.
    The newest push of a place never gives way, nor does the one that is being sent.

    Args:
        pending: The pushes that wait, oldest first.
        limit: Bytes.
        busy: Number of the push that is being sent.

    Returns:
        Number of a push → slots that it gives up.
    """
    disk = _Disk(pending)
    left = {push.id: push for push in pending}
    kept = disk.kept_by(left.values())
    given: dict[str, frozenset[str]] = {}
    for push_id, slots in _candidates(pending, busy):
        if kept <= limit:
            break
        push = left[push_id]
        rest = push.without(slots)
        if disk.kept_by([rest]) < disk.kept_by([push]):
            left[push_id] = rest
            given[push_id] = given.get(push_id, frozenset()) | slots
            kept = disk.kept_by(left.values())
    return given


def _candidates(pending: Sequence[Push], busy: str | None) -> list[tuple[str, frozenset[str]]]:
    written: set[tuple[str, str]] = set()
    newest: set[str] = set()
    again: list[tuple[str, frozenset[str]]] = []
    whole: list[tuple[str, frozenset[str]]] = []
    for push in reversed(pending):
        place = push.target.place
        if push.parts and place not in newest:
            newest.add(place)
        elif push.parts and push.id != busy:
            again.append((push.id, frozenset(slot for slot in push.slots if (place, slot) in written)))
            whole.append((push.id, push.slots))
        written |= {(place, slot) for slot in push.slots}
    return again[::-1] + whole[::-1]


class _Disk:
    """Which files of pushes are kept by nothing but the outbox."""

    def __init__(self, pushes: Sequence[Push]) -> None:
        self._inodes: dict[tuple[str, str], tuple[int, int]] = {}
        self._sizes: dict[tuple[int, int], int] = {}
        links: Counter[tuple[int, int]] = Counter()
        all_links: dict[tuple[int, int], int] = {}
        for push in pushes:
            for stored in {frozen.stored for frozen in push.frozen()}:
                try:
                    stat = (push.folder / stored).stat()
                except OSError:
                    continue
                inode = (stat.st_dev, stat.st_ino)
                self._inodes[push.id, stored] = inode
                self._sizes[inode] = stat.st_size
                all_links[inode] = stat.st_nlink
                links[inode] += 1
        self._only_here = {inode for inode, count in links.items() if all_links[inode] <= count}

    def kept_by(self, pushes: Iterable[Push]) -> int:
        inodes = {self._inodes.get((push.id, frozen.stored)) for push in pushes for frozen in push.frozen()}
        return sum(self._sizes[inode] for inode in inodes if inode in self._only_here)
