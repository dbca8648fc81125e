"""One training run, as the callback tells of it: what is due to be pushed, and when.

Files are always taken from `args.output_dir`: that is where the Trainer writes. `settings.output_dir` says where
the outbox is.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..card import missing
from ..card.progress import has_ended
from ..checkpoints.completeness import TO_CONTINUE_AS_IT_WAS, find_checkpoint, problem_of
from ..checkpoints.files import TRAINER_STATE, checkpoint_name, checkpoint_step, checkpoints_in
from ..outbox.left_behind import Trainings
from ..outbox.push import MODEL, OtherNodes
from ..settings import Settings, said_by
from . import training_args
from .card_facts import CardFacts, read_template
from .engine import Engine
from .final_model import ModelNotSaved, final_model, loaded_checkpoint, newest_of, weights_step
from .liveness import is_under_way, trainer_at_work
from .nodes import Nodes
from .plan import (
    Plan,
    plan_checkpoint,
    plan_end,
    plan_evaluate,
    plan_output_dir,
    plan_save,
    progress_message,
    with_other_nodes,
)
from .readme import Readme
from .request import Request
from .saves import Saved, Saves, output_dir

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
        self.said = said_by(args)
        self.settings = settings
        self.facts = CardFacts(read_template(settings.card_template), settings.eval_results)
        self.engine = Engine(settings)
        self.engine.world_size = args.world_size
        self.engine.start()
        self._readme = Readme(self.folder)
        self._state: weakref.ref[Any] | None = None
        self._end: tuple[weakref.ref[Any], int] | None = None
        self._has_begun = False
        self._can_be_seen = False
        self.is_ending = False
        self._card_due = False
        self._on_hub: int | None = None
        self._has_said_what_is_missing = self._has_said_incomplete = False
        self._other_nodes: OtherNodes | None = None
        self._saves = Saves(args, TRAINER_STATE, None)
        self._trainings = Trainings(self.engine.outbox.root)

    def goes_on_as(self, other: Run) -> None:
        """The same Trainer's pushes go to another place from now on."""
        engine = other.engine
        other.facts = CardFacts(other.facts.template, other.facts.benchmarks, self.facts.options)
        other.facts.resumed_from_step = self.facts.resumed_from_step
        if self.facts.setup:
            place = {"name": engine.hub_model_id.rpartition("/")[2], "repo_id": engine.hub_model_id}
            other.facts.setup = self.facts.setup | place | {"revision": engine.target.revision}
        other._state, other._end = self._state, self._end
        other._has_begun, other._can_be_seen = self._has_begun, self._can_be_seen

    @property
    def names(self) -> set[str]:
        """What the repository is called, with and without its owner."""
        return {self.engine.hub_model_id, self.settings.hub_model_id}

    def knows(self, state: Any) -> bool:
        """Whether its facts are of the Trainer with this `TrainerState`; several may push to one place."""
        return self._state is not None and self._state() is state

    def may_be_of(self, state: Any) -> bool:
        """Whether it is the run of the Trainer with this `TrainerState`, as far as it has seen one."""
        return self._state is None or self.knows(state)

    def weights_of(self, state: Any) -> int | None:
        """The step of the weights that a Trainer holds; `None` where that is the one that its training is at.

        Args:
            state: Its `TrainerState`.
        """
        if self._end is not None and self._end[0]() is state:
            return self._end[1]
        return weights_step(loaded_checkpoint(self.args, state), state) if has_ended(state) else None

    def will_begin(self) -> None:
        """Another training comes: what was under way, and may have been stopped, is over."""
        self._has_begun = False

    @property
    def is_training(self) -> bool:
        """Whether a training is under way; Ctrl-C and exceptions end one, too."""
        return self._has_begun and (not self._can_be_seen or is_under_way(self.args))

    @property
    def is_stopped(self) -> bool:
        """Whether a training has ended before its end."""
        return self._has_begun and not self.is_training

    @property
    def folder(self) -> Path:
        return output_dir(self.args)

    def begins(self, state: Any, seen: dict[str, Any], nodes: Nodes | None) -> None:
        """Training begins.

        Args:
            state: The `TrainerState`.
            seen: What the Trainer hands to callbacks: model, processing class, data loaders.
            nodes: The nodes of the job, where it has several.
        """
        self._has_begun = True
        self._can_be_seen = is_under_way(self.args)  # not, where a library's Trainer has a loop of its own
        self._card_due = False
        self._saves = Saves(self.args, TRAINER_STATE, None if nodes is None else nodes.ranks_here)
        self._other_nodes = None
        if nodes is not None and nodes.apart and self.settings.pushes_checkpoints:
            self._other_nodes = OtherNodes(nodes.branch, nodes.apart)
            self.engine.outbox.note_branch(nodes.branch)
        resumed = f", resumed from step {state.global_step}" if state.global_step else ""
        self.engine.look_for_another_run(f"{self.settings.hub_strategy}{resumed}")
        self._trainings.begin(state.global_step, checkpoints_in(self.folder))
        self.facts = self.facts.begin()
        self.facts.resumed_from_step = state.global_step
        self.learn(state, seen)

    def goes_on(self, state: Any) -> None:
        """A step begins; what was waiting for the one before to be over is looked at."""
        self.engine.try_again()
        for saved in self._saves.look_again():
            self._push_save(saved, state)
        if self._card_due:
            self._push_card(state, self._message(state))

    def will_save(self) -> None:
        """A save comes, in which the library's Trainer may write over README.md."""
        self._readme.look()

    def was_evaluated(self, state: Any, seen: dict[str, Any]) -> None:
        self.will_save()  # the best model so far is saved, perhaps: that is known only after the evaluation
        if self.knows(state):
            self.facts.was_evaluated(seen)
        if self.is_training:
            # Whether a save follows in this step is known only when it comes, or the next step does.
            self._card_due = True
        elif self.knows(state):
            # Only after a training: a script that only evaluates has no card to write.
            self._push_card(state, f"Evaluation, step {state.global_step}")

    def was_saved(self, state: Any) -> None:
        self._card_due = False
        for saved in self._saves.was_saved(state.global_step):
            self._push_save(saved, state)

    def ends(self, state: Any, seen: dict[str, Any]) -> None:
        """Training ends: the last checkpoint, if it is still due, and the final model."""
        self._card_due = False
        self.is_ending = True
        try:
            self._push_what_is_left(state, seen)
        finally:
            self._has_begun = False

    def _push_what_is_left(self, state: Any, seen: dict[str, Any]) -> None:
        for saved in self._saves.end():
            self._push_save(saved, state)
        self._end = weakref.ref(state), weights_step(loaded_checkpoint(self.args, state), state)
        try:
            with final_model(self.args, state, self.folder, self._saves.steps, self.engine.outbox, seen) as found:
                if found is None:
                    logger.warning(
                        "The final model is sharded and no checkpoint holds it, so it was not pushed. "
                        "Set save_strategy, so that there is one."
                    )
                else:
                    self._push_end(*found, state)
        except ModelNotSaved as error:
            self._push_instead(newest_of(self.folder, self._saves.steps), state, str(error))
        self._remove_branches()

    def _push_end(self, folder: Path, step: int, state: Any) -> None:
        plan = plan_end(folder, state.global_step, self.folder)
        if 0 < state.global_step == self.facts.resumed_from_step == max(checkpoints_in(self.folder), default=0):
            plan = replace(plan, card=False)  # nothing was left to train: the card that is there knows how it went
        self._push(plan, state, step, is_save=True)

    def _push_instead(self, checkpoint: tuple[Path, int] | None, state: Any, why: str) -> None:
        """What there is of a final model that could not be saved."""
        there = "no checkpoint holds weights"
        if checkpoint is not None:
            there = f"the newest checkpoint with weights is pushed instead: {checkpoint[0].name}"
            self._push_end(*checkpoint, state)
        self.engine.say_lost(
            f"The final model could not be saved ({why}), so it will not reach the Hub; {there}. This "
            "process holds the model as long as it lives: put right what the brackets say, and call "
            "trainer.push_to_hub()."
        )

    def learn(self, state: Any, seen: dict[str, Any]) -> None:
        """Gathers the facts of a Trainer.

        Args:
            state: Its `TrainerState`.
            seen: What the Trainer hands to callbacks: model, processing class, data loaders.
        """
        self._state = weakref.ref(state)
        seen = {"trainer": trainer_at_work(self.args)} | seen
        self.facts.learn(self.args, self.engine.hub_model_id, self.engine.target.revision, seen)

    def push_what_was_said(self, state: Any) -> None:
        """Queues the card, with what a script has said about the model after its training."""
        if not self.is_training and self.engine.pushes:
            self._push(Plan("Update the model card", state.global_step), state, self.weights_of(state))

    def say_what_is_missing(self) -> None:
        """Once, of the card that was pushed last: what only a person can add to it."""
        text = self.engine.pushed_card()
        if self._has_said_what_is_missing or text is None:
            return
        self._has_said_what_is_missing = True
        words, keywords = missing(text)
        how = f"trainer.push_to_hub({', '.join(keywords)}) says it. " if keywords else ""
        if words:
            logger.warning(
                "The model card of %s lacks %s, which only you know. %sYour own text in %s is pushed, and stays.",
                self.engine.hub_model_id,
                ", ".join(words),
                how,
                self._readme.path,
            )

    def push_output_dir(self, state: Any, *, model_files: Collection[str], request: Request) -> Future[CommitInfo]:
        """Queues what a script's own `trainer.push_to_hub(...)` asks for.

        Args:
            model_files: Files of `output_dir` that belong to the model, as relative paths.
        """
        self._card_due = False
        plan = plan_output_dir(self.folder, model_files, state.global_step, request.message)
        return self._push(plan, state, self.weights_of(state), request)

    def push_checkpoint(self, folder: str | Path, state: Any) -> Future[CommitInfo]:
        """Queues a checkpoint folder that a script names, under its own name with `all_checkpoints`.

        Raises:
            SettingsError: when it is no checkpoint.
        """
        checkpoint = find_checkpoint(folder, self.folder)
        plan = plan_checkpoint(self.settings.hub_strategy, checkpoint, state.global_step)
        plan = replace(plan, best=_best_saved(state))
        weights = weights_step(checkpoint, state)
        request = Request(self.engine.target_of(plan.step))
        own = self.weights_of(state)
        is_loaded = weights == (state.global_step if own is None else own)
        return self._push(plan, state, weights, request, is_loaded=is_loaded)

    def is_due(self, folder: str | Path, state: Any) -> bool:
        """Whether a folder is the checkpoint of the step that training is at: its own event pushes it."""
        return self.is_training and Path(folder).absolute() == self.folder / checkpoint_name(state.global_step)

    def _remove_branches(self) -> None:
        """Of this training, and of earlier ones that did not come to their end."""
        for branch in self.engine.outbox.noted_branches():
            is_ours = self._other_nodes is not None and branch == self._other_nodes.branch
            self.engine.remove_branch(branch, is_awaited=is_ours)
            self.engine.outbox.forget_branch(branch)

    def _push_save(self, saved: Saved, state: Any) -> None:
        message = self._message(state, saved.step)
        if not saved.folder.is_dir():
            self.engine.lose(message, FileNotFoundError(f"{saved.folder} is not there"))
            return
        self._trainings.save(saved.folder, saved.step)
        plan = plan_save(self.settings.hub_strategy, saved.folder, saved.step, message)
        if plan is None:
            return
        self._look_whether_complete(saved.folder)
        if self._other_nodes is not None:
            plan = with_other_nodes(plan, self._other_nodes)
        plan = replace(plan, urgent=saved.is_urgent, best=_best_saved(state))
        request = Request(self.engine.target_of(saved.step), tags=self.settings.tags_of(saved.step))
        self._push(plan, state, request=request, is_save=True)

    def _look_whether_complete(self, checkpoint: Path) -> None:
        """Says once, while there is time to do something about it, that no training will continue as it was."""
        if not self.settings.pushes_checkpoints or self.args.save_only_model or self._has_said_incomplete:
            return
        why = problem_of(checkpoint, ranks=(), needs=TO_CONTINUE_AS_IT_WAS)
        if why is not None:
            self._has_said_incomplete = True
            logger.warning(
                "%s is pushed as it is, but no training can continue from it as if nothing had happened: %s. If "
                "that is not meant, have the Trainer's class write it; save_only_model is for those who mean it.",
                checkpoint,
                why,
            )

    def _push_card(self, state: Any, message: str) -> None:
        self._card_due = False
        plan = plan_evaluate(self.settings.hub_strategy, state.global_step, message)
        # With a branch for each save there is none for a card alone; `main` waits for the final model.
        if plan is not None and not (self.is_training and self.settings.has_revision_per_step):
            self._push(plan, state, self.weights_of(state))

    def _push(
        self,
        plan: Plan,
        state: Any,
        weights_step: int | None = None,
        request: Request | None = None,
        is_save: bool = False,
        is_loaded: bool = True,
    ) -> Future[CommitInfo]:
        own = state.global_step if weights_step is None else weights_step
        if any(part.slot == MODEL for part in plan.parts):
            self._on_hub = own
        elif self._on_hub not in (None, own):
            weights_step, is_loaded = self._on_hub, False  # the card is of the weights that it will stand beside
        readme = self._readme.bring_up(plan.parts[0].source if plan.parts else self.folder)
        replacements: dict[str, bytes] = {}
        if training_args.has_token(self.args):
            replacements[training_args.NAME] = training_args.without_tokens(self.args)
        card = self.facts.at(state, weights_step, self.is_stopped, is_loaded)
        return self.engine.push(
            plan, card=card, readme=readme, replacements=replacements, request=request, is_save=is_save
        )

    def _message(self, state: Any, step: int | None = None) -> str:
        epoch = state.epoch if self.args.save_strategy == "epoch" else None
        return progress_message(state.global_step if step is None else step, epoch)


def _best_saved(state: Any) -> int | None:
    """Step of the best checkpoint so far. The best step itself need not have been saved: evaluations may come more
    often than saves. It is all that is left where a training goes on without that folder."""
    best = state.best_model_checkpoint
    return state.best_global_step if best is None else checkpoint_step(Path(best).name)
