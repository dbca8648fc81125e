"""The engine: takes plans, snapshots them into the outbox, and tells what became of each.

`HubSyncCallback` drives it from a Trainer's events; a plain training loop can drive it by itself:

>>> sync = HubSync(resolve(overrides={"output_dir": "run", "hub_model_id": "me/model"}))  # doctest: +SKIP
>>> sync.start()  # doctest: +SKIP
>>> future = sync.push(plan_save("checkpoint", Path("run/checkpoint-10"), 10, "step 10"))  # doctest: +SKIP
>>> sync.finish()  # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
import time
import uuid
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ledger
from .companion import Companion
from .errors import PushNotSent
from .manifest import CARD_FACTS, LOCAL_CARD, Push, PushPart, Target
from .outbox import Outbox
from .plan import Plan
from .settings import Settings
from .signals import Orders
from .snapshot import Frozen, freeze

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)

EXIT_GRACE = 15.0
"""Seconds that an interpreter which ends before its training has ended gives to what waits."""


HEARTBEAT = 30.0
"""Seconds between two lines in the log while the end of a run waits, where no progress bar is shown."""


@dataclass
class Summary:
    """What a run has pushed so far.

    Args:
        commits: Commits made.
        size: Bytes of the files in them.
        superseded: Pushes that a newer one took over.
        waiting: Pushes that are not on the Hub.
        lost: Saves that could not be put into the outbox or were rewritten before they could be read.
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

    def __str__(self) -> str:
        lines = [
            f"{self.commits} commits, {self.size / 1e6:,.1f} MB pushed"
            + (f", {self.superseded} pushes taken over by newer ones" if self.superseded else ""),
            f"time on the training thread: {1000 * self.seconds_in_training:.0f} ms",
        ]
        if self.waiting:
            lines.append(f"{self.waiting} pushes are not on the Hub yet: {self.why or 'no reason known'}")
        if self.lost:
            lines.append(f"{self.lost} saves could not be kept for pushing")
        lines += self.notes
        if self.where:
            lines.append(f"look at {self.where}")
        return "\n".join(lines)


class HubSync:
    """The engine of one run.

    Args:
        settings: What is pushed where.
        orders: Limits of the pusher; the token and `max_pending_bytes` are taken from the settings.

    Not for use from several threads at once.
    """

    def __init__(self, settings: Settings, orders: Orders | None = None) -> None:
        self.settings = settings
        self.target = Target(settings.hub_model_id, settings.hub_revision, settings.hub_private_repo)
        self.outbox = Outbox(settings.outbox)
        self.run = uuid.uuid4().hex[:12]
        self.hub_model_id = settings.hub_model_id
        self.pushes: list[Future[CommitInfo]] = []
        self.seconds_in_training = 0.0
        self._futures: dict[str, Future[CommitInfo]] = {}
        self._states: dict[str, ledger.Entry] = {}
        self._ledger = ledger.Ledger(self.outbox.ledger.path)
        self._ledger.new_entries()  # what earlier runs wrote is not news
        self._news = threading.Condition(threading.RLock())
        self._summary = Summary()
        self._last_progress = time.monotonic()
        self._said: set[str] = set()
        self._trouble: str | None = None
        self._commits: set[str] = set()
        self.wait_at_exit = False
        self._closed = False
        on_news = weakref.WeakMethod(self._read_news)
        self._orders = replace(
            orders or Orders(), token=settings.hub_token, max_pending_bytes=settings.max_pending_bytes
        )
        self._companion = Companion(
            self.outbox,
            self._orders,
            lambda: method() if (method := on_news()) else None,
        )
        # Not at exit: that is `_close_all`, which first waits for what is under way.
        weakref.finalize(self, self._companion.stop).atexit = False
        _engines.add(self)

    @property
    def last_push(self) -> Future[CommitInfo] | None:
        return self.pushes[-1] if self.pushes else None

    @property
    def push_in_progress(self) -> bool:
        """Whether a push of this run is queued or under way."""
        with self._news:
            return any(not future.done() for future in self._futures.values())

    @property
    def is_closed(self) -> bool:
        return self._closed

    def start(self) -> None:
        """Queues the creation of the repository, and starts the pusher; what an earlier run left is sent first."""
        try:
            self._queue(Plan("create the repository", 0, card=False), None, None, {})
        except OSError as error:
            logger.warning("%s cannot take pushes (%s); nothing is pushed until it can.", self.outbox.root, error)

    def use_token(self, token: str) -> None:
        """Has what is sent from now on sent with another token."""
        self._orders = replace(self._orders, token=token)
        self._companion.tell(self._orders)

    def push(
        self,
        plan: Plan,
        *,
        card: Mapping[str, Any] | None = None,
        readme: Path | None = None,
        replacements: Mapping[str, bytes] | None = None,
        description: str = "",
        target: Target | None = None,
    ) -> Future[CommitInfo]:
        """Snapshots what `plan` names and queues it. Never waits for the network.

        Args:
            plan: What goes where.
            card: The facts that the model card is made from.
            readme: A README.md with a person's text, to merge the card into.
            replacements: File name → content that is pushed in its place.
            description: Text of the commit below its title.
            target: Another place than the one in the settings.

        Returns:
            The commit to be. A push that a newer one takes over as a whole gives that one's commit. A push that
            has not arrived when the run ends, or that could not be kept, raises `PushNotSent`.
        """
        future: Future[CommitInfo] = Future()
        self.pushes.append(future)
        try:
            with self._news:  # no news of it may come before its future is known
                push = self._queue(plan, card, readme, replacements or {}, description, target)
                self._futures[push.id] = future
        except OSError as error:
            why = (
                f"{plan.message!r} could not be put into {self.outbox.root} ({error}) and will not reach the Hub. "
                "Training goes on, and the checkpoint folder is as the Trainer wrote it; "
                "free disk space, or check the permissions, before the next save."
            )
            logger.warning(why)
            self._summary.lost += 1
            self._summary.notes.append(why)
            future.set_exception(PushNotSent(why))
            return future
        self._read_news()
        return future

    def _queue(
        self,
        plan: Plan,
        card: Mapping[str, Any] | None,
        readme: Path | None,
        replacements: Mapping[str, bytes],
        description: str = "",
        target: Target | None = None,
    ) -> Push:
        with self.outbox.stage() as staged:
            frozen: dict[Path, Frozen] = {}
            parts = tuple(
                PushPart(
                    slot=part.slot,
                    files={
                        part.path_in_repo(file): self._freeze(part.source / file, staged, frozen, replacements)
                        for file in part.files
                    },
                    prefix=part.prefix,
                    whole_folder=part.whole_folder,
                )
                for part in plan.parts
            )
            if plan.card:
                (staged / CARD_FACTS).write_text(json.dumps(card or {}, ensure_ascii=False), encoding="utf-8")
                if readme is not None and readme.is_file():
                    (staged / LOCAL_CARD).write_bytes(readme.read_bytes())
            push = self.outbox.submit(
                staged,
                Push(
                    id="",
                    folder=staged,
                    run=self.run,
                    created=time.time(),
                    target=target or self.target,
                    step=plan.step,
                    message=plan.message,
                    description=description,
                    parts=parts,
                    has_card=plan.card,
                    keep=self.settings.hub_always_push,
                ),
            )
        self._companion.ring()
        return push

    @staticmethod
    def _freeze(
        source: Path, staged: Path, frozen: dict[Path, Frozen], replacements: Mapping[str, bytes]
    ) -> Frozen:
        if source not in frozen:
            stored = f"files/{len(frozen):04d}-{source.name}"
            if source.name in replacements:
                target = staged / stored
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(replacements[source.name])
                frozen[source] = Frozen(stored, len(replacements[source.name]))
            else:
                frozen[source] = freeze(source, staged, stored)
        return frozen[source]

    def _read_news(self) -> None:
        """Settles futures by what the ledger says. Called from any thread."""
        with self._news:
            for entry in self._ledger.new_entries():
                self._states[entry.push] = entry
                self._take_note(entry)
            for push_id, future in list(self._futures.items()):
                if not future.done():
                    self._settle(push_id, future)
            self._news.notify_all()

    def _take_note(self, entry: ledger.Entry) -> None:
        if entry.repo_id and entry.push not in self._futures:
            self.hub_model_id = entry.repo_id
        if entry.state in ledger.FINAL:
            self._last_progress = time.monotonic()
        if entry.push in self._futures:
            if entry.state == ledger.DONE and entry.commit:
                self._commits.add(entry.commit)  # a push that changed nothing made none of its own
            self._summary.commits = len(self._commits)
            self._summary.size += (entry.size or 0) if entry.state == ledger.DONE else 0
            self._summary.superseded += entry.state == ledger.SUPERSEDED
            self._summary.lost += entry.state == ledger.LOST
        if entry.url and "/commit/" in entry.url:
            self._summary.where = entry.url.split("/commit/")[0]
        for note in entry.notes:
            if note not in self._said:
                self._said.add(note)
                self._summary.notes.append(note)
                logger.warning("%s: %s.", entry.message, note)
        if entry.state == ledger.REFUSED and entry.why and entry.why not in self._said:
            self._said.add(entry.why)
            logger.error("%s was not pushed. %s", entry.message, entry.why)
        if entry.state == ledger.WAITING and "waiting" not in self._said:
            self._said.add("waiting")
            logger.warning(
                "%s could not be pushed yet, and is tried again: %s. Training goes on.", entry.message, entry.why
            )
        if entry.state in (ledger.WAITING, ledger.REFUSED):
            self._trouble = entry.why
        if entry.state == ledger.DONE:
            self._trouble = None
            self._said.discard("waiting")

    def _fate(self, push_id: str) -> ledger.Entry | None:
        """What is known of a push, or of the one that took it over in the end."""
        entry = self._states.get(push_id)
        while entry is not None and entry.state == ledger.SUPERSEDED and entry.by:
            entry = self._states.get(entry.by)
        return entry

    def _settle(self, push_id: str, future: Future[CommitInfo]) -> None:
        entry = self._fate(push_id)
        if entry is None:
            return
        if entry.state == ledger.DONE and entry.commit and entry.url:
            from huggingface_hub import CommitInfo

            future.set_result(
                CommitInfo(
                    commit_url=entry.url,
                    commit_message=entry.message,
                    commit_description="",
                    oid=entry.commit,
                )
            )
        elif entry.state in (ledger.LOST, ledger.DROPPED):
            future.set_exception(PushNotSent(f"{entry.message!r} was {entry.state}: {entry.why or entry.notes}"))

    def summary(self) -> Summary:
        """What has been pushed so far, and what has not."""
        self._read_news()
        with self._news:
            waiting = self._unsent()
            self._summary.waiting = len(waiting)
            known = (entry.why for entry in waiting.values() if entry and entry.why)
            self._summary.why = next(known, self._trouble) if waiting else None
            self._summary.seconds_in_training = self.seconds_in_training
            return self._summary

    def _unsent(self) -> dict[str, ledger.Entry | None]:
        return {
            push_id: self._states.get(push_id)
            for push_id, future in self._futures.items()
            if not future.done() or isinstance(future.exception(), PushNotSent)
            if (entry := self._states.get(push_id)) is None or entry.state not in ledger.FINAL
        }

    def wait(self, timeout: float | None = None, show: bool = False) -> bool:
        """Waits for the pushes of this run as long as there is progress.

        Args:
            timeout: Seconds to wait at most; `None` waits while there is progress, and then `finish_timeout`.
            show: Whether a progress bar is shown.

        Returns:
            Whether all of them are on the Hub.
        """
        from tqdm.auto import tqdm

        started = self._last_progress = said = time.monotonic()
        total = len(self._futures)
        with self._news, tqdm(total=total, desc="Pushing to the Hub", disable=not show, leave=False) as bar:
            while True:
                self._read_news()
                bar.update(sum(future.done() for future in self._futures.values()) - bar.n)
                bar.set_postfix_str(f"{self._summary.size / 1e6:,.0f} MB")
                arrived = self._outlook(self.settings.finish_timeout if timeout is None else timeout)
                now = time.monotonic()
                if arrived is not None or (timeout is not None and now - started > timeout):
                    return bool(arrived)
                if not show and now - said > HEARTBEAT:
                    said = now
                    logger.warning("Waiting for the Hub: %d of %d pushes are there.", bar.n, total)
                self._news.wait(0.2 if timeout is None else min(0.2, timeout))

    def _outlook(self, patience: float) -> bool | None:
        """Whether all is on the Hub; `False` when waiting longer is no use, `None` when it is."""
        waiting = [self._fate(push_id) for push_id, future in self._futures.items() if not future.done()]
        if not waiting:
            return not self._unsent()
        if all(entry is not None and entry.state == ledger.REFUSED for entry in waiting):
            return False
        if self._companion.is_given_up:
            return False
        # An upload that is under way is progress; what ends one that hangs are the pusher's own limits.
        is_running = any(entry.state == ledger.RUNNING for entry in self._states.values())
        if is_running and self._companion.is_alive:
            return None
        return False if time.monotonic() - self._last_progress > patience else None

    def finish(self, show: bool = False) -> Summary:
        """Waits for the pushes, says what became of them, and lets go of those that did not arrive.

        Raises:
            PushNotSent: with `on_error="raise"`, when something has not arrived.
        """
        arrived = self.wait(show=show)
        return self._conclude(arrived)

    def _conclude(self, arrived: bool) -> Summary:
        summary = self.summary()
        if arrived and not summary.lost:
            return summary
        message = (
            f"{summary.waiting} of {len(self._futures)} pushes to {self.hub_model_id} have not arrived"
            + (f" ({summary.why})" if summary.why else "")
            + f". They are safe in {self.outbox.root}; send them with: "
            f"hub-callbacks sync {self.settings.output_dir}"
        )
        with self._news:
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(PushNotSent(message))
        if summary.waiting:
            if self.settings.on_error == "raise":
                raise PushNotSent(message)
            logger.warning(message)
        return summary

    def close(self, grace: float | None = None) -> None:
        """Ends the pusher. What has not been sent stays in the outbox and is named.

        Args:
            grace: Seconds to wait for what is not sent; `None` waits as `finish` does.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if any(not future.done() for future in self._futures.values()):
                self._conclude(self.wait(grace))
        finally:
            self._companion.stop()


_engines: weakref.WeakSet[HubSync] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_engines):
        try:
            engine.close(None if engine.wait_at_exit else EXIT_GRACE)
        except PushNotSent as error:
            logger.error("%s", error)
