"""Whose model a repository holds: this run's, or that of another one that it would go on top of."""

from __future__ import annotations

from ..checkpoints import manifest as checkpoint_manifest
from ..checkpoints.files import LAST_CHECKPOINT, checkpoint_name, checkpoint_step, is_training_state, is_weights
from ..hub.repository import EntryNotFoundError, Remote, Repository
from ..outbox.push import Push
from ..outbox.queue import Outbox

UNKNOWN = "unknown"
"""A model that says nothing about the run it comes from."""


def foreign_run(push: Push, repository: Repository, outbox: Outbox) -> str | None:
    """The run whose model is where a push goes, if it is not the push's own.

    A run that continues another's checkpoint has its identifier, and so has one that starts again in the same
    output folder. Where there are no checkpoints to ask, what this outbox has sent there is this run's.

    Returns:
        An identifier or `UNKNOWN`; `None` where there is no other run's model.
    """
    remote = repository.look(push.target)
    last = run_in(LAST_CHECKPOINT, remote, repository)
    if last is not None:
        return last if last != push.run_id else None
    entries = outbox.ledger.all_entries()
    if remote.head in {entry.commit for entry in entries}:  # whatever the Hub's address is by now
        return None
    if any(entry.is_on(repository.hub) and entry.place == push.target.place for entry in entries):
        return None
    newest = max((step for name in remote.folders if (step := checkpoint_step(name)) is not None), default=None)
    if newest is not None:
        run = run_in(checkpoint_name(newest), remote, repository) or UNKNOWN
        return run if run != push.run_id else None
    has_model = any(is_weights(file) and not is_training_state(file) for file in remote.root)
    return UNKNOWN if has_model else None


def run_in(folder: str, remote: Remote, repository: Repository) -> str | None:
    """The run that a checkpoint folder at the root says it comes from; `None` when there is no such folder."""
    if folder not in remote.folders:
        return None
    try:
        text = repository.read_text(remote, f"{folder}/{checkpoint_manifest.NAME}")
        return checkpoint_manifest.load(text).run_id
    except (EntryNotFoundError, ValueError):
        return UNKNOWN
