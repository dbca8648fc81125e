"""Scripts as people have them, with the callback as one more argument, run as they are."""

from __future__ import annotations

import gc
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    LlamaForCausalLM,
)

from hub_callbacks import callback as callbacks
from models import classifier, language_model, tokenizer
from runs import download, on_hub, titles

SCRIPTS = Path(__file__).parents[1] / "support" / "scripts"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a script with these arguments; what it leaves open is closed, as at the end of its process."""
    made: list[callbacks.HubSyncCallback] = []
    init = callbacks.HubSyncCallback.__init__

    def remember(self: Any, **options: Any) -> None:
        made.append(self)
        init(self, **options)

    monkeypatch.setattr(callbacks.HubSyncCallback, "__init__", remember)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))

    def run(script: str, *arguments: Any) -> list[str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        for callback in made:
            callback.close()
        return [note for callback in made for note in callback.summary().notes]

    yield run
    gc.collect()


def common(output_dir: Path) -> list[Any]:
    values = {
        "output_dir": output_dir,
        "max_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def saved(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    words = tokenizer()
    words.eos_token = "[CLS]"
    words.save_pretrained(folder)
    return folder


def glue_arguments(tmp_path: Path, repo: str) -> list[Any]:
    data = tmp_path / "train.csv"
    data.write_text("sentence,label\n" + "".join(f"w{i} w4 w5,{i % 2}\n" for i in range(3, 11)))
    return [
        *("--model_name_or_path", saved(tmp_path / "base", classifier())),
        *("--train_file", data, "--validation_file", data, "--task_name", "sst2", "--do_train", "--do_eval"),
        *common(tmp_path / repo),
    ]


def test_a_script_like_run_glue(hub, api, repo, tmp_path, run):
    notes = run("classify.py", *glue_arguments(tmp_path, repo), "--push_to_hub")
    assert not notes
    assert titles(api, repo)[-1] == "End of training"
    folder = download(tmp_path, repo)
    results = ("all_results.json", "train_results.json", "eval_results.json", "trainer_state.json")
    assert all((folder / name).is_file() for name in results)
    AutoModelForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    data = ModelCard.load(folder / "README.md").data
    assert data.language in ("en", ["en"]) and data.datasets in ("glue", ["glue"])
    assert data.pipeline_tag == "text-classification" and data.base_model is None  # a folder on this disk


def test_a_script_like_run_glue_that_was_not_told_to_push(hub, api, repo, tmp_path, run):
    """The callback pushes all the same, and what the script's `create_model_card` says goes to the Hub, too."""
    run("classify.py", *glue_arguments(tmp_path, repo))
    assert titles(api, repo)[-1] == "Update the model card"
    AutoModelForSequenceClassification.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    for folder in (tmp_path / repo, download(tmp_path, repo)):
        data = ModelCard.load(folder / "README.md").data
        assert data.language in ("en", ["en"]) and data.datasets in ("glue", ["glue"])


def test_a_script_like_run_clm(hub, api, repo, tmp_path, run):
    data = tmp_path / "train.txt"
    data.write_text("".join(f"w{i} w4 w5 w6 w7 w8 w9 w10\n" for i in range(3, 19)))
    base = saved(tmp_path / "base", language_model())
    arguments = ["--config_name", base, "--train_file", data, *common(tmp_path / repo)]
    notes = run("language_model.py", *arguments, "--push_to_hub", "--hub_strategy", "checkpoint")
    assert not notes
    files = on_hub(tmp_path, repo)
    assert "perplexity" in json.loads((download(tmp_path, repo) / "all_results.json").read_text())
    assert {"model.safetensors", "last-checkpoint/optimizer.pt"} <= files.keys()
    AutoModelForCausalLM.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    data = ModelCard.load(download(tmp_path, repo) / "README.md").data
    assert data.pipeline_tag == "text-generation"


@pytest.mark.parametrize("uses_peft", [False, True], ids=["model", "adapter"])
def test_a_script_like_trls_sft(hub, api, repo, tmp_path, run, capsys, uses_peft):
    pytest.importorskip("trl")
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"text": f"w{i} w4 w5 w6"}) + "\n" for i in range(3, 11)))
    base = saved(tmp_path / "base", language_model())
    arguments = ["--model_name_or_path", base, "--dataset_name", data, "--bf16", False, "--push_to_hub"]
    adapter = ["--use_peft", "--lora_r", 2, "--lora_target_modules", "q_proj", "v_proj"] if uses_peft else []
    notes = run("supervised.py", *arguments, *common(tmp_path / repo), *adapter)
    assert not notes
    assert f"Model pushed to local/{repo}." in capsys.readouterr().out
    if uses_peft:
        PeftModel.from_pretrained(language_model(), f"local/{repo}", cache_dir=tmp_path / "cache")
    else:
        LlamaForCausalLM.from_pretrained(f"local/{repo}", cache_dir=tmp_path / "cache")
    text = (download(tmp_path, repo) / "README.md").read_text()
    data = ModelCard(text).data
    assert data.datasets == "local/texts" and data.base_model is None and "sft" in data.tags
    assert text.count("trained with SFT") == 1 and text.count("## How it was trained") == 1


def test_a_script_like_those_of_sentence_transformers(hub, api, repo, tmp_path, run):
    st = pytest.importorskip("sentence_transformers")
    data = tmp_path / "train.jsonl"
    rows = [{"anchor": f"w{i} w4", "positive": f"w{i} w5"} for i in range(3, 11)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    base = saved(tmp_path / "base", BertModel(BertConfig(vocab_size=64, max_position_embeddings=32, **sizes)))
    notes = run("embeddings.py", base, data, tmp_path / repo)
    assert not notes
    again = st.SentenceTransformer(f"local/{repo}", device="cpu", cache_folder=str(tmp_path / "models"))
    final = st.SentenceTransformer(str(tmp_path / repo / "final"), device="cpu")
    assert (again.encode(["w5 w6"]) == final.encode(["w5 w6"])).all()
    assert "final/modules.json" in on_hub(tmp_path, repo)
    card = ModelCard.load(download(tmp_path, repo) / "README.md")
    assert card.data.license == "apache-2.0" and card.data.language in ("en", ["en"])
    assert card.text.count("# Tiny embeddings") == 1 and card.text.count("## How it was trained") == 1
    assert "spearman_cosine" in json.dumps(card.data.to_dict())
