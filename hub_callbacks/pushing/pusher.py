"""The pusher: takes pushes from the outbox to the Hub until there are none.

It runs in a process of its own beside a training run (see `process`), and in the foreground in
`hub-callbacks sync`. It never imports torch or transformers.

What is next is decided anew for each attempt (see `schedule`), so that while the Hub is away newer saves take
over from older ones that wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from filelock import BaseFileLock, LeaseCompromise

from ..hub.errors import is_gone
from ..hub.repository import Repository
from ..outbox import ledger
from ..outbox.content import note_content
from ..outbox.control import Control, Stalled
from ..outbox.durable import make_durable, may_be_torn
from ..outbox.push import CreateRepository, LookForOtherRun, Push
from ..outbox.queue import Outbox
from .attempt import send
from .files import changed_slots, disk_of
from .node_files import Awaited, NodeWaits
from .redaction import hide
from .retry_policy import RetryPolicy, retry_policy
from .schedule import (
    Action,
    GiveUp,
    Keep,
    Known,
    Room,
    Supersede,
    decide,
    heirs,
    next_push,
    sendable,
)
from .sent import Sent
from .stall import StallWatch

logger = logging.getLogger(__name__)

TRY_NEW_AFTER = 60.0
"""Seconds of waiting for a Hub that is away after which something new is tried."""
LOOK_FOR_TOKEN_EVERY = 15.0  # seconds, while pushes wait for a token that is accepted
NOTE_AGAIN_EVERY = 30.0  # seconds: a full disk cannot take what is noted of a push's files


@dataclass
class Pusher:
    """
    Args:
        outbox: What to send.
        repository: Where the calls go.
        control: What it is told from outside.
    """

    outbox: Outbox
    repository: Repository
    control: Control
    _known: dict[str, Known] = field(default_factory=dict)
    _done: dict[tuple[str, str], str] = field(default_factory=dict)
    _waits: NodeWaits = field(default_factory=NodeWaits)
    _asked_with: str | None = None
    _turn: tuple[int, int] | None = None
    _lock: BaseFileLock | None = None
    _waits_for_other: set[str] = field(default_factory=set)
    _read_besides: int = 0
    _note_again: dict[str, float] = field(default_factory=dict)  # push -> when, by the monotonic clock

    def run(self) -> None:
        """Sends until `control` ends it. Waits for its turn where another process sends from this outbox."""
        try:
            if self._take_turn():
                self._send_all()
        finally:
            self._end_turn()

    # -- its turn

    def _take_turn(self) -> bool:
        """Whether this process is the one that sends from now on; not when told to stop before."""
        lock: BaseFileLock | None = None
        while not self.control.stop:
            try:
                lock = lock or self.outbox.lock(self._lose_turn)
                lock.acquire(timeout=0)
            except TimeoutError:
                self._wait_for_turn()
            except OSError as error:
                if self.control.drain:
                    raise
                logger.warning("%s cannot be locked: %s", self.outbox.root, error)
                self.control.sleep(60)
            else:
                self._lock = lock
                self.outbox.note_sender()
                self._look_what_is_done()
                return True
        return False

    def _wait_for_turn(self) -> None:
        """Another process sends from here: what waits says which, once for each push."""
        sender = self.outbox.sender()
        self.control.waits_for_turn(sender)
        new = [push for push in self.outbox.pending() if push.id not in self._waits_for_other]
        latest = self.outbox.ledger.latest() if new else {}
        for push in new:
            self._waits_for_other.add(push.id)
            if push.id in latest and latest[push.id].state == ledger.QUEUED:
                why = f"{sender} sends from this outbox; this process waits until that ends"
                self.outbox.record(ledger.Entry(push.id, ledger.WAITING, message=push.message, why=why))
        self.control.report()
        self.control.sleep(1, until_new=False)

    def _lose_turn(self, why: LeaseCompromise) -> None:
        logger.warning("%s is no longer this process's to send from: %s", self.outbox.root, why)
        self._turn = None

    def _end_turn(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _look_what_is_done(self) -> None:
        self._turn = self.outbox.identity()
        self.outbox.sweep()
        for entry in self.outbox.ledger.all_entries():
            if entry.is_on(self.repository.hub) and entry.place:
                self._note_done(entry.push, entry.place, entry.slots)

    def _has_turn(self) -> bool:
        if self.outbox.identity() == self._turn:
            return True
        logger.warning("%s was deleted, or is another one now; it is left alone.", self.outbox.root)
        self.control.stop = True
        return False

    # -- the loop

    def _send_all(self) -> None:
        failures = 0  # in a row
        while not self._is_over() and self._has_turn():
            waiting = sendable(self._keep_house(), self._known)
            if not waiting:
                failures = 0
                self._wait_for_work()
                continue
            push = next_push(waiting, self._known, self._waits)
            policy = self._try(push)
            failures = failures + 1 if policy is not None and policy.again else 0
            if policy is not None and policy.again and not self._is_over():
                self._wait_for_next_try(push, policy, failures)

    def _is_over(self) -> bool:
        if self.control.stop or not self.control.drain:
            return self.control.stop
        return not sendable(self.outbox.pending(), self._known)

    def _try(self, push: Push) -> RetryPolicy | None:
        """One attempt at a push; what is to be done about it, if it has failed."""
        known = self._known[push.id]
        self.outbox.record(ledger.Entry(push.id, ledger.RUNNING, message=push.message, why=known.trouble))
        self.control.report()
        started = time.monotonic()
        self._asked_with = self.repository.token
        attempt = self._start(push)
        try:
            sent = self._watch(attempt, push)
            if sent is not None:
                self._succeeded(push, sent, time.monotonic() - started)
        except Stalled:
            raise
        except Exception as error:
            return self._failed(push, error)
        return None

    def _wait_for_next_try(self, push: Push, policy: RetryPolicy, failures: int) -> None:
        """Another token shortens the wait, a push that is urgent, and the end of the training. What else comes is
        worth a try after `TRY_NEW_AFTER` seconds: the Hub is no better for it."""
        seconds = policy.seconds_before(failures, self.control.orders.longest_wait)
        self._record_waiting(push, policy.state, policy.why, seconds)
        started = time.monotonic()
        before, urgent, was_draining = self._waiting(), self._waiting(urgent=True), self.control.drain
        self.control.hurry = False
        while (left := started + seconds - time.monotonic()) > 0 and not self._is_over():
            self.control.sleep(min(left, TRY_NEW_AFTER))
            is_other_token = self.repository.token != self._asked_with
            if is_other_token or self._waiting(urgent=True) - urgent or self.control.drain != was_draining:
                return
            if policy.state == ledger.WAITING_FOR_NODES:  # what came need not wait for them
                return
            has_waited = time.monotonic() - started > TRY_NEW_AFTER
            if (self.control.hurry and not policy.after) or (has_waited and self._waiting() - before):
                return
            self._keep_house()

    def _waiting(self, urgent: bool = False) -> set[str]:
        return {push.id for push in self.outbox.pending() if push.urgent or not urgent}

    def _record_waiting(self, push: Push, state: str, why: str, seconds: float) -> None:
        next_try = time.time() + seconds
        self.outbox.record(ledger.Entry(push.id, state, message=push.message, why=why, next_try=next_try))
        self.control.report()

    def _wait_for_work(self) -> None:
        """Until a push comes; or, for those that were refused, until there is another token."""
        if not any(known.refused for known in self._known.values()):
            self.control.sleep(5)
            return
        # What this process may not send (it is offline, for one), `sync` may, from here or another machine.
        self._end_turn()
        self.control.sleep(LOOK_FOR_TOKEN_EVERY)
        if self._has_turn() and self._take_turn():
            self.control.report()
        if self.repository.token != self._asked_with:
            self._try_refused_again(lambda policy: True)

    # -- the house

    def _keep_house(self, busy: str | None = None) -> list[Push]:
        """Lets go of what need not be sent any more, and makes new pushes durable.

        Args:
            busy: Number of the push that is being sent; it is left alone.

        Returns:
            What is left to be sent, oldest first.
        """
        pending = self.outbox.pending(tidy=True)
        are_new = self._take_in(pending)
        self._look_at_heirs(pending)
        limit = self.control.orders.max_pending_bytes
        room = Room(limit, disk_of(pending)) if limit is not None and are_new else None
        actions = decide(pending, self._known, self._done, held=self._waits.held, busy=busy, room=room)
        return [left for action in actions if (left := self._do(action)) is not None]

    def _take_in(self, pending: Sequence[Push]) -> bool:
        """Notes which pushes are new; returns whether there are any."""
        new = [push for push in pending if push.id not in self._known]
        if new:
            # What was refused for what is in it stays refused; the rights may have changed.
            self._try_refused_again(lambda policy: policy.all_pushes)
            for push in new:
                self._known[push.id] = Known()
                if may_be_torn(push):
                    self._look_for_damage(push)
        now = time.monotonic()
        late = [push for push in pending if self._note_again.get(push.id, now) < now]
        self._note_again |= {push.id: now + NOTE_AGAIN_EVERY for push in late}
        if new or late:
            threading.Thread(target=self._secure, args=(new + late,), daemon=True).start()
        return bool(new)

    def _secure(self, pushes: list[Push]) -> None:
        """Has the disk write new pushes, and then notes what is in them."""
        for push in pushes:
            try:
                self._flush(push)
            except OSError as error:
                logger.warning("push %s may not survive a loss of power: %s", push.id, error)
            self.control.ring()
        for push in pushes:
            try:
                note_content(push, self._count_read)
            except OSError as error:
                if push.folder.exists() and push.id not in self._note_again:
                    self._note_again[push.id] = time.monotonic() + NOTE_AGAIN_EVERY
                    logger.warning("what is in push %s cannot be noted yet: %s", push.id, error)
            else:
                self._note_again.pop(push.id, None)

    def _flush(self, push: Push) -> None:
        """
        Raises:
            OSError: when the disk could not write it, this time or before.
        """
        known = self._known.get(push.id, Known())
        if known.flush_error is not None:
            raise known.flush_error
        try:
            make_durable(push)
        except OSError as error:
            known.flush_error = error
            raise
        known.is_durable = True

    def _look_at_heirs(self, pending: Sequence[Push]) -> None:
        """What takes over from others has to be whole: a part that was damaged gives back what it took."""
        pushes = {push.id: push for push in pending}
        looked_at: set[str] = set()
        while new := (heirs(pending, self._known, self._done, self._waits.held) & pushes.keys()) - looked_at:
            for name in new:
                self._look_for_damage(pushes[name])
            looked_at |= new

    def _look_for_damage(self, push: Push) -> None:
        try:
            self._known[push.id].damaged = changed_slots(push)
        except OSError as error:  # what the disk does not say now, it will say at the attempt
            logger.warning("push %s cannot be looked at: %s", push.id, error)

    def _count_read(self, size: int) -> None:
        self._read_besides += size

    def _do(self, action: Action) -> Push | None:
        """Does what was decided; returns what is left to be sent of the push."""
        push = action.push
        if isinstance(action, Keep):
            return push
        if isinstance(action, Supersede):
            if push.others is not None:
                self._waits.skipped.add(push.others.branch)
            self._let_go(ledger.Entry(push.id, ledger.SUPERSEDED, message=push.message, by=action.by))
        if isinstance(action, GiveUp):
            return self._give_up(push, action.slots)
        return None

    def _give_up(self, push: Push, slots: frozenset[str]) -> Push | None:
        why = (
            f"{', '.join(sorted(slots))} of {push.message!r} was given up before it could be sent: what waits may "
            f"keep {self.control.orders.max_pending_bytes:,} bytes on disk that nothing else keeps "
            "(max_pending_bytes)"
        )
        logger.warning("%s.", why)
        if not push.without(slots).parts:
            self._let_go(ledger.Entry(push.id, ledger.LOST, message=push.message, why=why))
            return None
        try:
            rest = self.outbox.give_up(push, slots)
        except OSError as error:
            logger.warning("push %s cannot give way: %s", push.id, error)
            return push
        self.outbox.record(ledger.Entry(push.id, ledger.QUEUED, message=push.message, notes=(why,)))
        self.control.report()
        return rest

    # -- one attempt

    def _start(self, push: Push) -> Future[Sent]:
        attempt: Future[Sent] = Future()
        goes_ahead = any(
            other.target.place == push.target.place and int(other.id) < int(push.id)
            for other in self.outbox.pending()
        )

        def run() -> None:
            try:
                if goes_ahead:
                    # If it arrives and a loss of power takes it here, what is older would go on top of it.
                    self._flush(push)
                attempt.set_result(send(push, self.repository, self.outbox, self._waits))
            except BaseException as error:
                attempt.set_exception(error)
            self.control.ring()

        threading.Thread(target=run, name=f"hub_callbacks-push-{push.id}", daemon=True).start()
        return attempt

    def _watch(self, attempt: Future[Sent], push: Push) -> Sent | None:
        """The end of an attempt, with the house kept meanwhile; `None` when told to stop before."""
        timeout = self.control.orders.stall_timeout
        watch = StallWatch(timeout, lambda: self._read_besides)
        while not attempt.done():
            if self.control.stop:
                return None
            if self.control.listen(1.0) and not attempt.done():
                self._keep_house(busy=push.id)
            is_stalled = watch.is_stalled()
            self.control.sent(watch.sent)
            if is_stalled and not attempt.done():
                why = f"nothing has moved for {timeout:.0f} s, neither to the Hub nor from the disk"
                self._record_waiting(push, ledger.WAITING, why, 0)
                self.control.stalled(f"{push.message!r} stopped: {why}. It stays in the outbox.")
        return attempt.result()

    def _succeeded(self, push: Push, sent: Sent, seconds: float) -> None:
        if sent.passed_over:
            why = "the main process goes on with a newer save"
            self._leave(ledger.Entry(push.id, ledger.SUPERSEDED, message=push.message, why=why))
            return
        self.repository.told(sent.repo_id)
        self._note_done(push.id, push.target.place, tuple(sent.slots))
        self._try_refused_again(lambda policy: policy.all_pushes)
        self._leave(
            ledger.Entry(
                push.id,
                ledger.DONE if sent.slots or not sent.left_out else ledger.LOST,
                message=push.message,
                commit=sent.commit.oid if sent.commit else None,
                url=sent.commit.commit_url if sent.commit else None,
                repo_id=sent.repo_id,
                seconds=round(seconds, 3),
                size=sent.size,
                notes=tuple(sent.notes),
                place=push.target.place,
                slots=tuple(sorted(sent.slots)),
                foreign=sent.foreign,
                private=sent.private,
                user=sent.user,
                left_out=tuple(sorted(sent.left_out)),
            )
        )

    def _note_done(self, push_id: str, place: str, slots: tuple[str, ...]) -> None:
        for slot in slots:
            self._done[place, slot] = max(self._done.get((place, slot), push_id), push_id, key=int)

    def _failed(self, push: Push, error: Exception) -> RetryPolicy:
        policy = retry_policy(error, has_own_token=self.control.orders.token is not None)
        known = self._known[push.id]
        if isinstance(error, Awaited):
            self._waits.looked(error)
            known.trouble = policy.why
            return policy
        logger.warning("push %s failed", push.id, exc_info=error)
        if is_gone(error) and not known.has_looked_again:
            # What was remembered of the branch may be wrong: it is forgotten below, and asked for anew.
            known.has_looked_again = True
            policy = replace(policy, state=ledger.WAITING, all_pushes=False)
        policy = replace(policy, why=hide(policy.why, [self.repository.token, self._asked_with]))
        known.trouble = policy.why
        known.failures += 1
        self.repository.forget()
        if not policy.again:
            self._refuse(push, policy)
        return policy

    def _refuse(self, push: Push, policy: RetryPolicy) -> None:
        """Has a push wait until somebody does something, and with it those that will fare no better."""
        self._known[push.id].refused = policy
        self._waits.leave(push.id)
        self.outbox.record(ledger.Entry(push.id, ledger.REFUSED, message=push.message, why=policy.why))
        for other in sendable(self.outbox.pending(), self._known) if policy.all_pushes else ():
            known = self._known.get(other.id)
            makes_it = isinstance(other.content, CreateRepository | LookForOtherRun)
            if known is None or other.target.place != push.target.place or makes_it:
                continue
            known.refused = policy
            if known.trouble != policy.why:  # said once
                known.trouble = policy.why
                entry = ledger.Entry(other.id, ledger.REFUSED, message=other.message, why=policy.why)
                self.outbox.record(entry)
        self.control.report()

    def _try_refused_again(self, which: Callable[[RetryPolicy], bool]) -> None:
        for known in list(self._known.values()):
            if known.refused is not None and which(known.refused):
                known.refused = None

    def _leave(self, entry: ledger.Entry) -> None:
        """Records what became of a push, and only then parts with its files.

        Raises:
            OSError: when the disk cannot take the record; the push stays then, and sending it twice does no harm.
        """
        self.outbox.ledger.append(entry)
        del self._known[entry.push]
        self._waits.leave(entry.push)
        if entry.left_out:
            self.outbox.set_aside(entry.push, "; ".join(entry.notes))
        else:
            self.outbox.remove(entry.push)
        self.control.report()

    def _let_go(self, entry: ledger.Entry) -> None:
        """The same for what was not sent: it stays until its end can be recorded."""
        try:
            self._leave(entry)
        except OSError as error:
            logger.warning("push %s stays, its end cannot be recorded: %s", entry.push, error)
