"""What other callbacks do in an event counts, wherever a script has put the one that pushes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import CallbackHandler

from hub_callbacks import HubSyncCallback
from hub_callbacks.training import event_order
from models import Sentences, arguments, classifier
from runs import Witness, digests, left_by, on_hub


class Later(TrainerCallback):
    """Adds a file to each checkpoint and writes over a large one, in place."""

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / "more").mkdir()
        (folder / "more" / "table.bin").write_bytes(bytes(200_000))
        content = torch.load(folder / "optimizer.pt")
        torch.save(content | {"mine": torch.ones(50_000)}, folder / "optimizer.pt")


class Fails(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        raise RuntimeError("mine")


def trainer_of(output_dir, *callbacks, kind=Trainer, **changes):
    changes = {"max_steps": 4, "save_steps": 2, "hub_strategy": "all_checkpoints"} | changes
    return kind(
        classifier(), arguments(output_dir, **changes), train_dataset=Sentences(), callbacks=list(callbacks)
    )


@pytest.mark.parametrize("is_added", [False, True], ids=["given", "added"])
def test_what_a_later_callback_writes_into_a_checkpoint_is_pushed_with_it(hub, repo, tmp_path, is_added):
    callback, saved = HubSyncCallback(on_error="raise"), Witness()
    trainer = trainer_of(tmp_path / repo, callback, *([] if is_added else [Later(), saved]))
    if is_added:
        trainer.add_callback(Later())
        trainer.add_callback(saved)
    trainer.train()
    callback.close()
    assert "more/table.bin" in saved.checkpoints[4]
    assert on_hub(tmp_path, repo) == left_by("all_checkpoints", saved)
    assert callback.summary().lost == 0


class Asks(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step == 2


class WritesCard(Trainer):
    """Writes a card before each save, as TRL's do."""

    def _save_checkpoint(self, *args, **kwargs):
        (Path(self.args.output_dir) / "README.md").write_text(
            "---\ntags:\n- generated_from_trainer\n---\n\n# Card\n"
        )
        super()._save_checkpoint(*args, **kwargs)


class Person(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            (Path(args.output_dir) / "README.md").write_text("# Mine\n\nI wrote this.\n")


def test_a_save_that_a_later_callback_asks_for_keeps_what_a_person_wrote_before_it(hub, repo, tmp_path):
    callback = HubSyncCallback()
    callbacks = [callback, Asks(), Person()]
    trainer_of(tmp_path / repo, *callbacks, kind=WritesCard, max_steps=3, save_strategy="no").train()
    callback.close()
    assert "I wrote this." in (tmp_path / repo / "README.md").read_text()


@pytest.mark.parametrize("is_before", [False, True], ids=["after", "before"])
def test_a_save_is_pushed_though_another_callback_fails_at_it(hub, repo, tmp_path, is_before):
    callback = HubSyncCallback()
    callbacks = [Fails(), callback] if is_before else [callback, Fails()]
    with pytest.raises(RuntimeError, match="mine"):
        trainer_of(tmp_path / repo, *callbacks).train()
    callback.close()
    checkpoint = digests(tmp_path / repo / "checkpoint-2", "checkpoint-2/")
    assert checkpoint and on_hub(tmp_path, repo).items() >= checkpoint.items()


def test_the_order_of_all_others_stays_and_it_is_put_in_once(hub, tmp_path):
    trainer = trainer_of(tmp_path, HubSyncCallback(), Later(), Fails())
    kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
    trainer.callback_handler.on_step_end(trainer.args, trainer.state, trainer.control)
    now = [type(callback) for callback in trainer.callback_handler.callbacks]
    kinds.remove(HubSyncCallback)
    assert now == [*kinds, HubSyncCallback]
    wrapped = CallbackHandler.call_event
    event_order.install(HubSyncCallback)
    assert CallbackHandler.call_event is wrapped
    original = wrapped._hub_callbacks_original
    assert list(inspect.signature(original).parameters) == ["self", "event", "args", "state", "control", "kwargs"]
