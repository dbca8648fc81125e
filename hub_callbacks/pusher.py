"""The pusher: takes pushes from the outbox to the Hub until there are none. One push, one commit.

`python -m hub_callbacks.pusher OUTBOX` runs it as the companion process of a training run (see `worker`);
`hub-callbacks sync` runs the same loop in the foreground. It never imports torch or transformers.

Which push is next is decided anew for each attempt, so that while the Hub is away newer saves take over from
older ones that wait.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import tenacity

from . import ledger
from .card_push import card_files, remember
from .manifest import Push, PushPart, Target
from .outbox import Outbox
from .plan import MODEL, stale_shards
from .redaction import hide, secret_in
from .repository import CommitInfo, Remote, Repository
from .signals import Signals
from .verdict import Verdict, judge, refused_metadata

logger = logging.getLogger(__name__)

RETRY_WAIT = tenacity.wait_random_exponential(multiplier=1, max=300)
"""Exponential with full jitter, in seconds, up to five minutes."""
LOOK_FOR_TOKEN_EVERY = 15.0  # seconds, while pushes wait for a token that is accepted


class TryAgain(Exception):
    """An attempt failed for now."""

    def __init__(self, push: Push, verdict: Verdict) -> None:
        super().__init__(verdict.why)
        self.push = push
        self.verdict = verdict


def taken_over(push: Push, later: Iterable[Push]) -> dict[str, str]:
    """Slots of `push` that a later push to the same place writes too → the number of the newest of them."""
    return {
        slot: other.id
        for other in later
        if other.target == push.target and other.id != push.id
        for slot in other.slots & push.slots
    }


@dataclass
class Pusher:
    """
    Args:
        outbox: What to send.
        repository: Where the calls go.
        signals: What it is told from outside.
    """

    outbox: Outbox
    repository: Repository
    signals: Signals
    _held: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    _done: dict[tuple[Target, str], Push] = field(default_factory=dict)
    _asked_with: str | None = None

    def run(self) -> None:
        """Sends until `signals` ends it. Waits for its turn where another process sends from this outbox."""
        lock = self.outbox.lock()
        while not self.signals.stop:
            try:
                with lock.acquire(timeout=0):
                    self._run()
                return
            except TimeoutError:
                self.signals.sleep(1, until_new=False)

    def _run(self) -> None:
        self.outbox.sweep()
        while not self._finished():
            retrying = tenacity.Retrying(
                wait=self._wait,
                sleep=lambda seconds: None,  # `before_sleep` waits: it knows for what
                before_sleep=self._wait_for_next_try,
                retry=tenacity.retry_if_exception_type(TryAgain),
                stop=lambda state: self._finished(),
                retry_error_callback=lambda state: None,
            )
            retrying(self._push_next)

    def _finished(self) -> bool:
        return self.signals.stop or (self.signals.drain and not self._sendable())

    def _sendable(self) -> list[Push]:
        return [push for push in self.outbox.pending() if push.id not in self._held]

    def _push_next(self) -> None:
        self._note_new_pushes()
        waiting = self._sendable()
        if not waiting:
            self._wait_for_work()
            return
        push = self._claim(waiting[0])
        if push is None:
            return
        self.outbox.record(ledger.Entry(push.id, ledger.RUNNING, message=push.message))
        self.signals.report()
        started = time.monotonic()
        try:
            self._asked_with = self.repository.token
            result = send(push, self.repository, self.outbox)
        except Exception as error:
            self._failed(push, error)
        else:
            self._succeeded(push, result, time.monotonic() - started)

    def _note_new_pushes(self) -> None:
        new = [push for push in self.outbox.pending() if push.id not in self._seen]
        if new:
            self._held.clear()
            self._seen.update(push.id for push in new)
            threading.Thread(target=_make_durable, args=(new,), daemon=True).start()

    def _claim(self, push: Push) -> Push | None:
        """What of a push is still to be sent; `None` when others have taken over all of it."""
        later = [other for other in self.outbox.pending() if int(other.id) > int(push.id)]
        done = [other for other in self._done.values() if int(other.id) > int(push.id)]
        over = taken_over(push, done if push.keep else done + later)
        rest = push.without(frozenset(over))
        if over and not rest.slots:
            self._leave(
                ledger.Entry(push.id, ledger.SUPERSEDED, message=push.message, by=max(over.values(), key=int))
            )
            return None
        return rest

    def _succeeded(self, push: Push, result: Sent, seconds: float) -> None:
        for slot in push.slots:
            self._done[push.target, slot] = push
        self._held.clear()
        self._leave(
            ledger.Entry(
                push.id,
                ledger.LOST if result.nothing_left else ledger.DONE,
                message=push.message,
                commit=result.commit.oid if result.commit else None,
                url=result.commit.commit_url if result.commit else None,
                repo_id=result.repo_id,
                seconds=round(seconds, 3),
                size=result.size,
                notes=tuple(result.notes),
            )
        )

    def _failed(self, push: Push, error: BaseException) -> None:
        logger.warning("push %s failed", push.id, exc_info=error)
        verdict = judge(error)
        verdict = replace(verdict, why=hide(verdict.why, [self.repository.token]))
        self.repository.forget()
        if verdict.again:
            raise TryAgain(push, verdict) from None
        self._held.add(push.id)
        if verdict.all_pushes:
            self._held.update(other.id for other in self._sendable() if other.target == push.target)
        self.outbox.record(ledger.Entry(push.id, ledger.REFUSED, message=push.message, why=verdict.why))
        self.signals.report()

    def _leave(self, entry: ledger.Entry) -> None:
        self.outbox.record(entry)
        self.outbox.remove(entry.push)
        self.signals.report()

    def _wait_for_work(self) -> None:
        """Until a push comes; or, for those that were refused, until there is another token."""
        if not self._held:
            self.signals.sleep(5)
            return
        self.signals.sleep(LOOK_FOR_TOKEN_EVERY)
        if self.repository.token != self._asked_with:
            self._held.clear()

    @staticmethod
    def _wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, TryAgain)
        return max(RETRY_WAIT(state), error.verdict.after)

    def _wait_for_next_try(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, TryAgain) and state.next_action is not None
        seconds = state.next_action.sleep
        self.outbox.record(
            ledger.Entry(
                error.push.id,
                ledger.WAITING,
                message=error.push.message,
                why=error.verdict.why,
                next_try=time.time() + seconds,
            )
        )
        self.signals.report()
        self.signals.sleep(seconds, until_new=not error.verdict.after)


@dataclass
class Sent:
    """What came of sending a push.

    Args:
        commit: `None` for a push that only makes sure of the repository, or of which nothing was left.
        nothing_left: Whether all its files were rewritten before they could be sent.
    """

    repo_id: str
    commit: CommitInfo | None = None
    size: int = 0
    notes: list[str] = field(default_factory=list)
    nothing_left: bool = False


def send(push: Push, repository: Repository, outbox: Outbox) -> Sent:
    """Makes the one commit of a push; sending it twice makes no second one.

    Raises:
        Exception: whatever the client raises; see `verdict.judge`.
    """
    if not push.slots:
        return Sent(repository.ensure(push.target))
    remote = repository.look(push.target)
    sent = Sent(remote.repo_id)
    push = _without_changed_parts(push, sent.notes)
    if not push.slots:
        sent.nothing_left = True
        return sent

    additions: dict[str, Path | bytes] = {}
    deletions: list[str] = []
    for part in push.parts:
        additions |= _files_to_send(part, push.folder, repository.token, sent.notes)
        if part.whole_folder:
            deletions += [path for path in repository.files_below(remote, part.prefix) if path not in part.files]
        elif part.slot == MODEL:
            deletions += stale_shards(part.files, remote.root)
    commit = _with_card(push, repository, outbox, remote, additions, deletions, sent)
    if not push_is_intact(push):
        raise OSError("a file of the push was changed while it was read")
    sent.commit = commit
    return sent


def _with_card(
    push: Push,
    repository: Repository,
    outbox: Outbox,
    remote: Remote,
    additions: dict[str, Path | bytes],
    deletions: list[str],
    sent: Sent,
) -> CommitInfo:
    """Commits with the card; where the Hub refuses its metadata, without what it refuses."""
    refused: list[str] = []
    for _ in range(3):
        cards = card_files(push, repository, outbox, remote, refused, sent.notes) if push.has_card else {}
        files = additions | cards
        sent.size = sum(len(file) if isinstance(file, bytes) else file.stat().st_size for file in files.values())
        try:
            commit = repository.commit(
                remote,
                files,
                deletions,
                push.message,
                push.description,
                on_this_head=bool(cards or deletions),
            )
        except Exception as error:
            complaints = refused_metadata(error)
            if not cards or not complaints:
                raise
            refused += complaints
        else:
            if cards:
                remember(push, outbox, cards["README.md"])
            return commit
    sent.notes.append("the Hub refused the card; it was left out: " + "; ".join(refused))
    return repository.commit(
        remote, additions, deletions, push.message, push.description, on_this_head=bool(deletions)
    )


def push_is_intact(push: Push) -> bool:
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


def _files_to_send(part: PushPart, folder: Path, token: str | None, notes: list[str]) -> dict[str, Path | bytes]:
    files: dict[str, Path | bytes] = {}
    for path, frozen in part.files.items():
        secret = secret_in(path, folder / frozen.stored, [token] if token else [])
        if secret is None:
            files[path] = folder / frozen.stored
        else:
            notes.append(f"{path} was left out: it holds {secret}, or is one")
    return files


def _make_durable(pushes: list[Push]) -> None:
    """Has the disk write the files of new pushes, so that they survive a loss of power."""
    for push in pushes:
        for path in [*push.folder.rglob("*"), push.folder, push.folder.parent]:
            try:
                file = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            try:
                os.fsync(file)
            except OSError:
                pass
            finally:
                os.close(file)
