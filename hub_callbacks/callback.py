"""`HubSyncCallback`: turns the events of a Trainer into calls of the engine. No policy, no files, no network."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from . import redaction, takeover
from .card_facts import CardFacts
from .checkpoint import is_complete, is_marked_incomplete, wait_for_ranks
from .final_model import final_model, is_sharded, weights_step
from .manifest import Target
from .plan import (
    Plan,
    plan_end,
    plan_evaluate,
    plan_output_dir,
    plan_save,
    progress_message,
)
from .settings import Settings, resolve
from .sync import HubSync, Summary

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo
    from transformers import Trainer

logger = logging.getLogger(__name__)


def _on_main_process(event: Callable[..., None]) -> Callable[..., None]:
    """An event that only the world's process zero reacts to, with its cost added up."""

    @functools.wraps(event)
    def handler(
        self: HubSyncCallback,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero:
            return
        started = time.perf_counter()
        waited = self._waited
        event(self, args, state, control, **kwargs)
        if self._sync is not None:
            self._sync.seconds_in_training += time.perf_counter() - started - (self._waited - waited)

    return handler


class HubSyncCallback(TrainerCallback):
    """Pushes a training run to the Hub while it trains, in the background.

    `Trainer(..., callbacks=[HubSyncCallback()])` is all. It takes its settings from `TrainingArguments`
    (`push_to_hub`, `hub_model_id`, `hub_strategy`, `hub_token`, `hub_private_repo`, `hub_always_push`,
    `hub_revision`, `output_dir`); each can be overridden by a keyword here. The callback is the switch:
    `push_to_hub` need not be set.

    Do not use it in a process that must not start another one and has no disk to write to, and not for a
    repository that is not yours to write to: what cannot be pushed waits on disk.

    Args:
        hub_model_id: Repository, `"name"` or `"owner/name"`; default is the name of `output_dir`.
        hub_strategy: `"end"`, `"every_save"`, `"checkpoint"` or `"all_checkpoints"`.
        hub_token: Write token; default is `HF_TOKEN` or the token of `hf auth login`.
        hub_private_repo: Visibility of a repository that has to be created.
        hub_always_push: Push every save, in order, instead of letting newer ones take over.
        hub_revision: Branch; created when missing.
        output_dir: Folder of the run, which holds the outbox.
        on_error: `"warn"` (default) or `"raise"`: what the end of training does about pushes that did not arrive.
        finish_timeout: Seconds that the end of training waits without any progress (default 180).
        max_pending_bytes: Bytes that waiting pushes of deleted checkpoints may keep on disk.
        card_template: Path of a Jinja template to make the model card from.

    Raises:
        SettingsError: when the Trainer is made, for a value that cannot work.

    Example:

    ```python
    callback = HubSyncCallback(hub_strategy="checkpoint")
    trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
    trainer.train()
    callback.last_push.result().commit_url
    ```
    """

    def __init__(
        self,
        *,
        hub_model_id: str | None = None,
        hub_strategy: str | None = None,
        hub_token: str | None = None,
        hub_private_repo: bool | None = None,
        hub_always_push: bool | None = None,
        hub_revision: str | None = None,
        output_dir: str | None = None,
        on_error: str | None = None,
        finish_timeout: float | None = None,
        max_pending_bytes: int | None = None,
        card_template: str | None = None,
    ) -> None:
        self._overrides = {
            "hub_model_id": hub_model_id,
            "hub_strategy": hub_strategy,
            "hub_token": hub_token,
            "hub_private_repo": hub_private_repo,
            "hub_always_push": hub_always_push,
            "hub_revision": hub_revision,
            "output_dir": output_dir,
            "on_error": on_error,
            "finish_timeout": finish_timeout,
            "max_pending_bytes": max_pending_bytes,
            "card_template": card_template,
        }
        self._sync: HubSync | None = None
        self._engines: dict[Settings, HubSync] = {}
        self._saved: set[int] = set()
        self._incomplete: int | None = None
        self._began = 0.0
        self._facts = CardFacts()
        self._card_due = False
        self._is_training = False
        self._has_seen_evaluation = False
        self._waited = 0.0
        takeover.install()

    @property
    def sync(self) -> HubSync:
        """The engine; there is one as soon as a Trainer was made, on its main process."""
        if self._sync is None:
            raise RuntimeError(
                "this HubSyncCallback has not been given to a Trainer (or is not on its main process)"
            )
        return self._sync

    @property
    def settings(self) -> Settings:
        return self.sync.settings

    @property
    def pushes(self) -> list[Future[CommitInfo]]:
        """Every push of the run, in order, as the commit to be."""
        return self._sync.pushes if self._sync else []

    @property
    def last_push(self) -> Future[CommitInfo] | None:
        return self._sync.last_push if self._sync else None

    def summary(self) -> Summary:
        """Commits, bytes, time on the training thread, what waits, where to look."""
        return self.sync.summary()

    @_on_main_process
    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.prepare(args)

    @_on_main_process
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.prepare(args)
        self._is_training = True
        self._has_seen_evaluation = False
        self._saved.clear()
        self._incomplete = None
        self._began = time.time()
        self._facts = CardFacts(self.settings.template, self._facts.options)
        self._learn(args, state, kwargs)
        if state.is_hyper_param_search:
            logger.warning("The trials of a hyperparameter search are not pushed; a train() after it is.")

    @_on_main_process
    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._incomplete is not None:
            self._push_checkpoint(self._incomplete, args, state)
        self._push_card_if_due(args, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """On every rank: a sharded model can only be saved by all of them, so its last step has to be a save."""
        if is_sharded(args) and (state.global_step >= state.max_steps or control.should_training_stop):
            control.should_save = True

    @_on_main_process
    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Whether a save follows in this step is known only when it comes, or the next step does.
        self._card_due = True
        if not self._has_seen_evaluation and self._facts.setup:
            self._has_seen_evaluation = True
            self._learn(args, state, kwargs)  # the Trainer has made the loader of the evaluation only now
        if not self._is_training and self._facts.setup:
            # Only after a training of this Trainer: a script that only evaluates has no card to write.
            self._push_card_if_due(args, state, f"Evaluation, step {state.global_step}")

    @_on_main_process
    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_hyper_param_search:
            self._card_due = False
            if self._incomplete not in (None, state.global_step):
                self._push_checkpoint(self._incomplete, args, state, whatever_is_there=True)
            self._push_checkpoint(state.global_step, args, state)

    @_on_main_process
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._is_training = False
        self._card_due = False
        if state.is_hyper_param_search:
            return
        if self._incomplete is not None:
            wait_for_ranks(self._checkpoint(self._incomplete), args)
            self._push_checkpoint(self._incomplete, args, state, whatever_is_there=True)
        elif self._has_unannounced_checkpoint(state.global_step):
            self._push_checkpoint(state.global_step, args, state)
        with final_model(args, state, self._saved, self.sync.outbox, **kwargs) as found:
            if found is None:
                logger.warning(
                    "The final model is sharded and no checkpoint holds it, so it was not pushed. "
                    "Set save_strategy, so that there is one."
                )
            else:
                folder, step = found
                self._push(plan_end(folder, state.global_step), args, state, weights_step=step)
        if args.world_size == 1:
            self.finish(show=not args.disable_tqdm)
        else:
            # The other ranks may enter a collective next; the wait is when the script ends.
            self.sync.wait_at_exit = True

    def prepare(self, args: TrainingArguments) -> HubSync:
        """The engine for these arguments: that of an earlier Trainer if they are the same, else a new one."""
        settings = resolve(args, self._overrides)
        engine = self._engines.get(settings)
        if engine is None or engine.is_closed:
            engine = self._engines[settings] = HubSync(settings)
            engine.start()
        self._sync = engine
        return engine

    def know(self, trainer: Trainer) -> CardFacts:
        """The facts for the card, gathered from the Trainer itself where no training has told them."""
        if not self._facts.setup:
            self._facts = CardFacts(self.settings.template)
            seen = {
                "model": trainer.model,
                "processing_class": trainer.processing_class,
                "train_dataloader": trainer.train_dataset,
                "eval_dataloader": trainer.eval_dataset,
            }
            self._learn(trainer.args, trainer.state, seen)
        return self._facts

    def push_output_dir(
        self,
        args: TrainingArguments,
        state: TrainerState,
        *,
        model_files: Collection[str],
        message: str,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> Future[CommitInfo]:
        """Queues what a script's own `trainer.push_to_hub(...)` asks for.

        Args:
            model_files: Files of `output_dir` that belong to the model, as relative paths.
            token, revision, private: In place of those in the settings.
        """
        if token is not None:
            self.sync.use_token(token)
        target = replace(
            self.sync.target,
            revision=revision or self.sync.target.revision,
            private=self.sync.target.private if private is None else private,
        )
        plan = plan_output_dir(self.settings.output_dir, model_files, state.global_step, message)
        return self._push(plan, args, state, weights_step=weights_step(args, state), target=target)

    def finish(self, show: bool = False) -> Summary:
        """Waits for what is under way, and says what did not arrive; see `HubSync.finish`."""
        started = time.perf_counter()
        try:
            return self.sync.finish(show)
        finally:
            self._waited += time.perf_counter() - started

    def close(self) -> None:
        """Waits as `finish` does and ends the background process; done by itself when the interpreter ends."""
        for engine in self._engines.values():
            engine.close()

    def _checkpoint(self, step: int) -> Path:
        return self.settings.output_dir / f"checkpoint-{step}"

    def _has_unannounced_checkpoint(self, step: int) -> bool:
        """Whether there is a checkpoint of this training that no save was announced for.

        The Trainer writes one on SIGTERM (`enable_jit_checkpoint`).
        """
        written = self._checkpoint(step) / "trainer_state.json"
        return step not in self._saved and written.is_file() and written.stat().st_mtime >= self._began

    def _push_checkpoint(
        self, step: int, args: TrainingArguments, state: TrainerState, whatever_is_there: bool = False
    ) -> None:
        """Queues a checkpoint folder that is complete; one that is not is looked at again later."""
        checkpoint = self._checkpoint(step)
        self._incomplete = None
        if not checkpoint.is_dir():
            return
        if not is_complete(checkpoint, args):
            if not whatever_is_there or is_marked_incomplete(checkpoint):
                self._incomplete = step
                return
            logger.warning("%s lacks files of other processes; it is pushed as it is here.", checkpoint)
        self._saved.add(step)
        plan = plan_save(self.settings.hub_strategy, checkpoint, step, self._message(args, state, step))
        if plan is not None:
            self._push(plan, args, state)

    def _push_card_if_due(self, args: TrainingArguments, state: TrainerState, message: str | None = None) -> None:
        if not self._card_due:
            return
        self._card_due = False
        message = message or self._message(args, state)
        plan = plan_evaluate(self.settings.hub_strategy, state.global_step, message)
        if plan is not None and not state.is_hyper_param_search:
            self._push(plan, args, state)

    def _push(
        self,
        plan: Plan,
        args: TrainingArguments,
        state: TrainerState,
        weights_step: int | None = None,
        target: Target | None = None,
    ) -> Future[CommitInfo]:
        readme = self.settings.output_dir / "README.md"
        if not readme.is_file() and plan.parts:
            readme = plan.parts[0].source / "README.md"
        replacements: dict[str, bytes] = {}
        if redaction.has_token(args):
            replacements[redaction.TRAINING_ARGS] = redaction.training_args_without_tokens(args)
        card = self._facts.at(state, weights_step)
        return self.sync.push(plan, card=card, readme=readme, replacements=replacements, target=target)

    def _learn(self, args: TrainingArguments, state: TrainerState, seen: dict[str, Any]) -> None:
        self._facts.learn(args, state, self.sync.hub_model_id, self.settings.hub_revision, seen)

    @staticmethod
    def _message(args: TrainingArguments, state: TrainerState, step: int | None = None) -> str:
        unit = "epoch" if str(getattr(args.save_strategy, "value", args.save_strategy)) == "epoch" else "step"
        return progress_message(unit, state.global_step if step is None else step, state.epoch)  # type: ignore[arg-type]

    # A Trainer may copy or pickle its callbacks (hyperparameter search does); processes do not travel.
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sync": None, "_engines": {}}


def find(trainer: Any) -> HubSyncCallback | None:
    """The callback among those of a Trainer, if there is one."""
    handler = getattr(trainer, "callback_handler", None)
    found = (callback for callback in getattr(handler, "callbacks", ()) if isinstance(callback, HubSyncCallback))
    return next(found, None)


__all__ = ["HubSyncCallback", "find"]
