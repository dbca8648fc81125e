"""The engine: takes plans, snapshots them into the outbox, and tells what became of each.

`HubSyncCallback` drives it from a Trainer's events; a plain training loop can drive it by itself:

>>> sync = HubSync(output_dir="run", hub_model_id="me/model", hub_strategy="all_checkpoints")  # doctest: +SKIP
>>> sync.init_hf_repo()  # doctest: +SKIP
>>> future = sync.push_from_checkpoint("run/checkpoint-10")  # doctest: +SKIP
>>> sync.push_to_hub(commit_message="Release", tags=["v1.0.0"])  # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ledger
from .checkpoint_manifest import Origin, installed_versions
from .companion import Companion
from .errors import ForeignRun, PushNotSent, SettingsError
from .loop import LoopVerbs
from .manifest import CARD_FACTS, LOCAL_CARD, Push, PushPart, Target
from .outbox import Outbox
from .plan import Plan
from .request import Request, check_text
from .settings import Settings, resolve
from .signals import Orders
from .snapshot import Frozen, freeze
from .summary import PushInProgress, Reporter, Summary

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)

EXIT_GRACE = 15.0
"""Seconds that an interpreter which ends before its training has ended gives to what waits."""
SETTLE = 2.0
"""Seconds without news after which a refusal counts: another token or a new push makes the pusher try again."""
ANSWER_WITHIN = 60.0
"""Seconds that training waits before step 1 for whose model is in the repository, where the settings need that."""
HEARTBEAT = 30.0
"""Seconds between two lines in the log while the end of a run waits, where no progress bar is shown."""


class HubSync(LoopVerbs):
    """The engine of one run, with the Hub's verbs for a training loop without a Trainer.

    Args:
        settings: What is pushed where; or, instead, its fields as keywords: `HubSync(output_dir="run")`.
        orders: Limits of the pusher; the token and `max_pending_bytes` are taken from the settings.

    `world_size`, the number of processes that train, is noted with each checkpoint; set it where it is known.

    Raises:
        SettingsError: for a value that cannot work.

    Not for use from several threads at once.
    """

    def __init__(self, settings: Settings | None = None, orders: Orders | None = None, **keywords: Any) -> None:
        if settings is not None and keywords:
            raise SettingsError(
                f"settings are given, so {', '.join(keywords)} cannot be: put them into the settings."
            )
        settings = settings or resolve(overrides=keywords)
        super().__init__(settings)
        branch = None if settings.has_revision_per_step else settings.hub_revision
        self.target = Target(settings.hub_model_id, branch, settings.hub_private_repo)
        self.outbox = Outbox(settings.outbox)
        self.world_size: int | None = None
        self.hub_model_id = settings.hub_model_id
        self.pushes: list[Future[CommitInfo]] = []
        self.seconds_in_training = 0.0
        self.wait_at_exit = False
        self._process = os.getpid()
        self._creation: str | None = None
        self._futures: dict[str, Future[CommitInfo]] = {}
        self._sizes: dict[str, int] = {}
        self._states: dict[str, ledger.Entry] = {}
        self._ledger = ledger.Ledger(self.outbox.ledger.path)
        self._ledger.new_entries()  # what earlier runs wrote is not news
        self._news = threading.Condition(threading.RLock())
        self._reporter = Reporter()
        self._last_progress = self._last_news = time.monotonic()
        self._closed = False
        self._token_in_environment = os.environ.get("HF_TOKEN")
        self._orders = replace(
            orders or Orders(), token=settings.hub_token, max_pending_bytes=settings.max_pending_bytes
        )
        root = self.outbox.root
        self._companion = Companion(self.outbox, self._orders, lambda: _spread_news(root))
        # Not at exit: that is `_close_all`, which first waits for what is under way.
        weakref.finalize(self, self._companion.stop).atexit = False
        for other in _engines_of(root):
            # One pusher for an outbox: the newest engine's, which has the newest token.
            threading.Thread(target=other._companion.stop, daemon=True).start()
        with _engines_lock:
            _engines.add(self)

    @functools.cached_property
    def run(self) -> str:
        """Identifier of the run that the outbox belongs to; a process that pushes nothing writes none."""
        return self.outbox.run_id()

    @property
    def last_push(self) -> Future[CommitInfo] | None:
        return self.pushes[-1] if self.pushes else None

    @property
    def push_in_progress(self) -> PushInProgress:
        """The pushes of this run that are queued or under way; false when there are none."""
        return PushInProgress(lambda: not self._open(), self.wait)

    @property
    def is_closed(self) -> bool:
        return self._closed

    def start(self, target: Target | None = None) -> None:
        """Queues the creation of the repository, and starts the pusher; what an earlier run left is sent first.

        Args:
            target: Another place than the one in the settings.
        """
        plan = Plan("create the repository", 0, card=False)
        try:
            self._creation = self._queue(plan, None, None, {}, Request(target or self.target)).id
        except OSError as error:
            logger.warning("%s cannot take pushes (%s); nothing is pushed until it can.", self.outbox.root, error)

    def connect(self, token: str | None = None) -> None:
        """Has the repository created, if that was not asked for yet, or with another token.

        Args:
            token: To be used from now on.

        Raises:
            SettingsError: when the token is none.
        """
        if token is not None:
            check_text("token", token)
            self.use_token(token)
        if self._creation is None or token is not None:
            self.start()

    def target_of(self, step: int) -> Target:
        """Where the save of a step goes."""
        if not self.settings.has_revision_per_step:
            return self.target
        assert self.settings.hub_revision is not None
        branch = self.settings.hub_revision.replace("{step}", str(step))
        return replace(self.target, revision=branch, from_scratch=True)

    def look_for_another_run(self) -> None:
        """Has the pusher say whose model is in the repository, and keeps to `on_foreign_run`; before step 1.

        Raises:
            ForeignRun: with `"refuse"`, when it is another run's, or when the Hub does not say.
        """
        self.run = self.outbox.run_id()  # that of the checkpoint which was fetched meanwhile, perhaps
        policy, own_branch = self.settings.on_foreign_run, f"run-{self.run}"
        if self.target.revision == own_branch:
            return
        plan = Plan("look whose model is there", 0, card=False)
        try:
            with self._news:  # no news of it may come before it is known
                self._creation = question = self._queue(
                    plan, None, None, {}, Request(self.target), asks_whose=True
                ).id
        except OSError as error:
            logger.warning("%s cannot take pushes: %s", self.outbox.root, error)
            question = ""
        if policy == "continue":
            return
        answer = self._answer(question)
        if answer is not None and answer.foreign is None:
            return
        where = self.target.place
        what = f"The Hub did not say whose model {where} holds"
        if answer is not None:
            what = f"{where} holds the model of another run ({answer.foreign})"
        if policy == "refuse":
            raise ForeignRun(
                f"{what}, and on_foreign_run is 'refuse'. Nothing was pushed. Choose another hub_model_id or "
                "hub_revision, continue that run with hub_callbacks.latest_checkpoint, or set on_foreign_run."
            )
        self.target = replace(self.target, revision=own_branch, from_scratch=True)
        logger.warning(
            "%s. This run goes to the branch %s; to continue it elsewhere, set hub_revision to that.",
            what,
            own_branch,
        )

    def _answer(self, question: str) -> ledger.Entry | None:
        """What the pusher says to a question; `None` when it cannot."""
        until = time.monotonic() + ANSWER_WITHIN
        while question and time.monotonic() < until:
            self._read_news()
            entry = self._fate(question)
            if entry is not None and entry.state in (ledger.DONE, ledger.REFUSED):
                return entry if entry.state == ledger.DONE else None
            with self._news:
                self._news.wait(0.2)
        return None

    def remove_branch(self, branch: str, is_awaited: bool) -> None:
        """Queues the removal of a branch that pushes of this outbox take files from, for when none does any more.

        Args:
            is_awaited: Whether the end of the run waits for it.
        """
        plan = Plan(f"Remove the branch {branch}", 0, card=False, removes_branch=True)
        try:
            with self._news:
                target = replace(self.target, revision=branch, from_scratch=False)
                push = self._queue(plan, None, None, {}, Request(target))
                if is_awaited:
                    self._futures[push.id] = Future()
        except OSError as error:
            logger.warning("%s is left in the repository: %s", branch, error)

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
        request: Request | None = None,
    ) -> Future[CommitInfo]:
        """Snapshots what `plan` names and queues it. Never waits for the network.

        Args:
            plan: What goes where.
            card: The facts that the model card is made from.
            readme: A README.md with a person's text, to merge the card into.
            replacements: File name → content that is pushed in its place.
            request: What a call of `push_to_hub` asks for beyond the plan.

        Returns:
            The commit to be. A push that a newer one takes over as a whole gives that one's commit. A push that
            has not arrived when the run ends, or that could not be kept, raises `PushNotSent`.
        """
        future: Future[CommitInfo] = Future()
        future.set_running_or_notify_cancel()  # what was saved is pushed; there is no way back
        self.pushes.append(future)
        with _engines_lock:
            _busy.add(self)
        self._look_for_token()
        try:
            with self._news:  # no news of it may come before its future is known
                push = self._queue(plan, card, readme, replacements or {}, request or Request(self.target))
                self._futures[push.id] = future
                self._sizes[push.id] = push.size
        except Exception as error:
            self.lose(plan.message, error, future)
        else:
            self._read_news()
        return future

    def lose(self, message: str, error: Exception, future: Future[CommitInfo] | None = None) -> None:
        """Says that something could not be put into the outbox. Training goes on."""
        advice = (
            "Free disk space, or check the permissions, before the next save."
            if isinstance(error, OSError)
            else "This looks like a bug; please report it."
        )
        why = (
            f"{message!r} could not be put into {self.outbox.root} ({type(error).__name__}: {error}) and will not "
            f"reach the Hub. Training goes on, and what the Trainer wrote is as it was. {advice}"
        )
        logger.debug("%s", message, exc_info=error)
        self._reporter.lost(why)
        if future is not None:
            future.set_exception(PushNotSent(why))

    def _look_for_token(self) -> None:
        """A token that was set in this process's environment since; the pusher has a copy of its own."""
        token = os.environ.get("HF_TOKEN")
        if token and self.settings.hub_token is None and token != self._token_in_environment:
            self._token_in_environment = token
            self.use_token(token)

    def _queue(
        self,
        plan: Plan,
        card: Mapping[str, Any] | None,
        readme: Path | None,
        replacements: Mapping[str, bytes],
        request: Request,
        asks_whose: bool = False,
    ) -> Push:
        with self.outbox.stage() as staged:
            frozen: dict[Path, Frozen] = {}
            parts = tuple(
                PushPart(
                    slot=part.slot,
                    files={
                        part.path_in_repo(file): self._freeze(
                            part.source / file, staged, frozen, replacements, part.copied
                        )
                        for file in part.files
                    },
                    prefix=part.prefix,
                    whole_folder=part.whole_folder,
                    meeting=part.meeting,
                )
                for part in plan.parts
            )
            if plan.card:
                (staged / CARD_FACTS).write_text(json.dumps(card or {}), encoding="utf-8")
                if readme is not None and readme.is_file():
                    (staged / LOCAL_CARD).write_bytes(readme.read_bytes())
            push = self.outbox.submit(
                staged,
                Push(
                    id="",
                    folder=staged,
                    run=self.run,
                    created=time.time(),
                    target=request.target,
                    step=plan.step,
                    message=plan.message,
                    description=request.description,
                    parts=parts,
                    has_card=plan.card,
                    # What a tag names, and what takes a repository's place, is that very push.
                    keep=self.settings.hub_always_push or bool(request.tags) or request.replaces,
                    urgent=plan.urgent,
                    origin=Origin(self.world_size, dict(installed_versions())),
                    retention=self.settings.retention(plan.best),
                    asks_whose=asks_whose,
                    node=plan.node,
                    removes_branch=plan.removes_branch,
                    tags=request.tags,
                    replaces=request.replaces,
                ),
            )
        self._companion.ring()
        return push

    @staticmethod
    def _freeze(
        source: Path,
        staged: Path,
        frozen: dict[Path, Frozen],
        replacements: Mapping[str, bytes],
        copied: bool,
    ) -> Frozen:
        if source not in frozen:
            stored = f"files/{len(frozen):04d}{source.suffix[:16]}"  # a name may be as long as names can be
            if source.name in replacements:
                target = staged / stored
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(replacements[source.name])
                frozen[source] = Frozen(stored, len(replacements[source.name]))
            else:
                frozen[source] = freeze(source, staged, stored, copied)
        return frozen[source]

    def _read_news(self) -> None:
        """Settles futures by what the ledger says. Called from any thread."""
        with self._news:
            for entry in self._ledger.new_entries():
                self._states[entry.push] = entry
                self._last_news = time.monotonic()
                if entry.push == self._creation and entry.repo_id:
                    self.hub_model_id = entry.repo_id
                if entry.state in ledger.FINAL:
                    self._last_progress = time.monotonic()
                self._reporter.take(entry, entry.push in self._futures)
                if entry.foreign and entry.push == self._creation and self.settings.on_foreign_run == "continue":
                    logger.warning(
                        "%s holds the model of another run (%s). This one's goes on top of it; that one stays in "
                        "the history. If that is not meant, see on_foreign_run.",
                        entry.place,
                        entry.foreign,
                    )
            fates = [(future, self._fate(push_id)) for push_id, future in self._open().items()]
            self._news.notify_all()
        for future, fate in fates:  # outside of the lock: a user's callbacks run in here
            if fate is not None:
                _settle(future, fate)
        self._rest()

    def _rest(self) -> None:
        """Without pushes that are on their way, the engine goes when nobody holds it."""
        if not self._open():
            with _engines_lock:
                _busy.discard(self)

    def _open(self) -> dict[str, Future[CommitInfo]]:
        return {push_id: future for push_id, future in self._futures.items() if not future.done()}

    def _fate(self, push_id: str) -> ledger.Entry | None:
        """What is known of a push, or of the one that took it over in the end."""
        entry = self._states.get(push_id)
        while entry is not None and entry.state == ledger.SUPERSEDED and entry.by:
            entry = self._states.get(entry.by)
        return entry

    def summary(self) -> Summary:
        """What has been pushed so far, and what has not."""
        self._read_news()
        with self._news:
            summary = self._reporter.summary
            waiting = self._unsent()
            summary.waiting = len(waiting)
            known = (entry.why for entry in waiting.values() if entry and entry.why)
            summary.why = next(known, self._reporter.trouble) if waiting else None
            summary.seconds_in_training = self.seconds_in_training
            return summary

    def _unsent(self) -> dict[str, ledger.Entry | None]:
        states = {push_id: self._states.get(push_id) for push_id in self._futures}
        return {id_: entry for id_, entry in states.items() if entry is None or entry.state not in ledger.FINAL}

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
        with tqdm(total=total, desc="Pushing to the Hub", disable=not show, leave=False) as bar:
            while True:
                self._read_news()
                bar.update(total - len(self._open()) - bar.n)
                bar.set_postfix_str(self._bytes())
                arrived = self._outlook(self.settings.finish_timeout if timeout is None else timeout)
                now = time.monotonic()
                if arrived is not None or (timeout is not None and now - started > timeout):
                    return bool(arrived)
                if not show and now - said > HEARTBEAT:
                    said = now
                    left, size = len(self._open()), self._bytes()
                    logger.warning("Waiting for the Hub: %d of %d pushes are left, %s.", left, total, size)
                with self._news:
                    self._news.wait(0.2 if timeout is None else min(0.2, timeout))

    def _bytes(self) -> str:
        """What has been sent of what there is, for people; what the Hub has already need not be sent."""
        total = sent = 0
        with self._news:
            for push_id, size in self._sizes.items():
                state = self._states[push_id].state if push_id in self._states else ledger.QUEUED
                if state == ledger.DONE or state not in ledger.FINAL:
                    total += size
                    sent += size if state == ledger.DONE else 0
        sent += sum(engine._companion.sent for engine in _engines_of(self.outbox.root))
        return f"{sent / 1e6:,.0f} of {total / 1e6:,.0f} MB"

    def _outlook(self, patience: float) -> bool | None:
        """Whether all is on the Hub; `False` when waiting longer is no use, `None` when it is."""
        waiting = [self._fate(push_id) for push_id in self._open()]
        if not waiting:
            return not self._unsent()
        is_refused = all(entry is not None and entry.state == ledger.REFUSED for entry in waiting)
        if is_refused and time.monotonic() - self._last_news > SETTLE:
            return False
        if self._companion.is_given_up:
            return False
        # An upload that is under way is progress; what ends one that hangs are the pusher's own limits.
        is_running = any(entry.state == ledger.RUNNING for entry in self._states.values())
        if is_running and any(engine._companion.is_alive for engine in _engines_of(self.outbox.root)):
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
        if summary.commits == 0:
            what = f"Nothing of this run is on the Hub ({self.hub_model_id})"
        else:
            what = f"{summary.waiting + summary.lost} pushes to {self.hub_model_id} have not arrived"
        message = f"{what}: {summary.why}" if summary.why else what
        if summary.lost:
            message += f". {summary.lost} saves could not be kept for pushing, as said before"
        if summary.waiting:
            message += (
                f". {summary.waiting} pushes are safe in {self.outbox.root}; send them with: "
                f"hub-callbacks sync {self.settings.output_dir}"
            )
        for future in self._open().values():
            with contextlib.suppress(InvalidStateError):
                future.set_exception(PushNotSent(message))
        self._rest()
        if self.settings.on_error == "raise":
            raise PushNotSent(message)
        logger.warning(message)
        return summary

    def close(self, grace: float | None = None) -> None:
        """Ends the pusher. What has not been sent stays in the outbox and is named.

        Args:
            grace: Seconds to wait for what is not sent; `None` waits as `finish` does.
        """
        if self._closed or self._process != os.getpid():  # a forked child ends nothing of its parent's
            return
        self._closed = True
        try:
            if left := len(self._open()):
                if grace is not None:
                    logger.warning("%d pushes are not on the Hub yet; %.0f s more for what can be.", left, grace)
                self._conclude(self.wait(grace))
        finally:
            self._companion.stop()


_engines: weakref.WeakSet[HubSync] = weakref.WeakSet()
_busy: set[HubSync] = set()
"""Engines with pushes on their way: a script's function that made the Trainer may have returned."""
_engines_lock = threading.Lock()


def _engines_of(outbox: Path) -> list[HubSync]:
    with _engines_lock:  # news come from other threads
        engines = list(_engines)
    return [engine for engine in engines if engine.outbox.root == outbox]


def _spread_news(outbox: Path) -> None:
    """The ledger of an outbox has grown, whichever engine's pusher wrote to it."""
    for engine in _engines_of(outbox):
        engine._read_news()


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


@atexit.register
def _close_all() -> None:
    for engine in list(_engines):
        try:
            engine.close(None if engine.wait_at_exit else EXIT_GRACE)
        except PushNotSent as error:
            logger.error("%s", error)
