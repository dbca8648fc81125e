"""The cards that TRL and sentence-transformers write: what they say as well, and what they cannot know."""

from __future__ import annotations

import re
from typing import Any

from .document import Document, normalize, outside_code, parse

_TRL = re.compile(r"(?m)^It has been trained using \[TRL\]\(https://github\.com/huggingface/trl\)\.$")
_SENTENCE_TRANSFORMERS = re.compile(r"(?mi)^This is an? \[[^\]\n]+\]\(https://www\.sbert\.net[^)\s]*\) model")
_SAID = {
    "usage": re.compile(r"(?m)^## (Quick start|Usage)$"),
    "versions": re.compile(r"(?mi)^### Framework versions$"),
}


_CONVERSATION = re.compile(r'(?m)^.*\[\{"role": ')


def said_by_library(existing: str | None, setup: dict[str, Any]) -> frozenset[str]:
    """The variables of the template whose part a library's own card has taken.

    Args:
        existing: The README that the card is merged into.
        setup: Of `gather_setup`. TRL's example is a conversation, and fails without a chat template.
    """
    whole = _text(parse(normalize(existing)))
    text = outside_code(whole)
    start = _start(text)
    if start is None:
        return frozenset()
    said = {"summary"} | {name for name, heading in _SAID.items() if heading.search(text, start)}
    has_chat = (setup.get("processing") or {}).get("chat")
    return frozenset(said - {"usage"} if _CONVERSATION.search(whole) and not has_chat else said)


def is_by_trl(document: Document) -> bool:
    return _TRL.search(_text(document)) is not None


def with_repository(text: str | None, repo_id: str) -> str | None:
    """A README in which the example of a library's own card loads the repository that the card is in.

    Args:
        repo_id: The library may have known no name, or the name alone. Nothing is changed where the owner is not
            known here either.
    """
    start = None if text is None else _start(text)
    if text is None or start is None or "/" not in repo_id:
        return text
    name = re.escape(repo_id.rpartition("/")[2])
    example = re.compile(
        r'(?m)^(?:(?:generator|rewarder) = pipeline\((?:"text-generation", )?model=|model = \w+\()'
        rf'"(None|{name}|\w+_model_id)"(?=[,)].*$)'
    )
    match = example.search(text, start)
    return text if match is None else text[: match.start(1)] + repo_id + text[match.end(1) :]


def _text(document: Document) -> str:
    """What stands outside of the generated sections."""
    return "\n".join(part for part in document.parts if isinstance(part, str))


def _start(text: str) -> int | None:
    """Where a library's card introduces itself."""
    match = _TRL.search(text) or _SENTENCE_TRANSFORMERS.search(text)
    return None if match is None else match.start()
