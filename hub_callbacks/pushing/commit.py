"""One commit: a save with its card, what other nodes have sent for it, and what goes from the Hub in its place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..checkpoints import manifest as checkpoint_manifest
from ..checkpoints.files import checkpoint_name, checkpoint_step, stale_shards
from ..checkpoints.manifest import CheckpointManifest, FileFacts, facts_below
from ..checkpoints.retention import retired
from ..hub.errors import refused_metadata
from ..hub.repository import CommitInfo, Remote, Repository, Uploaded, facts_of
from ..outbox.push import EVAL_RESULTS, MODEL, Commit, OtherNodes, Push
from ..outbox.queue import Outbox
from . import node_files
from .card import EVAL_RESULTS_FILE, card_files, remember
from .files import check_intact, files_to_send, note_changed
from .foreign_run import run_in
from .node_files import Arrived, Awaited, NodeWaits
from .replacing import delete_replaced
from .sent import Sent

logger = logging.getLogger(__name__)

CARD_TRIES = 3
"""Commits that are tried with a card whose metadata the Hub refuses, each time without what it named."""


@dataclass(frozen=True)
class _Job:
    """
    Args:
        push: What is sent, without the parts whose files were changed.
        commit: Its content.
        remote: The branch that the commit is built on.
        notes: Gains what people should know.
    """

    push: Push
    commit: Commit
    remote: Remote
    repository: Repository
    outbox: Outbox
    notes: list[str]


def send_commit(push: Push, commit: Commit, repository: Repository, outbox: Outbox, waits: NodeWaits) -> Sent:
    """Makes the one commit of a push; see `attempt.send`."""
    notes: list[str] = []
    if commit.replaces:
        delete_replaced(push, repository, outbox, notes)
    remote = repository.look(push.target, is_beginning=commit.asked_for)
    notes += repository.notes_on(push.target, remote.repo_id, remote.private)
    left_out = note_changed(push, notes)
    push = push.without(left_out)
    if not push.slots:
        return Sent(remote.repo_id, notes=notes, left_out=left_out)
    assert isinstance(push.content, Commit)
    job = _Job(push, push.content, remote, repository, outbox, notes)

    others = push.others
    arrived = None if others is None else _look_for_others(job, others, waits)
    obsolete = _obsolete(job)
    uploaded, cards = _upload(job, waits)
    facts = facts_of(uploaded)
    if others is not None:
        if arrived is None:
            # Should it not be all there by now either, the own files are not sent again for it.
            waits.keep(push, remote, uploaded)
            arrived = node_files.look(push.target, commit.step, others, repository)
        copies, copied = node_files.take_over(push, arrived, repository)
        uploaded, facts = [*uploaded, *copies], facts | copied
    manifests = _manifests(push, job.commit, facts)
    written = {path for part in push.parts for path in part.files} | facts.keys() | manifests.keys()
    deletions = [path for path in obsolete if path not in written | cards.result().keys()]
    info, size = _commit(job, uploaded, manifests, cards.result(), deletions)
    for tag in job.commit.tags:
        repository.set_tag(remote, tag, info.oid)
    if job.commit.retention.squash and manifests:
        _squash(job)
    size += sum(file.size for file in facts.values())
    return Sent(remote.repo_id, info, push.slots, size, notes, left_out)


# -- what goes


def _obsolete(job: _Job) -> list[str]:
    """What is there and goes with this commit, where it is not written anew."""
    paths = _retired(job)
    for part in job.push.parts:
        if part.whole_folder:
            paths += job.repository.files_below(job.remote, part.prefix)
        elif part.slot == MODEL:
            paths += stale_shards(part.files, job.remote.root)
            paths += _stale_results(job)
    return paths


def _stale_results(job: _Job) -> list[str]:
    """What was measured on the weights that are replaced."""
    if EVAL_RESULTS not in job.remote.folders or not job.commit.has_card:
        return []
    return [path for path in job.repository.files_below(job.remote, EVAL_RESULTS) if path == EVAL_RESULTS_FILE]


def _retired(job: _Job) -> list[str]:
    """Checkpoint folders of the same run that make room for the one in a push."""
    step = job.commit.step
    if checkpoint_name(step) not in {part.prefix for part in job.commit.parts}:
        return []
    there = [older for name in job.remote.folders if (older := checkpoint_step(name)) is not None]
    going = []
    for folder in map(checkpoint_name, retired(there, step, job.commit.retention)):
        if run_in(folder, job.remote, job.repository) == job.push.run_id:
            going.append(f"{folder}/")
        else:
            job.notes.append(f"{folder} on the Hub is not this run's, and stays")
    return going


def _squash(job: _Job) -> None:
    try:
        job.repository.squash(job.remote, job.push.message)
    except Exception as error:  # the push has arrived all the same
        logger.warning("%s could not be squashed", job.remote.revision, exc_info=error)
        job.notes.append(f"the history of {job.remote.revision} could not be squashed ({type(error).__name__})")


# -- what comes


def _upload(job: _Job, waits: NodeWaits) -> tuple[Uploaded, Future[dict[str, bytes]]]:
    """The push's own files, sent, and its card, made meanwhile: that takes as long as some megabytes do."""
    additions = files_to_send(job.push, job.repository.token, job.notes)
    with ThreadPoolExecutor(1, "hub_callbacks-card") as aside:
        cards = aside.submit(_cards, job, [])
        uploaded = waits.kept(job.push, job.remote, additions) or job.repository.upload(job.remote, additions)
    check_intact(job.push)
    return uploaded, cards


def _cards(job: _Job, refused: list[str]) -> dict[str, bytes]:
    if not job.commit.has_card:
        return {}
    return card_files(job.push, job.repository, job.outbox, job.remote, refused, job.notes)


def _look_for_others(job: _Job, others: OtherNodes, waits: NodeWaits) -> Arrived | None:
    """What the other nodes have sent for this push; `None` when it is not all there and the own files come first.

    Raises:
        Awaited: when another push's own files were sent ahead already.
    """
    target, step = job.push.target, job.commit.step
    try:
        return node_files.look(target, step, others, job.repository)
    except Awaited as error:
        awaited = error
    if others.branch in waits.skipped:
        node_files.pass_over_earlier(target, step, others.branch, job.repository)
        waits.skipped.discard(others.branch)
    if waits.has_sent_ahead(others.branch):
        raise awaited
    return None


def _manifests(push: Push, commit: Commit, sent: Mapping[str, FileFacts]) -> dict[str, bytes]:
    """Path in the repository → the manifest of each checkpoint folder of a push."""
    return {
        f"{part.prefix}/{checkpoint_manifest.NAME}": CheckpointManifest(
            commit.step, push.run_id, commit.origin, facts_below(part.prefix, sent)
        ).dump()
        for part in push.parts
        if part.whole_folder
    }


def _commit(
    job: _Job, uploaded: Uploaded, manifests: dict[str, bytes], cards: dict[str, bytes], deletions: list[str]
) -> tuple[CommitInfo, int]:
    """Commits with the card; where the Hub refuses its metadata, without what it refuses.

    Returns:
        The commit, and the bytes of the texts in it.
    """
    refused: list[str] = []
    for _ in range(CARD_TRIES):
        try:
            info = _commit_with(job, uploaded, manifests | cards, deletions)
        except Exception as error:
            complaints = refused_metadata(error)
            if not cards or not complaints:
                raise
            refused.append("\n".join(complaints))
            cards = _cards(job, refused)
        else:
            _remember(job, cards)
            return info, sum(map(len, (manifests | cards).values()))
    job.notes.append("the Hub refused the card; it was left out: " + "; ".join("\n".join(refused).splitlines()))
    return _commit_with(job, uploaded, manifests, deletions), sum(map(len, manifests.values()))


def _commit_with(job: _Job, uploaded: Uploaded, texts: dict[str, bytes], deletions: list[str]) -> CommitInfo:
    return job.repository.commit(job.remote, uploaded, texts, deletions, job.push.message, job.commit.description)


def _remember(job: _Job, cards: dict[str, bytes]) -> None:
    if cards:
        try:
            remember(job.push, job.repository.hub, job.outbox, cards["README.md"])
        except OSError as error:  # the push has arrived all the same
            logger.warning("the card of push %s cannot be remembered: %s", job.push.id, error)
