"""One training run, as the callback tells of it: what is due to be pushed, and when.

Files are always taken from `args.output_dir`, as it was when the run was set up: that is where the Trainer
writes. `settings.output_dir` says where the outbox is.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.completeness import (
    TRAINER_STATE,
    find_checkpoint,
    is_complete,
    is_marked_incomplete,
    stamps,
    step_of,
    unannounced,
    wait_for_ranks,
)
from ..pushing import redaction
from ..settings import Settings
from .card_facts import CardFacts
from .engine import HubSync
from .final_model import final_model, weights_step
from .nodes import Nodes
from .plan import (
    MEETING,
    Meeting,
    Plan,
    plan_checkpoint,
    plan_end,
    plan_evaluate,
    plan_output_dir,
    plan_save,
    progress_message,
    with_meeting,
)
from .readme import LocalCard
from .request import Request

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)


class Run:
    """
    Args:
        args: The `TrainingArguments` of its Trainer.
        settings: What is pushed where.

    Attributes:
        is_ending: From the end of training until the Trainer's own wait for its pushes, which follows at once.
    """

    def __init__(self, args: Any, settings: Settings) -> None:
        self.args = args
        self.settings = settings
        self.sync = HubSync(settings)
        self.sync.world_size = args.world_size
        self.sync.start()
        self.facts = CardFacts(settings.template)
        self._card = LocalCard(self.folder)
        self._before: dict[Path, tuple[int, int, int]] = {}
        self._is_training = False
        self.is_ending = False
        self._has_seen_evaluation = False
        self._card_due = False
        self._saved: set[int] = set()
        self._incomplete: int | None = None
        self._nodes: Nodes | None = None

    @property
    def folder(self) -> Path:
        """Where the Trainer writes now: it takes `output_dir` as it is, and from the working directory."""
        return Path(self.args.output_dir).absolute()

    def begins(self, state: Any, seen: dict[str, Any], nodes: Nodes | None = None) -> None:
        """Training begins.

        Args:
            state: The `TrainerState`.
            seen: What the Trainer hands to callbacks: model, processing class, data loaders.
            nodes: The nodes of the job, where it has several.
        """
        self._nodes = nodes
        self._before = stamps(self._states())
        self._is_training = True
        self._has_seen_evaluation = self._card_due = False
        self._saved.clear()
        self._incomplete = None
        if self._meeting is not None:
            self.sync.outbox.note_branch(self._meeting.branch)
        self.sync.look_for_another_run()
        self.facts = CardFacts(self.settings.template, self.facts.options)
        self.learn(state, seen)

    def goes_on(self, state: Any) -> None:
        """A step begins; what was waiting for the one before to be over is looked at."""
        if self._incomplete is not None:
            self._push_checkpoint(self._incomplete, state)
        if self._card_due:
            self._push_card(state, self._message(state))

    def will_save(self) -> None:
        """A save comes, in which the library's Trainer may write over README.md."""
        self._card.look()

    def was_evaluated(self, state: Any, seen: dict[str, Any]) -> None:
        self.will_save()  # the best model so far is saved, perhaps: that is known only after the evaluation
        if not self._has_seen_evaluation and self.facts.setup:
            self._has_seen_evaluation = True
            self.learn(state, seen)  # the Trainer has made the loader of the evaluation only now
        if self._is_training:
            # Whether a save follows in this step is known only when it comes, or the next step does.
            self._card_due = True
        elif self.facts.setup:
            # Only after a training: a script that only evaluates has no card to write.
            self._push_card(state, f"Evaluation, step {state.global_step}")

    def was_saved(self, state: Any) -> None:
        self._card_due = False
        if self._incomplete not in (None, state.global_step):
            self._push_checkpoint(self._incomplete, state, whatever_is_there=True)
        self._push_checkpoint(state.global_step, state)

    def ends(self, state: Any, seen: dict[str, Any]) -> None:
        """Training ends: the last checkpoint, if it is still due, and the final model."""
        self._is_training = self._card_due = False
        self.is_ending = True
        if self._incomplete is not None:
            wait_for_ranks(self._checkpoint(self._incomplete), self.args, self._ranks)
            self._push_checkpoint(self._incomplete, state, whatever_is_there=True)
        for step in unannounced(self._states(), self._saved, self._before):
            self._push_checkpoint(step, state, is_urgent=True)
        with final_model(self.args, state, self.folder, self._saved, self.sync.outbox, seen) as found:
            if found is None:
                logger.warning(
                    "The final model is sharded and no checkpoint holds it, so it was not pushed. "
                    "Set save_strategy, so that there is one."
                )
            else:
                folder, step = found
                self._push(plan_end(folder, state.global_step), state, step)
        self._leave_meeting()

    def learn(self, state: Any, seen: dict[str, Any]) -> None:
        self.facts.learn(self.args, state, self.sync.hub_model_id, self.sync.target.revision, seen)

    def push_what_was_said(self, state: Any) -> None:
        """Queues the card, with what a script has said about the model after its training."""
        if not self._is_training and self.sync.pushes:
            self._push(Plan("Update the model card", state.global_step), state, weights_step(self.args, state))

    def push_output_dir(self, state: Any, *, model_files: Collection[str], request: Request) -> Future[CommitInfo]:
        """Queues what a script's own `trainer.push_to_hub(...)` asks for.

        Args:
            model_files: Files of `output_dir` that belong to the model, as relative paths.
        """
        self._card_due = False
        plan = plan_output_dir(self.folder, model_files, state.global_step, request.message)
        return self._push(plan, state, weights_step(self.args, state), request)

    def push_checkpoint(self, folder: str | Path, state: Any) -> Future[CommitInfo]:
        """Queues a checkpoint folder that a script names, under its own name with `all_checkpoints`.

        Raises:
            SettingsError: when it is no checkpoint.
        """
        checkpoint = find_checkpoint(folder, self.folder)
        step = step_of(checkpoint)
        plan = plan_checkpoint(self.settings.hub_strategy, checkpoint, step, state.global_step)
        return self._push(plan, state, step, Request(self.sync.target_of(plan.step)))

    def is_due(self, folder: str | Path, state: Any) -> bool:
        """Whether a folder is the checkpoint of the step that training is at: its own event pushes it."""
        return self._is_training and Path(folder).absolute() == self._checkpoint(state.global_step)

    @property
    def _ranks(self) -> Collection[int] | None:
        """The processes whose files are in this folder; `None` for all of the job."""
        return None if self._nodes is None else self._nodes.ranks_here

    @property
    def _meeting(self) -> Meeting | None:
        """Where nodes with folders of their own put their files."""
        if self._nodes is None or not self._nodes.apart or not self.settings.pushes_checkpoints:
            return None
        return Meeting(f"{MEETING}-{self._nodes.training}", self._nodes.apart)

    def _leave_meeting(self) -> None:
        for branch in self.sync.outbox.noted_branches():
            is_ours = self._meeting is not None and branch == self._meeting.branch
            self.sync.remove_branch(branch, is_awaited=is_ours)
            self.sync.outbox.forget_branch(branch)

    def _states(self) -> Iterator[Path]:
        """Of each checkpoint in the folder, the file that is written last."""
        return self.folder.glob(f"checkpoint-*/{TRAINER_STATE}")

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def _push_checkpoint(
        self, step: int, state: Any, whatever_is_there: bool = False, is_urgent: bool = False
    ) -> None:
        """Queues a checkpoint folder that is complete; one that is not is looked at again later."""
        checkpoint = self._checkpoint(step)
        self._incomplete = None
        if not checkpoint.is_dir():
            missing = FileNotFoundError(f"{checkpoint} is not there")
            self.sync.lose(self._message(state, step), missing)
            return
        if not is_complete(checkpoint, self.args, self._ranks):
            if not whatever_is_there or is_marked_incomplete(checkpoint):
                self._incomplete = step
                return
            logger.warning("%s lacks files of other processes; it is pushed as it is here.", checkpoint)
        self._saved.add(step)
        plan = plan_save(self.settings.hub_strategy, checkpoint, step, self._message(state, step))
        if plan is not None and self._meeting is not None:
            plan = with_meeting(plan, self._meeting)
        if plan is not None:
            plan = replace(plan, urgent=is_urgent, best=state.best_global_step)
            request = Request(self.sync.target_of(step), tags=self.settings.tags_of(step))
            self._push(plan, state, request=request)

    def _push_card(self, state: Any, message: str) -> None:
        self._card_due = False
        plan = plan_evaluate(self.settings.hub_strategy, state.global_step, message)
        # With a branch for each save there is none for a card alone; `main` waits for the final model.
        if plan is not None and not (self._is_training and self.settings.has_revision_per_step):
            self._push(plan, state)

    def _push(
        self, plan: Plan, state: Any, weights_step: int | None = None, request: Request | None = None
    ) -> Future[CommitInfo]:
        readme = self._card.bring_up(plan.parts[0].source if plan.parts else self.folder)
        replacements: dict[str, bytes] = {}
        if redaction.has_token(self.args):
            replacements[redaction.TRAINING_ARGS] = redaction.training_args_without_tokens(self.args)
        card = self.facts.at(state, weights_step)
        return self.sync.push(plan, card=card, readme=readme, replacements=replacements, request=request)

    def _message(self, state: Any, step: int | None = None) -> str:
        by_epoch = str(getattr(self.args.save_strategy, "value", self.args.save_strategy)) == "epoch"
        step = state.global_step if step is None else step
        return progress_message("epoch" if by_epoch else "step", step, state.epoch)
