"""TRL's Trainers, which write a model card of their own before each save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification, TrainerCallback

from hub_callbacks import HubSyncCallback
from models import configured, language_model, same_weights, tokenizer
from runs import Witness, download, left_by, on_hub, titles

trl = pytest.importorskip("trl")


def text_tokenizer() -> Any:
    made = tokenizer()
    made.eos_token = "[CLS]"
    return made


def rows() -> Dataset:
    return Dataset.from_list([{"text": f"w{i} w4 w5 w6"} for i in range(3, 11)])


def pairs(**more: str) -> Dataset:
    return Dataset.from_list([more | {"chosen": f" w{i} w4", "rejected": f" w{i} w9"} for i in range(3, 11)])


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(r=2, target_modules=["q_proj"], **changes)


def sft(tmp_path: Path, repo: str, *callbacks: TrainerCallback, peft_config: Any = None, **changes: Any) -> Any:
    return trl.SFTTrainer(
        language_model(),
        configured(trl.SFTConfig, tmp_path / repo, **({"bf16": False} | changes)),
        train_dataset=rows(),
        processing_class=text_tokenizer(),
        peft_config=peft_config,
        callbacks=list(callbacks),
    )


def card(tmp_path: Path, repo: str) -> str:
    return (download(tmp_path, repo) / "README.md").read_text()


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_supervised_finetuning_arrives_and_loads(hub, api, repo, tmp_path, strategy):
    saved, callback = Witness(), HubSyncCallback(hub_strategy=strategy)
    trainer = sft(tmp_path, repo, saved, callback)
    trainer.train()
    callback.close()
    assert on_hub(tmp_path, repo) == left_by(strategy, saved)
    again = LlamaForCausalLM.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)
    words = AutoTokenizer.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert words("w3 w4")["input_ids"] == text_tokenizer()("w3 w4")["input_ids"]


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint"])
def test_an_adapter_of_supervised_finetuning_arrives_and_loads(hub, api, repo, tmp_path, strategy):
    saved, callback = Witness(), HubSyncCallback(hub_strategy=strategy)
    config = lora(task_type="CAUSAL_LM", modules_to_save=["lm_head"])
    trainer = sft(tmp_path, repo, saved, callback, peft_config=config)
    trainer.train()
    callback.close()
    files = on_hub(tmp_path, repo)
    assert files == left_by(strategy, saved)
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    again = PeftModel.from_pretrained(language_model(), f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)
    assert ModelCard(card(tmp_path, repo)).data.library_name == "peft"  # TRL says transformers


@pytest.mark.parametrize("peft_config", [None, lora(task_type="CAUSAL_LM")], ids=["model", "adapter"])
def test_preference_optimization_arrives_and_loads(hub, api, repo, tmp_path, peft_config):
    saved, callback = Witness(), HubSyncCallback(hub_strategy="checkpoint")
    trainer = trl.DPOTrainer(
        language_model(),
        None if peft_config else language_model(),  # the reference
        args=configured(trl.DPOConfig, tmp_path / repo, bf16=False),
        train_dataset=pairs(prompt="w5 w6"),
        processing_class=text_tokenizer(),
        peft_config=peft_config,
        callbacks=[saved, callback],
    )
    trainer.train()
    callback.close()
    assert on_hub(tmp_path, repo) == left_by("checkpoint", saved)
    if peft_config is None:
        again = LlamaForCausalLM.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
        assert same_weights(again, trainer.model)
    else:
        again = PeftModel.from_pretrained(language_model(), f"local/{repo}", cache_dir=tmp_path / "cache")
        trained = {name: value for name, value in trainer.model.state_dict().items() if ".ref." not in name}
        assert all(value.equal(trained[name]) for name, value in again.state_dict().items())
    assert "trained with DPO" in card(tmp_path, repo) and f'model="local/{repo}"' in card(tmp_path, repo)


def test_a_reward_model_arrives_and_loads(hub, api, repo, tmp_path):
    saved, callback = Witness(), HubSyncCallback(hub_strategy="checkpoint")
    trainer = trl.RewardTrainer(
        language_model(LlamaForSequenceClassification, num_labels=1),
        args=configured(trl.RewardConfig, tmp_path / repo, bf16=False),
        train_dataset=pairs(),
        processing_class=text_tokenizer(),
        callbacks=[saved, callback],
    )
    trainer.train()
    callback.close()
    assert on_hub(tmp_path, repo) == left_by("checkpoint", saved)
    again = LlamaForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    assert same_weights(again, trainer.model)


@pytest.mark.parametrize("peft_config", [None, lora(task_type="CAUSAL_LM")], ids=["model", "adapter"])
def test_training_resumes_from_what_is_on_the_hub(hub, api, repo, tmp_path, peft_config):
    callback = HubSyncCallback(hub_strategy="checkpoint")
    sft(tmp_path, repo, callback, peft_config=peft_config).train()
    callback.close()
    saved, callback = Witness(), HubSyncCallback(hub_strategy="checkpoint")
    trainer = sft(tmp_path, repo, saved, callback, peft_config=peft_config, max_steps=6)
    trainer.train(resume_from_checkpoint=str(download(tmp_path, repo) / "last-checkpoint"))
    callback.close()
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert list(saved.checkpoints) == [6]
    assert on_hub(tmp_path, repo) == left_by("checkpoint", saved)


def test_the_card_has_trls_text_and_ours_once_and_the_scripts_keywords(hub, api, repo, tmp_path):
    """The end of TRL's own `sft.py`."""
    callback = HubSyncCallback(hub_always_push=True)
    trainer = sft(tmp_path, repo, callback, push_to_hub=True)
    trainer.train()
    trainer.save_model(trainer.args.output_dir)
    # TRL's own create_model_card does not know `language`, the Trainer's does.
    commit = trainer.push_to_hub(dataset_name="local/texts", tags=["mine"], language="en")
    callback.close()
    assert commit.oid == api.list_repo_commits(f"local/{repo}")[0].commit_id
    text = card(tmp_path, repo)
    data = ModelCard(text).data
    assert data.datasets == "local/texts" and {"trl", "sft", "mine"} <= set(data.tags)
    assert data.language in ("en", ["en"])
    for once in ("# Model Card for", "trained with SFT", "vonwerra2020trl", "on the [local/texts]"):
        assert text.count(once) == 1, once
    assert text.count("## How it was trained") == 1 and text.count("hub_callbacks:state") == 1
    # TRL's example is a conversation, and this tokenizer has no template for one: ours stands there, too.
    assert text.count("from transformers import pipeline") == 2 and text.lower().count("transformers: ") == 1
    assert "**Versions:**" not in text and "## About this model" not in text and text.count("\n# ") == 1
    assert f'model="local/{repo}"' in text and f'model="{repo}"' not in text


MINE = """
# My model

I wrote this.

```python
print("mine")
```

## Limits

Not for tomatoes.
"""


def test_a_persons_readme_outlives_trls_and_so_does_an_edit_on_the_hub(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    readme = tmp_path / repo / "README.md"
    readme.write_text(f"---\nlicense: mit\n---\n{MINE}")
    callback = HubSyncCallback(hub_always_push=True)
    trainer = sft(tmp_path, repo, callback)
    trainer.train()
    assert f"{MINE}\n# Model Card for" in readme.read_text() and MINE in card(tmp_path, repo)
    edited = card(tmp_path, repo).replace("I wrote this.", "I wrote this.\n\nAnd this.")
    api.upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id=f"local/{repo}")
    trainer.push_to_hub(dataset_name="local/texts")
    callback.close()
    text = card(tmp_path, repo)
    for once in ("# My model", "I wrote this.", "And this.", "license: mit", "trained with SFT", "local/texts]"):
        assert text.count(once) == 1, once
    assert f'model="local/{repo}"' in text.partition("hub_callbacks:begin")[0]
    assert f"{MINE}\n# Model Card for" in readme.read_text()  # where TRL alone would leave its own text
    assert MINE.replace("wrote this.", "wrote this.\n\nAnd this.") + "\n# Model Card for" in text


class Person(TrainerCallback):
    """Writes into README.md of `output_dir` in step 3, between the saves of 2 and 4."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        readme = Path(args.output_dir) / "README.md"
        if state.global_step == 3:
            readme.write_text(readme.read_text().replace("I wrote this.", "I wrote that.\n\nAnd more."))


def test_what_a_person_writes_between_two_saves_outlives_trls(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    readme = tmp_path / repo / "README.md"
    readme.write_text("# My model\n\nI wrote this.\n")
    callback = HubSyncCallback(hub_always_push=True)
    trainer = sft(tmp_path, repo, callback, Person())
    trainer.train()
    readme.write_text(readme.read_text().replace("And more.", "And more to come."))
    trainer.push_to_hub()
    callback.close()
    for text in (readme.read_text(), card(tmp_path, repo)):
        for once in ("# My model", "I wrote that.", "And more to come.", "trained with SFT"):
            assert text.count(once) == 1, once
        assert "I wrote this." not in text


def test_create_model_card_at_the_end_is_trls_own(hub, api, repo, tmp_path):
    """What `sft.py` calls where `push_to_hub` is not set; the callback pushes all the same."""
    callback = HubSyncCallback()
    trainer = sft(tmp_path, repo, callback)
    trainer.train()
    trainer.create_model_card(model_name="mine", dataset_name="local/texts", tags=["mine"])
    callback.close()
    assert "# Model Card for mine" in (tmp_path / repo / "README.md").read_text()
    assert titles(api, repo)[-1] == "End of training"
