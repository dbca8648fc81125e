"""One attempt at a push, by its kind. Sending a push twice makes no second commit."""

from __future__ import annotations

from dataclasses import replace

from ..hub.repository import Repository, facts_of
from ..outbox.push import Commit, CreateRepository, LookForOtherRun, NodeFiles, Push, RemoveBranch
from ..outbox.queue import Outbox
from .commit import send_commit
from .files import check_intact, files_to_send, note_changed
from .foreign_run import foreign_run
from .node_files import NodeWaits, arrived_at, list_of
from .sent import Sent


def send(push: Push, repository: Repository, outbox: Outbox, waits: NodeWaits) -> Sent:
    """Does on the Hub what a push is for.

    Args:
        waits: What is remembered of pushes that wait for the files of other nodes.

    Raises:
        Awaited: the files of other nodes are not there yet.
        ChangedWhileSent: nothing was committed, and another attempt leaves out what was changed.
        Exception: whatever the client raises; see `retry_policy`.
    """
    match push.content:
        case CreateRepository():
            return _create(push, repository)
        case LookForOtherRun():
            return _look(push, repository, outbox)
        case RemoveBranch():
            return Sent(repository.remove_branch(push.target))
        case NodeFiles() as files:
            return _send_node_files(push, files, repository)
        case Commit() as commit:
            return send_commit(push, commit, repository, outbox, waits)


def _create(push: Push, repository: Repository) -> Sent:
    notes = repository.rehearse(push.target)
    return Sent(repository.ensure(push.target), notes=notes)


def _look(push: Push, repository: Repository, outbox: Outbox) -> Sent:
    made = _create(push, repository)
    foreign = foreign_run(push, repository, outbox)
    place = repository.places.get(repository.hub, push.target.repo_id)  # as `ensure` has just seen it
    return replace(made, foreign=foreign, private=None if place is None else place.private, user=repository.user())


def _send_node_files(push: Push, content: NodeFiles, repository: Repository) -> Sent:
    """One commit of the files that exist on this node only, and their list."""
    remote = repository.look(push.target)
    notes = repository.notes_on(push.target, remote.repo_id, remote.private)
    if left_out := note_changed(push, notes):
        return Sent(remote.repo_id, notes=notes, left_out=left_out)
    if arrived_at(remote, repository).next > content.step:
        return Sent(remote.repo_id, notes=notes, passed_over=True)
    uploaded = repository.upload(remote, files_to_send(push, repository.token, notes))
    check_intact(push)
    facts = facts_of(uploaded)
    commit = repository.add(remote, uploaded, list_of(push, content, facts), push.message)
    size = sum(file.size for file in facts.values())
    return Sent(remote.repo_id, commit, push.slots, size, notes)
