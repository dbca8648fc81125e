"""What becomes of the pushes that wait: pure functions from what is known of each to what is done with it.

`pusher` does what is decided here, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..checkpoints.files import LAST_CHECKPOINT
from ..outbox.push import Commit, CreateRepository, LookForOtherRun, Push, RemoveBranch
from .node_files import NodeWaits
from .retry_policy import RetryPolicy

PATIENCE = 3
"""Failures in a row after which a push lets others pass."""

Done = Mapping[tuple[str, str], str]
"""Place and slot → number of the newest push that is on the Hub."""


@dataclass
class Known:
    """What a pusher has found out about a push that waits.

    Args:
        is_durable: Whether a loss of power leaves it whole.
        flush_error: Why that is not known, where the disk could not write it.
        damaged: What of it cannot be sent any more: its files are not those that were saved.
        refused: Why it is not tried again, if it is not.
        failures: Attempts that have failed.
        trouble: What was said of it last.
        has_looked_again: Whether it was tried once more after the Hub had no such repository or branch.
    """

    is_durable: bool = False
    flush_error: OSError | None = None
    damaged: frozenset[str] = frozenset()
    refused: RetryPolicy | None = None
    failures: int = 0
    trouble: str | None = None
    has_looked_again: bool = False

    @property
    def takes_over(self) -> bool:
        """Whether what is older gives way to it: not, where it may never arrive for what is in it, or a loss of
        power may take it."""
        return self.flush_error is None and (self.refused is None or self.refused.all_pushes)


@dataclass(frozen=True)
class Keep:
    """The push waits for its turn.

    Args:
        push: Without what newer ones write, too.
    """

    push: Push


@dataclass(frozen=True)
class Hold:
    """Newer pushes write all of it, and a loss of power could still take them: it is neither sent nor let go."""

    push: Push


@dataclass(frozen=True)
class Supersede:
    """Newer pushes write all of it: it is let go.

    Args:
        by: Number of the newest of them.
    """

    push: Push
    by: str


@dataclass(frozen=True)
class GiveUp:
    """Parts of it make room on the disk.

    Args:
        slots: Which; all of them when nothing else is left of it.
    """

    push: Push
    slots: frozenset[str]


Action = Keep | Hold | Supersede | GiveUp


@dataclass(frozen=True)
class DiskFile:
    """
    Args:
        inode: Device and inode.
        size: Bytes.
        links: Names that it has, wherever they are.
    """

    inode: tuple[int, int]
    size: int
    links: int


Disk = Mapping[tuple[str, str], DiskFile]
"""Number of a push and place of a file in its folder → the file, for those that are there."""


@dataclass(frozen=True)
class Room:
    """What pushes that wait may keep on disk that nothing else keeps.

    Args:
        limit: Bytes.
        disk: What is there.
    """

    limit: int
    disk: Disk


def decide(
    pending: Sequence[Push],
    known: Mapping[str, Known],
    done: Done,
    *,
    held: Collection[str] = (),
    busy: str | None = None,
    room: Room | None = None,
) -> list[Action]:
    """What is done with each of the pushes that wait, in their order.

    Args:
        pending: The pushes that wait, oldest first.
        known: Number → what is known of it.
        done: What is on the Hub already.
        held: Numbers of pushes that are half done.
        busy: Number of the push that is being sent; it is left alone.
        room: Where it has to be looked whether they keep too much.
    """
    over = taken_over(pending, known, done, held)
    actions: list[Action] = []
    for push in pending:
        by = over[push.id]
        if push.id == busy:
            actions.append(Keep(push))
        elif not by or not by.keys() >= push.slots:
            actions.append(Keep(push.without(frozenset(by))))
        elif all(known[newer].is_durable for newer in by.values() if newer in known):
            actions.append(Supersede(push, max(by.values(), key=int)))
        else:
            actions.append(Hold(push))
    if room is None:
        return actions
    given = giving_way([action.push for action in actions if isinstance(action, Keep)], room, busy)
    return [GiveUp(a.push, given[a.push.id]) if isinstance(a, Keep) and a.push.id in given else a for a in actions]


def taken_over(
    pending: Sequence[Push], known: Mapping[str, Known], done: Done, held: Collection[str] = ()
) -> dict[str, dict[str, str]]:
    """What of each push a later push to the same place writes too. What is on the Hub is never overwritten by an
    older push, whatever made it late.

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
        for slot in push.slots:
            is_best = slot == LAST_CHECKPOINT and push.step == best.get(place)
            by = (done if push.keep or push.id in held or is_best else newest).get((place, slot))
            if by is not None and int(by) > int(push.id):
                over[push.id][slot] = by
        if isinstance(push.content, Commit) and LAST_CHECKPOINT in push.slots:
            best.setdefault(place, push.content.retention.best)
        if known[push.id].takes_over:
            for slot in push.slots - known[push.id].damaged:
                newest[place, slot] = max(newest.get((place, slot), push.id), push.id, key=int)
    return over


def heirs(pending: Sequence[Push], known: Mapping[str, Known], done: Done, held: Collection[str] = ()) -> set[str]:
    """The pushes that wait and take over something."""
    over = taken_over(pending, known, done, held)
    return {newer for by in over.values() for newer in by.values()} & known.keys()


def giving_way(pending: Sequence[Push], room: Room, busy: str | None = None) -> dict[str, frozenset[str]]:
    """What gives way when pushes that wait keep more on disk than they may.

    Only what nothing else keeps counts: copies, and files whose original was deleted. First goes what a later
    push writes too (that is there with `keep` only), then the rest, `checkpoint-N/` folders: the oldest first.
    The newest push of a place never gives way, nor does the one that is being sent.

    Returns:
        Number of a push → slots that it gives up.
    """
    only_here = _only_in_outbox(pending, room.disk)
    left = {push.id: push for push in pending}

    def kept_by(pushes: Iterable[Push]) -> int:
        files = {room.disk.get((push.id, frozen.stored)) for push in pushes for frozen in push.frozen()}
        return sum(file.size for file in files if file is not None and file.inode in only_here)

    kept = kept_by(left.values())
    given: dict[str, frozenset[str]] = {}
    for push_id, slots in _candidates(pending, busy):
        if kept <= room.limit:
            break
        push = left[push_id]
        rest = push.without(slots)
        if kept_by([rest]) < kept_by([push]):
            left[push_id] = rest
            given[push_id] = given.get(push_id, frozenset()) | slots
            kept = kept_by(left.values())
    return given


def _only_in_outbox(pending: Sequence[Push], disk: Disk) -> frozenset[tuple[int, int]]:
    """The files all of whose names are in the outbox."""
    names = {(push.id, frozen.stored) for push in pending for frozen in push.frozen()}
    files = [disk[name] for name in names if name in disk]
    counted = Counter(file.inode for file in files)
    return frozenset(file.inode for file in files if file.links <= counted[file.inode])


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


def sendable(pushes: Sequence[Push], known: Mapping[str, Known]) -> list[Push]:
    """Those that can be tried: not refused, and no branch removed that another push takes files from."""
    needed = {push.others.branch for push in pushes if push.others}
    refused = {push_id for push_id, facts in known.items() if facts.refused is not None}
    return [
        push
        for push in pushes
        if push.id not in refused
        and not (isinstance(push.content, RemoveBranch) and push.target.revision in needed)
    ]


def _makes_sure(push: Push) -> bool:
    """Whether it makes the repository, as a start of a training does: what an earlier run left needs that, too."""
    return isinstance(push.content, CreateRepository | LookForOtherRun)


def next_push(waiting: Sequence[Push], known: Mapping[str, Known], waits: NodeWaits) -> Push:
    """The oldest, if none is urgent; but one that fails again and again, urgent or not, lets those pass that need
    not come in order, and one that waits for other nodes is passed by what need not wait.

    Args:
        waiting: At least one push, oldest first.
    """
    urgent = next((push for push in waiting if push.urgent and known[push.id].failures < PATIENCE), None)
    if urgent is not None:
        return urgent
    creation = next((push for push in waiting if _makes_sure(push) and not known[push.id].failures), None)
    if creation is not None:
        return creation
    in_order = [push for push in waiting if push.keep and not waits.may_be_passed(push)]
    if waiting[0] in in_order:
        return waiting[0]
    free = [push for push in waiting if push not in in_order[1:]]
    return min(free, key=lambda push: (known[push.id].failures // PATIENCE, waits.order(push), int(push.id)))
