"""What the end pushes is what the Trainer would have written, or what there is of it, and that is said."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback, PushNotSent
from models import Sentences, arguments, classifier, language_model, same_weights
from runs import Witness, download, on_hub, root_of, titles


class HeadOnly(Trainer):
    """Saves what was trained, in its own way."""

    def save_model(self, output_dir=None, _internal_call=False):
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.model.classifier.state_dict()), folder / "head.safetensors")


class NoWeights(Trainer):
    """Its checkpoints are what it continues from, and no model."""

    def _save_checkpoint(self, model, trial):
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text(str(self.state.global_step))


class Sentence(Sentences):
    def __getitem__(self, index):
        ids = self.ids[index]
        return {"input_ids": ids, "labels": ids}


class Spoils(TrainerCallback):
    """Leaves a generation config that no model can be saved with."""

    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step == 3:
            model.generation_config.temperature = 0.5
            model.generation_config.do_sample = False
            model.generation_config.top_p = 0.5


def train(kind, output_dir, *callbacks, model=None, data=None, keywords=None, **changes):
    callback = HubSyncCallback(**(keywords or {}))
    trainer = kind(
        model or classifier(),
        arguments(output_dir, **({"max_steps": 4, "hub_strategy": "end"} | changes)),
        train_dataset=data or Sentences(),
        callbacks=[callback, *callbacks],
    )
    try:
        trainer.train()
    finally:
        callback.close()
    return trainer, callback


def test_a_trainer_that_saves_in_its_own_way_saves_the_final_model_so(hub, repo, tmp_path):
    trainer, _ = train(HeadOnly, tmp_path / repo, save_strategy="no")
    files = on_hub(tmp_path, repo)
    assert sorted(files) == ["head.safetensors"]
    head = load_file(download(tmp_path, repo) / "head.safetensors")
    assert torch.equal(head["weight"], trainer.model.classifier.weight)


def test_a_checkpoint_without_weights_is_not_taken_for_the_final_model(hub, repo, tmp_path):
    trainer, _ = train(NoWeights, tmp_path / repo)
    again = BertForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)


def test_where_the_final_model_cannot_be_saved_the_newest_checkpoint_goes_and_that_is_said(
    hub, api, repo, tmp_path, caplog
):
    caplog.set_level(logging.WARNING)
    saved = Witness()

    class SavesOnce(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = state.global_step == 2

    _, callback = train(
        Trainer,
        tmp_path / repo,
        *(SavesOnce(), Spoils(), saved),
        model=language_model(),
        data=Sentence(),
        save_strategy="no",
    )
    assert titles(api, repo) == ["End of training"]
    assert on_hub(tmp_path, repo) == root_of(saved.checkpoints[2])
    (said,) = [record.message for record in caplog.records if "could not be saved" in record.message]
    assert "checkpoint-2" in said and "temperature" in said and "push_to_hub()" in said
    assert "bug" not in caplog.text and "Traceback" not in caplog.text
    assert callback.summary().lost == 1


def test_where_there_is_no_checkpoint_either_nothing_goes_and_that_is_said(hub, repo, tmp_path, caplog):
    with pytest.raises(PushNotSent):
        train(
            Trainer,
            tmp_path / repo,
            Spoils(),
            model=language_model(),
            data=Sentence(),
            save_strategy="no",
            keywords={"on_error": "raise"},
        )
    assert "could not be saved" in caplog.text and "bug" not in caplog.text


@pytest.mark.parametrize("lacks", ["trainer_state.json", "optimizer.pt", "optimizer and random states"])
def test_a_checkpoint_that_cannot_be_continued_from_is_said_to_be_once(hub, repo, tmp_path, caplog, lacks):
    class Lacks(Trainer):
        def _save_checkpoint(self, model, trial):
            super()._save_checkpoint(model, trial)
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            for file in ("optimizer.pt", "rng_state.pth") if " and " in lacks else (lacks,):
                (folder / file).unlink()

    train(Lacks, tmp_path / repo, hub_strategy="checkpoint", save_steps=2)
    (said,) = [record.message for record in caplog.records if "continue" in record.message]
    assert "checkpoint-2" in said and lacks.partition(".")[0].partition(" ")[0] in said
    caplog.clear()
    train(Trainer, tmp_path / f"{repo}-2", hub_strategy="checkpoint", save_only_model=True)
    assert "continue" not in caplog.text  # which was asked for


def test_no_token_is_on_the_disk_while_the_final_model_is_saved(hub, repo, tmp_path):
    """A kill leaves what is there for a day."""
    written = []

    class Looks(Trainer):
        def save_model(self, output_dir=None, _internal_call=False):
            super().save_model(output_dir, _internal_call=_internal_call)
            written.append((Path(output_dir) / "training_args.bin").read_bytes())

    args = arguments(tmp_path / repo, max_steps=2, save_strategy="no", hub_token=hub.token)
    callback = HubSyncCallback()
    Looks(classifier(), args, train_dataset=Sentences(), callbacks=[callback]).train()
    callback.close()
    assert len(written) == 1 and hub.token.encode() not in written[0] and args.hub_token == hub.token
    assert "training_args.bin" in on_hub(tmp_path, repo)


def test_a_save_model_that_takes_no_word_of_the_trainers_own_is_not_asked(hub, repo, tmp_path):
    class Plain(Trainer):
        def save_model(self, output_dir=None):
            raise AssertionError("it may push")

    callback = HubSyncCallback()
    args = arguments(tmp_path / repo, max_steps=2, save_strategy="no")
    Plain(classifier(), args, train_dataset=Sentences(), callbacks=[callback]).train()
    callback.close()
    assert "model.safetensors" in on_hub(tmp_path, repo)


def test_a_save_model_that_writes_elsewhere_is_said_to_have_saved_nothing(hub, repo, tmp_path, caplog):
    class Elsewhere(Trainer):
        def save_model(self, output_dir=None, _internal_call=False):
            super().save_model(tmp_path / "elsewhere", _internal_call=True)

    callback = HubSyncCallback()
    args = arguments(tmp_path / repo, max_steps=2, save_strategy="no")
    Elsewhere(classifier(), args, train_dataset=Sentences(), callbacks=[callback]).train()
    callback.close()
    assert "Elsewhere.save_model wrote nothing to its output_dir" in caplog.text and callback.pushes == []


def test_a_save_model_that_makes_a_card_makes_no_other_run(hub, repo, tmp_path):
    class Cards(Trainer):
        def save_model(self, output_dir=None, _internal_call=False):
            super().save_model(output_dir, _internal_call=_internal_call)
            self.create_model_card()

    callback = HubSyncCallback()
    args = arguments(tmp_path / repo, max_steps=2, save_strategy="no", hub_token=hub.token)
    trainer = Cards(classifier(), args, train_dataset=Sentences(), callbacks=[callback])
    run = callback.run
    trainer.train()
    assert callback.run is run
    callback.close()
