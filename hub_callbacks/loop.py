"""The Hub's verbs for a training loop without a Trainer; `HubSync` has them.

What a Trainer tells its callbacks, a loop tells here: `describe` what is trained, `log` what was measured. Both
serve the model card alone.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoints.completeness import find_checkpoint, path_of, step_of
from .outbox.push import Target
from .settings import Settings
from .training.card_facts import CARD_PARAMETERS, CardFacts, accelerator_state
from .training.plan import (
    END_OF_TRAINING,
    Plan,
    is_weights,
    list_files,
    plan_checkpoint,
    plan_output_dir,
    stays_here,
)
from .training.request import Request, check_card_options, check_token, read_request

if TYPE_CHECKING:
    from accelerate import Accelerator
    from huggingface_hub import CommitInfo, ModelCard

    from .training.summary import PushInProgress, Summary

Names = str | list[str] | None


@dataclass
class _State:
    """What a `TrainerState` would say."""

    global_step: int = 0
    epoch: float | None = None
    log_history: list[dict[str, Any]] = field(default_factory=list)


class LoopVerbs(ABC):
    """
    Each process of a training may call each verb; only the main one pushes, and no process waits for another.

    Args:
        settings: What is pushed where.
    """

    hub_model_id: str
    target: Target
    seconds_in_training: float

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._facts = CardFacts(settings.template)
        self._state = _State()
        self._seen: dict[str, Any] = {}

    @abstractmethod
    def connect(self, token: str | None = None) -> None: ...

    @abstractmethod
    def target_of(self, step: int) -> Target: ...

    @abstractmethod
    def use_token(self, token: str) -> None: ...

    @abstractmethod
    def push(
        self,
        plan: Plan,
        *,
        card: Mapping[str, Any] | None = None,
        readme: Path | None = None,
        request: Request | None = None,
    ) -> Future[CommitInfo]: ...

    @abstractmethod
    def finish(self, show: bool = False) -> Summary: ...

    @property
    @abstractmethod
    def push_in_progress(self) -> PushInProgress: ...

    @property
    def _push_in_progress(self) -> PushInProgress | None:
        """As `push_in_progress`; `None` when nothing is."""
        return self.push_in_progress or None

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that pushes: the one that an `Accelerator` calls the main one."""
        state = accelerator_state()
        return os.environ.get("RANK", "0") == "0" if state is None else bool(state.is_main_process)

    def create_accelerator_and_postprocess(self, **options: Any) -> Accelerator:
        """Makes an `accelerate.Accelerator`. From then on its main process is the one that pushes, and the card
        shows its processes, precision and sharding.

        Args:
            options: As for `Accelerator`.
        """
        from accelerate import Accelerator

        accelerator = Accelerator(**options)
        self._facts.setup.clear()
        return accelerator

    def describe(
        self,
        *,
        model: Any = None,
        processing_class: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
    ) -> None:
        """Says what is trained on what, for the model card.

        Args:
            model: The model, unwrapped.
            processing_class: Tokenizer, image processor, feature extractor or processor.
            train_dataset: Dataset or data loader.
            eval_dataset: The same, or a dict of names and datasets.
        """
        self._seen = {
            "model": model,
            "processing_class": processing_class,
            "train_dataloader": train_dataset,
            "eval_dataloader": eval_dataset,
        }
        self._learn()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Says what was measured, for the model card; nothing is pushed.

        Args:
            values: Name → number. A `loss` is one of training; names of an evaluation start with `eval_`. An
                `epoch` may stand with either. A `train_runtime`, in seconds, says that training is over.
            step: Optimizer step, counted from 1.
        """
        self._state.global_step = step
        self._state.epoch = values.get("epoch", self._state.epoch)
        self._state.log_history.append({**values, "step": step})

    def init_hf_repo(self, token: str | None = None) -> None:
        """Creates the repository, or connects to it, and finds out whether it can be written to.

        Returns at once: the pusher does it, now or when there is a network, and what it finds is logged.

        Args:
            token: Write token, used from now on; default is `hub_token`, then huggingface_hub's own look-up.

        Raises:
            SettingsError: when the token is none.
        """
        check_token(token)
        if self.is_main_process:
            self.connect(token)

    def create_model_card(
        self,
        language: Names = None,
        license: Names = None,
        tags: Names = None,
        model_name: str | None = None,
        finetuned_from: Names = None,
        tasks: Names = None,
        dataset_tags: Names = None,
        dataset: Names = None,
        dataset_args: Names = None,
        dataset_language: Names = None,
    ) -> ModelCard | None:
        """Writes README.md into `output_dir` at once; see `HubSyncTrainerMixin.create_model_card`."""
        said: tuple[Any, ...] = (language, license, tags, model_name, finetuned_from, tasks)
        said += (dataset_tags, dataset, dataset_args, dataset_language)
        options = dict(zip(CARD_PARAMETERS, said, strict=True))
        check_card_options(options)
        if not self.is_main_process:
            return None
        self._learn_once()
        self._facts.say(options)
        self.settings.output_dir.mkdir(parents=True, exist_ok=True)
        return self._facts.write(self.settings.output_dir, self._state)

    def push_to_hub(
        self,
        commit_message: str | None = END_OF_TRAINING,
        commit_description: str | None = None,
        tags: Names = None,
        private: bool | None = None,
        token: str | None = None,
        create_repo: bool = True,
        revision: str | None = None,
        delete_existing_repo: bool = False,
        run_as_future: bool = False,
        *,
        blocking: bool = True,
        **card: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Pushes what is in `output_dir` with the card, in one commit; see `HubSyncTrainerMixin.push_to_hub`.

        Folders `checkpoint-*` and names that start with `_` or `.` stay. It waits, unless `run_as_future` is set:
        in the middle of a training, set it.
        """
        request = read_request(
            self.target,
            commit_message=commit_message,
            commit_description=commit_description,
            tags=tags,
            private=private,
            token=token,
            create_repo=create_repo,
            revision=revision,
            delete_existing_repo=delete_existing_repo,
            run_as_future=run_as_future,
            blocking=blocking,
            card=card,
        )
        if not self.is_main_process:
            return None
        if request.token is not None:
            self.use_token(request.token)
        self._learn_once()
        self._facts.say(request.card)
        self._facts.add_tags(request.tags)
        folder = self.settings.output_dir
        weights = {file for file in list_files(folder, stays_here) if is_weights(file)}
        plan = plan_output_dir(folder, weights, self._state.global_step, request.message)
        future = self._push(plan, request=request)
        if not request.waits:
            return future
        self.finish()
        return future.result() if future.exception() is None else None

    def push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        """Pushes a checkpoint folder, such as `accelerator.save_state` writes; see
        `HubSyncTrainerMixin.push_from_checkpoint`."""
        return self._push_from_checkpoint(checkpoint_folder)

    def _push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        path_of(checkpoint_folder)
        if not self.is_main_process:
            return None
        checkpoint = find_checkpoint(checkpoint_folder, self.settings.output_dir)
        step = step_of(checkpoint)
        self._learn_once()
        plan = plan_checkpoint(self.settings.hub_strategy, checkpoint, step, self._state.global_step)
        return self._push(plan, weights_step=step, request=Request(self.target_of(plan.step)))

    def finish_current_push(self) -> None:
        """Waits for what is under way while there is progress, and says what has not arrived.

        Raises:
            PushNotSent: with `on_error="raise"`, when something has not arrived.
        """
        self._finish_current_push()

    def _finish_current_push(self) -> None:
        if self.push_in_progress:
            self.finish()

    def _push(
        self, plan: Plan, weights_step: int | None = None, request: Request | None = None
    ) -> Future[CommitInfo]:
        readme = self.settings.output_dir / "README.md"
        if not readme.is_file() and plan.parts:
            readme = plan.parts[0].source / "README.md"
        started = time.perf_counter()
        future = self.push(plan, card=self._facts.at(self._state, weights_step), readme=readme, request=request)
        self.seconds_in_training += time.perf_counter() - started
        return future

    def _learn_once(self) -> None:
        if not self._facts.setup:
            self._learn()

    def _learn(self) -> None:
        self._facts.learn(None, self._state, self.hub_model_id, self.target.revision, self._seen)
