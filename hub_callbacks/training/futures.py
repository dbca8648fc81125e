"""What became of the pushes of a run: read from the ledger, told by their futures."""

from __future__ import annotations

import contextlib
import threading
import time
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


class Fates:
    """The pushes that a run has made, and what the ledger says of them from now on.

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
        self._futures: dict[str, Future[CommitInfo]] = {}
        self._sizes: dict[str, int] = {}
        self.last_progress = self._last_news = time.monotonic()

    def __len__(self) -> int:
        return len(self._futures)

    def follow(self, push_id: str, future: Future[CommitInfo], size: int = 0) -> None:
        """Has `future` tell what becomes of a push.

        Args:
            size: Bytes of its files.
        """
        self._futures[push_id] = future
        self._sizes[push_id] = size

    def take_news(self) -> list[ledger.Entry]:
        """Takes in what the ledger says that is new. From any thread."""
        with self.news:
            entries = self._ledger.new_entries()
            for entry in entries:
                self._entries[entry.push] = entry
                self._last_news = time.monotonic()
                if entry.state in ledger.FINAL:
                    self.last_progress = time.monotonic()
                self.reporter.take(entry, entry.push in self._futures)
            return entries

    def settle(self) -> None:
        """Gives the futures what is known. Not to be called with `news` held: a user's callbacks run in here."""
        with self.news:
            fates = [(future, self.of(push_id)) for push_id, future in self._futures.items() if not future.done()]
            self.news.notify_all()
        for future, fate in fates:
            if fate is not None:
                _settle(future, fate)

    def of(self, push_id: str) -> ledger.Entry | None:
        """What is known of a push, or of the one that took it over in the end."""
        entry = self._entries.get(push_id)
        while entry is not None and entry.state == ledger.SUPERSEDED and entry.by:
            entry = self._entries.get(entry.by)
        return entry

    @property
    def open(self) -> list[str]:
        """The pushes whose futures wait."""
        return [push_id for push_id, future in self._futures.items() if not future.done()]

    def abandon(self, why: str) -> None:
        """Has the futures that wait say that their pushes have not arrived."""
        for push_id in self.open:
            with contextlib.suppress(InvalidStateError):
                self._futures[push_id].set_exception(PushNotSent(why))

    @property
    def running(self) -> list[str]:
        """The pushes that are under way, as far as the ledger says."""
        return [push_id for push_id, entry in self._entries.items() if entry.state == ledger.RUNNING]

    @property
    def unsent(self) -> list[str]:
        """The pushes that are not on the Hub."""
        return list(self._unsent())

    def outlook(self, patience: float, is_sending: bool, is_given_up: bool) -> bool | None:
        """Whether all is on the Hub; `False` when waiting longer is no use, `None` when it is.

        Args:
            patience: Seconds without progress that are waited for.
            is_sending: Whether a pusher is at one of those that are under way.
            is_given_up: Whether no pusher will come.
        """
        waiting = [self.of(push_id) for push_id in self.open]
        if not waiting:
            return not self._unsent()
        is_refused = all(entry is not None and entry.state == ledger.REFUSED for entry in waiting)
        if is_given_up or (is_refused and time.monotonic() - self._last_news > SETTLE):
            return False
        # An upload that is under way is progress; what ends one that hangs are the pusher's own limits.
        if is_sending:
            return None
        return False if time.monotonic() - self.last_progress > patience else None

    def sizes(self) -> tuple[int, int]:
        """Bytes that have arrived and bytes in all; what the Hub has already need not be sent."""
        arrived = total = 0
        with self.news:
            for push_id, size in self._sizes.items():
                entry = self._entries.get(push_id)
                state = entry.state if entry else ledger.QUEUED
                if state == ledger.DONE or state not in ledger.FINAL:
                    total += size
                    arrived += size if state == ledger.DONE else 0
        return arrived, total

    def summary(self) -> Summary:
        """What has been pushed so far, and what has not."""
        with self.news:
            summary = self.reporter.summary
            waiting = self._unsent()
            summary.waiting = len(waiting)
            known = (entry.why for entry in waiting.values() if entry and entry.why)
            summary.why = next(known, self.reporter.trouble) if waiting else None
            return summary

    def _unsent(self) -> dict[str, ledger.Entry | None]:
        entries = {push_id: self._entries.get(push_id) for push_id in self._futures}
        return {id_: entry for id_, entry in entries.items() if entry is None or entry.state not in ledger.FINAL}


def _settle(future: Future[CommitInfo], fate: ledger.Entry) -> None:
    from huggingface_hub import CommitInfo

    with contextlib.suppress(InvalidStateError):  # another thread was faster
        if fate.state == ledger.DONE and fate.commit and fate.url:
            future.set_result(
                CommitInfo(
                    commit_url=fate.url, commit_message=fate.message, commit_description="", oid=fate.commit
                )
            )
        elif fate.state in ledger.FINAL:
            future.set_exception(PushNotSent(f"{fate.message!r} was {fate.state}: {fate.why or fate.notes}"))
