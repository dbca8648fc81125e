"""What became of the pushes of a run: read from the ledger, told by their futures."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PushNotSent
from ..outbox import ledger
from .summary import Reporter, Summary

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

SETTLE = 2.0
"""Seconds without news after which a refusal counts: another token or a new push makes the pusher try again."""


class PushFutures:
    """The pushes that a run has made, and what the ledger says of them from now on.

    News cost what they say, however many pushes wait: a push that was taken over hands its futures on to the one
    that took it over, and only what an entry is about is looked at.

    Args:
        path: The ledger.

    Attributes:
        news: Notified after each look. To be held while a push is queued, so that no news of it come before it is
            followed.
    """

    def __init__(self, path: Path) -> None:
        self.news = threading.Condition(threading.RLock())
        self.reporter = Reporter()
        self._ledger = ledger.Ledger(path)
        self._ledger.new_entries()  # what earlier runs wrote is not news
        self._entries: dict[str, ledger.Entry] = {}
        self._waiting: dict[str, list[Future[CommitInfo]]] = {}
        self._settled: dict[Future[CommitInfo], ledger.Entry] = {}
        self._sizes: dict[str, int] = {}
        self._unsent: dict[str, None] = {}
        self._running: set[str] = set()
        self._arrived = 0
        self._left = 0
        self._last_progress = self._last_news = time.monotonic()

    def __len__(self) -> int:
        return len(self._sizes)

    def follow(self, push_id: str, future: Future[CommitInfo], size: int = 0) -> None:
        """Has `future` tell what becomes of a push.

        Args:
            size: Bytes of its files.
        """
        self._waiting.setdefault(push_id, []).append(future)
        self._sizes[push_id] = size
        self._unsent[push_id] = None
        self._left += size

    def follow_another(self, push_id: str, future: Future[CommitInfo]) -> None:
        """Has `future` tell what becomes of a push that another future tells of, too."""
        entry = self.of(push_id)
        if entry is not None and entry.state in ledger.FINAL:
            self._settled[future] = entry
        else:
            self._waiting.setdefault(self._heir(push_id), []).append(future)

    def take_news(self) -> list[ledger.Entry]:
        """Takes in what the ledger says that is new. From any thread."""
        with self.news:
            taken = []
            for entry in self._ledger.new_entries():
                if entry.counts_after(self._entries.get(entry.push)):
                    self._take(entry)
                    self.reporter.take(entry, entry.push in self._sizes)
                    taken.append(entry)
            return taken

    def _take(self, entry: ledger.Entry) -> None:
        self._entries[entry.push] = entry
        self._last_news = time.monotonic()
        self._running.discard(entry.push)
        if entry.state == ledger.RUNNING:
            self._running.add(entry.push)
        if entry.state not in ledger.FINAL:
            return
        self._last_progress = time.monotonic()
        if entry.push in self._unsent:
            del self._unsent[entry.push]
            size = self._sizes[entry.push]
            self._left -= size
            self._arrived += size if entry.state == ledger.DONE else 0
        if entry.push in self._waiting:
            fate = self.of(entry.push)
            futures = self._waiting.pop(entry.push)
            if fate is not None and fate.state in ledger.FINAL:
                self._settled |= dict.fromkeys(futures, fate)
            else:
                self._waiting.setdefault(self._heir(entry.push), []).extend(futures)

    def settle(self) -> None:
        """Gives the futures what is known. Not to be called with `news` held: a user's callbacks run in here."""
        with self.news:
            settled = list(self._settled.items())
            self.news.notify_all()
        for future, fate in settled:
            _settle(future, fate)
        with self.news:  # only now: what a user's callback raises, or Ctrl-C in it, leaves no future behind
            self._settled = {future: fate for future, fate in self._settled.items() if not future.done()}

    def of(self, push_id: str) -> ledger.Entry | None:
        """What is known of a push, or of the one that took it over in the end."""
        return self._entries.get(self._heir(push_id))

    def _heir(self, push_id: str) -> str:
        """The push that took over another one in the end, which may not have been heard of yet."""
        while (known := self._entries.get(push_id)) is not None and known.state == ledger.SUPERSEDED and known.by:
            push_id = known.by
        return push_id

    @property
    def open(self) -> int:
        """How many futures wait."""
        with self.news:
            return sum(map(len, self._waiting.values())) + len(self._settled)

    def abandon(self, why: str) -> None:
        """Has the futures that wait say that their pushes have not arrived."""
        self.settle()
        with self.news:
            waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(PushNotSent(why))

    @property
    def running(self) -> Collection[str]:
        """The pushes that are under way, as far as the ledger says."""
        with self.news:
            return tuple(self._running)

    @property
    def unsent(self) -> Collection[str]:
        """The pushes that are not on the Hub."""
        with self.news:
            return tuple(self._unsent)

    def expect_progress(self) -> None:
        """From now on it counts how long there is none."""
        self._last_progress = time.monotonic()

    def outlook(self, patience: float, is_sending: bool, is_given_up: bool) -> bool | None:
        """Whether all is on the Hub; `False` when waiting longer is no use, `None` when it is.

        Args:
            patience: Seconds without progress that are waited for.
            is_sending: Whether a pusher is at one of those that are under way.
            is_given_up: Whether no pusher will come.
        """
        with self.news:
            if self._settled:
                return None  # another thread is at it
            if not self._waiting:
                return not self._unsent
            now = time.monotonic()
            entries = map(self._entries.get, self._waiting)
            is_refused = all(entry is not None and entry.state == ledger.REFUSED for entry in entries)
        if is_given_up or (is_refused and now - self._last_news > SETTLE):
            return False
        # An upload that is under way is progress; what ends one that hangs are the pusher's own limits.
        if is_sending:
            return None
        return False if now - self._last_progress > patience else None

    def sizes(self) -> tuple[int, int]:
        """Bytes that have arrived and bytes in all; what the Hub has already need not be sent."""
        with self.news:
            return self._arrived, self._arrived + self._left

    def wait_for_news(self, seconds: float) -> None:
        with self.news:
            self.news.wait(seconds)

    def summary(self) -> Summary:
        """What has been pushed so far, and what has not."""
        with self.news:
            summary = self.reporter.summary
            summary.waiting = len(self._unsent)
            known = map(self._entries.get, self._unsent)
            reasons = (entry.why for entry in known if entry is not None and entry.why)
            summary.why = next(reasons, self.reporter.trouble) if self._unsent else None
            return summary


def _settle(future: Future[CommitInfo], fate: ledger.Entry) -> None:
    from huggingface_hub import CommitInfo

    with contextlib.suppress(InvalidStateError):  # another thread was faster
        if fate.state == ledger.DONE and fate.left_out:
            what = f"{fate.message!r} is on the Hub without {', '.join(fate.left_out)}: {'; '.join(fate.notes)}"
            future.set_exception(PushNotSent(what))
        elif fate.state == ledger.DONE and fate.commit and fate.url:
            try:
                commit = CommitInfo(
                    commit_url=fate.url, commit_message=fate.message, commit_description="", oid=fate.commit
                )
            except ValueError as error:  # the client has been sent to another Hub since, whose address this is not
                future.set_exception(error)
            else:
                future.set_result(commit)
        else:
            future.set_exception(PushNotSent(f"{fate.message!r} was {fate.state}: {fate.why or fate.notes}"))
