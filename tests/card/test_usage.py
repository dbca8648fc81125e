"""Which code a card has for which model; `test_usage_on_hub` runs it."""

from __future__ import annotations

from typing import Any

import pytest

from hub_callbacks.card import render_card
from hub_callbacks.card.usage import usage

from .conftest import golden_facts


def snippet(setup: dict[str, Any]) -> str:
    found = usage(setup)
    assert found is not None
    compile(found.code, "card", "exec")
    return found.code


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


@pytest.mark.parametrize(
    ("weights_file", "words"), [(None, "load_model(model, "), ("pytorch_model.bin", "weights_only=True")]
)
def test_the_weights_of_a_plain_module_are_loaded_as_they_were_saved(weights_file: str | None, words: str) -> None:
    setup, _, _ = golden_facts("plain_module")
    setup["training"]["weights_file"] = weights_file
    assert words in snippet(setup)


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
        (
            {"task": "question-answering", "auto_class": "AutoModelForQuestionAnswering"},
            "AutoTokenizer",
            ["start"],
        ),
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
    adapter = {"folder": '"); import os #\n', "base_folder": '"); import os #\n'}
    found = usage(setup | {"model": {"library": "peft", "class": "Net", "auto_class": "x()", "adapter": adapter}})
    assert found is not None and found.code.count("\n") == 4 and "\n" not in found.before
    compile(found.code, "card", "exec")
    assert usage({"repo_id": 'a"b', "model": {}}) is None
