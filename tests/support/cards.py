"""What can be said of a model, and where on its card that stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from huggingface_hub import ModelCard

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
