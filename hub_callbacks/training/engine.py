"""The engine of a run: takes plans, snapshots them into the outbox, and tells what became of each."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.manifest import Origin, installed_versions
from ..checkpoints.retention import Retention
from ..errors import ForeignRun, PushNotSent
from ..outbox import ledger
from ..outbox.control import Orders
from ..outbox.push import (
    CREATE,
    LOOK,
    Commit,
    Content,
    CreateRepository,
    LookForOtherRun,
    NodeFiles,
    Push,
    RemoveBranch,
    Target,
)
from ..outbox.queue import Outbox
from ..settings import Settings
from . import shared_pusher
from .futures import PushFutures
from .plan import Plan
from .request import Request, target_of_run
from .staging import stage
from .summary import PushInProgress, Summary, WaitDisplay, counted, not_arrived, say

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)

ANSWER_WITHIN = 60.0
"""Seconds that training waits before step 1 for whose model is in the repository, where the settings need that."""
CONNECT_WITHIN = 10.0
"""Seconds that reading `trainer.hub_model_id` before or after a training waits for the repository, at most."""
TRY_AGAIN_EVERY = 30.0
"""Seconds between two tries to put a save into an outbox whose disk did not take it."""
HURRY_EVERY = 10.0
"""Seconds between two attempts on a Hub that is away while somebody waits for the pushes."""
LOOK_EVERY = 0.2
"""Seconds between two looks whether a wait is over; news end it at once."""


@dataclass
class _Due:
    """What is to be put into the outbox.

    Args:
        make: Snapshots its files into a folder.
        future: What becomes of it.
        passed: What of it newer pushes have brought meanwhile → the number of the newest of them.
    """

    message: str
    target: Target
    make: Callable[[Path], Content]
    future: Future[CommitInfo] = field(default_factory=Future)
    passed: dict[str, str] = field(default_factory=dict)


class Engine:
    """Queues the pushes of one run, and follows them. Not for use from several threads at once.

    All engines of an outbox share one pusher, which lives as long as any of them.

    Args:
        settings: What is pushed where.
        orders: Limits of the pusher; the token and those in bytes are taken from the settings.

    Attributes:
        hub_model_id: The repository; with its owner as soon as the Hub has said it.
        world_size: Number of processes that train, noted with each checkpoint; `None` where it is not known.
        pushes: Every push, in order, as the commit to be.
        seconds_in_training: What all of this cost the training thread.
        is_quiet: Whether nothing is said at its end: its pushes are parts of another's.
        wait_at_exit: Whether the end of the interpreter waits as `finish` does.
    """

    def __init__(self, settings: Settings, orders: Orders | None = None) -> None:
        self.settings = settings
        self.target = target_of_run(settings)
        self.outbox = Outbox(settings.outbox)
        self.world_size: int | None = None
        self.hub_model_id = self._known_name()
        self.pushes: list[Future[CommitInfo]] = []
        self.seconds_in_training = 0.0
        self.wait_at_exit = self.is_quiet = False
        self.is_closed = False
        self._process = os.getpid()
        self._creation: str | None = None
        self._beginning = ""
        self._commits_said = 0
        self._not_kept: list[_Due] = []
        self._tried = 0.0
        self._futures = PushFutures(self.outbox.ledger.path)
        self._token_in_environment = os.environ.get("HF_TOKEN")
        limits = replace(
            orders or Orders(),
            token=settings.hub_token,
            max_pending_bytes=settings.max_pending_bytes,
            max_upload_memory=settings.max_upload_memory,
        )
        self._pusher, self._leave_pusher = shared_pusher.join(self, limits)

    @functools.cached_property
    def run_id(self) -> str:
        """Identifier of the run that the outbox belongs to; a process that pushes nothing writes none."""
        return self.outbox.run_id()

    @property
    def last_push(self) -> Future[CommitInfo] | None:
        return self.pushes[-1] if self.pushes else None

    @property
    def push_in_progress(self) -> PushInProgress:
        """The pushes of this run that are queued or under way; false when there are none."""
        return PushInProgress(lambda: not (self._futures.open or self._not_kept), self.wait)

    def start(self, target: Target | None = None) -> None:
        """Queues the creation of the repository, and starts the pusher; what an earlier run left is sent first.

        Args:
            target: Another place than the one in the settings.
        """
        with self._futures.news:  # no news of it before it is known which it is
            self._creation = self._ask(CreateRepository(), CREATE, target or self.target)

    def _known_name(self) -> str:
        """The repository, with its owner where the Hub has told an earlier process that pushed from here."""
        from ..hub.client import address

        return self.outbox.places.name_of(address(), self.settings.hub_model_id)

    def wait_until_connected(self) -> None:
        """Waits for the Hub's answer whether the repository is there; not for a Hub that is away."""
        self._answer(self._creation, CONNECT_WITHIN, is_patient=False)

    def connect(self, token: str | None = None) -> None:
        """Has the repository created, if that was not asked for yet, or with another token.

        Args:
            token: To be used from now on.
        """
        if token is not None:
            self.use_token(token)
        if self._creation is None or token is not None:
            self.start()

    def use_token(self, token: str) -> None:
        """Has what is sent from now on sent with another token."""
        self._pusher.tell(replace(self._pusher.orders, token=token))

    def _look_for_token(self) -> None:
        """A token that was set in this process's environment since; the pusher has a copy of its own."""
        token = os.environ.get("HF_TOKEN")
        if token and self.settings.hub_token is None and token != self._token_in_environment:
            self._token_in_environment = token
            self.use_token(token)

    def target_of(self, step: int) -> Target:
        """Where the save of a step goes."""
        if not self.settings.has_revision_per_step:
            return self.target
        assert self.settings.hub_revision is not None
        branch = self.settings.hub_revision.replace("{step}", str(step))
        return replace(self.target, revision=branch, from_scratch=True)

    # -- whose model is there

    def look_for_another_run(self, beginning: str = "") -> None:
        """Has the pusher say whose model is in the repository, and keeps to `on_foreign_run`; before step 1.

        Args:
            beginning: What is said of the training when the Hub has answered.

        Raises:
            ForeignRun: with `"refuse"`, when it is another run's, or when the Hub does not say.
        """
        self._beginning = beginning
        self.run_id = self.outbox.run_id()  # that of the checkpoint which was fetched meanwhile, perhaps
        policy, own_branch = self.settings.on_foreign_run, f"run-{self.run_id}"
        if self.target.revision == own_branch:
            return
        with self._futures.news:
            self._creation = self._ask(LookForOtherRun(), LOOK, self.target)
        if policy == "continue":
            return
        answer = self._answer(self._creation, ANSWER_WITHIN)
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

    def _answer(self, question: str | None, seconds: float, is_patient: bool = True) -> ledger.Entry | None:
        """What the pusher says to a question; `None` when it cannot.

        Args:
            seconds: To wait at most.
            is_patient: Whether a Hub is waited for that is away.
        """
        until = time.monotonic() + seconds
        while question is not None and not self.is_closed and time.monotonic() < until:
            self.read_news()
            entry = self._futures.of(question)
            if entry is not None and entry.state == ledger.DONE:
                return entry
            if entry is not None and (entry.state == ledger.REFUSED or (entry.why and not is_patient)):
                return None
            self._futures.wait_for_news(LOOK_EVERY)
        return None

    # -- queueing

    def push(
        self,
        plan: Plan,
        *,
        card: Mapping[str, Any] | None = None,
        readme: Path | None = None,
        replacements: Mapping[str, bytes] | None = None,
        request: Request | None = None,
        is_save: bool = False,
    ) -> Future[CommitInfo]:
        """Snapshots what `plan` names and queues it. Never waits for the network.

        Args:
            plan: What goes where.
            card: The facts that the model card is made from.
            readme: A README.md with a person's text, to merge the card into.
            replacements: File, relative to its part's folder → content that is pushed in its place.
            request: What a call of `push_to_hub` asks for beyond the plan.
            is_save: Whether it is tried again later where the disk cannot take it.

        Returns:
            The commit to be. A push that a newer one takes over as a whole gives that one's commit. A push that
            has not arrived when the run ends, or that could not be kept, raises `PushNotSent`.
        """
        is_asked_for = request is not None and not is_save
        request = request or Request(self.target)
        settings = self.settings

        def commit(staged: Path) -> Commit:
            return Commit(
                step=plan.step,
                parts=stage(plan, staged, card=card, readme=readme, replacements=replacements),
                has_card=plan.card,
                description=request.description,
                # What a tag names, and what takes a repository's place, is that very push.
                keep=settings.hub_always_push or bool(request.tags) or request.replaces,
                urgent=plan.urgent,
                origin=Origin(self.world_size, dict(installed_versions())),
                retention=Retention(
                    settings.hub_keep_last, settings.hub_keep_every, plan.best, settings.hub_squash
                ),
                tags=request.tags,
                replaces=request.replaces,
                asked_for=is_asked_for,
            )

        return self._push(plan.message, request.target, commit, is_save)

    def push_node_files(self, plan: Plan, node: int, target: Target) -> Future[CommitInfo]:
        """Queues what exists on this node only.

        Args:
            plan: Of `plan_node_files`.
            node: Number of this node.
            target: The branch where the files of all nodes meet.
        """

        def node_files(staged: Path) -> NodeFiles:
            (part,) = stage(plan, staged)
            return NodeFiles(plan.step, node, part, plan.urgent)

        return self._push(plan.message, target, node_files, is_save=True)

    def remove_branch(self, branch: str, is_awaited: bool) -> None:
        """Queues the removal of a branch that pushes of this outbox take files from, for when none does any more.

        Args:
            is_awaited: Whether the end of the run waits for it.
        """
        target = replace(self.target, revision=branch, from_scratch=False)
        self._ask(RemoveBranch(), f"Remove the branch {branch}", target, is_awaited)

    def _push(
        self, message: str, target: Target, make: Callable[[Path], Content], is_save: bool
    ) -> Future[CommitInfo]:
        due = _Due(message, target, make)
        due.future.set_running_or_notify_cancel()  # what was saved is pushed; there is no way back
        self.pushes.append(due.future)
        shared_pusher.keep(self)
        self._look_for_token()
        try:
            self.try_again(every=0)
            error = self._put(due)
        except BaseException as interrupted:  # Ctrl-C: who waits for it must not wait for ever
            due.future.set_exception(PushNotSent(f"{message!r} was not queued: {type(interrupted).__name__}"))
            raise
        if error is not None and is_save and _may_pass(error):
            self._not_kept.append(due)
            logger.warning(
                "%r could not be put into %s (%s), and is tried again as long as its files are there. Training "
                "goes on. Free disk space, or check the quota and the permissions.",
                message,
                self.outbox.root,
                error,
            )
        elif error is not None:
            self.lose(message, error, due.future)
        return due.future

    def _put(self, due: _Due) -> Exception | None:
        """Puts something into the outbox; returns what kept it from that."""
        try:
            with self._futures.news:
                push = self._queue(due.message, due.target, due.make, due.passed)
                if push is None:
                    self._futures.follow_another(max(due.passed.values(), key=int), due.future)
                else:
                    self._futures.follow(push.id, due.future, push.size)
        except Exception as error:
            return error
        if push is not None and isinstance(push.content, Commit):
            for other in self._not_kept:
                if other is not due and other.target.place == due.target.place:
                    # It is older, and must not go on top of this one.
                    other.passed |= dict.fromkeys(push.slots, push.id)
        self.read_news()
        return None

    def try_again(self, every: float = TRY_AGAIN_EVERY, is_last_time: bool = False) -> None:
        """Puts into the outbox what its disk could not take before, without what newer pushes have brought.

        Args:
            every: Seconds that must have passed since it was tried last.
            is_last_time: Whether what cannot be put there is lost.
        """
        if not self._not_kept or time.monotonic() - self._tried < every:
            return
        self._tried = time.monotonic()
        for due in list(self._not_kept):
            error = self._put(due)
            if error is not None and _may_pass(error) and not is_last_time:
                continue
            self._not_kept.remove(due)
            if error is None:
                logger.warning("%r is in %s now, and will be pushed.", due.message, self.outbox.root)
            else:
                self.lose(due.message, error, due.future)

    def _ask(self, content: Content, message: str, target: Target, is_awaited: bool = False) -> str | None:
        """Queues what has no files; returns its number, or `None` where the disk cannot take it."""
        try:
            with self._futures.news:
                push = self._queue(message, target, lambda staged: content)
                assert push is not None
                if is_awaited:
                    self._futures.follow(push.id, Future())
        except OSError as error:
            logger.warning("%s cannot take pushes (%s); nothing is pushed until it can.", self.outbox.root, error)
            return None
        return push.id

    def _queue(
        self,
        message: str,
        target: Target,
        make: Callable[[Path], Content],
        passed: Collection[str] = (),
    ) -> Push | None:
        """
        Args:
            make: Snapshots the files into a folder.
            passed: What of it newer pushes have brought already.

        Returns:
            `None` when they have brought all of it.
        """
        with self.outbox.stage() as staged:
            content = make(staged)
            push = Push("", staged, self.run_id, time.time(), target, message, content)
            if passed and isinstance(content, Commit):
                push = push.without(frozenset(passed))
                if not push.slots:
                    return None
            push = self.outbox.submit(staged, push)
        self._pusher.ring()
        return push

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
        self.say_lost(why)
        if future is not None:
            future.set_exception(PushNotSent(why))

    def say_lost(self, why: str) -> None:
        """Says, and counts, what will not reach the Hub."""
        self._futures.reporter.lost(why)

    def pushed_card(self) -> str | None:
        """README.md as it was pushed last; `None` where it was not yet, or cannot be read."""
        from ..hub.client import address

        memory = self.outbox.card_memory(self.target, address())
        try:
            return memory.read_text(encoding="utf-8")
        except (OSError, UnicodeError):
            return None

    # -- following

    def read_news(self) -> None:
        """Settles the futures by what the ledger says. Called from any thread."""
        with self._futures.news:
            for entry in self._futures.take_news():
                if entry.push == self._creation:
                    self._take_creation(entry)
        self._futures.settle()
        self._rest()

    def _take_creation(self, entry: ledger.Entry) -> None:
        if entry.repo_id:
            self.hub_model_id = entry.repo_id
        if entry.state == ledger.DONE and self._beginning:
            self._say_beginning(entry)
        if entry.foreign and self.settings.on_foreign_run == "continue":
            logger.warning(
                "%s holds the model of another run (%s). This one's goes on top of it; that one stays in "
                "the history. If that is not meant, see on_foreign_run.",
                entry.place,
                entry.foreign,
            )

    def _say_beginning(self, entry: ledger.Entry) -> None:
        from ..hub.client import address

        what = [] if entry.private is None else ["private" if entry.private else "public"]
        what += [f"branch {self.target.revision}"] if self.target.revision not in (None, "main") else []
        who = f" as {entry.user}" if entry.user else ""
        say(f"Pushing to {address()}/{entry.repo_id}{who}: {', '.join([*what, self._beginning])}.")
        self._beginning = ""

    def _rest(self) -> None:
        if not self._futures.open and not self._not_kept:
            shared_pusher.let_go(self)

    def summary(self) -> Summary:
        """What has been pushed so far, and what has not."""
        self.read_news()
        summary = self._futures.summary()
        summary.seconds_in_training = self.seconds_in_training
        return summary

    # -- the end

    def wait(self, timeout: float | None = None, show: bool = False) -> bool:
        """Waits for the pushes of this run as long as there is progress.

        Args:
            timeout: Seconds to wait at most; `None` waits while there is progress, and then `finish_timeout`.
            show: Whether a progress bar is shown.

        Returns:
            Whether all of them are on the Hub.
        """
        patience = self.settings.finish_timeout if timeout is None else timeout
        until = None if timeout is None else time.monotonic() + timeout
        self.try_again(every=0)
        hurried = 0.0
        self._futures.expect_progress()
        with WaitDisplay(len(self._futures), show) as display:
            while True:
                self.read_news()
                self.try_again(every=HURRY_EVERY)
                if time.monotonic() > hurried + HURRY_EVERY:
                    hurried = time.monotonic()
                    self._pusher.hurry()
                display.update(self._futures.open, *self._sizes())
                is_over = self._futures.outlook(patience, self._is_sending, self._pusher.is_given_up)
                if is_over is not None:
                    return is_over and not self._not_kept
                if until is not None and time.monotonic() > until:
                    return False
                self._futures.wait_for_news(LOOK_EVERY if timeout is None else min(LOOK_EVERY, timeout))

    def _wait_to_the_end(self, timeout: float | None, show: bool = False) -> bool:
        """The same, after which what the disk did not take is lost: what was sent may have made room for it."""
        has_arrived = self.wait(timeout, show)
        if self._not_kept:
            self.try_again(every=0, is_last_time=True)
            has_arrived = self.wait(timeout, show)
        return has_arrived

    def _sizes(self) -> tuple[int, int]:
        """Bytes that have arrived, those of the push under way among them, and bytes in all."""
        arrived, size = self._futures.sizes()
        return min(arrived + self._pusher.sent, size), size  # what a protocol adds is no part of it

    @property
    def _is_sending(self) -> bool:
        """Whether a pusher is at a push; one whose folder somebody has deleted will not come to its end."""
        return any(map(self.outbox.holds, self._futures.running)) and self._pusher.is_alive

    def finish(self, show: bool = False) -> Summary:
        """Waits for the pushes, says what became of them, and lets go of those that did not arrive.

        Raises:
            PushNotSent: with `on_error="raise"`, when something has not arrived.
        """
        return self._conclude(self._wait_to_the_end(None, show))

    def say_end(self) -> None:
        """Says what was pushed, if all of it has arrived and there is more than was said before."""
        if self.is_quiet:
            return
        summary = self.summary()
        if summary.commits > self._commits_said and not (summary.waiting or summary.lost):
            self._commits_said = summary.commits
            say(summary.line())

    def _conclude(self, has_arrived: bool) -> Summary:
        held = set(filter(self.outbox.holds, self._futures.unsent))  # before the news: what goes is recorded first
        summary = self.summary()
        if has_arrived and not summary.lost:
            return summary
        kept = len(held.intersection(self._futures.unsent))
        message = not_arrived(summary, self.hub_model_id, kept, self.outbox.root)
        self._futures.abandon(message)
        self._rest()
        if self.settings.on_error == "raise":
            raise PushNotSent(message)
        logger.warning(message)
        return summary

    def close(self, grace: float | None = None) -> None:
        """Lets go of the pusher. What has not been sent stays in the outbox and is named.

        Args:
            grace: Seconds to wait for what is not sent; `None` waits as `finish` does.
        """
        if self.is_closed or self._process != os.getpid():  # a forked child ends nothing of its parent's
            return
        self.is_closed = True
        try:
            if left := self._futures.open + len(self._not_kept):
                try:
                    if grace:
                        what = counted(left, "push is", "pushes are")
                        logger.warning("%s not on the Hub yet; %.0f s more for what can be.", what, grace)
                    has_arrived = self._wait_to_the_end(grace)
                except KeyboardInterrupt:
                    self._conclude(False)
                    raise
                self._conclude(has_arrived)
            self.say_end()
        finally:
            self._leave_pusher()


def _may_pass(error: Exception) -> bool:
    """Whether a disk may have room later for what it could not take now."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
