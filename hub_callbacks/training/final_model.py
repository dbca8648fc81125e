"""Where the final weights are when training ends: in a checkpoint, most of the time; else they are saved."""

from __future__ import annotations

import contextlib
import inspect
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ..card.progress import UNKNOWN_STEP
from ..checkpoints.completeness import TO_BE_ONE, problem_of, step_of
from ..checkpoints.files import checkpoint_name, is_trainers_weights, list_files
from ..outbox.queue import Outbox
from . import training_args
from .liveness import trainer_at_work


class ModelNotSaved(Exception):
    """No checkpoint holds the final model, and it cannot be saved. Says why."""


def is_sharded(args: Any) -> bool:
    """Whether no single process holds the whole model, so that saving it is an operation of all of them."""
    return bool(args.fsdp or args.deepspeed)


def loaded_checkpoint(args: Any, state: Any) -> Path | None:
    """The checkpoint that the Trainer has loaded at the end of training, if it has.

    It looks under the very path that `best_model_checkpoint` names, which may be one of another machine; where
    nothing is there to load, it goes on with the last weights. The best step itself need not have been saved.

    Args:
        args: The `TrainingArguments`.
        state: The `TrainerState` when training has just ended.
    """
    best = state.best_model_checkpoint if args.load_best_model_at_end else None
    return Path(best) if best is not None and any(map(is_trainers_weights, list_files(Path(best)))) else None


def weights_step(checkpoint: Path | None, state: Any) -> int:
    """The step of the weights that come from a checkpoint, as far as it says; else the one that training is at."""
    if checkpoint is None:
        return int(state.global_step)
    step = step_of(checkpoint)
    return UNKNOWN_STEP if step is None else step


def checkpoint_with_final_weights(
    args: Any, state: Any, output_dir: Path, saved: Collection[int]
) -> tuple[Path, int] | None:
    """The checkpoint folder that holds what the model holds now, and its step; `None` when there is none.

    Args:
        args: The `TrainingArguments`.
        state: The `TrainerState` at the end of training, after `load_best_model_at_end` did its work.
        output_dir: Its folder, absolute: the script may have changed its working directory.
        saved: Steps that this training has saved; a folder of that name may be an earlier training's.
    """
    loaded = loaded_checkpoint(args, state)
    if loaded is not None:
        return (loaded.absolute(), weights_step(loaded, state)) if _is_complete(loaded) else None
    folder = output_dir / checkpoint_name(state.global_step)
    is_ours = state.global_step in saved
    return (folder, state.global_step) if is_ours and _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    return problem_of(folder, needs=TO_BE_ONE) is None


def newest_of(output_dir: Path, saved: Collection[int]) -> tuple[Path, int] | None:
    """The newest checkpoint with weights that a training has saved, and its step."""
    folders = ((output_dir / checkpoint_name(step), step) for step in sorted(saved, reverse=True))
    return next((found for found in folders if _is_complete(found[0])), None)


@contextlib.contextmanager
def final_model(
    args: Any, state: Any, output_dir: Path, saved: Collection[int], outbox: Outbox, seen: dict[str, Any]
) -> Iterator[tuple[Path, int] | None]:
    """A folder with the final model, loadable, and the step that its weights belong to.

    It is saved only where no checkpoint holds it; the copy is gone at the end of the `with` block. `None` for a
    sharded model that no checkpoint holds: one process cannot save it.

    Args:
        seen: What the Trainer hands to callbacks: `model`, `processing_class`, `train_dataloader`.

    Raises:
        ModelNotSaved: it has to be saved, and cannot be.
    """
    found = checkpoint_with_final_weights(args, state, output_dir, saved)
    if found is not None or is_sharded(args):
        yield found
        return
    outbox.staging.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="final-", dir=outbox.staging))
    try:
        try:
            _save(args, folder, seen)
        except Exception as error:  # whatever the Trainer's, the model's or the tokenizer's own saving raises
            raise ModelNotSaved(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
        yield folder, weights_step(loaded_checkpoint(args, state), state)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save(args: Any, folder: Path, seen: dict[str, Any]) -> None:
    """As the Trainer itself does, which its class may do in its own way. With several processes that could be an
    operation of all of them: there the model and the tokenizer save themselves."""
    trainer = trainer_at_work(args) if args.world_size == 1 else None
    if trainer is not None and _takes_internal_call(trainer.save_model):
        with training_args.hiding_tokens(args):
            trainer.save_model(str(folder), _internal_call=True)
        if not set(list_files(folder)) - {training_args.NAME}:
            raise FileNotFoundError(f"{type(trainer).__name__}.save_model wrote nothing to its output_dir")
        return
    save_model(seen["model"], folder)
    processing_class = seen.get("processing_class") or _tokenizer_of_collator(seen.get("train_dataloader"))
    if processing_class is not None:
        processing_class.save_pretrained(folder)
    (folder / training_args.NAME).write_bytes(training_args.without_tokens(args))


def _takes_internal_call(save: Callable[..., Any]) -> bool:
    """Whether a Trainer's `save_model` can be told not to push; one that cannot is not asked."""
    parameters = inspect.signature(save).parameters
    return "_internal_call" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def save_model(model: Any, folder: Path) -> None:
    """Writes the weights as the Trainer does: `save_pretrained` where there is one, else `model.safetensors`."""
    while not hasattr(model, "save_pretrained") and hasattr(model, "module"):
        model = model.module
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return
    from safetensors.torch import save_model as save_tensors

    save_tensors(model, str(folder / "model.safetensors"), metadata={"format": "pt"})


def _tokenizer_of_collator(loader: Any) -> Any:
    """The tokenizer that the Trainer saves where it was given no processing class."""
    collator = getattr(loader, "collate_fn", None)
    collator = getattr(collator, "data_collator", collator)  # the Trainer wraps one that drops columns
    return getattr(collator, "tokenizer", None)
