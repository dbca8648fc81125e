"""PEFT: adapters, alone and several, with what else is saved beside them."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PeftModel, get_peft_model

from models import classifier, same_weights
from runs import below, digests, download, left_by, on_hub, root_of, train


def lora(**changes) -> LoraConfig:
    return LoraConfig(**({"r": 4, "target_modules": ["query", "value"], "task_type": "SEQ_CLS"} | changes))


def last_checkpoint(tmp_path, repo) -> str:
    return str(download(tmp_path, repo) / "last-checkpoint")


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_a_lora_adapter_arrives_and_loads_on_its_base(hub, api, repo, tmp_path, strategy):
    trainer, _, saved = train(tmp_path, repo, get_peft_model(classifier(), lora()), hub_strategy=strategy)
    files = on_hub(tmp_path, repo)
    assert files == left_by(strategy, saved)
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    again = PeftModel.from_pretrained(classifier(), f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)


def test_modules_to_save_arrive_with_the_adapter(hub, api, repo, tmp_path):
    model = get_peft_model(classifier(), lora(modules_to_save=["pooler"]))
    trainer, _, _ = train(tmp_path, repo, model, hub_strategy="every_save", learning_rate=1e-2)
    again = PeftModel.from_pretrained(classifier(), f"local/{repo}", cache_dir=tmp_path / "cache")
    pooler = trainer.model.base_model.model.bert.pooler.modules_to_save["default"].dense.weight
    assert not pooler.equal(classifier().bert.pooler.dense.weight)  # it was trained
    assert same_weights(again, trainer.model)


def test_several_adapters_arrive_each_in_its_folder_and_training_resumes_from_the_hub(hub, api, repo, tmp_path):
    def two_adapters() -> PeftModel:
        model = get_peft_model(classifier(), lora())
        model.add_adapter("second", lora(r=2))
        return model

    trainer, _, saved = train(tmp_path, repo, two_adapters(), hub_strategy="checkpoint")
    files = on_hub(tmp_path, repo)
    assert files == root_of(saved.checkpoints[8]) | below("last-checkpoint", saved.checkpoints[8])
    assert {"adapter_model.safetensors", "second/adapter_model.safetensors"} <= files.keys()
    again = PeftModel.from_pretrained(classifier(), f"local/{repo}", cache_dir=tmp_path / "cache")
    again.load_adapter(f"local/{repo}", "second", subfolder="second", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)

    resumed, _, saved = train(
        tmp_path,
        repo,
        two_adapters(),
        resume=last_checkpoint(tmp_path, repo),
        hub_strategy="checkpoint",
        num_train_epochs=3,
    )
    assert sorted(saved.checkpoints) == [10, 12] and resumed.state.global_step == 12
    assert on_hub(tmp_path, repo).items() >= below("last-checkpoint", saved.checkpoints[12]).items()


def test_an_adapter_loads_with_its_base_from_the_hub(hub, api, repo, tmp_path, monkeypatch):
    """As people do it: the adapter's repository alone is named, and names its base."""
    api.create_repo(f"local/{repo}-base")
    classifier().push_to_hub(f"local/{repo}-base")
    base = type(classifier()).from_pretrained(f"local/{repo}-base", cache_dir=tmp_path / "cache")
    trainer, _, _ = train(tmp_path, repo, get_peft_model(base, lora()), hub_strategy="end")
    again = AutoPeftModelForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)
    assert ModelCard.load(download(tmp_path, repo) / "README.md").data.base_model == f"local/{repo}-base"


def test_the_card_names_no_base_model_that_nobody_can_load(hub, api, repo, tmp_path):
    trainer, callback, _ = train(tmp_path, repo, get_peft_model(classifier(), lora()), hub_strategy="end")
    trainer.push_to_hub()
    callback.close()
    assert not callback.summary().notes
    data = ModelCard.load(download(tmp_path, repo) / "README.md").data
    assert data.base_model is None and not any(tag.startswith("base_model:") for tag in data.tags)
    assert digests(tmp_path / repo / "checkpoint-8").items() >= on_hub(tmp_path, repo).items()
