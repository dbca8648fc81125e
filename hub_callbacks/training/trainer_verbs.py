"""How the Hub's verbs are carried out for a Trainer: what `takeover` routes a stock Trainer to, and
`HubSyncTrainerMixin` offers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..checkpoints.completeness import path_of
from ..checkpoints.files import list_files
from ..outbox.push import Target
from .card_facts import CardFacts
from .plan import stays_here
from .readme import write_librarys
from .request import check_text, describes, read_request
from .run import Run

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, ModelCard

    from .summary import PushInProgress


class Runs(Protocol):
    """What of a `HubSyncCallback` is needed here: the runs of the Trainers that it was given to."""

    def known_run(self, args: Any) -> Run | None:
        """The run of a Trainer with these arguments, if it was made already."""

    def run_of(self, args: Any) -> Run:
        """The run of a Trainer with these arguments, as they are now."""

    def place_of(self, args: Any) -> Target:
        """Where it pushes to, as each of its processes can tell."""


def run_on_main(callback: Runs, trainer: Any) -> Run | None:
    """The run, on the world's main process."""
    return callback.run_of(trainer.args) if trainer.is_world_process_zero() else None


def repository_of(callback: Runs, trainer: Any, assigned: str | None) -> str | None:
    """The repository of a Trainer, with its owner as soon as that is known.

    With `push_to_hub=True` the stock Trainer has made the repository in its `__init__`, and scripts go on with it
    at once (`create_branch` ...): before and after a training, the Hub's first answer is waited for.

    Args:
        assigned: What the Trainer or a script has called it last.
    """
    run = callback.known_run(trainer.args)
    if run is None or not run.may_be_of(trainer.state):
        return assigned
    if trainer.args.push_to_hub and not trainer.is_in_train:
        run.engine.wait_until_connected()
    return run.engine.hub_model_id


def name_repository(callback: Runs, trainer: Any, name: str | None) -> None:
    """A script calls the repository of a Trainer something else: the next push goes there."""
    run = callback.known_run(trainer.args)
    if name is not None and (run is None or name not in run.names):
        trainer.args.hub_model_id = name


def push_in_progress(callback: Runs, trainer: Any, assigned: Any) -> PushInProgress | None:
    """What is queued or under way, with `is_done()` and `wait_until_done()`; `None` when nothing is."""
    run = callback.known_run(trainer.args)
    return None if run is None else run.engine.push_in_progress or None


def connect(callback: Runs, trainer: Any, token: str | None = None) -> None:
    """Has the repository created, or connected to; the pusher does that, now or when there is a network.

    Raises:
        SettingsError: when the token is none.
    """
    check_text("token", token)
    run = run_on_main(callback, trainer)
    if run is not None:
        run.engine.connect(token)
        trainer.hub_model_id = run.engine.hub_model_id


def write_card(callback: Runs, trainer: Any, options: Mapping[str, Any]) -> ModelCard | None:
    """Writes README.md into `output_dir` at once, with a person's text in it kept.

    Args:
        options: One of `OPTIONS` → its value.

    Returns:
        The card; `None` on other processes than the main one. The Trainer's own returns nothing.
    """
    run = run_on_main(callback, trainer)
    if run is None:
        return None
    facts = facts_of(run, trainer)
    facts.say(options)
    return facts.write(run.folder, trainer.state, run.weights_of(trainer.state), run.is_stopped)


def facts_of(run: Run, trainer: Any) -> CardFacts:
    """The facts for the card, gathered from the Trainer itself where no training of it has told them."""
    if not run.knows(trainer.state):
        seen = {
            "trainer": trainer,
            "model": trainer.model,
            "processing_class": trainer.processing_class,
            "train_dataloader": trainer.train_dataset,
            "eval_dataloader": trainer.eval_dataset,
            "optimizer": trainer.optimizer,
            "lr_scheduler": trainer.lr_scheduler,
        }
        run.learn(trainer.state, seen)
    return run.facts


def push_output_dir(
    callback: Runs, trainer: Any, said: Mapping[str, Any], to_library: Mapping[str, Any] | None = None
) -> CommitInfo | Future[CommitInfo] | None:
    """Pushes model, card and what is new in `output_dir`, in one commit.

    Args:
        said: Parameter of `push_to_hub` → its value, for those that were given.
        to_library: What is said to the `create_model_card` of the Trainer's class, where it has one of its own;
            default is the `card` among what was said.

    Raises:
        SettingsError: on every process, for a value that cannot work; nothing was saved or queued then.
        PushNotSent: with `on_error="raise"`, when it has not arrived.
    """
    run = run_on_main(callback, trainer)
    request = read_request(callback.place_of(trainer.args), said)
    if hasattr(trainer.callback_handler, "on_push_begin"):  # since transformers 5
        trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    if run is not None:
        run.will_save()
    before = _times(run.folder) if run else {}
    trainer.save_model(_internal_call=True)  # on every process: for a sharded model it is an operation of all
    if run is None:
        return None
    write_librarys(trainer, request.card if to_library is None else to_library, run.engine.hub_model_id)
    if request.token is not None:
        run.engine.use_token(request.token)
    written = {file for file, time in _times(run.folder).items() if before.get(file) != time}
    facts = facts_of(run, trainer)
    facts.say(request.card)
    facts.add_tags(filter(describes, request.tags))
    future = run.push_output_dir(trainer.state, model_files=written, request=request)
    if not request.waits or (trainer.is_in_train and run.is_training):
        return future
    run.engine.finish(show=not trainer.args.disable_tqdm)
    trainer.hub_model_id = run.engine.hub_model_id
    run.say_what_is_missing()
    return future.result() if future.exception() is None else None


def push_from_checkpoint(callback: Runs, trainer: Any, checkpoint_folder: str | Path) -> Future[CommitInfo] | None:
    """Queues a checkpoint folder. The Trainer calls this for each save, too; there, `on_save` follows and pushes.

    Raises:
        SettingsError: when it is no checkpoint.
    """
    path_of(checkpoint_folder)
    run = run_on_main(callback, trainer)
    if run is None or run.is_due(checkpoint_folder, trainer.state) or trainer.state.is_hyper_param_search:
        return None
    facts_of(run, trainer)
    return run.push_checkpoint(checkpoint_folder, trainer.state)


def finish_current_push(callback: Runs, trainer: Any) -> None:
    """Waits for what is under way, and says what has not arrived.

    The Trainer calls this at the end of `train()`, too; `on_train_end` has waited already, where waiting is right.

    Raises:
        PushNotSent: with `on_error="raise"`, when something has not arrived.
    """
    run = callback.known_run(trainer.args)
    if run is None or not trainer.is_world_process_zero():
        return
    if run.is_ending:
        run.is_ending = False
    elif run.engine.push_in_progress:
        run.engine.finish(show=not trainer.args.disable_tqdm)
    trainer.hub_model_id = run.engine.hub_model_id


def _times(folder: Path) -> dict[str, int]:
    """File of `output_dir` that a push may take → when it was written, in nanoseconds."""
    times = {}
    for file in list_files(folder, stays_here):
        with contextlib.suppress(OSError):  # gone meanwhile
            times[file] = (folder / file).stat().st_mtime_ns
    return times
