"""What a card lacks that only a person can add."""

from __future__ import annotations

import re

from .document import normalize, parse

_SAID_BY = {
    "license": 'license="apache-2.0"',
    "datasets": 'dataset_tags="owner/data"',
    "language": 'language="en"',
}
"""Key of the metadata → the keyword of `push_to_hub` and `create_model_card` that adds it, with an example."""
_HAS_NO_LANGUAGE = re.compile("image|video|depth|object|mask|keypoint|robotics|tabular|time-series")
_ON_ITS_USE = re.compile(r"(?im)^#+.*\b(intended|limitations?|out[- ]of[- ]scope|bias(es)?)\b")


def missing(text: str) -> tuple[list[str], list[str]]:
    """
    Args:
        text: The card.

    Returns:
        What is not there, in words, and the keywords that add what of it is metadata.
    """
    front = {entry.key: entry.value for entry in parse(normalize(text)).front or []}
    keys = [key for key in _SAID_BY if not front.get(key)]
    if _HAS_NO_LANGUAGE.search(str(front.get("pipeline_tag"))) and "language" in keys:
        keys.remove("language")
    words = keys if _ON_ITS_USE.search(text) else [*keys, "intended use"]
    return words, [_SAID_BY[key] for key in keys]
