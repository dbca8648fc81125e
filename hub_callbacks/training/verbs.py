"""The Hub's verbs: their parameters, and what these mean, whoever has them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .plan import END_OF_TRAINING
from .request import check_card_options, check_text

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, ModelCard

Names = str | list[str] | None


class HubVerbs:
    """What `HubSync` and `HubSyncTrainerMixin` have in common.

    Each process of a training may call each verb; only the main one pushes.
    """

    def _connect(self, token: str | None) -> None:
        raise NotImplementedError

    def _write_card(self, options: Mapping[str, Any]) -> ModelCard | None:
        """
        Args:
            options: Parameter of `create_model_card` → its value.
        """
        raise NotImplementedError

    def _push_output_dir(self, said: Mapping[str, Any]) -> CommitInfo | Future[CommitInfo] | None:
        """
        Args:
            said: Parameter of `push_to_hub` → its value.
        """
        raise NotImplementedError

    def _push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        raise NotImplementedError

    def _finish_current_push(self) -> None:
        raise NotImplementedError

    def init_hf_repo(self, token: str | None = None) -> None:
        """Creates the repository, or connects to it, and finds out whether it can be written to.

        Returns at once: the pusher does it, now or when there is a network, and what it finds is logged.

        Args:
            token: Write token, used from now on; default is `hub_token`, then huggingface_hub's own look-up.

        Raises:
            SettingsError: when the token is none.
        """
        check_text("token", token)
        self._connect(token)

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
        options = _without_self(locals())
        check_card_options(options)
        return self._write_card(options)

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
        """Pushes the model with its card and what is new in `output_dir`, in one commit.

        A Trainer saves its model first, and returns at once while `train()` runs, whatever is asked for. A loop
        without a Trainer pushes what is in `output_dir` and waits, unless `run_as_future` is set: in the middle of
        a training, set it. Folders `checkpoint-*` and names that start with `_` or `.` stay.

        Args:
            commit_message: Title of the commit.
            commit_description: Text below the title.
            tags: Each becomes a Git tag on this commit, moved there if it exists, so that
                `from_pretrained(..., revision="v1.0.0")` works. It is listed on the card, too, unless it is a
                version or a step. A newer push never takes over one with tags.
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
        return self._push_output_dir(_without_self(locals()))

    def push_from_checkpoint(self, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
        """Pushes a checkpoint folder: its model to the root, and itself as `hub_strategy` says.

        With `all_checkpoints` it arrives under its own name, with `checkpoint` as `last-checkpoint`. Returns at
        once. The checkpoint that a Trainer is saving is left to the callback.

        Args:
            checkpoint_folder: Absolute, or relative to the working directory or to `output_dir`.

        Returns:
            The commit to be; `None` on other processes than the main one.

        Raises:
            SettingsError: when the folder is no checkpoint, or not a complete one.
        """
        return self._push_from_checkpoint(checkpoint_folder)

    def finish_current_push(self) -> None:
        """Waits for what is under way while there is progress, and says what has not arrived.

        Raises:
            PushNotSent: with `on_error="raise"`, when something has not arrived.
        """
        self._finish_current_push()


def _without_self(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name != "self"}
