"""The metadata block of README.md: what it says, and what the Hub refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pygit2
from starlette.responses import PlainTextResponse, Response

from .kept import Kept
from .metadata import Unreadable, as_json, read_yaml
from .web import Call, ok

_OPENING = re.compile(r"\s*---[ \t]*\r?\n")
_CLOSING = re.compile(r"^---[ \t]*\r?$\n?", re.MULTILINE)
_EMPTY_WARNING = "empty or missing yaml metadata in repo card"

# The licence identifiers that the Hub knows: https://huggingface.co/docs/hub/repositories-licenses
LICENSES = re.findall(
    r"\S+",
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc "
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 "
    "etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research "
    "intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 "
    "postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license "
    "llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other",
)
_MAX_ERRORS = 100
_STRING_LISTS = ("tags", "datasets", "metrics", "language", "base_model", "license")


@dataclass(frozen=True)
class Card:
    """What a README's metadata says.

    Args:
        data: As JSON can hold it; empty where there is none or it cannot be read.
        problem: Why it cannot be read.
    """

    data: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def tags(self) -> list[str]:
        """The tags under which the Hub lists a repository with this metadata."""
        tags = _words(self.data.get("tags"))
        tags += [word for key in ("library_name", "pipeline_tag") for word in _words(self.data.get(key)) if word]
        tags += _words(self.data.get("language"))
        for key, prefix in (("license", "license"), ("datasets", "dataset"), ("base_model", "base_model")):
            tags += [f"{prefix}:{word}" for word in _words(self.data.get(key))]
        return list(dict.fromkeys(tags))


def card_at(at: pygit2.Commit) -> Card:
    """The card of a commit; equal content is read once."""
    try:
        readme = at.tree["README.md"]
    except KeyError:
        return Card()
    if not isinstance(readme, pygit2.Blob):
        return Card()
    return _cards.find(readme.id) or _cards.keep(readme.id, *_read(readme.data))


_cards: Kept[Card] = Kept(20_000_000)
"""By the id of the README; its size is that of `read_yaml`."""


def _read(readme: bytes) -> tuple[Card, int]:
    block, _ = _split(readme.decode("utf-8", "replace"))
    try:
        loaded, size = read_yaml(block or "")
        if loaded is None:
            return Card(), size
        if not isinstance(loaded, dict):
            raise Unreadable("it is no object")
        return Card(as_json(loaded)), size
    except Unreadable as error:
        return Card(problem=str(error)), len(str(error))


def _split(readme: str) -> tuple[str | None, str]:
    """The metadata, None where there is none, and the text after it."""
    opening = _OPENING.match(readme)
    closing = _CLOSING.search(readme, opening.end()) if opening else None
    if opening is None or closing is None:
        return None, readme
    return readme[opening.end() : closing.start()], readme[closing.end() :]


def strip_metadata(readme: str) -> str:
    """The text of a README after its metadata."""
    return _split(readme)[1]


def validate_yaml(call: Call) -> Response:
    wanted = call.json()
    errors, warnings = check_card(str(wanted.get("content") or ""), str(wanted.get("repoType") or "model"))
    status = 400 if errors else 200
    if "text/plain" in call.headers.get("accept", ""):
        lines = [f"- Error: {text}" for text in errors] + [f"- Warning: {text}" for text in warnings]
        return PlainTextResponse("\n".join(lines), status_code=status)
    body = {
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings],
    }
    return ok(body, status)


def check_card(content: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a README's metadata."""
    block, _ = _split(content)
    try:
        card = read_yaml(block or "")[0]
    except Unreadable as error:
        return [f"YAML metadata is not valid: {error}"], []
    if card is None:
        return [], [_EMPTY_WARNING]
    if not isinstance(card, dict):
        return ["YAML metadata must be an object"], []
    errors = [
        f'"{key}" must be a string or a list of strings'
        for key in _STRING_LISTS
        if card.get(key) is not None and not _strings(card[key])
    ]
    known = ", ".join(LICENSES)
    licenses = [value for value in _as_list(card.get("license")) if isinstance(value, str)]
    if not set(licenses) <= set(LICENSES):
        errors.append(f'"license" must be one of [{known}]')
    index = card.get("model-index")
    if repo_type == "model" and index is not None:
        errors += _check_index(index)
    return errors[:_MAX_ERRORS], []


def _check_index(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for number, model in enumerate(index):
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            errors.append(f'"model-index[{number}].name" is required')
        elif not isinstance(model.get("results"), list):
            errors.append(f'"model-index[{number}].results" is required')
        else:
            for place, result in enumerate(model["results"]):
                where = f"model-index[{number}].results[{place}]"
                errors += _check_result(where, result)
    return errors


def _check_result(where: str, result: Any) -> list[str]:
    if not isinstance(result, dict):
        return [f'"{where}" must be an object']
    errors = []
    for key, name in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
        part = result.get(key)
        if not isinstance(part, dict) or not part.get(name):
            errors.append(f'"{where}.{key}.{name}" is required')
    metrics = result.get("metrics")
    if not isinstance(metrics, list):
        return [*errors, f'"{where}.metrics" is required']
    for number, metric in enumerate(metrics):
        if not isinstance(metric, dict) or not metric.get("type"):
            errors.append(f'"{where}.metrics[{number}].type" is required')
        elif metric.get("value") is None:
            errors.append(f'"{where}.metrics[{number}].value" is required')
    return errors


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _words(value: Any) -> list[str]:
    return [str(item) for item in _as_list(value) if isinstance(item, (str, int, float))]


def _strings(value: Any) -> bool:
    return all(isinstance(item, str) for item in _as_list(value))
