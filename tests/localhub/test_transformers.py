"""The unmodified libraries against the hub, each in a process of its own with `HF_ENDPOINT` set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hub_callbacks.localhub import LocalHub

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


def run(hub: LocalHub, script: str, home: Path, **environment: str) -> None:
    variables = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **environment,
    }
    subprocess.run([sys.executable, "-c", script], env=variables, check=True, timeout=240)


def test_a_pushed_model_is_loaded_again(hub: LocalHub, tmp_path: Path) -> None:
    run(hub, ROUND_TRIP, tmp_path / "home")
    assert "xet_put" in {seen.operation for seen in hub.requests}


def test_a_pushed_model_is_loaded_again_without_xet(hub: LocalHub, tmp_path: Path) -> None:
    run(hub, ROUND_TRIP, tmp_path / "home", HF_HUB_DISABLE_XET="1")
    assert "lfs_put" in {seen.operation for seen in hub.requests}
