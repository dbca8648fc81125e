"""What can be said of a model, where on its card that stands, and the code on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, hf_hub_download

SAID: dict[str, tuple[Any, str | None, str]] = {
    "language": ("en", "language", "en"),
    "license": ("mit", "license", "mit"),
    "tags": (["demo"], "tags", "demo"),
    "model_name": ("My own model", None, "# My own model"),
    "finetuned_from": ("local/base", "base_model", "local/base"),
    "tasks": ("fill-mask", "pipeline_tag", "fill-mask"),
    "dataset_tags": ("local/data", "datasets", "local/data"),
    "dataset": ("The data", None, "The data"),
    "dataset_args": ("config: plain", "model-index", "config: plain"),
    "dataset_language": ("fr", "language", "fr"),
}
"""Parameter of `create_model_card` → a value, the key of the metadata (`None`: the text), what stands there.

`dataset_args` stands with a result; `dataset_language` where there is no `language`."""


def values(names: Iterable[str]) -> dict[str, Any]:
    return {name: SAID[name][0] for name in names}


def is_on(card: ModelCard, name: str) -> bool:
    _, key, there = SAID[name]
    return there in str(card if key is None else card.data.to_dict().get(key))


def how_to_use(repo: str, revision: str | None = None) -> tuple[str, str]:
    """What stands before the code of a card on the Hub, and the code; a library's own, where it has some."""
    card = Path(hf_hub_download(f"local/{repo}", "README.md", revision=revision)).read_text(encoding="utf-8")
    section = re.search(r"## How to use\n(.*)", card, re.DOTALL) or re.search(r"## Usage\n(.*)", card, re.DOTALL)
    found = section and re.search(r"(.*?)```python\n(.*?)\n```", section[1], re.DOTALL)
    assert found is not None
    return found[1].strip(), found[2]


def loaded_by(code: str, **given: Any) -> Any:
    """The model that the code on a card loads, with what a person has to have imported."""
    names = dict(given)
    exec(compile(code, "README.md", "exec"), names)
    return names["model"] if "model" in names else names["pipe"].model
