"""Deleting a repository, for the push that takes its place (`delete_existing_repo`).

Not before the push is whole on disk. Which repository is deleted is noted in its folder before that happens: an
attempt after a crash then tells the one that was to go from the one that took its place.
"""

from __future__ import annotations

import json

from ..hub.repository import Repository
from ..outbox import ledger
from ..outbox.durable import make_durable, replace_file
from ..outbox.push import Push
from ..outbox.queue import Outbox
from .files import is_intact

NOTED = "replaced.json"
"""The repository that a push takes the place of, as it was when the push first looked."""


def delete_replaced(push: Push, repository: Repository, outbox: Outbox, notes: list[str]) -> None:
    """Deletes the repository that is in the place of a push, once.

    Args:
        notes: Gains what people should know.

    Raises:
        NotYours: when it belongs to somebody else.
    """
    if not is_intact(push):
        notes.append(f"{push.target.repo_id} was not deleted: what was to take its place is not whole")
        return
    make_durable(push)
    there = repository.find(push.target)
    place = push.folder / NOTED
    if not place.exists():
        if there is not None:
            repository.require_owner(there.repo_id)
        replace_file(place, json.dumps(None if there is None else there.created).encode())
    # A clock that only ever says when each was made tells one from the other.
    if there is None or there.created != json.loads(place.read_text(encoding="utf-8")):
        return
    if _has_newer(push, there.repo_id, repository.hub, outbox):
        notes.append(
            f"{there.repo_id} was not deleted, as delete_existing_repo asked: newer pushes are there already"
        )
        return
    said = f"{there.repo_id} is deleted, as delete_existing_repo asks: {there.contents}"
    outbox.record(ledger.Entry(push.id, ledger.RUNNING, message=push.message, notes=(said,)))
    repository.delete(there.repo_id)
    outbox.card_memory(push.target, repository.hub).unlink(missing_ok=True)


def _has_newer(push: Push, repo_id: str, hub: str, outbox: Outbox) -> bool:
    return any(
        entry.is_on(hub) and entry.repo_id == repo_id and int(entry.push) > int(push.id)
        for entry in outbox.ledger.all_entries()
    )
