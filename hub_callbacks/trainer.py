"""The Hub's verbs as methods of a Trainer, for Trainers of one's own."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from .callback import HubSyncCallback, find
from .training import verbs
from .training.card_facts import CARD_PARAMETERS
from .training.plan import END_OF_TRAINING
from .training.request import check_card_options
from .training.takeover import with_callback

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, ModelCard

    from .training.run import Run
    from .training.summary import PushInProgress

Names = str | list[str] | None


class HubSyncTrainerMixin:
    """Gives a Trainer the Hub's verbs, over the engine of a `HubSyncCallback`.

    It stands before the Trainer among the bases: `class MyTrainer(HubSyncTrainerMixin, Seq2SeqTrainer)`. The
    callback is added when none is among the `callbacks`; to set it up, pass one.

    Each method is called on every process, as those of the Trainer are; only the world's main one pushes.

    Attributes:
        hub_model_id: The repository; with its owner as soon as the Hub has said it.

    Example:

    ```python
    trainer = HubSyncTrainer(model, args, train_dataset=data)
    trainer.train()
    trainer.push_to_hub(commit_message="Release", tags=["v1.0.0"])
    ```
    """

    args: Any
    _given_hub_model_id: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        args, kwargs = with_callback(super().__init__, args, kwargs)
        super().__init__(*args, **kwargs)  # object's for mypy alone

    @property
    def hub_sync(self) -> HubSyncCallback:
        """The callback that the verbs go through."""
        callback = find(self)
        if callback is None:
            raise RuntimeError("the HubSyncCallback of this Trainer was removed, and its Hub methods need it")
        return callback

    @property
    def hub_model_id(self) -> str | None:
        run = self._run
        return self._given_hub_model_id if run is None else run.sync.hub_model_id

    @hub_model_id.setter
    def hub_model_id(self, value: str | None) -> None:
        self._given_hub_model_id = value

    @property
    def _push_in_progress(self) -> PushInProgress | None:
        """What is queued or under way, with `is_done()` and `wait_until_done()`; `None` when nothing is."""
        run = self._run
        return None if run is None else run.sync.push_in_progress or None

    @_push_in_progress.setter
    def _push_in_progress(self, value: Any) -> None:
        """The engine knows better: what is assigned is forgotten."""

    push_in_progress = _push_in_progress

    @property
    def _run(self) -> Run | None:
        callback = find(self)
        return None if callback is None else callback.known_run(self.args)

    def init_hf_repo(self, token: str | None = None) -> None:
        """Creates the repository, or connects to it, and finds out whether it can be written to.

        Returns at once: the pusher does it, now or when there is a network, and what it finds is logged.

        Args:
            token: Write token, used from now on; default is `hub_token`, then huggingface_hub's own look-up.

        Raises:
            SettingsError: when the token is none.
        """
        verbs.init_hf_repo(self.hub_sync, self, token)

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
        """Writes README.md into `output_dir` at once; what a person wrote in it stays. Later pushes say the same.

        Args:
            language: ISO 639 codes of the languages, such as `"en"`.
            license: Identifier from https://huggingface.co/docs/hub/repositories-licenses.
            tags: Tags of the model, on the card alone.
            model_name: Title of the card.
            finetuned_from: Repository of the model that this one was made from.
            tasks: Task identifiers, such as `"text-classification"`; the first becomes the pipeline tag.
            dataset_tags: Repositories of the datasets on the Hub.
            dataset: The datasets' names for people; as many as `dataset_tags` where both are given.
            dataset_args: What was passed to load each dataset, such as its configuration.
            dataset_language: ISO 639 codes of the languages of the datasets.

        Returns:
            The card; `None` on other processes than the main one.

        Raises:
            SettingsError: for a value that is neither a name nor a list of names.
        """
        said: tuple[Any, ...] = (language, license, tags, model_name, finetuned_from, tasks)
        said += (dataset_tags, dataset, dataset_args, dataset_language)
        options = dict(zip(CARD_PARAMETERS, said, strict=True))
        check_card_options(options)
        return verbs.create_model_card(self.hub_sync, self, options)

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
        """Saves the model and pushes it with its card and what is new in `output_dir`, in one commit.

        While `train()` runs it returns at once, whatever is asked for: training does not wait for the network.

        Args:
            commit_message: Title of the commit.
            commit_description: Text below the title.
            tags: Listed on the card; and each becomes a Git tag on this commit, moved there if it exists, so that
                `from_pretrained(..., revision="v1.0.0")` works. A newer push never takes over one with tags.
            private: Visibility if the repository has to be created. One that is there keeps its own.
            token: Write token; used from now on, for what waits, too.
            create_repo: Whether a missing repository is created; if not, the push is refused and waits.
            revision: Branch, created when it is missing. What the Hub knows as a tag or commit is refused.
            delete_existing_repo: Whether the repository is deleted first, with all its branches and tags, and made
                anew. Only if it belongs to the token's user or organizations; and only once this push is safe on
                disk.
            run_as_future: Whether a `Future` is returned at once.
            blocking: The Trainer's name for the opposite of it.
            card: What is said about the model, as for `create_model_card`.

        Returns:
            The commit, or its `Future`; `None` where it has not arrived, and on other processes than the main one.

        Raises:
            SettingsError: for a value that cannot work; nothing was saved or queued then.
            PushNotSent: with `on_error="raise"`, when it has not arrived.
        """
        return verbs.push_to_hub(
            self.hub_sync,
            self,
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

    def push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        """Pushes a checkpoint folder: its model to the root, and itself as `hub_strategy` says.

        With `all_checkpoints` it arrives under its own name, with `checkpoint` as `last-checkpoint`. Returns at
        once. The checkpoint that the Trainer is saving is left to the callback.

        Args:
            checkpoint_folder: Absolute, or relative to the working directory or to `output_dir`.

        Returns:
            The commit to be.

        Raises:
            SettingsError: when the folder is no checkpoint, or not a complete one.
        """
        return self._push_from_checkpoint(checkpoint_folder)

    def _push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        return verbs.push_from_checkpoint(self.hub_sync, self, checkpoint_folder)

    def finish_current_push(self) -> None:
        """Waits for what is under way while there is progress, and says what has not arrived.

        Raises:
            PushNotSent: with `on_error="raise"`, when something has not arrived.
        """
        self._finish_current_push()

    def _finish_current_push(self) -> None:
        verbs.finish_current_push(self.hub_sync, self)

    def create_accelerator_and_postprocess(self) -> None:
        """The Trainer's own. The card then shows its processes, precision and sharding."""
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        run = self._run
        if run is not None and run.facts.setup:
            run.facts.look_around(self.args)


class HubSyncTrainer(HubSyncTrainerMixin, Trainer):
    """`transformers.Trainer` with the Hub's verbs; see `HubSyncTrainerMixin`."""
