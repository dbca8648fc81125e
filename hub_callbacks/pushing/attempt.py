"""One push → one commit. Sending a push twice makes no second one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoints import manifest as checkpoint_manifest
from ..checkpoints.manifest import FileFacts, manifest_below
from ..checkpoints.retention import retired
from ..hub.repository import CommitInfo, Remote, Repository, Uploaded, facts_of, wrong_visibility
from ..outbox.durable import has_hole, make_durable, may_be_torn
from ..outbox.push import Push
from ..outbox.queue import Outbox
from ..outbox.snapshot import Frozen
from ..training.plan import MODEL, checkpoint_step, stale_shards
from . import parts as meeting
from .card import card_files, remember
from .foreign_run import foreign_run, run_of
from .redaction import secret_in
from .replacing import delete_replaced
from .retry_policy import refused_metadata

logger = logging.getLogger(__name__)

CARD_TRIES = 3


class ChangedWhileSent(Exception):
    """A file was rewritten while it was uploaded: nothing of it may be committed under the old save's name."""


@dataclass
class Sent:
    """What came of sending a push.

    Args:
        commit: `None` for a push that only makes sure of the repository, or of which nothing was left.
        slots: What of the push is on the Hub now.
        nothing_left: Whether all its files were rewritten before they could be sent.
        foreign: The run whose model was found there, if it is another one.
        passed_over: Whether the main process does not wait for these files any more.
    """

    repo_id: str
    commit: CommitInfo | None = None
    slots: frozenset[str] = frozenset()
    size: int = 0
    notes: list[str] = field(default_factory=list)
    nothing_left: bool = False
    foreign: str | None = None
    passed_over: bool = False


def send(push: Push, repository: Repository, outbox: Outbox, agenda: meeting.Agenda) -> Sent:
    """Makes the one commit of a push.

    Args:
        agenda: What is remembered of pushes that wait for the files of other nodes.

    Raises:
        Awaited: the files of other nodes are not there yet.
        ChangedWhileSent: nothing was committed, and another attempt leaves out what was changed.
        Exception: whatever the client raises; see `verdict.judge`.
    """
    if push.removes_branch:
        return Sent(repository.remove_branch(push.target))
    if not push.slots:
        sent = Sent(repository.ensure(push.target), notes=repository.rehearse(push.target))
        sent.foreign = foreign_run(push, repository, outbox) if push.asks_whose else None
        return sent
    notes: list[str] = []
    if push.replaces:
        if is_intact(push):
            make_durable(push)
            delete_replaced(push, repository, outbox, notes)
        else:
            notes.append(f"{push.target.repo_id} was not deleted: what was to take its place is not whole")
    remote = repository.look(push.target)
    sent = Sent(remote.repo_id, notes=notes + wrong_visibility(push.target, remote.repo_id, remote.private))
    push = _without_changed_parts(push, sent.notes)
    if not push.slots:
        sent.nothing_left = True
        return sent
    sent.slots = push.slots
    if push.node is not None:
        _send_to_meeting(push, repository, remote, sent)
    else:
        _send_to_target(push, repository, outbox, agenda, remote, sent)
    return sent


def _send_to_target(
    push: Push, repository: Repository, outbox: Outbox, agenda: meeting.Agenda, remote: Remote, sent: Sent
) -> None:
    """One commit of all that a push holds, and of what other nodes have sent for it."""
    arrived = _look_for_others(push, repository, agenda)
    additions = _files_to_send(push, repository.token, sent.notes)
    obsolete = _obsolete(push, repository, remote, sent.notes)
    with ThreadPoolExecutor(1, "hub_callbacks-card") as aside:  # a card takes as long as some megabytes do
        cards = aside.submit(_cards, push, repository, outbox, remote, [], sent.notes)
        uploaded = agenda.kept(push, remote, additions) or repository.upload(remote, additions)
    _check_intact(push)
    facts = facts_of(uploaded)
    if push.meeting is not None:
        if arrived is None:
            agenda.keep(push, remote, uploaded)
            arrived = _look_again(push, repository)
        copies, copied = meeting.take_over(push, arrived, repository)
        uploaded, facts = [*uploaded, *copies], facts | copied
    manifests = _manifests(push, facts)
    written = {path for part in push.parts for path in part.files} | facts.keys() | manifests.keys()
    deletions = [path for path in obsolete if path not in written]
    sent.size = sum(file.size for file in facts.values())
    sent.commit = _commit(push, repository, outbox, remote, uploaded, manifests, cards.result(), deletions, sent)
    for tag in push.tags:
        repository.set_tag(remote, tag, sent.commit.oid)
    if push.retention.squash and manifests:
        _squash(push, repository, remote, sent.notes)


def _obsolete(push: Push, repository: Repository, remote: Remote, notes: list[str]) -> list[str]:
    """What is there and goes with this commit, where it is not written anew."""
    paths = _retired(push, repository, remote, notes)
    for part in push.parts:
        if part.whole_folder:
            paths += repository.files_below(remote, part.prefix)
        elif part.slot == MODEL:
            paths += stale_shards(part.files, remote.root)
    return paths


def _retired(push: Push, repository: Repository, remote: Remote, notes: list[str]) -> list[str]:
    """Checkpoint folders of the same run that make room for the one in a push."""
    is_numbered = f"checkpoint-{push.step}" in {part.prefix for part in push.parts}
    if not is_numbered:
        return []
    there = [step for name in remote.folders if (step := checkpoint_step(name)) is not None]
    going = []
    for step in retired(there, push.step, push.retention):
        if run_of(f"checkpoint-{step}", remote, repository) == push.run:
            going.append(f"checkpoint-{step}/")
        else:
            notes.append(f"checkpoint-{step} on the Hub is not this run's, and stays")
    return going


def _squash(push: Push, repository: Repository, remote: Remote, notes: list[str]) -> None:
    try:
        repository.squash(remote, push.message)
    except Exception as error:  # the push has arrived all the same
        logger.warning("%s could not be squashed", remote.revision, exc_info=error)
        notes.append(f"the history of {remote.revision} could not be squashed ({type(error).__name__})")


def _cards(
    push: Push, repository: Repository, outbox: Outbox, remote: Remote, refused: list[str], notes: list[str]
) -> dict[str, bytes]:
    return card_files(push, repository, outbox, remote, refused, notes) if push.has_card else {}


def _manifests(push: Push, sent: Mapping[str, FileFacts]) -> dict[str, bytes]:
    """Path in the repository → the manifest of each checkpoint folder of a push."""
    return {
        f"{part.prefix}/{checkpoint_manifest.NAME}": manifest_below(
            part.prefix, sent, push.step, push.run, push.origin
        ).dump()
        for part in push.parts
        if part.whole_folder
    }


def _look_for_others(push: Push, repository: Repository, agenda: meeting.Agenda) -> meeting.Arrived | None:
    """What the other nodes have sent for this push; `None` when it is not all there and the own files come first.

    Raises:
        Awaited: when another push's own files were sent ahead already.
    """
    if push.meeting is None:
        return None
    arrived = meeting.look(push, repository)
    awaited = meeting.missing(push, arrived)
    if awaited is None:
        return arrived
    if push.meeting.branch in agenda.skipped:
        meeting.pass_over_earlier(push, repository)
        agenda.skipped.discard(push.meeting.branch)
    if agenda.has_sent_ahead(push.meeting.branch):
        raise awaited
    return None


def _look_again(push: Push, repository: Repository) -> meeting.Arrived:
    arrived = meeting.look(push, repository)
    awaited = meeting.missing(push, arrived)
    if awaited is not None:
        raise awaited
    return arrived


def _send_to_meeting(push: Push, repository: Repository, remote: Remote, sent: Sent) -> None:
    """One commit of the files that exist on this node only, and their list."""
    if meeting.arrived_at(remote, repository).next > push.step:
        sent.passed_over = True
        return
    uploaded = repository.upload(remote, _files_to_send(push, repository.token, sent.notes))
    _check_intact(push)
    facts = facts_of(uploaded)
    sent.size = sum(file.size for file in facts.values())
    sent.commit = repository.add(remote, uploaded, meeting.list_of(push, facts), push.message)


def _commit(
    push: Push,
    repository: Repository,
    outbox: Outbox,
    remote: Remote,
    uploaded: Uploaded,
    manifests: dict[str, bytes],
    cards: dict[str, bytes],
    deletions: list[str],
    sent: Sent,
) -> CommitInfo:
    """Commits with the card; where the Hub refuses its metadata, without what it refuses."""
    refused: list[str] = []
    for _ in range(CARD_TRIES):
        try:
            texts = manifests | cards
            commit = repository.commit(remote, uploaded, texts, deletions, push.message, push.description)
        except Exception as error:
            complaints = refused_metadata(error)
            if not cards or not complaints:
                raise
            refused += complaints
            cards = _cards(push, repository, outbox, remote, refused, sent.notes)
        else:
            sent.size += sum(map(len, texts.values()))
            _remember(push, repository.hub, outbox, cards)
            return commit
    sent.notes.append("the Hub refused the card; it was left out: " + "; ".join(refused))
    return repository.commit(remote, uploaded, manifests, deletions, push.message, push.description)


def _remember(push: Push, hub: str, outbox: Outbox, cards: dict[str, bytes]) -> None:
    if cards:
        try:
            remember(push, hub, outbox, cards["README.md"])
        except OSError as error:  # the push has arrived all the same
            logger.warning("the card of push %s cannot be remembered: %s", push.id, error)


def is_intact(push: Push) -> bool:
    """Whether all its files are as they were when they were snapshotted."""
    return not changed_slots(push)


def changed_slots(push: Push) -> frozenset[str]:
    """The parts of a push with files that are not as they were when they were snapshotted."""
    is_doubtful = may_be_torn(push)

    def is_whole(frozen: Frozen) -> bool:
        return frozen.is_intact(push.folder) and not (is_doubtful and has_hole(push.folder / frozen.stored))

    return frozenset(part.slot for part in push.parts if not all(map(is_whole, part.files.values())))


def _check_intact(push: Push) -> None:
    if not is_intact(push):
        raise ChangedWhileSent("a file of the push was rewritten while it was read; nothing was committed")


def _without_changed_parts(push: Push, notes: list[str]) -> Push:
    """Leaves parts out whose files were rewritten after they were snapshotted: they belong to a newer save."""
    changed = changed_slots(push)
    if changed and may_be_torn(push):
        notes.append(
            f"{', '.join(sorted(changed))} was left out: the machine went down before its files were on the disk"
        )
    elif changed:
        notes.append(
            f"{', '.join(sorted(changed))} was rewritten on disk by a later save before it could be sent, "
            "and is left to that save"
        )
    return push.without(changed)


def _files_to_send(push: Push, token: str | None, notes: list[str]) -> dict[str, Path]:
    """Path in the repository → file, without those that hold a secret."""
    files: dict[str, Path] = {}
    for path, frozen in ((path, frozen) for part in push.parts for path, frozen in part.files.items()):
        secret = secret_in(path, push.folder / frozen.stored, [token])
        if secret is None:
            files[path] = push.folder / frozen.stored
        else:
            notes.append(f"{path} was left out: it holds {secret}, or is one")
    return files
