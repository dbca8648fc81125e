"""Routes the Trainer's own Hub methods to the engine, for a Trainer that has a `HubSyncCallback`.

With `push_to_hub=True` the Trainer calls `init_hf_repo()`, which needs a network, before any callback hears
of it; it pushes at each save; and scripts call `trainer.push_to_hub(**kwargs)` at the end. For a Trainer
with the callback these calls do the same by way of the outbox. All other Trainers are left as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .final_model import weights_step

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
    trainer._push_from_checkpoint = functools.partial(_push_from_checkpoint, callback, trainer)
    trainer._finish_current_push = functools.partial(_finish_current_push, callback, trainer)
    if trainer.is_world_process_zero():
        trainer.hub_model_id = callback.prepare(trainer.args).hub_model_id


def _create_model_card(callback: Any, trainer: Any, *args: Any, **options: Any) -> Any:
    """Writes README.md into `output_dir` at once, with a person's text in it kept.

    Returns:
        The `huggingface_hub.ModelCard`; the Trainer's own returns nothing.
    """
    if not trainer.is_world_process_zero():
        return None
    output_dir = callback.prepare(trainer.args).settings.output_dir
    facts = callback.know(trainer)
    facts.say(dict(zip(CARD_PARAMETERS, args, strict=False)) | options)
    return facts.write(output_dir, trainer.state, weights_step(trainer.args, trainer.state))


def _push_from_checkpoint(callback: Any, trainer: Any, checkpoint_folder: str) -> None:
    """`on_save`, which follows, pushes what there is to push."""


def _finish_current_push(callback: Any, trainer: Any) -> None:
    """`on_train_end` has waited already, where waiting is right; by now the repository's owner is known."""
    if trainer.is_world_process_zero():
        trainer.hub_model_id = callback.sync.hub_model_id


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
    output_dir = callback.prepare(trainer.args).settings.output_dir if trainer.is_world_process_zero() else None
    before = _times(output_dir)
    trainer.save_model(_internal_call=True)
    if output_dir is None:
        return None
    written = {file for file, time in _times(output_dir).items() if before.get(file) != time}
    tags = card.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    callback.know(trainer).say(card | {"tags": [*tags, *(getattr(trainer.model, "model_tags", None) or [])]})
    future = callback.push_output_dir(
        trainer.args,
        trainer.state,
        model_files=written,
        message=commit_message or "End of training",
        token=token,
        revision=revision,
        private=private,
    )
    if not blocking:
        return future
    callback.finish(show=not trainer.args.disable_tqdm)
    trainer.hub_model_id = callback.sync.hub_model_id
    return future.result() if future.exception() is None else None


def _times(folder: Path | None) -> dict[str, int]:
    if folder is None or not folder.is_dir():
        return {}
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }
