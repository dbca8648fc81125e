"""The card's metadata as the Hub takes it, and what to do when the Hub does not."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from .document import Document, State, hash_of, normalize, parse, record_of, with_state
from .evaluations import Evaluations, read_evaluations
from .facts import CardOptions, Names
from .formatting import is_loss, metric_name, one_line
from .front import Entry, commented, with_items
from .hub_names import is_repo_id, language_id, license_id
from .merge import refused
from .tasks import LABELS

_HUB_METRICS = {
    "accuracy",
    "bertscore",
    "bleu",
    "cer",
    "chrf",
    "exact_match",
    "f1",
    "glue",
    "mae",
    "matthews_correlation",
    "mean_iou",
    "meteor",
    "mse",
    "pearsonr",
    "perplexity",
    "precision",
    "r_squared",
    "recall",
    "roc_auc",
    "rouge",
    "sacrebleu",
    "seqeval",
    "spearmanr",
    "squad",
    "ter",
    "wer",
}
"""https://huggingface.co/metrics"""


class Metadata(NamedTuple):
    """`problems` are sentences for the user about what had to be left out or put right."""

    data: ModelCardData
    problems: list[str]


def clean_metadata(
    setup: dict[str, Any], progress: dict[str, Any] | None = None, options: CardOptions | None = None
) -> Metadata:
    """The metadata of a card, with nothing in it that the Hub is known to refuse.

    Args:
        setup: Of `gather_setup`.
        progress: Of `gather_progress`, for the results.
        options: What the user says; it wins over what was found out.
    """
    options = options or CardOptions()
    model = setup.get("model") or {}
    problems: list[str] = []

    languages = _checked(language_id, names(options.language) or names(options.dataset_language), problems)
    licenses = _checked(license_id, names(options.license), problems)
    base_models = _repositories("base_model", names(options.finetuned_from), problems)
    if not base_models and not names(options.finetuned_from):
        base_models = [name for name in names(model.get("base_model")) if is_repo_id(name)]
    datasets = _repositories("dataset", names(options.dataset_tags), problems)
    if not names(options.dataset_tags):
        datasets = dataset_ids(setup)
    task = pipeline_tag(setup, options)
    evaluations = read_evaluations(setup, progress or {})
    metrics = dict.fromkeys(_metric_id(metric) for _, metric in evaluations.metrics)
    results = _results(setup, progress or {}, evaluations, options, datasets, task)

    tags = [one_line(tag, sys.maxsize) for tag in [*names(options.tags), *names(model.get("tags"))]]
    tags.append("generated_from_trainer")
    adapter = model.get("adapter") or {}
    if adapter.get("type"):
        tags.append(str(adapter["type"]).lower())

    data = ModelCardData(
        language=_one_or_list(languages),
        license=_one_or_list(licenses),  # type: ignore[arg-type]
        library_name=model.get("library"),
        pipeline_tag=task if (task in LABELS and task != "text2text-generation") or names(options.tasks) else None,
        base_model=_one_or_list(base_models),
        datasets=datasets or None,
        metrics=[metric for metric in metrics if metric in _HUB_METRICS] or None,
        tags=tags,
        model_name=model_name(setup, options) if results else None,
        eval_results=results or None,
    )
    if base_models:
        data["base_model_relation"] = _relation(model)
    return Metadata(_in_order(data), problems)


def names(value: Names) -> list[str]:
    """What the Trainer takes as one name or as a list of them, as a list without empty names."""
    found = [value] if isinstance(value, str) else list(value or [])
    return [str(name).strip() for name in found if name is not None and str(name).strip()]


def model_name(setup: dict[str, Any], options: CardOptions) -> str:
    """The title: what the user says, else the repository's or the output folder's name."""
    model = setup.get("model") or {}
    for name in (options.model_name, setup.get("name"), model.get("class")):
        line = one_line(name or "", 100)
        if line:
            return line
    return "Model"


def dataset_ids(setup: dict[str, Any]) -> list[str]:
    """The Hub's ids of the datasets that were trained on, then of those that were evaluated on."""
    facts = setup.get("datasets") or {}
    found = [facts.get("train") or {}, *(facts.get("eval") or {}).values()]
    return list(dict.fromkeys(item["hub_id"] for item in found if is_repo_id(item.get("hub_id"))))


def pipeline_tag(setup: dict[str, Any], options: CardOptions) -> str | None:
    for task in names(options.tasks):
        if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", task):
            return task
    return (setup.get("model") or {}).get("task")


def _checked(check: Any, given: list[str], problems: list[str]) -> list[str]:
    found = []
    for name in given:
        good, problem = check(name)
        problems += [problem] if problem else []
        found += [good] if good and good not in found else []
    return found


def _repositories(what: str, given: list[str], problems: list[str]) -> list[str]:
    """Those of the names that can be on the Hub: a path on this disk never is."""
    found = []
    for name in given:
        address = re.fullmatch(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(.+?)/?", name)
        name = address.group(1) if address else name
        if is_repo_id(name) and not Path(name).exists():
            found.append(name)
        elif not _is_path(name):
            problems.append(
                f"The {what} {name!r} is not the name of a repository on the Hub, so the metadata leaves it out."
            )
    return list(dict.fromkeys(found))


def _is_path(name: str) -> bool:
    """Whether a name that is no repository reads like a path on a disk."""
    return "\\" in name or ("/" in name and " " not in name) or is_repo_id(name)


def dataset_labels(options: CardOptions) -> list[str]:
    """What people call the datasets; some scripts pass a path here where the data are local files."""
    return [name for name in names(options.dataset) if is_repo_id(name) or not _is_path(name)]


def _relation(model: dict[str, Any]) -> str:
    if model.get("adapter"):
        return "adapter"
    return "quantized" if model.get("quantization") else "finetune"


def _one_or_list(found: list[str]) -> str | list[str] | None:
    return found[0] if len(found) == 1 else found or None


def _metric_id(metric: str) -> str:
    name = metric.lower()
    if name.startswith("rouge"):
        return "rouge"
    return name if name in _HUB_METRICS else re.sub(r"[^a-z0-9_]+", "_", name).strip("_") or "metric"


def _results(
    setup: dict[str, Any],
    progress: dict[str, Any],
    evaluations: Evaluations,
    options: CardOptions,
    datasets: list[str],
    task: str | None,
) -> list[EvalResult]:
    """What goes to `model-index`: complete results of the very weights of the card, or nothing."""
    measured = evaluations.of_weights
    if measured is None or measured.step != progress.get("weights_step", measured.step) or not task:
        return []
    facts = (setup.get("datasets") or {}).get("eval") or {}
    labels, arguments = dataset_labels(options), names(options.dataset_args)
    found = []
    for dataset, metric in evaluations.metrics:
        value = measured.get((dataset, metric))
        known = facts.get(dataset) or {}
        hub_id = known.get("hub_id") if is_repo_id(known.get("hub_id")) else None
        hub_id = datasets[0] if names(options.dataset_tags) and len(datasets) == 1 else hub_id
        if value is None or not math.isfinite(value) or hub_id is None or is_loss(metric):
            continue
        label = labels[0] if len(labels) == 1 else hub_id
        found.append(
            EvalResult(
                task_type=task,
                task_name=LABELS.get(task, task.replace("-", " ")).capitalize(),
                dataset_type=hub_id,
                dataset_name=one_line(f"{label} ({dataset})" if dataset else label),
                dataset_config=known.get("config"),
                # Several evaluation datasets of one repository are told apart by their split.
                dataset_split=known.get("split") or dataset or None,
                dataset_args=arguments[0] if len(arguments) == 1 else None,  # type: ignore[arg-type]
                metric_type=_metric_id(metric),
                metric_name=metric_name(one_line(metric)),
                metric_value=value,
            )
        )
    return found


def _in_order(data: ModelCardData) -> ModelCardData:
    order = ("language", "license", "library_name", "pipeline_tag", "base_model", "base_model_relation")
    data.__dict__.update({key: data.__dict__.pop(key) for key in [*order, *data.__dict__] if key in data.__dict__})
    return data


# -------------------------------------------------------------------------------------------- the Hub's no

_KEY = re.compile(r'"([A-Za-z_][\w-]*)(?:\[(\d+)\])?(?:[.\[][^"]*)?"')
_ALL = object()
_REFUSED = "# The Hub refused:\n"


def drop_refused_keys(text: str, errors: list[str]) -> tuple[str, list[str]]:
    """A card without the metadata that the Hub refused, so that the weights can go.

    A key that was generated is taken out and its value remembered, so that it is not tried again; a key that
    a person set becomes a comment, so that nothing of theirs is lost. Of a list only what is refused goes.

    Args:
        text: The card that was refused.
        errors: The messages of `validate-yaml` or of the refused commit, such as
            `"license" must be one of [...]` or `"model-index[0].results[0].task" is required`; one for each time
            that it was refused, of several lines where it said several things, each about what was left by then.

    Returns:
        The text and the names of the keys that were dropped, with the item where it was one of a list. If no
        message names a key: all generated keys, and if there are none, every key.
    """
    line_end = "\r\n" if "\r\n" in text else "\n"
    document = parse(normalize(text))
    dropped: list[str] = []
    for error in errors:
        document, names = _without(document, _named(error, document.front or []))
        dropped += names
    if not dropped:
        there = [entry.key for entry in document.front or []]
        generated = [key for key in there if document.state and key in document.state.keys]
        document, dropped = _without(document, dict.fromkeys(generated or there, _ALL))
    return str(document).replace("\n", line_end), dropped


def _without(document: Document, refused_parts: dict[str, Any]) -> tuple[Document, list[str]]:
    """The document without some keys, or some items of their lists, and the names of these.

    Args:
        refused_parts: Key → indices of the items, or `_ALL`.
    """
    state = document.state or State()
    kept: list[Entry] = []
    dropped: list[str] = []
    keys = dict(state.keys)
    carried = ""
    for entry in document.front or []:
        items, record = refused_parts.get(entry.key, ()), state.keys.get(entry.key)
        if items is _ALL or (items and isinstance(record, str)):
            dropped.append(entry.key)
            carried += entry.comment
            if _is_generated(entry, state):
                keys[entry.key] = refused(entry.value)
            else:
                carried += _REFUSED + commented(entry.raw)
            continue
        comment = entry.comment
        for item in [entry.value[i] for i in items]:
            dropped.append(f"{entry.key}: {item}")
            if hash_of(item) not in (record or ()):
                comment += _REFUSED + commented(with_items(entry, [item]).raw)
        if items:
            entry = with_items(entry, [item for i, item in enumerate(entry.value) if i not in items])
        kept.append(entry._replace(comment=carried + comment))
        carried = ""
    changed = Document(kept, document.parts, carried + document.tail)
    if document.state is not None:
        changed = with_state(changed, replace(state, keys=keys))
    return changed, dropped


def _named(error: str, front: list[Entry]) -> dict[str, Any]:
    """What a message is about: key → indices of the items of its list, or `_ALL`.

    In each line it is the first key: what is quoted after it is a value.
    """
    values = {entry.key: entry.value for entry in front}
    found: dict[str, Any] = {}
    for line in error.splitlines():
        key, index = next((match.groups() for match in _KEY.finditer(line) if match[1] in values), ("", None))
        if not key or found.get(key) is _ALL:
            continue
        value = values[key] if isinstance(values[key], list) else []
        items = {int(index)} if index else set()
        if "must be a string" in line:  # it may name the first one alone
            items |= {i for i, item in enumerate(value) if not isinstance(item, str)}
        items |= found.get(key, set())
        found[key] = items if items and items < {*range(len(value))} else _ALL
    return found


def _is_generated(entry: Entry, state: State) -> bool:
    return entry.key in state.keys and record_of(entry.value) == state.keys[entry.key]
