"""The Hub's verbs for a training loop without a Trainer.

What a Trainer tells its callbacks, a loop tells here: `describe` what is trained, `log` what was measured. Both
serve the model card alone.

>>> sync = HubSync(output_dir="run", hub_model_id="me/model", hub_strategy="all_checkpoints")  # doctest: +SKIP
>>> sync.init_hf_repo()  # doctest: +SKIP
>>> future = sync.push_from_checkpoint("run/checkpoint-10")  # doctest: +SKIP
>>> sync.push_to_hub(commit_message="Release", tags=["v1.0.0"])  # doctest: +SKIP
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoints.completeness import find_checkpoint, path_of
from .checkpoints.files import is_weights, list_files
from .errors import SettingsError
from .settings import Settings, resolve
from .training.card_facts import CardFacts, accelerator_state, read_template
from .training.engine import Engine
from .training.final_model import weights_step
from .training.plan import Plan, plan_checkpoint, plan_output_dir, stays_here
from .training.request import Request, describes, read_request
from .training.verbs import HubVerbs

if TYPE_CHECKING:
    from accelerate import Accelerator
    from huggingface_hub import CommitInfo, ModelCard

    from .training.summary import PushInProgress, Summary


@dataclass
class _LoopState:
    """What a `TrainerState` would say."""

    global_step: int = 0
    epoch: float | None = None
    log_history: list[dict[str, Any]] = field(default_factory=list)
    is_over: bool = False


class HubSync(HubVerbs):
    """Pushes what a training loop writes, in the background. No process waits for another.

    Args:
        settings: What is pushed where; or, instead, its fields as keywords: `HubSync(output_dir="run")`.

    Attributes:
        engine: What queues the pushes and follows them.

    Raises:
        SettingsError: for a value that cannot work.

    Not for use from several threads at once.
    """

    def __init__(self, settings: Settings | None = None, **keywords: Any) -> None:
        if settings is not None and keywords:
            raise SettingsError(
                f"settings are given, so {', '.join(keywords)} cannot be: put them into the settings."
            )
        self.settings = settings or resolve(overrides=keywords)
        self._facts = CardFacts(read_template(self.settings.card_template), self.settings.eval_results)
        self._state = _LoopState()
        self._seen: dict[str, Any] = {}
        self.engine = Engine(self.settings)

    @property
    def hub_model_id(self) -> str:
        """The repository; with its owner as soon as the Hub has said it."""
        return self.engine.hub_model_id

    @property
    def world_size(self) -> int | None:
        """Number of processes that train, noted with each checkpoint; set it where it is known."""
        return self.engine.world_size

    @world_size.setter
    def world_size(self, value: int | None) -> None:
        self.engine.world_size = value

    @property
    def pushes(self) -> list[Future[CommitInfo]]:
        """Every push, in order, as the commit to be."""
        return self.engine.pushes

    @property
    def last_push(self) -> Future[CommitInfo] | None:
        return self.engine.last_push

    @property
    def push_in_progress(self) -> PushInProgress:
        """The pushes that are queued or under way; false when there are none."""
        return self.engine.push_in_progress

    @property
    def _push_in_progress(self) -> PushInProgress | None:
        """As `push_in_progress`; `None` when nothing is."""
        return self.push_in_progress or None

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that pushes: the one that an `Accelerator` calls the main one."""
        state = accelerator_state()
        return os.environ.get("RANK", "0") == "0" if state is None else bool(state.is_main_process)

    def summary(self) -> Summary:
        """What has been pushed so far, and what has not."""
        return self.engine.summary()

    def wait(self, timeout: float | None = None, show: bool = False) -> bool:
        """Waits for the pushes as long as there is progress; see `Engine.wait`."""
        return self.engine.wait(timeout, show)

    def finish(self, show: bool = False) -> Summary:
        """Waits for the pushes, says what became of them, and lets go of those that did not arrive.

        Raises:
            PushNotSent: with `on_error="raise"`, when something has not arrived.
        """
        return self.engine.finish(show)

    def close(self, grace: float | None = None) -> None:
        """Ends the background process, if nobody else uses it; see `Engine.close`."""
        self.engine.close(grace)

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
        self._state.is_over = "train_runtime" in values or (self._state.is_over and "loss" not in values)
        self._state.log_history.append({**values, "step": step})

    def _connect(self, token: str | None) -> None:
        if self.is_main_process:
            self.engine.connect(token)

    def _write_card(self, options: Mapping[str, Any]) -> ModelCard | None:
        if not self.is_main_process:
            return None
        self._learn_once()
        self._facts.say(options)
        self.settings.output_dir.mkdir(parents=True, exist_ok=True)
        return self._facts.write(self.settings.output_dir, self._state)

    def _push_output_dir(self, said: Mapping[str, Any]) -> CommitInfo | Future[CommitInfo] | None:
        request = read_request(self.engine.target, said)
        if not self.is_main_process:
            return None
        if request.token is not None:
            self.engine.use_token(request.token)
        self._learn_once()
        self._facts.say(request.card)
        self._facts.add_tags(filter(describes, request.tags))
        folder = self.settings.output_dir
        weights = {file for file in list_files(folder, stays_here) if is_weights(file)}
        plan = plan_output_dir(folder, weights, self._state.global_step, request.message)
        future = self._push(plan, request=request)
        if not request.waits:
            return future
        self.finish()
        return future.result() if future.exception() is None else None

    def _push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        path_of(checkpoint_folder)
        if not self.is_main_process:
            return None
        checkpoint = find_checkpoint(checkpoint_folder, self.settings.output_dir)
        self._learn_once()
        plan = plan_checkpoint(self.settings.hub_strategy, checkpoint, self._state.global_step)
        weights = weights_step(checkpoint, self._state)
        is_newest = weights == self._state.global_step
        return self._push(
            plan, weights, Request(self.engine.target_of(plan.step)), is_save=True, is_loaded=is_newest
        )

    def _finish_current_push(self) -> None:
        if self.push_in_progress:
            self.finish()

    def _push(
        self,
        plan: Plan,
        weights_step: int | None = None,
        request: Request | None = None,
        is_save: bool = False,
        is_loaded: bool = True,
    ) -> Future[CommitInfo]:
        readme = self.settings.output_dir / "README.md"
        if not readme.is_file() and plan.parts:
            readme = plan.parts[0].source / "README.md"
        started = time.perf_counter()
        card = self._facts.at(self._state, weights_step, is_loaded=is_loaded)
        future = self.engine.push(plan, card=card, readme=readme, request=request, is_save=is_save)
        self.engine.seconds_in_training += time.perf_counter() - started
        return future

    def _learn_once(self) -> None:
        if not self._facts.setup:
            self._learn()

    def _learn(self) -> None:
        self._facts.learn(None, self.hub_model_id, self.engine.target.revision, self._seen)
