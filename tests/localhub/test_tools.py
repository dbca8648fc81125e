"""Ordinary libraries and commands against the hub, each in a process of its own with `HF_ENDPOINT` set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from packaging.version import Version

import interpreters
from hub_callbacks.localhub import LocalHub
from without_torch import needs_torch

ROUND_TRIP = """
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, BertConfig, BertForMaskedLM

sizes = dict(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
config = BertConfig(**sizes)
model = BertForMaskedLM(config)
model.push_to_hub("tiny-bert")
back = AutoModelForMaskedLM.from_pretrained("local/tiny-bert")
assert AutoConfig.from_pretrained("local/tiny-bert").hidden_size == 16
for name, value in model.state_dict().items():
    assert torch.equal(value, back.state_dict()[name]), name
"""


DATASETS = """
from datasets import Dataset, DatasetDict, load_dataset

rows = {"text": [f"row {number}" for number in range(1000)], "label": [number % 3 for number in range(1000)]}
Dataset.from_dict(rows).push_to_hub("local/rows", private=True)
assert load_dataset("local/rows", split="train").to_dict() == rows
DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(rows).select(range(10))).push_to_hub(
    "local/rows", config_name="split", num_shards={"train": 3, "test": 1}
)
back = load_dataset("local/rows", "split", download_mode="force_redownload")
assert (len(back["train"]), len(back["test"])) == (1000, 10)
streamed = load_dataset("local/rows", "split", split="train", streaming=True)
assert [row["text"] for row in streamed] == rows["text"]
"""

PEFT = """
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import BertConfig, BertForMaskedLM

sizes = dict(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
base = BertForMaskedLM(BertConfig(**sizes))
weights = {name: value.clone() for name, value in base.state_dict().items()}
model = get_peft_model(base, LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
model.push_to_hub("adapter")
plain = BertForMaskedLM(BertConfig(**sizes))
plain.load_state_dict(weights)
back = PeftModel.from_pretrained(plain, "local/adapter")
tokens = torch.arange(10)[None]
model.eval(), back.eval()
assert torch.allclose(model(tokens).logits, back(tokens).logits)
"""


def environment_of(hub: LocalHub, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_COLOR": "1",
    }


def run(hub: LocalHub, script: str, home: Path, **environment: str) -> None:
    variables = {**environment_of(hub, home), **environment}
    done = interpreters.run(["-c", script], env=variables)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def hf(hub: LocalHub, tmp_path: Path) -> Callable[..., str]:
    """Runs the `hf` command and returns what it prints."""

    def call(*arguments: object) -> str:
        command = [str(Path(sys.executable).with_name("hf")), *map(str, arguments)]
        variables = environment_of(hub, tmp_path / "home")
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture
def name(tmp_path: Path) -> str:
    return tmp_path.name.replace("_", "-")


@needs_torch
def test_a_pushed_model_is_loaded_again(hub: LocalHub, tmp_path: Path) -> None:
    run(hub, ROUND_TRIP, tmp_path / "home")
    assert "xet_put" in {seen.operation for seen in hub.requests}


@needs_torch
def test_a_pushed_model_is_loaded_again_without_xet(hub: LocalHub, tmp_path: Path) -> None:
    run(hub, ROUND_TRIP, tmp_path / "home", HF_HUB_DISABLE_XET="1")
    assert "lfs_put" in {seen.operation for seen in hub.requests}


@needs_torch
def test_a_dataset_is_pushed_loaded_and_streamed(hub: LocalHub, tmp_path: Path) -> None:
    run(hub, DATASETS, tmp_path / "home")


@needs_torch
def test_an_adapter_is_pushed_and_loaded_again(hub: LocalHub, tmp_path: Path) -> None:
    run(hub, PEFT, tmp_path / "home")


def test_the_command_line_uploads_and_downloads(
    hub: LocalHub, hf: Callable[..., str], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "up"
    (folder / "d").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "d" / "w.bin").write_bytes(os.urandom(300_000))
    assert hub.endpoint in hf("upload", f"local/{name}", folder, ".", "--commit-message", "Up")
    hf("download", f"local/{name}", "--local-dir", tmp_path / "down")
    for path in ("a.txt", "d/w.bin"):
        assert (tmp_path / "down" / path).read_bytes() == (folder / path).read_bytes()
    hf("upload", f"local/{name}", folder / "a.txt", "b.txt", "--create-pr")
    hf("download", f"local/{name}", "b.txt", "--revision", "refs/pr/1", "--local-dir", tmp_path / "pr")
    assert (tmp_path / "pr" / "b.txt").read_text() == "a"
    assert "local" in hf("auth", "whoami")


def test_the_command_line_manages_repositories(hub: LocalHub, hf: Callable[..., str], name: str) -> None:
    is_new = Version(huggingface_hub.__version__) >= Version("1")
    repos = "repos" if is_new else "repo"
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    repo = f"local/{name}"
    hf(repos, "create", repo, "--private")
    assert api.model_info(repo).private
    hf(repos, "tag", "create", repo, "v1")
    assert "v1" in hf(repos, "tag", "list", repo)
    hf(repos, "tag", "delete", "-y", repo, "v1")
    assert api.list_repo_refs(repo).tags == []
    if not is_new:
        return
    hf(repos, "branch", "create", repo, "dev")
    assert {ref.name for ref in api.list_repo_refs(repo).branches} == {"main", "dev"}
    hf(repos, "settings", repo, "--public", "--gated", "auto")
    info = api.model_info(repo)
    assert (info.private, info.gated) == (False, "auto")
    api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id=repo)
    hf(repos, "delete-files", repo, "*.txt")
    assert api.list_repo_files(repo) == [".gitattributes"]
    hf(repos, "move", repo, f"{repo}-moved")
    assert f"{repo}-moved" in hf("models", "list", "--author", "local", "--format", "json")
    hf(repos, "delete", f"{repo}-moved", "--yes")
    assert not api.repo_exists(f"{repo}-moved")
