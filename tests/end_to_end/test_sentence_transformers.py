"""sentence-transformers: modules in folders, a long model card of its own in each checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig
from transformers import BertConfig, BertForSequenceClassification, BertModel, TrainerCallback

from hub_callbacks import HubSyncCallback
from models import configured, same_weights, tokenizer
from runs import Witness, below, digests, download, left_by, on_hub, root_of, titles

st = pytest.importorskip("sentence_transformers")

from sentence_transformers.cross_encoder import (  # noqa: E402
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss  # noqa: E402
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer  # noqa: E402

PAIRS = [{"anchor": f"w{i} w4", "positive": f"w{i} w5"} for i in range(3, 11)]


def on_disk(folder: Path, kind: type = BertModel, **changes: Any) -> str:
    """A backbone as it would come from the Hub."""
    if not folder.exists():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        kind(BertConfig(vocab_size=64, max_position_embeddings=32, **sizes, **changes)).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return str(folder)


def embedder(tmp_path: Path) -> Any:
    torch.manual_seed(0)
    backbone = Transformer(on_disk(tmp_path / "backbone"), max_seq_length=16)
    return st.SentenceTransformer(modules=[backbone, Pooling(32), Dense(32, 16)], device="cpu")


def trainer_of(tmp_path: Path, repo: str, model: Any, *callbacks: TrainerCallback, **changes: Any) -> Any:
    return st.SentenceTransformerTrainer(
        model,
        configured(st.SentenceTransformerTrainingArguments, tmp_path / repo, **changes),
        train_dataset=Dataset.from_list(PAIRS),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=list(callbacks),
    )


def card(tmp_path: Path, repo: str) -> str:
    return (download(tmp_path, repo) / "README.md").read_text()


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_all_modules_arrive_and_load_from_the_hub(hub, api, repo, tmp_path, strategy):
    saved, callback = Witness(), HubSyncCallback(hub_strategy=strategy)
    model = embedder(tmp_path)
    trainer_of(tmp_path, repo, model, saved, callback).train()
    callback.close()
    files = on_hub(tmp_path, repo)
    assert files == left_by(strategy, saved)
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors"} <= files.keys()
    again = st.SentenceTransformer(f"local/{repo}", device="cpu", cache_folder=str(tmp_path / "models"))
    assert same_weights(again, model)
    assert numpy.allclose(again.encode(["w5 w6"]), model.encode(["w5 w6"]), atol=1e-6)


def test_an_adapter_arrives_and_loads_on_its_base_from_the_hub(hub, api, repo, tmp_path):
    base = f"local/{repo}-base"
    api.create_repo(base)
    api.upload_folder(repo_id=base, folder_path=on_disk(tmp_path / "backbone"))
    model = st.SentenceTransformer(base, device="cpu", cache_folder=str(tmp_path / "models"))
    try:
        model.add_adapter(LoraConfig(r=2, target_modules=["query"], task_type="FEATURE_EXTRACTION"))
    except ValueError as error:
        pytest.skip(str(error))  # this transformers wants a newer PEFT
    saved, callback = Witness(), HubSyncCallback(hub_strategy="checkpoint")
    trainer_of(tmp_path, repo, model, saved, callback).train()
    callback.close()
    files = on_hub(tmp_path, repo)
    assert files == root_of(saved.checkpoints[4]) | below("last-checkpoint", saved.checkpoints[4])
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    again = st.SentenceTransformer(base, device="cpu", cache_folder=str(tmp_path / "models"))
    before = again.encode(["w5 w6"])
    again.load_adapter(f"local/{repo}")
    assert numpy.allclose(again.encode(["w5 w6"]), model.encode(["w5 w6"]), atol=1e-6)
    assert not numpy.allclose(before, model.encode(["w5 w6"]), atol=1e-6)


def test_training_resumes_from_what_is_on_the_hub(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_strategy="checkpoint")
    trainer_of(tmp_path, repo, embedder(tmp_path), callback).train()
    callback.close()
    saved, callback = Witness(), HubSyncCallback(hub_strategy="checkpoint")
    trainer = trainer_of(tmp_path, repo, embedder(tmp_path), saved, callback, max_steps=6)
    trainer.train(resume_from_checkpoint=str(download(tmp_path, repo) / "last-checkpoint"))
    callback.close()
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert list(saved.checkpoints) == [6]
    expected = root_of(saved.checkpoints[6]) | below("last-checkpoint", saved.checkpoints[6])
    assert on_hub(tmp_path, repo) == expected


def test_a_cross_encoder_arrives_and_loads_from_the_hub(hub, api, repo, tmp_path):
    backbone = on_disk(tmp_path / "backbone", BertForSequenceClassification, num_labels=1)
    model = CrossEncoder(backbone, device="cpu", max_length=16)
    rows = [row | {"label": float(i % 2)} for i, row in enumerate(PAIRS)]
    saved, callback = Witness(), HubSyncCallback(hub_strategy="checkpoint")
    trainer = CrossEncoderTrainer(
        model,
        configured(CrossEncoderTrainingArguments, tmp_path / repo),
        train_dataset=Dataset.from_list(rows),
        loss=BinaryCrossEntropyLoss(model),
        callbacks=[saved, callback],
    )
    trainer.train()
    callback.close()
    files = on_hub(tmp_path, repo)
    assert files == root_of(saved.checkpoints[4]) | below("last-checkpoint", saved.checkpoints[4])
    again = CrossEncoder(f"local/{repo}", device="cpu", cache_folder=str(tmp_path / "models"))
    assert (again.predict([("w5", "w6")]) == model.predict([("w5", "w6")])).all()
    assert "CrossEncoder" in card(tmp_path, repo).split("hub_callbacks:begin")[0]


def test_the_card_has_the_librarys_text_and_ours_once_and_the_scripts_keywords(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_always_push=True)
    trainer = trainer_of(tmp_path, repo, embedder(tmp_path), callback, push_to_hub=True)
    trainer.train()
    during = card(tmp_path, repo)
    assert f'SentenceTransformer("local/{repo}")' in during and '"sentence_transformers_model_id"' not in during
    assert during.count("### Training Logs") == 1 and during.count("## How it was trained") == 1
    trainer.save_model()
    commit = trainer.push_to_hub(language="en", license="mit", tags="mine", dataset_tags="local/pairs")
    callback.close()
    assert commit.oid == api.list_repo_commits(f"local/{repo}")[0].commit_id
    text = card(tmp_path, repo)
    data = ModelCard(text).data
    assert data.license == "mit" and data.language in ("en", ["en"]) and "local/pairs" in data.datasets
    assert {"mine", "sentence-transformers", "loss:MultipleNegativesRankingLoss"} <= set(data.tags)
    assert data.library_name == "sentence-transformers" and data.pipeline_tag == "sentence-similarity"
    for once in ("### Training Logs", "reimers-2019-sentence-bert", "- **License:** mit", "| 1.0   | 4 "):
        assert text.count(once) == 1, once
    assert text.count("## How it was trained") == 1 and text.count("hub_callbacks:state") == 1
    assert text.count("from sentence_transformers import") == text.count("- Transformers: ") == 1
    assert "**Versions:**" not in text and "## About this model" not in text and text.count("\n# Sent") == 1
    assert f'SentenceTransformer("local/{repo}")' in text.partition("hub_callbacks:begin")[0]


def test_a_persons_readme_outlives_the_librarys_of_each_save(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    readme = tmp_path / repo / "README.md"
    mine = "\n# My model\n\nI wrote this.\n\n## Limits\n\nNot for tomatoes.\n\nLast words.\n"
    readme.write_text(f"---\nlicense: mit\n---\n{mine}")
    callback = HubSyncCallback(hub_always_push=True)
    trainer = trainer_of(tmp_path, repo, embedder(tmp_path), callback, push_to_hub=True)
    trainer.train()
    during = card(tmp_path, repo)
    assert not (tmp_path / repo / "modules.json").exists()  # the library's own way copies each save there
    trainer.save_model()
    trainer.push_to_hub()
    callback.close()
    for text in (during, card(tmp_path, repo)):
        for once in ("# My model", "I wrote this.", "license: mit", "### Training Logs", "| 1.0   | 4 "):
            assert text.count(once) == 1, once
        assert f"{mine}\n# Sent" in text
    assert f"{mine}\n# Sent" in readme.read_text()
    assert titles(api, repo)[:2] == ["Training in progress, step 2", "Training in progress, step 4"]


def test_a_model_that_is_saved_after_training_is_the_one_on_the_hub(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_strategy="end")
    model = embedder(tmp_path)
    trainer = trainer_of(tmp_path, repo, model, callback, push_to_hub=True, save_strategy="no")
    trainer.train()
    first = st.SentenceTransformer(f"local/{repo}", device="cpu", cache_folder=str(tmp_path / "models"))
    assert same_weights(first, model)
    model.save_pretrained(str(tmp_path / repo / "final"))
    trainer.push_to_hub()
    callback.close()
    final = digests(tmp_path / repo / "final")
    assert on_hub(tmp_path, repo).items() >= below("final", final).items()
