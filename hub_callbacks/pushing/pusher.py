"""The pusher: takes pushes from the outbox to the Hub until there are none.

It runs in a process of its own beside a training run (see `companion`), and in the foreground in
`hub-callbacks sync`. It never imports torch or transformers.

What is next is decided anew for each attempt, so that while the Hub is away newer saves take over from older
ones that wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import tenacity
from filelock import BaseFileLock

from ..hub.repository import Repository
from ..outbox import ledger
from ..outbox.durable import make_durable, may_be_torn
from ..outbox.push import Push
from ..outbox.queue import Outbox
from ..outbox.signals import Signals
from .attempt import Sent, is_intact, send
from .newest_wins import Done, giving_way, slots_of, taken_over
from .parts import Agenda, Awaited
from .redaction import hide
from .retry_policy import Verdict, judge
from .stall import Stalled, StallWatch

logger = logging.getLogger(__name__)

LOOK_FOR_TOKEN_EVERY = 15.0  # seconds, while pushes wait for a token that is accepted
PATIENCE = 3
"""Failures in a row after which a push lets others pass."""


class TryAgain(Exception):
    """An attempt failed for now."""

    def __init__(self, push: Push, verdict: Verdict) -> None:
        super().__init__(verdict.why)
        self.push = push
        self.verdict = verdict


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
    _refused: dict[str, Verdict] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _durable: set[str] = field(default_factory=set)
    _torn: set[str] = field(default_factory=set)
    _done: Done = field(default_factory=dict)
    _trouble: dict[str, str] = field(default_factory=dict)
    _failures: Counter[str] = field(default_factory=Counter)
    _agenda: Agenda = field(default_factory=Agenda)
    _asked_with: str | None = None
    _turn: tuple[int, int] | None = None
    _lock: BaseFileLock | None = None

    def run(self) -> None:
        """Sends until `signals` ends it. Waits for its turn where another process sends from this outbox."""
        try:
            if self._take_turn():
                self._run()
        finally:
            self._end_turn()

    def _take_turn(self) -> bool:
        """Whether this process is the one that sends from now on; not when told to stop before."""
        while not self.signals.stop:
            try:
                self._lock = self.outbox.lock()
                self._lock.acquire(timeout=0)
                return True
            except TimeoutError:
                self.signals.waits_for_turn()
                self.signals.sleep(1, until_new=False)
            except OSError as error:
                if self.signals.drain:
                    raise
                logger.warning("%s cannot be locked: %s", self.outbox.root, error)
                self.signals.sleep(60)
        return False

    def _end_turn(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _look_what_is_done(self) -> None:
        self._turn = self.outbox.identity()
        self.outbox.sweep()
        for entry in self.outbox.ledger.all_entries():
            if entry.is_on(self.repository.hub) and entry.place:
                self._note_done(entry.push, entry.place, entry.slots)

    def _run(self) -> None:
        self._look_what_is_done()
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
        return self.signals.stop or (self.signals.drain and not self._sendable(self.outbox.pending()))

    def _sendable(self, pushes: list[Push]) -> list[Push]:
        needed = {push.meeting.branch for push in pushes if push.meeting}
        return [
            push
            for push in pushes
            if push.id not in self._refused and not (push.removes_branch and push.target.revision in needed)
        ]

    def _push_next(self) -> None:
        if self.outbox.identity() != self._turn:
            logger.warning("%s was deleted, or is another one now; it is left alone.", self.outbox.root)
            self.signals.stop = True
            return
        waiting = self._sendable(self._keep_house())
        if not waiting:
            self._wait_for_work()
            return
        push = next((push for push in waiting if push.urgent), None) or self._next(waiting)
        trouble = self._trouble.get(push.id)
        self.outbox.record(ledger.Entry(push.id, ledger.RUNNING, message=push.message, why=trouble))
        self.signals.report()
        started = time.monotonic()
        self._asked_with = self.repository.token
        attempt = self._start(push)
        try:
            result = self._watch(attempt, push)
        except Stalled:
            raise
        except Exception as error:
            self._failed(push, error)
        else:
            if result is not None:
                self._succeeded(push, result, time.monotonic() - started)

    def _next(self, waiting: list[Push]) -> Push:
        """The oldest; but one that fails again and again lets those pass that need not come in order.

        One that waits for other nodes is passed by what need not wait.
        """
        if waiting[0].keep and not self._agenda.may_be_passed(waiting[0]):
            return waiting[0]
        return min(
            waiting,
            key=lambda push: (self._failures[push.id] // PATIENCE, self._agenda.order(push), int(push.id)),
        )

    def _keep_house(self, busy: str | None = None) -> list[Push]:
        """Lets go of what need not be sent any more, and makes new pushes durable.

        Args:
            busy: Number of the push that is being sent; it is left alone.

        Returns:
            What is left to be sent, oldest first.
        """
        pending = self.outbox.pending(tidy=True)
        are_new = self._note_new_pushes(pending)
        own_fault = {push_id for push_id, verdict in self._refused.items() if not verdict.all_pushes}
        over = taken_over(pending, self._done, own_fault | self._torn, self._agenda.held)
        not_on_disk = {push.id for push in pending} - self._durable
        left = []
        for push in pending:
            by = over[push.id]
            if by.keys() >= slots_of(push) and push.id != busy:
                if not not_on_disk.isdisjoint(by.values()):
                    continue  # until a loss of power cannot take both
                newest = max(by.values(), key=int)
                if push.meeting is not None:
                    self._agenda.skipped.add(push.meeting.branch)
                self._leave(ledger.Entry(push.id, ledger.SUPERSEDED, message=push.message, by=newest))
            else:
                left.append(push.without(frozenset(by)) if push.id != busy else push)
        limit = self.signals.orders.max_pending_bytes
        return left if limit is None or not are_new else self._make_room(left, limit, busy)

    def _note_new_pushes(self, pending: list[Push]) -> bool:
        new = [push for push in pending if push.id not in self._seen]
        if new:
            # What was refused for what is in it stays refused; the rights may have changed.
            self._refused = {name: verdict for name, verdict in self._refused.items() if not verdict.all_pushes}
            self._seen.update(push.id for push in new)
            self._torn.update(push.id for push in new if may_be_torn(push) and not is_intact(push))
            threading.Thread(target=self._make_durable, args=(new,), daemon=True).start()
        return bool(new)

    def _make_durable(self, pushes: list[Push]) -> None:
        for push in pushes:
            make_durable(push)
            self._durable.add(push.id)
            self.signals.ring()

    def _make_room(self, pushes: list[Push], limit: int, busy: str | None) -> list[Push]:
        given = giving_way(pushes, limit, busy)
        left = []
        for push in pushes:
            slots = given.get(push.id, frozenset())
            rest = push.without(slots)
            if slots:
                why = (
                    f"{', '.join(sorted(slots))} of {push.message!r} was given up before it could be sent: what "
                    f"waits may keep {limit:,} bytes on disk that nothing else keeps (max_pending_bytes)"
                )
                logger.warning("%s.", why)
                if not rest.parts:
                    self._leave(ledger.Entry(push.id, ledger.LOST, message=push.message, why=why))
                    continue
                try:
                    self.outbox.give_up(push, slots)
                except OSError as error:
                    logger.warning("push %s cannot give way: %s", push.id, error)
                    rest = push
                else:
                    self.outbox.record(ledger.Entry(push.id, ledger.QUEUED, message=push.message, notes=(why,)))
                    self.signals.report()
            left.append(rest)
        return left

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
                    make_durable(push)
                attempt.set_result(send(push, self.repository, self.outbox, self._agenda))
            except BaseException as error:
                attempt.set_exception(error)
            self.signals.ring()

        threading.Thread(target=run, name=f"hub_callbacks-push-{push.id}", daemon=True).start()
        return attempt

    def _watch(self, attempt: Future[Sent], push: Push) -> Sent | None:
        """The end of an attempt, with the house kept meanwhile; `None` when told to stop before."""
        timeout = self.signals.orders.stall_timeout
        watch = StallWatch(timeout)
        while not attempt.done():
            if self.signals.stop:
                return None
            if self.signals.listen(1.0) and not attempt.done():
                self._keep_house(busy=push.id)
            is_stalled = watch.is_stalled()
            self.signals.sent(watch.sent)
            if is_stalled and not attempt.done():
                why = f"nothing has moved for {timeout:.0f} s, neither to the Hub nor from the disk"
                self._record_waiting(push, why, 0)
                self.signals.stalled(f"{push.message!r} stopped: {why}. It stays in the outbox.")
        return attempt.result()

    def _succeeded(self, push: Push, sent: Sent, seconds: float) -> None:
        if sent.passed_over:
            why = "the main process goes on with a newer save"
            self._leave(ledger.Entry(push.id, ledger.SUPERSEDED, message=push.message, why=why))
            return
        self._note_done(push.id, push.target.place, tuple(sent.slots))
        self._refused = {name: verdict for name, verdict in self._refused.items() if not verdict.all_pushes}
        self._leave(
            ledger.Entry(
                push.id,
                ledger.LOST if sent.nothing_left else ledger.DONE,
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
            )
        )

    def _note_done(self, push_id: str, place: str, slots: tuple[str, ...]) -> None:
        for slot in slots:
            self._done[place, slot] = max(self._done.get((place, slot), push_id), push_id, key=int)

    def _failed(self, push: Push, error: BaseException) -> None:
        verdict = judge(error)
        if isinstance(error, Awaited):
            self._agenda.looked(error)
            self._trouble[push.id] = verdict.why
            raise TryAgain(push, verdict) from None
        logger.warning("push %s failed", push.id, exc_info=error)
        verdict = replace(verdict, why=hide(verdict.why, [self.repository.token, self._asked_with]))
        self._trouble[push.id] = verdict.why
        self._failures[push.id] += 1
        self.repository.forget()
        if verdict.again:
            raise TryAgain(push, verdict) from None
        self._refused[push.id] = verdict
        self._agenda.leave(push.id)
        self.outbox.record(ledger.Entry(push.id, ledger.REFUSED, message=push.message, why=verdict.why))
        if verdict.all_pushes:
            self._refuse_others(push, verdict)
        self.signals.report()

    def _refuse_others(self, push: Push, verdict: Verdict) -> None:
        for other in self._sendable(self.outbox.pending()):
            if other.target.place == push.target.place:
                self._refused[other.id] = verdict
                if self._trouble.get(other.id) != verdict.why:  # said once
                    self._trouble[other.id] = verdict.why
                    self.outbox.record(
                        ledger.Entry(other.id, ledger.REFUSED, message=other.message, why=verdict.why)
                    )

    def _leave(self, entry: ledger.Entry) -> None:
        self._trouble.pop(entry.push, None)
        self._failures.pop(entry.push, None)
        self._agenda.leave(entry.push)
        self.outbox.record(entry)
        if entry.push in self._torn and entry.state != ledger.SUPERSEDED:
            why = "the machine went down before all of it was on the disk; what was whole has been sent"
            self.outbox.set_aside(entry.push, why)
        else:
            self.outbox.remove(entry.push)
        self.signals.report()

    def _wait_for_work(self) -> None:
        """Until a push comes; or, for those that were refused, until there is another token."""
        if not self._refused:
            self.signals.sleep(5)
            return
        # What this process may not send (it is offline, for one), `sync` may, from here or another machine.
        self._end_turn()
        self.signals.sleep(LOOK_FOR_TOKEN_EVERY)
        if self._take_turn():
            self._look_what_is_done()
            self.signals.report()
        if self.repository.token != self._asked_with:
            self._refused.clear()

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Exponential with full jitter, but not shorter than the Hub asks for."""
        error = _failure(state)
        backoff = tenacity.wait_random_exponential(multiplier=1, max=self.signals.orders.longest_wait)
        return min(max(backoff(state), error.verdict.after), error.verdict.at_most)

    def _wait_for_next_try(self, state: tenacity.RetryCallState) -> None:
        error = _failure(state)
        assert state.next_action is not None
        seconds = state.next_action.sleep
        self._record_waiting(error.push, error.verdict.why, seconds)
        self.signals.sleep(seconds, until_new=not error.verdict.after)

    def _record_waiting(self, push: Push, why: str, seconds: float) -> None:
        next_try = time.time() + seconds
        self.outbox.record(ledger.Entry(push.id, ledger.WAITING, message=push.message, why=why, next_try=next_try))
        self.signals.report()


def _failure(state: tenacity.RetryCallState) -> TryAgain:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, TryAgain)
    return error
