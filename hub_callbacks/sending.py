"""One push → one commit. Sending a push twice makes no second one."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .card_push import card_files, remember
from .manifest import Push, PushPart
from .outbox import Outbox
from .plan import MODEL, stale_shards
from .redaction import secret_in
from .replacing import delete_replaced
from .repository import CommitInfo, Remote, Repository, Uploaded, wrong_visibility
from .verdict import refused_metadata

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
    """

    repo_id: str
    commit: CommitInfo | None = None
    slots: frozenset[str] = frozenset()
    size: int = 0
    notes: list[str] = field(default_factory=list)
    nothing_left: bool = False


def send(push: Push, repository: Repository, outbox: Outbox) -> Sent:
    """Makes the one commit of a push.

    Raises:
        ChangedWhileSent: nothing was committed, and another attempt leaves out what was changed.
        Exception: whatever the client raises; see `verdict.judge`.
    """
    if not push.slots:
        found = repository.rehearse(push.target)
        return Sent(repository.ensure(push.target), notes=found)
    notes: list[str] = []
    if push.replaces:
        delete_replaced(push, repository, outbox, notes)
    remote = repository.look(push.target)
    sent = Sent(remote.repo_id, notes=notes + wrong_visibility(push.target, remote.repo_id, remote.private))
    push = _without_changed_parts(push, sent.notes)
    if not push.slots:
        sent.nothing_left = True
        return sent
    sent.slots = push.slots

    additions: dict[str, Path] = {}
    deletions: list[str] = []
    for part in push.parts:
        additions |= _files_to_send(part, push.folder, repository.token, sent.notes)
        if part.whole_folder:
            deletions += [path for path in repository.files_below(remote, part.prefix) if path not in part.files]
        elif part.slot == MODEL:
            deletions += stale_shards(part.files, remote.root)
    with ThreadPoolExecutor(1, "hub_callbacks-card") as aside:  # a card takes as long as some megabytes do
        cards = aside.submit(_cards, push, repository, outbox, remote, [], sent.notes)
        uploaded = repository.upload(remote, additions)
    if not is_intact(push):
        raise ChangedWhileSent("a file of the push was rewritten while it was read; nothing was committed")
    sent.size = sum(frozen.size for part in push.parts for path, frozen in part.files.items() if path in additions)
    sent.commit = _commit(push, repository, outbox, remote, uploaded, cards.result(), deletions, sent)
    for tag in push.tags:
        repository.set_tag(remote, tag, sent.commit.oid)
    return sent


def _cards(
    push: Push, repository: Repository, outbox: Outbox, remote: Remote, refused: list[str], notes: list[str]
) -> dict[str, bytes]:
    return card_files(push, repository, outbox, remote, refused, notes) if push.has_card else {}


def _commit(
    push: Push,
    repository: Repository,
    outbox: Outbox,
    remote: Remote,
    uploaded: Uploaded,
    cards: dict[str, bytes],
    deletions: list[str],
    sent: Sent,
) -> CommitInfo:
    """Commits with the card; where the Hub refuses its metadata, without what it refuses."""
    refused: list[str] = []
    for _ in range(CARD_TRIES):
        try:
            commit = repository.commit(remote, uploaded, cards, deletions, push.message, push.description)
        except Exception as error:
            complaints = refused_metadata(error)
            if not cards or not complaints:
                raise
            refused += complaints
            cards = _cards(push, repository, outbox, remote, refused, sent.notes)
        else:
            sent.size += sum(map(len, cards.values()))
            _remember(push, outbox, cards)
            return commit
    sent.notes.append("the Hub refused the card; it was left out: " + "; ".join(refused))
    return repository.commit(remote, uploaded, {}, deletions, push.message, push.description)


def _remember(push: Push, outbox: Outbox, cards: dict[str, bytes]) -> None:
    if cards:
        try:
            remember(push, outbox, cards["README.md"])
        except OSError as error:  # the push has arrived all the same
            logger.warning("the card of push %s cannot be remembered: %s", push.id, error)


def is_intact(push: Push) -> bool:
    """Whether all its files are as they were when they were snapshotted."""
    return all(frozen.is_intact(push.folder) for frozen in push.frozen())


def _without_changed_parts(push: Push, notes: list[str]) -> Push:
    """Leaves parts out whose files were rewritten after they were snapshotted: they belong to a newer save."""
    changed = frozenset(
        part.slot
        for part in push.parts
        if not all(frozen.is_intact(push.folder) for frozen in part.files.values())
    )
    if changed:
        notes.append(
            f"{', '.join(sorted(changed))} was rewritten on disk by a later save before it could be sent, "
            "and is left to that save"
        )
    return push.without(changed)


def _files_to_send(part: PushPart, folder: Path, token: str | None, notes: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path, frozen in part.files.items():
        secret = secret_in(path, folder / frozen.stored, [token] if token else [])
        if secret is None:
            files[path] = folder / frozen.stored
        else:
            notes.append(f"{path} was left out: it holds {secret}, or is one")
    return files
