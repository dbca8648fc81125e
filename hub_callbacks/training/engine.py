"""The engine: takes plans, snapshots them into the outbox, and tells what became of each.

`HubSyncCallback` drives it from a Trainer's events; a plain training loop can drive it by itself:

>>> sync = HubSync(output_dir="run", hub_model_id="me/model", hub_strategy="all_checkpoints")  # doctest: +SKIP
>>> sync.init_hf_repo()  # doctest: +SKIP
>>> future = sync.push_from_checkpoint("run/checkpoint-10")  # doctest: +SKIP
>>> sync.push_to_hub(commit_message="Release", tags=["v1.0.0"])  # doctest: +SKIP
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.manifest import Origin, installed_versions
from ..errors import ForeignRun, PushNotSent, SettingsError
from ..loop import LoopVerbs
from ..outbox import ledger
from ..outbox.push import Push, Target
from ..outbox.queue import Outbox
from ..outbox.signals import Orders
from ..settings import Settings, resolve
from . import engines
from .futures import Fates
from .plan import Plan
from .pusher import Companion
from .request import Request, check_token, place_of
from .staging import stage
from .summary import PushInProgress, Summary, counted

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)

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
        self.target = place_of(settings)
        self.outbox = Outbox(settings.outbox)
        self.world_size: int | None = None
        self.hub_model_id = settings.hub_model_id
        self.pushes: list[Future[CommitInfo]] = []
        self.seconds_in_training = 0.0
        self.wait_at_exit = False
        self._process = os.getpid()
        self._creation: str | None = None
        self._fates = Fates(self.outbox.ledger.path)
        self._closed = False
        self._token_in_environment = os.environ.get("HF_TOKEN")
        self._orders = replace(
            orders or Orders(), token=settings.hub_token, max_pending_bytes=settings.max_pending_bytes
        )
        root = self.outbox.root
        self._companion = Companion(self.outbox, self._orders, lambda: engines.spread_news(root))
        # Not at exit: there `engines` first waits for what is under way.
        weakref.finalize(self, self._companion.stop).atexit = False
        for other in engines.of(root):
            # One pusher for an outbox: the newest engine's, which has the newest token.
            threading.Thread(target=other._companion.stop, daemon=True).start()
        engines.add(self)

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
        return PushInProgress(lambda: not self._fates.open, self.wait)

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
            self._creation = self._queue(plan, Request(target or self.target)).id
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
            check_token(token)
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
            with self._fates.news:
                self._creation = question = self._queue(plan, Request(self.target), asks_whose=True).id
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
            self.read_news()
            entry = self._fates.of(question)
            if entry is not None and entry.state in (ledger.DONE, ledger.REFUSED):
                return entry if entry.state == ledger.DONE else None
            with self._fates.news:
                self._fates.news.wait(0.2)
        return None

    def remove_branch(self, branch: str, is_awaited: bool) -> None:
        """Queues the removal of a branch that pushes of this outbox take files from, for when none does any more.

        Args:
            is_awaited: Whether the end of the run waits for it.
        """
        plan = Plan(f"Remove the branch {branch}", 0, card=False, removes_branch=True)
        try:
            with self._fates.news:
                target = replace(self.target, revision=branch, from_scratch=False)
                push = self._queue(plan, Request(target))
                if is_awaited:
                    self._fates.follow(push.id, Future())
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
            replacements: File, relative to its part's folder → content that is pushed in its place.
            request: What a call of `push_to_hub` asks for beyond the plan.

        Returns:
            The commit to be. A push that a newer one takes over as a whole gives that one's commit. A push that
            has not arrived when the run ends, or that could not be kept, raises `PushNotSent`.
        """
        future: Future[CommitInfo] = Future()
        future.set_running_or_notify_cancel()  # what was saved is pushed; there is no way back
        self.pushes.append(future)
        engines.keep(self)
        self._look_for_token()
        request = request or Request(self.target)
        try:
            with self._fates.news:
                push = self._queue(plan, request, card=card, readme=readme, replacements=replacements)
                self._fates.follow(push.id, future, push.size)
        except Exception as error:
            self.lose(plan.message, error, future)
        else:
            self.read_news()
        return future

    def lose(self, message: str, error: Exception, future: Future[CommitInfo] | None = None) -> None:
        """Says that something could not be put into the outbox. Training goes on."""
        if isinstance(error, FileNotFoundError):
            advice = "Something has moved or deleted it since it was saved."
        elif isinstance(error, OSError):
            advice = "Free disk space, or check the permissions, before the next save."
        else:
            advice = "This looks like a bug; please report it."
        why = (
            f"{message!r} could not be put into {self.outbox.root} ({type(error).__name__}: {error}) and will not "
            f"reach the Hub. Training goes on, and what the Trainer wrote is as it was. {advice}"
        )
        logger.debug("%s", message, exc_info=error)
        self._fates.reporter.lost(why)
        if future is not None:
            future.set_exception(PushNotSent(why))

    def _look_for_token(self) -> None:
        """A token that was set in this process's environment since; the pusher has a copy of its own."""
        token = os.environ.get("HF_TOKEN")
        if token and self.settings.hub_token is None and token != self._token_in_environment:
            self._token_in_environment = token
            self.use_token(token)

    def _queue(self, plan: Plan, request: Request, asks_whose: bool = False, **content: Any) -> Push:
        with self.outbox.stage() as staged:
            parts = stage(plan, staged, **content)
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

    def read_news(self) -> None:
        """Settles the futures by what the ledger says. Called from any thread."""
        with self._fates.news:
            for entry in self._fates.take_news():
                if entry.push == self._creation:
                    self._take_creation(entry)
        self._fates.settle()
        self._rest()

    def _take_creation(self, entry: ledger.Entry) -> None:
        if entry.repo_id:
            self.hub_model_id = entry.repo_id
        if entry.foreign and self.settings.on_foreign_run == "continue":
            logger.warning(
                "%s holds the model of another run (%s). This one's goes on top of it; that one stays in "
                "the history. If that is not meant, see on_foreign_run.",
                entry.place,
                entry.foreign,
            )

    def _rest(self) -> None:
        if not self._fates.open:
            engines.let_go(self)

    def summary(self) -> Summary:
        """What has been pushed so far, and what has not."""
        self.read_news()
        summary = self._fates.summary()
        summary.seconds_in_training = self.seconds_in_training
        return summary

    def wait(self, timeout: float | None = None, show: bool = False) -> bool:
        """Waits for the pushes of this run as long as there is progress.

        Args:
            timeout: Seconds to wait at most; `None` waits while there is progress, and then `finish_timeout`.
            show: Whether a progress bar is shown.

        Returns:
            Whether all of them are on the Hub.
        """
        from tqdm.auto import tqdm

        started = self._fates.last_progress = said = time.monotonic()
        total = len(self._fates)
        patience = self.settings.finish_timeout if timeout is None else timeout
        with tqdm(total=total, desc="Pushing to the Hub", disable=not show, leave=False) as bar:
            while True:
                self.read_news()
                bar.update(total - len(self._fates.open) - bar.n)
                bar.set_postfix_str(self._bytes())
                arrived = self._fates.outlook(patience, self._is_sending, self._companion.is_given_up)
                now = time.monotonic()
                if arrived is not None or (timeout is not None and now - started > timeout):
                    return bool(arrived)
                if not show and now - said > HEARTBEAT:
                    said = now
                    left, size = len(self._fates.open), self._bytes()
                    logger.warning("Waiting for the Hub: %d of %d pushes are left, %s.", left, total, size)
                with self._fates.news:
                    self._fates.news.wait(0.2 if timeout is None else min(0.2, timeout))

    @property
    def _is_sending(self) -> bool:
        """Whether a pusher is at a push; one whose folder somebody has deleted will not come to its end."""
        return any(map(self.outbox.holds, self._fates.running)) and any(
            engine._companion.is_alive for engine in engines.of(self.outbox.root)
        )

    def _bytes(self) -> str:
        """What has been sent of what there is, for people."""
        arrived, total = self._fates.sizes()
        under_way = sum(engine._companion.sent for engine in engines.of(self.outbox.root))
        return f"{(arrived + under_way) / 1e6:,.0f} of {total / 1e6:,.0f} MB"

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
            missing = counted(summary.waiting + summary.lost, "push has", "pushes have")
            what = f"{missing} not arrived at {self.hub_model_id}"
        message = f"{what}: {summary.why.rstrip('.')}" if summary.why else what
        if summary.lost:
            message += f". {counted(summary.lost, 'save', 'saves')} could not be kept for pushing, as said before"
        safe = sum(map(self.outbox.holds, self._fates.unsent))
        if safe:
            message += (
                f". {counted(safe, 'push is', 'pushes are')} safe in {self.outbox.root}; what waits is sent by: "
                f"hub-callbacks sync {self.settings.output_dir}"
            )
        if gone := summary.waiting - safe:
            message += (
                f". {counted(gone, 'push is', 'pushes are')} not in {self.outbox.root} any more: "
                "deleted, or damaged and set aside. What was in it is as the Trainer left it in its own folders"
            )
        self._fates.abandon(message)
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
            if left := len(self._fates.open):
                try:
                    if grace:
                        what = counted(left, "push is", "pushes are")
                        logger.warning("%s not on the Hub yet; %.0f s more for what can be.", what, grace)
                    arrived = self.wait(grace)
                except KeyboardInterrupt:
                    self._conclude(False)
                    raise
                self._conclude(arrived)
        finally:
            self._companion.stop()
