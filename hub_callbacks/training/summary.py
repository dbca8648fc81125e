"""What a run has pushed and what not: collected from the ledger, said to the user once, shown during a wait."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..outbox import ledger
from ..outbox.push import CREATE, LOOK

logger = logging.getLogger(__name__)

HEARTBEAT = 30.0
"""Seconds between two lines in the log while the end of a run waits, where no progress bar is shown."""


def say(message: str) -> None:
    """One line for whoever trains, at INFO; where nobody has set up logging for that, on standard error, unless
    progress bars are switched off (`HF_HUB_DISABLE_PROGRESS_BARS`) or the logger is for errors alone."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(message)
    elif logger.isEnabledFor(logging.WARNING) and not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        from tqdm.auto import tqdm

        tqdm.write(f"hub_callbacks: {message}", file=sys.stderr)  # above a bar that is there


@dataclass
class Summary:
    """What a run has pushed so far.

    Args:
        commits: Commits made.
        size: Bytes of the files in them.
        superseded: Pushes that a newer one took over.
        waiting: Pushes that are not on the Hub.
        lost: Saves that could not be put into the outbox, or were rewritten before they could be read.
        seconds_in_training: What all of this cost the training thread, waiting at the end left out.
        where: Address of the repository.
        why: Why what waits is waiting, if that is known.
        notes: What was left out or changed on the way.
    """

    commits: int = 0
    size: int = 0
    superseded: int = 0
    waiting: int = 0
    lost: int = 0
    seconds_in_training: float = 0.0
    where: str | None = None
    why: str | None = None
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The end of a run of which everything has arrived, in one line."""
        over = (
            f", {counted(self.superseded, 'push', 'pushes')} taken over by newer ones" if self.superseded else ""
        )
        return (
            f"{counted(self.commits, 'commit', 'commits')}, {self.size / 1e6:,.1f} MB pushed{over}; "
            f"{1000 * self.seconds_in_training:.0f} ms of the training thread. {self.where or ''}".rstrip()
        )

    def __str__(self) -> str:
        over = counted(self.superseded, "push", "pushes")
        lines = [
            f"{counted(self.commits, 'commit', 'commits')}, {self.size / 1e6:,.1f} MB pushed"
            + (f", {over} taken over by newer ones" if self.superseded else ""),
            f"time on the training thread: {1000 * self.seconds_in_training:.0f} ms",
        ]
        if self.waiting:
            what = counted(self.waiting, "push is", "pushes are")
            lines.append(f"{what} not on the Hub yet: {self.why or 'no reason known'}")
        if self.lost:
            lines.append(f"{counted(self.lost, 'save', 'saves')} could not be kept for pushing")
        lines += self.notes
        if self.where:
            lines.append(f"look at {self.where}")
        return "\n".join(lines)


def counted(number: int, one: str, many: str) -> str:
    """`counted(1, "push is", "pushes are")` is `1 push is`."""
    return f"{number:,} {one if number == 1 else many}"


def not_arrived(summary: Summary, place: str, kept: int, outbox: Path) -> str:
    """What has not arrived when a run ends, why, where it is, and what sends it: for people.

    Args:
        place: The repository.
        kept: How many of the pushes that wait are in the outbox.
        outbox: Its folder.
    """
    if summary.commits == 0 and summary.why is None and kept:
        text = f"Nothing is known of what is on the Hub of this run ({place}): is the disk of {outbox} full?"
    elif summary.commits == 0:
        text = f"Nothing of this run is on the Hub ({place})"
    else:
        text = f"{counted(summary.waiting + summary.lost, 'push has', 'pushes have')} not arrived at {place}"
    if summary.why:
        text += f": {summary.why.rstrip('.')}"
    if summary.lost:
        text += f". {counted(summary.lost, 'save', 'saves')} could not be kept for pushing, as said before"
    if kept:
        text += (
            f". {counted(kept, 'push is', 'pushes are')} safe in {outbox}; what waits is sent by: "
            f"hub-callbacks sync {outbox.parent}"
        )
    if gone := summary.waiting - kept:
        text += (
            f". {counted(gone, 'push is', 'pushes are')} not in {outbox} any more: deleted, or damaged and set "
            "aside. What was in it is as the Trainer left it in its own folders"
        )
    return text


class PushInProgress:
    """What of a run is queued or under way; with the methods of the Trainer's attribute of that name. True while
    there is something.

    Args:
        is_done: Tells whether there is nothing.
        wait: Waits for it, as long as there is progress.
    """

    def __init__(self, is_done: Callable[[], bool], wait: Callable[[], object]) -> None:
        self.is_done = is_done
        self._wait = wait

    def wait_until_done(self) -> None:
        self._wait()

    def __bool__(self) -> bool:
        return not self.is_done()


class WaitDisplay:
    """Shows a wait for pushes: a progress bar, or a line in the log now and then.

    Args:
        total: Number of pushes.
        show: Whether a bar is shown.
    """

    def __init__(self, total: int, show: bool) -> None:
        self._total = total
        self._bar: Any = None
        if show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc="Pushing to the Hub", leave=False)
        self._said = time.monotonic()

    def __enter__(self) -> WaitDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, left: int, arrived: int, size: int) -> None:
        """
        Args:
            left: Number of pushes that are not there.
            arrived: Bytes that are there.
            size: Bytes of all.
        """
        megabytes = f"{arrived / 1e6:,.0f} of {size / 1e6:,.0f} MB"
        if self._bar is not None:
            self._bar.update(self._total - left - self._bar.n)
            self._bar.set_postfix_str(megabytes)
        has_bar = self._bar is not None and not self._bar.disable  # TQDM_DISABLE
        if not has_bar and time.monotonic() - self._said > HEARTBEAT:
            self._said = time.monotonic()
            logger.warning("Waiting for the Hub: %d of %d pushes are left, %s.", left, self._total, megabytes)


class Reporter:
    """Turns the entries of a ledger into a summary, and into log lines: each matter is said once."""

    def __init__(self) -> None:
        self.summary = Summary()
        self.trouble: str | None = None
        self._commits: set[str] = set()
        self._said: set[str] = set()

    def take(self, entry: ledger.Entry, is_own: bool) -> None:
        """
        Args:
            entry: What has happened to a push.
            is_own: Whether this run has made the push; an earlier run may have left it.
        """
        if is_own:
            self._count(entry)
        self._speak(entry)

    def lost(self, why: str) -> None:
        """A save that never came as far as the outbox."""
        logger.warning(why)
        self.summary.lost += 1
        self.summary.notes.append(why)

    def _count(self, entry: ledger.Entry) -> None:
        if entry.state == ledger.DONE:
            if entry.commit:
                self._commits.add(entry.commit)  # a push that changed nothing made none of its own
            self.summary.commits = len(self._commits)
            self.summary.size += entry.size or 0
            if entry.url and "/commit/" in entry.url:
                self.summary.where = entry.url.split("/commit/")[0]
        self.summary.superseded += entry.state == ledger.SUPERSEDED
        self.summary.lost += entry.is_loss

    def _speak(self, entry: ledger.Entry) -> None:
        for note in entry.notes:
            if self._is_new(note):
                self.summary.notes.append(note)
                logger.warning("%s: %s.", entry.message, note.rstrip("."))
        is_question = entry.message in (CREATE, LOOK)
        if entry.state in (ledger.WAITING, ledger.WAITING_FOR_NODES, ledger.REFUSED):
            self.trouble = entry.why
        if entry.state == ledger.REFUSED and entry.why and self._is_new(entry.why):
            what = "Nothing can be pushed" if is_question else f"{entry.message} was not pushed"
            logger.error("%s. %s", what, entry.why)
        elif entry.state == ledger.WAITING_FOR_NODES and entry.why and self._is_new(entry.why):
            logger.info("%s %s.", entry.message, entry.why)
        elif entry.state == ledger.WAITING and self._is_new(ledger.WAITING):
            logger.warning(
                "%s, and is tried again: %s. Training goes on.",
                "The Hub cannot be asked yet" if is_question else f"{entry.message} could not be pushed yet",
                entry.why.rstrip(".") if entry.why else "the reason is not known",
            )
        elif entry.state == ledger.DONE:
            self.trouble = None
            self._said.discard(ledger.WAITING)

    def _is_new(self, matter: str) -> bool:
        is_new = matter not in self._said
        self._said.add(matter)
        return is_new
