"""The callback with the Trainers, models and save strategies that people use."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    BertForSequenceClassification,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
)

from hub_callbacks import HubSyncCallback
from models import Sentences, arguments, classifier, same_weights, tokenizer
from runs import below, commit_titled, digests, download, on_hub, root_of, titles, train


def test_the_model_loads_back_with_its_tokenizer(hub, api, repo, tmp_path):
    trainer, _, _ = train(tmp_path, repo, hub_strategy="end")
    again = BertForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)
    assert (download(tmp_path, repo) / "tokenizer.json").is_file()


def test_a_sharded_model_arrives_whole_and_its_old_shards_go(hub, api, repo, tmp_path, monkeypatch):
    def sharded(size: str) -> BertForSequenceClassification:
        model = classifier(hidden=64)
        save = model.save_pretrained
        monkeypatch.setattr(model, "save_pretrained", lambda *a, **k: save(*a, **k | {"max_shard_size": size}))
        return model

    _, _, saved = train(tmp_path, repo, sharded("50KB"), hub_strategy="every_save")
    shards = {path for path in on_hub(tmp_path, repo) if "-of-" in path}
    assert len(shards) > 2 and on_hub(tmp_path, repo) == root_of(saved.checkpoints[8])
    trainer, _, saved = train(tmp_path, repo, sharded("100KB"), hub_strategy="every_save")
    assert on_hub(tmp_path, repo) == root_of(saved.checkpoints[8])
    again = BertForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache2")
    assert same_weights(again, trainer.model)


def test_seq2seq_trainer(hub, api, repo, tmp_path):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    rows = [{"input_ids": [3, 4, 5], "attention_mask": [1, 1, 1], "labels": [6, 7]} for _ in range(8)]
    callback = HubSyncCallback(hub_strategy="every_save")
    trainer = Seq2SeqTrainer(
        T5ForConditionalGeneration(config),
        Seq2SeqTrainingArguments(
            str(tmp_path / repo),
            max_steps=4,
            save_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            predict_with_generate=True,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer(),
        callbacks=[callback],
    )
    trainer.train()
    callback.close()
    again = T5ForConditionalGeneration.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)
    assert titles(api, repo)[-1] == "End of training"


def test_no_save_at_all_still_pushes_the_final_model(hub, api, repo, tmp_path):
    trainer, _, saved = train(tmp_path, repo, hub_strategy="every_save", save_strategy="no")
    assert not saved.checkpoints
    assert titles(api, repo) == ["End of training"]
    again = BertForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)
    assert {"tokenizer.json", "training_args.bin", "config.json"} <= on_hub(tmp_path, repo).keys()


def test_a_plain_module_without_config(hub, api, repo, tmp_path):
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(64, 8)
            self.out = torch.nn.Linear(8, 2)

        def forward(self, input_ids, attention_mask=None, labels=None):
            logits = self.out(self.embed(input_ids).mean(1))
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    for strategy in ("no", "steps"):
        name = f"{repo}-{strategy}"
        trainer, _, _ = train(tmp_path, name, Plain(), hub_strategy="every_save", save_strategy=strategy)
        from safetensors.torch import load_file

        weights = load_file(download(tmp_path, name) / "model.safetensors")
        assert all(torch.equal(weights[key], value) for key, value in trainer.model.state_dict().items())


def test_the_best_model_is_what_the_end_leaves(hub, api, repo, tmp_path):
    trainer, _, saved = train(
        tmp_path,
        repo,
        hub_strategy="checkpoint",
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # so that an early step is the best
        save_total_limit=1,
        learning_rate=1e-2,
    )
    best = trainer.state.best_global_step
    assert best < 8
    files = on_hub(tmp_path, repo)
    assert files.items() >= root_of(saved.checkpoints[best]).items()
    # The newest checkpoint was deleted by the Trainer before the end; it has arrived all the same.
    assert not (tmp_path / repo / "checkpoint-8").exists()
    assert files.items() >= below("last-checkpoint", saved.checkpoints[8]).items()


def test_save_strategy_best(hub, api, repo, tmp_path):
    _, _, saved = train(
        tmp_path,
        repo,
        hub_strategy="every_save",
        save_strategy="best",
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="eval_loss",
        hub_always_push=True,
    )
    saves = [f"Training in progress, step {step}" for step in saved.checkpoints]
    # Each evaluation is a commit, with or without a save; what the last one found goes along with the end.
    evaluated = [f"Training in progress, step {step}" for step in (2, 4, 6, 8)]
    assert titles(api, repo) in ([*evaluated[:-1], "End of training"], [*evaluated, "End of training"])
    assert set(saves) <= set(titles(api, repo))
    last = max(saved.checkpoints)
    commit = commit_titled(api, repo, f"Training in progress, step {last}")
    assert on_hub(tmp_path, repo, commit) == root_of(saved.checkpoints[last])


def test_an_evaluation_without_a_save_pushes_the_card_alone(hub, api, repo, tmp_path):
    train(
        tmp_path,
        repo,
        hub_strategy="every_save",
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=4,
        hub_always_push=True,
    )
    assert titles(api, repo) == ["Training in progress, step 4", "End of training"]
    files = api.list_repo_files(f"local/{repo}", revision=commit_titled(api, repo, "Training in progress, step 4"))
    assert "README.md" in files and "model.safetensors" not in files


def test_an_evaluation_and_a_save_in_one_step_are_one_commit(hub, api, repo, tmp_path):
    train(
        tmp_path,
        repo,
        hub_strategy="every_save",
        save_steps=4,
        eval_strategy="steps",
        eval_steps=4,
        hub_always_push=True,
    )
    assert titles(api, repo) == [
        "Training in progress, step 4",
        "Training in progress, step 8",
        "End of training",
    ]


def test_whatever_a_trainer_subclass_writes_into_its_checkpoints_arrives(hub, api, repo, tmp_path):
    class Writes(Trainer):
        def _save(self, output_dir=None, state_dict=None):
            super()._save(output_dir, state_dict)
            folder = Path(output_dir or self.args.output_dir)
            (folder / "1_Pooling").mkdir(exist_ok=True)
            (folder / "1_Pooling" / "config.json").write_text(json.dumps({"step": self.state.global_step}))
            (folder / "modeling_own.py").write_text("# custom code\n")

    train(tmp_path, repo, trainer_class=Writes, hub_strategy="checkpoint")
    files = on_hub(tmp_path, repo)
    assert {"1_Pooling/config.json", "modeling_own.py", "last-checkpoint/1_Pooling/config.json"} <= files.keys()
    assert "optimizer.pt" not in files and "last-checkpoint/optimizer.pt" in files


def test_a_second_training_with_the_same_trainer_goes_on_pushing(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_strategy="end")
    trainer = Trainer(classifier(), arguments(tmp_path / repo), train_dataset=Sentences(), callbacks=[callback])
    trainer.train()
    trainer.train()
    callback.close()
    assert titles(api, repo) == ["End of training", "End of training"]
    assert on_hub(tmp_path, repo) == root_of(digests(tmp_path / repo / "checkpoint-8"))


def test_a_checkpoint_of_an_earlier_run_is_not_taken_for_the_final_model(hub, api, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="end")
    trainer, _, _ = train(tmp_path, repo, classifier(seed=1), hub_strategy="end", save_strategy="no")
    again = BertForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)


def test_a_checkpoint_that_is_marked_incomplete_waits_until_it_is_complete(hub, api, repo, tmp_path):
    class Marks(TrainerCallback):
        """Leaves a marker in the first checkpoint, and takes it away two steps later."""

        marker = tmp_path / repo / "checkpoint-2" / "checkpoint-is-incomplete.txt"

        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 2:
                self.marker.touch()

        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = state.global_step == 2
            if state.global_step == 4:
                assert not callback.pushes
                self.marker.unlink()

    callback = HubSyncCallback(hub_strategy="all_checkpoints", hub_always_push=True)
    trainer = Trainer(
        classifier(),
        arguments(tmp_path / repo, save_steps=100),
        train_dataset=Sentences(),
        callbacks=[Marks(), callback],
    )
    trainer.train()
    callback.close()
    assert titles(api, repo) == ["Training in progress, step 2", "End of training"]
    assert on_hub(tmp_path, repo).keys() >= {"checkpoint-2/model.safetensors", "checkpoint-2/optimizer.pt"}
    assert not any("incomplete" in path for path in on_hub(tmp_path, repo))


def test_an_emergency_checkpoint_is_pushed_though_no_save_was_announced(hub, api, repo, tmp_path):
    class Emergency(TrainerCallback):
        """What the Trainer does on SIGTERM: saves by itself, without an event, and stops."""

        trainer: Trainer

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                self.trainer._save_checkpoint(self.trainer.model, trial=None)
                control.should_save = False
                control.should_training_stop = True

    emergency, callback = Emergency(), HubSyncCallback(hub_strategy="checkpoint", hub_always_push=True)
    trainer = Trainer(
        classifier(), arguments(tmp_path / repo), train_dataset=Sentences(), callbacks=[emergency, callback]
    )
    emergency.trainer = trainer
    trainer.train()
    callback.close()
    # It goes ahead of what waits. The end finds nothing new to push, and makes no empty commit.
    assert titles(api, repo)[-1] == "Training in progress, step 3"
    saved = digests(tmp_path / repo / "checkpoint-3")
    assert on_hub(tmp_path, repo) == root_of(saved) | below("last-checkpoint", saved)
