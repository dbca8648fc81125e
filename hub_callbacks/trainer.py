"""The Hub's verbs as methods of a Trainer, for Trainers of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from .callback import HubSyncCallback, find
from .training import trainer_verbs
from .training.takeover import with_callback
from .training.verbs import HubVerbs

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, ModelCard

    from .training.run import Run


class HubSyncTrainerMixin(HubVerbs):
    """Gives a Trainer the Hub's verbs, over the engine of a `HubSyncCallback`.

    It stands before the Trainer among the bases: `class MyTrainer(HubSyncTrainerMixin, Seq2SeqTrainer)`. The
    callback is added when none is among the `callbacks`; to set it up, pass one.

    Each method is called on every process, as those of the Trainer are; only the world's main one pushes.

    Attributes:
        hub_model_id: The repository; with its owner as soon as the Hub has said it.
        push_in_progress: What is queued or under way, with `is_done()` and `wait_until_done()`; `None` when
            nothing is.

    Example:

    ```python
    trainer = HubSyncTrainer(model, args, train_dataset=data)
    trainer.train()
    trainer.push_to_hub(commit_message="Release", tags=["v1.0.0"])
    ```
    """

    args: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        args, kwargs = with_callback(HubSyncCallback, super().__init__, args, kwargs)
        super().__init__(*args, **kwargs)  # object's for mypy alone

    @property
    def hub_sync(self) -> HubSyncCallback:
        """The callback that the verbs go through."""
        callback = find(self)
        if callback is None:
            raise RuntimeError("the HubSyncCallback of this Trainer was removed, and its Hub methods need it")
        return callback

    @property
    def _run(self) -> Run | None:
        callback = find(self)
        return None if callback is None else callback.known_run(self.args)

    def _connect(self, token: str | None) -> None:
        trainer_verbs.connect(self.hub_sync, self, token)

    def _write_card(self, options: Mapping[str, Any]) -> ModelCard | None:
        return trainer_verbs.write_card(self.hub_sync, self, options)

    def _push_output_dir(self, said: Mapping[str, Any]) -> CommitInfo | Future[CommitInfo] | None:
        return trainer_verbs.push_output_dir(self.hub_sync, self, said)

    def _push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        return trainer_verbs.push_from_checkpoint(self.hub_sync, self, checkpoint_folder)

    def _finish_current_push(self) -> None:
        trainer_verbs.finish_current_push(self.hub_sync, self)

    def create_accelerator_and_postprocess(self) -> None:
        """The Trainer's own. The card then shows its processes, precision and sharding."""
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        run = self._run
        if run is not None and run.facts.setup:
            run.facts.look_around(self.args)


class HubSyncTrainer(HubSyncTrainerMixin, Trainer):
    """`transformers.Trainer` with the Hub's verbs; see `HubSyncTrainerMixin`."""
