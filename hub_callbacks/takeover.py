"""Routes the Trainer's own Hub methods to the engine, for a Trainer that has a `HubSyncCallback`.

With `push_to_hub=True` the Trainer calls `init_hf_repo()`, which needs a network, before any callback hears
of it; it pushes at each save; and scripts call `trainer.push_to_hub(**kwargs)` at the end. For a Trainer
with the callback these calls do the same by way of the outbox. All other Trainers are left as they are.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card_facts import CardFacts
from .final_model import weights_step
from .local_card import write_librarys
from .plan import list_files, stays_here

if TYPE_CHECKING:
    from .run import Run

ROUTED = ("init_hf_repo", "create_model_card", "_push_from_checkpoint", "_finish_current_push", "push_to_hub")
"""Methods of `transformers.Trainer` that are routed; their signatures are watched by a test."""


CARD_PARAMETERS = (
    "language",
    "license",
    "tags",
    "model_name",
    "finetuned_from",
    "tasks",
    "dataset_tags",
    "dataset",
    "dataset_args",
)
"""Parameters of `Trainer.create_model_card`, in order."""


def install() -> None:
    """Puts the routes into `transformers.Trainer`, once."""
    from transformers import Trainer

    for name in ROUTED:
        original = getattr(Trainer, name)
        if not hasattr(original, "_hub_callbacks_original"):
            setattr(Trainer, name, _route(original, globals()[f"_{name.lstrip('_')}"]))


def _route(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        from .callback import find

        callback = find(self)
        if callback is None:
            return original(self, *args, **kwargs)
        return ours(callback, self, *args, **kwargs)

    method._hub_callbacks_original = original  # type: ignore[attr-defined]
    return method


def _init_hf_repo(callback: Any, trainer: Any, token: str | None = None, private: bool | None = None) -> None:
    """The repository is created by the pusher; `on_init_end` queues that."""
    trainer.push_in_progress = None
    # Subclasses override these (sentence-transformers does); what stands on the instance goes first.
    for name in ("_push_from_checkpoint", "_finish_current_push"):
        setattr(trainer, name, _on_instance(weakref.ref(trainer), name))
    if trainer.is_world_process_zero():
        trainer.hub_model_id = callback.run_of(trainer.args).sync.hub_model_id


def _on_instance(trainer: weakref.ref[Any], name: str) -> Callable[..., Any]:
    """The Trainer's routed method, whatever its class has made of it; that of the class without the callback."""

    def method(*args: Any, **kwargs: Any) -> Any:
        from transformers import Trainer

        from .callback import find

        this = trainer()
        return getattr(type(this) if find(this) is None else Trainer, name)(this, *args, **kwargs)

    return method


def _create_model_card(callback: Any, trainer: Any, *args: Any, **options: Any) -> Any:
    """Writes README.md into `output_dir` at once, with a person's text in it kept.

    Returns:
        The `huggingface_hub.ModelCard`; the Trainer's own returns nothing.
    """
    if not trainer.is_world_process_zero():
        return None
    run = callback.run_of(trainer.args)
    facts = _facts(run, trainer)
    facts.say(dict(zip(CARD_PARAMETERS, args, strict=False)) | options)
    return facts.write(run.folder, trainer.state, weights_step(trainer.args, trainer.state))


def _facts(run: Run, trainer: Any) -> CardFacts:
    """The facts for the card, gathered from the Trainer itself where no training has told them."""
    if not run.facts.setup:
        seen = {
            "model": trainer.model,
            "processing_class": trainer.processing_class,
            "train_dataloader": trainer.train_dataset,
            "eval_dataloader": trainer.eval_dataset,
        }
        run.learn(trainer.state, seen)
    return run.facts


def _push_from_checkpoint(callback: Any, trainer: Any, checkpoint_folder: str) -> None:
    """`on_save`, which follows, pushes what there is to push."""


def _finish_current_push(callback: Any, trainer: Any) -> None:
    """`on_train_end` has waited already, where waiting is right; by now the repository's owner is known."""
    if trainer.is_world_process_zero():
        trainer.hub_model_id = callback.run_of(trainer.args).sync.hub_model_id


def _push_to_hub(
    callback: Any,
    trainer: Any,
    commit_message: str | None = "End of training",
    blocking: bool = True,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    **card: Any,
) -> Any:
    """The script's final push: model, card and what is new in `output_dir`, in one commit."""
    if hasattr(trainer.callback_handler, "on_push_begin"):  # since transformers 5
        trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    run = callback.run_of(trainer.args) if trainer.is_world_process_zero() else None
    before = _times(run.folder) if run else {}
    trainer.save_model(_internal_call=True)
    if run is None:
        return None
    write_librarys(trainer, card, run.sync.hub_model_id)
    written = {file for file, time in _times(run.folder).items() if before.get(file) != time}
    tags = card.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    _facts(run, trainer).say(card | {"tags": [*tags, *(getattr(trainer.model, "model_tags", None) or [])]})
    future = run.push_output_dir(
        trainer.state,
        model_files=written,
        message=commit_message or "End of training",
        token=token,
        revision=revision,
        private=private,
    )
    if not blocking:
        return future
    run.sync.finish(show=not trainer.args.disable_tqdm)
    trainer.hub_model_id = run.sync.hub_model_id
    return future.result() if future.exception() is None else None


def _times(folder: Path) -> dict[str, int]:
    """File of `output_dir` that a push may take → when it was written, in nanoseconds."""
    return {file: (folder / file).stat().st_mtime_ns for file in list_files(folder, stays_here)}
