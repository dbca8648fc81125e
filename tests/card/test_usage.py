"""The snippet loads the very model: it is run with what a training saved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hub_callbacks.card import render_card
from hub_callbacks.card.usage import usage

from . import runs
from .conftest import Scenario, golden_facts

Runs = Callable[[str], tuple[Path, Scenario]]


def snippet(setup: dict[str, Any]) -> str:
    found = usage(setup)
    assert found is not None
    compile(found.code, "card", "exec")
    return found.code


def run(code: str, setup: dict[str, Any], folder: Path, **replaced: str) -> dict[str, Any]:
    """Runs a snippet with the folder in the place of the repository."""
    code = re.sub(r', revision="[^"]*"', "", code).replace(f'"{setup["repo_id"]}"', repr(str(folder / runs.FINAL)))
    for old, new in replaced.items():
        code = code.replace(old, new)
    found: dict[str, Any] = {}
    exec(code, found)
    return found


def test_an_image_classifier_is_loaded_by_its_pipeline(run_of: Runs, tmp_path: Path, monkeypatch: Any) -> None:
    from PIL import Image

    folder, (setup, _, _) = run_of("image_classification")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "green").save("image.png")
    assert type(run(snippet(setup), setup, folder)["pipe"].model).__name__ == "ViTForImageClassification"


def test_a_language_model_is_loaded_with_its_revision(run_of: Runs) -> None:
    folder, (setup, _, _) = run_of("causal_lm")
    code = snippet(setup)
    assert 'pipeline("text-generation", model="ada/tiny-gpt2", revision="run-2")' in code
    found = run(code.replace("max_new_tokens=50", "max_new_tokens=2"), setup, folder)
    assert type(found["pipe"].model).__name__ == "GPT2LMHeadModel"


def test_an_adapter_is_loaded_through_peft(run_of: Runs, tmp_path: Path) -> None:
    folder, (setup, _, _) = run_of("lora_adapter")
    runs.gpt2().save_pretrained(tmp_path / "base")
    config = folder / runs.FINAL / "adapter_config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps(said | {"base_model_name_or_path": str(tmp_path / "base")}))
    found = run(snippet(setup).replace("max_new_tokens=50", "max_new_tokens=2"), setup, folder)
    assert "lora_A" in "".join(name for name, _ in found["model"].named_parameters())


def test_an_adapter_for_another_task_is_put_on_its_base_model() -> None:
    setup, _, _ = golden_facts("lora_adapter")
    setup["model"] |= {
        "task": "text-classification",
        "auto_class": "AutoModelForSequenceClassification",
        "labels": 3,
    }
    code = snippet(setup)
    assert 'AutoModelForSequenceClassification.from_pretrained("openai-community/gpt2", num_labels=3)' in code
    assert 'PeftModel.from_pretrained(base, "ada/gpt2-lora")' in code
    del setup["model"]["base_model"]
    assert "base = ..." in snippet(setup)


def test_the_weights_of_a_plain_module_are_loaded_into_it(run_of: Runs) -> None:
    folder, (setup, _, _) = run_of("plain_module")
    call = 'hf_hub_download("ada/regressor", "model.safetensors")'
    code = snippet(setup)
    assert call in code
    path = repr(str(folder / runs.FINAL / "model.safetensors"))
    code = code.replace(call, path).replace("Regressor(...)", "Regressor()")
    found: dict[str, Any] = {"Regressor": runs.Regressor}
    exec(code, found)
    assert torch.equal(found["model"].layer.weight, found["weights"]["layer.weight"])


@pytest.mark.parametrize(
    ("model", "processing", "words"),
    [
        (
            {"auto_class": "AutoModelForSeq2SeqLM", "task": "text2text-generation"},
            "AutoTokenizer",
            ["AutoModelForSeq2SeqLM"],
        ),
        ({"task": "text-classification"}, "AutoTokenizer", ['pipeline("text-classification"']),
        (
            {"task": "text-classification", "auto_class": "AutoModelForSequenceClassification"},
            None,
            ["AutoModelFor"],
        ),
        ({"task": "fill-mask"}, "AutoTokenizer", ["mask_token"]),
        ({"task": "automatic-speech-recognition"}, "AutoProcessor", ["audio.wav"]),
        ({}, None, ["AutoModel.from_pretrained"]),
        ({"remote_code": True}, None, ["trust_remote_code=True"]),
    ],
)
def test_each_kind_of_model_has_its_snippet(
    model: dict[str, Any], processing: str | None, words: list[str]
) -> None:
    setup = {
        "repo_id": "a/b",
        "model": {"library": "transformers"} | model,
        "processing": {"auto_class": processing},
    }
    for word in words:
        assert word in snippet(setup)


def test_a_chat_model_gets_messages() -> None:
    setup, _, _ = golden_facts("causal_lm")
    setup["processing"]["chat"] = True
    assert '"role": "user"' in snippet(setup)


def test_where_the_model_will_be_has_to_be_known() -> None:
    setup, progress, options = golden_facts("causal_lm")
    del setup["repo_id"]
    assert usage(setup) is None
    assert "How to use" not in render_card(setup, progress, options).text


def test_hostile_names_stay_strings() -> None:
    setup = {
        "repo_id": "a/b",
        "revision": '"); import os #\n',
        "model": {"library": "transformers", "auto_class": "x()"},
    }
    code = snippet(setup)
    assert "x()" not in code and code.count("\n") == 2
    assert usage({"repo_id": 'a"b', "model": {}}) is None
