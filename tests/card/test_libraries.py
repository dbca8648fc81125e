"""Beside a library's own card ours says what that does not, and puts right what the library could not know."""

from __future__ import annotations

import re

import pytest
import yaml

from hub_callbacks.card import CardOptions, example, merge_card, render_card, said_by_library, with_repository

TRL = """---
library_name: transformers
licence: license
tags:
- generated_from_trainer
- trl
---

# Model Card for out

This model is a fine-tuned version of [a/b](https://huggingface.co/a/b).
It has been trained using [TRL](https://github.com/huggingface/trl).

## Quick start

```python
generator = pipeline("text-generation", model="None", device_map="auto")
```

## Training procedure

This model was trained with SFT.

### Framework versions

- TRL: 1.0
"""
EMBEDDER = """---
library_name: sentence-transformers
---

# SentenceTransformer

This is a [sentence-transformers](https://www.SBERT.net) model trained. It maps inputs to vectors.

## Usage

```python
# Download from the Hub
model = SentenceTransformer("sentence_transformers_model_id")
```

### Framework Versions
- Python: 3.11
"""
RERANKER = "This is a [Cross Encoder](https://www.sbert.net/docs/cross_encoder/usage/usage.html) model trained.\n"
MINE = "# Mine\n\nTrained with TRL.\n\n## Usage\n\nHow to.\n\n### Framework versions\n\nMany.\n"
ALL = {"summary", "usage", "versions"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TRL, ALL),
        (f"{MINE}\n{TRL.replace('---', '***')}", ALL),
        (TRL.replace("## Quick start", "## Slow start"), {"summary", "versions"}),
        (TRL.replace("### Framework versions", "```\n### Framework versions\n```"), {"summary", "usage"}),
        (EMBEDDER, ALL),
        (RERANKER, {"summary"}),
        (f"{MINE}\n{RERANKER}", {"summary"}),
        (MINE, set()),
        (f"```\n{TRL.replace('```', '')}\n```", set()),
        (None, set()),
    ],
)
def test_what_a_library_has_said(text: str | None, said: set[str]) -> None:
    assert said_by_library(text, {}) == said


def card(existing: str | None, template: str | None = None) -> str:
    said = said_by_library(existing, {})
    text = render_card(
        example.SETUP, example.PROGRESS, CardOptions(license="mit"), template=template, said=said
    ).text
    merged = merge_card(text, existing)
    assert said_by_library(merged, {}) == said and merge_card(text, merged) == merged
    return merged


@pytest.mark.parametrize("librarys", [TRL, EMBEDDER], ids=["trl", "sentence-transformers"])
def test_ours_steps_back_beside_a_librarys_and_returns_when_that_is_gone(librarys: str) -> None:
    alone = card(None)
    beside = card(librarys)
    for ours in ("## How to use", "# example", "**Versions:**", example.SETUP["versions"]["transformers"]):
        assert ours in alone and ours not in beside, ours
    numbers = [line for line in alone.splitlines() if re.search(r"^\|.*\d", line)]
    assert numbers and all(beside.count(line) == alone.count(line) for line in numbers)
    assert beside.count("## About these weights") == 1 and "## How it was trained" in beside
    kept = beside.replace(librarys.partition("---\n\n")[2], "")
    assert "## How to use" in card(kept) and "## About these weights" not in card(kept)


def test_a_template_of_ones_own_says_what_it_says() -> None:
    assert "Sum: This" in card(TRL, "Sum: {{ summary }}")


@pytest.mark.parametrize("name", ["None", "example", "some_model_id"])
def test_the_example_of_a_library_names_the_repository(name: str) -> None:
    for text, placeholder in ((TRL, "None"), (EMBEDDER, "sentence_transformers_model_id")):
        text = text.replace(f'"{placeholder}"', f'"{name}"')
        assert with_repository(f"{text}Mine.", "owner/example") == text.replace(name, "owner/example") + "Mine."
        for other in ("other/example", "another"):
            named = text.replace(f'"{name}"', f'"{other}"')
            assert with_repository(named, "owner/example") == named
        assert with_repository(text, "example") == text
        mine = text.replace("TRL", "it").replace("SBERT", "it")
        assert with_repository(mine, "owner/example") == mine
        before = f'```\ngenerator = pipeline("text-generation", model="{name}", device_map="auto")\n```\n'
        assert (with_repository(before + text.partition("---\n\n")[2], "owner/example") or "").startswith(before)
    assert with_repository(None, "owner/example") is None


@pytest.mark.parametrize(("ours", "theirs"), [("peft", "peft"), (None, "transformers")])
def test_trls_library_gives_way_to_what_loads_the_model(ours: str | None, theirs: str) -> None:
    setup = {**example.SETUP, "model": {**example.SETUP["model"], "library": ours}}
    generated = render_card(setup, example.PROGRESS).text
    for text in (TRL, merge_card(generated, TRL).replace("library_name: peft", "library_name: transformers")):
        merged = merge_card(generated, text)
        assert yaml.safe_load(merged.split("---\n")[1])["library_name"] == theirs
    assert "library_name: transformers" in merge_card(generated, TRL.replace("TRL", "it"))


@pytest.mark.parametrize(("has_chat", "said"), [(True, ALL), (False, ALL - {"usage"})])
def test_an_example_that_is_a_conversation_is_none_without_a_chat_template(has_chat, said):
    example = TRL.replace(
        "```\n\n## Tr", 'output = generator([{"role": "user", "content": "Why?"}])[0]\n```\n\n## Tr'
    )
    assert said_by_library(example, {"processing": {"chat": has_chat}}) == said
