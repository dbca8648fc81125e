"""The metadata block of README.md: what it says, and what the Hub refuses."""

from __future__ import annotations

import re
from typing import Any

import yaml
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .web import Call

_BLOCK = re.compile(r"\A\s*---\r?\n(.*?)(?:\r?\n)?---\s*(?:\r?\n|\Z)", re.DOTALL)
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
_STRING_LISTS = ("tags", "datasets", "metrics", "language", "base_model", "license")


def card_data(readme: bytes) -> dict[str, Any]:
    """The metadata of a README; an empty dict where there is none or it is broken."""
    match = _BLOCK.match(readme.decode("utf-8", "replace"))
    try:
        loaded = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError:
        return {}
    return _jsonable(loaded) if isinstance(loaded, dict) else {}


def strip_metadata(readme: str) -> str:
    """The text of a README after its metadata."""
    return _BLOCK.sub("", readme, count=1)


def card_tags(card: dict[str, Any]) -> list[str]:
    """The tags under which the Hub lists a repository with this metadata."""
    tags = [str(tag) for tag in _as_list(card.get("tags"))]
    tags += [str(card[key]) for key in ("library_name", "pipeline_tag") if card.get(key)]
    tags += [str(language) for language in _as_list(card.get("language"))]
    for key, prefix in (("license", "license"), ("datasets", "dataset"), ("base_model", "base_model")):
        tags += [f"{prefix}:{value}" for value in _as_list(card.get(key))]
    return list(dict.fromkeys(tags))


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
    return JSONResponse(body, status_code=status)


def check_card(content: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a README's metadata."""
    match = _BLOCK.match(content)
    if match is None or not match.group(1).strip():
        return [], [_EMPTY_WARNING]
    try:
        card = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
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
    errors += [f'"license" must be one of [{known}]' for value in licenses if value not in LICENSES]
    index = card.get("model-index")
    if repo_type == "model" and index is not None:
        errors += _check_index(index)
    return errors, []


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
    for key, field in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
        part = result.get(key)
        if not isinstance(part, dict) or not part.get(field):
            errors.append(f'"{where}.{key}.{field}" is required')
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


def _strings(value: Any) -> bool:
    return all(isinstance(item, str) for item in _as_list(value))


def _jsonable(value: Any) -> Any:
    """YAML knows dates, JSON does not."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
