"""What the template shows: each fact as text for people, escaped; what is not known is missing."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import ModelCardData

from .evaluations import Evaluation, Evaluations
from .facts import CardOptions
from .formatting import (
    big,
    code,
    count,
    decimal,
    duration,
    measure,
    memory,
    metric_name,
    one_line,
    plain,
    setting,
    step_of,
)
from .formatting import epoch as spoken_epoch
from .hub_names import is_repo_id
from .jsonsafe import number
from .metadata import dataset_ids, model_name, names, pipeline_tag
from .tasks import LABELS
from .usage import usage

MAX_ROWS = 20
MAX_COLUMNS = 8


def view(
    setup: dict[str, Any],
    progress: dict[str, Any],
    options: CardOptions,
    metadata: ModelCardData,
    evaluations: Evaluations,
    *,
    picture: str | None,
) -> dict[str, Any]:
    """The variables of the template."""
    return {
        "title": plain(model_name(setup, options), 100),
        "summary": _summary(setup, options, metadata),
        "status": _status(progress),
        "headline": _headline(progress, evaluations),
        "usage": usage(setup),
        "results": _results(progress, evaluations),
        "picture": picture,
        "data": _data(setup, options),
        "model_facts": _model_facts(setup),
        "run_facts": _run_facts(setup, progress),
        "hyperparameters": [
            (code(name), plain(setting(value), 200))
            for name, value in (setup.get("hyperparameters") or {}).items()
        ],
        "environment": _environment(setup),
        "versions": [(plain(name), code(version, 60)) for name, version in (setup.get("versions") or {}).items()],
    }


# --------------------------------------------------------------------------------------------- the sentence


def _summary(setup: dict[str, Any], options: CardOptions, metadata: ModelCardData) -> str:
    model = setup.get("model") or {}
    adapter = model.get("adapter")
    bases = names(metadata.base_model)
    task = LABELS.get(pipeline_tag(setup, options) or "")
    what = "This model"
    if adapter:
        kind = _adapter_name(adapter)
        what = f"This is {_article(kind)} {kind} adapter" + (f" for {_links(bases)}" if bases else "")
        sentence = f"{what}, trained" if bases else f"{what} that was trained"
    elif bases:
        sentence = f"{what} is a fine-tuned version of {_links(bases)}"
    elif model.get("library"):
        sentence = f"{what} was trained" + (
            f" with the {plain(model['model_type'])} architecture" if model.get("model_type") else ""
        )
    elif model.get("class"):
        sentence = f"{what} is a PyTorch module, {code(model['class'], 80)}, that was trained"
    else:
        sentence = f"{what} was trained"
    if task:
        sentence += f" for {task}"
    data = _trained_on(setup, options)
    return f"{sentence}{f' on {data}' if data else ''}."


def _adapter_name(adapter: dict[str, Any]) -> str:
    kind = str(adapter.get("type") or "PEFT")
    return {"LORA": "LoRA", "ADALORA": "AdaLoRA", "IA3": "IA³"}.get(kind, plain(kind.replace("_", " ").lower()))


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _links(ids: list[str], prefix: str = "") -> str:
    return _and([f"[{plain(name)}](https://huggingface.co/{prefix}{name})" for name in ids])


def _and(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _trained_on(setup: dict[str, Any], options: CardOptions) -> str:
    labels = names(options.dataset)
    ids = [name for name in names(options.dataset_tags) if is_repo_id(name)] or dataset_ids(setup)
    if labels and len(labels) == len(ids):
        found = [f"[{plain(a)}](https://huggingface.co/datasets/{b})" for a, b in zip(labels, ids, strict=True)]
    elif labels:
        # run_glue and others pass a path here where the data are local files.
        found = [plain(label) for label in labels if not re.match(r"^([/~.]|[A-Za-z]:\\)", label)]
    else:
        found = [f"[{plain(name)}](https://huggingface.co/datasets/{name})" for name in ids]
    return f"the {_and(found)} dataset{'s' if len(found) > 1 else ''}" if found else ""


# ---------------------------------------------------------------------------------------------- the results


def _status(progress: dict[str, Any]) -> str | None:
    """That training goes on, while it does."""
    step, max_steps = number(progress.get("step")), number(progress.get("max_steps"))
    if progress.get("finished") or not step or (max_steps and step >= max_steps):
        return None
    epoch, epochs = number(progress.get("epoch")), number(progress.get("num_train_epochs"))
    where = f", epoch {spoken_epoch(epoch)}" + (f" of {spoken_epoch(epochs)}" if epochs else "") if epoch else ""
    return f"Training in progress: {step_of(step, max_steps)}{where}."


def _headline(progress: dict[str, Any], evaluations: Evaluations) -> dict[str, Any] | None:
    """The results of the weights: one value for each metric, a column for each dataset."""
    row = evaluations.of_weights
    if row is None:
        return None
    pairs = [pair for pair in evaluations.metrics if row.get(pair) is not None]
    datasets = list(dict.fromkeys(dataset for dataset, _ in pairs))
    metrics = list(dict.fromkeys(metric for _, metric in pairs))
    return {
        "note": _about(progress, evaluations, row),
        "datasets": [plain(dataset or "evaluation set", 40) for dataset in datasets],
        "rows": [
            (
                plain(metric_name(metric)),
                [_measured(metric, row.get((dataset, metric))) for dataset in datasets],
            )
            for metric in metrics
        ],
    }


def _measured(metric: str, value: float | None) -> str:
    return "–" if value is None else measure(metric, value)


def _about(progress: dict[str, Any], evaluations: Evaluations, row: Evaluation) -> str:
    """Which step was measured, and how that step relates to the weights."""
    weights = number(progress.get("weights_step", progress.get("step")))
    at = f"after {step_of(row.step)}"
    at += f" (epoch {spoken_epoch(row.epoch)})" if row.epoch is not None else ""
    if weights is not None and row.step < weights:
        return f"Measured {at}; the weights here are those of step {count(weights)}, which was not evaluated."
    if (
        evaluations.best is row
        and evaluations.best_by
        and weights is not None
        and row.step < progress.get("step", 0)
    ):
        by = plain(metric_name(evaluations.best_by[1]).lower())
        return f"Measured {at}, the best {by} of the run; the weights here are those of that step."
    return f"Measured {at}."


def _results(progress: dict[str, Any], evaluations: Evaluations) -> dict[str, Any] | None:
    """The table of evaluations, thinned to `MAX_ROWS` with the best, the weights' and the last kept."""
    if len(evaluations.rows) < 2:
        return None
    several = len(evaluations.datasets) > 1
    pairs = evaluations.metrics[:MAX_COLUMNS]
    training = _training_loss(progress)
    shown = _thinned(evaluations)
    has_loss = any(_loss_until(training, row.step) is not None for row in shown)
    has_epoch = any(row.epoch is not None for row in shown)
    header = ["Step", *(["Epoch"] if has_epoch else []), *(["Training loss"] if has_loss else [])]
    header += [_column(pair, several) for pair in pairs]
    rows = []
    for row in shown:
        cells = [count(row.step)]
        cells += [spoken_epoch(row.epoch) if row.epoch is not None else "–"] if has_epoch else []
        if has_loss:
            loss = _loss_until(training, row.step)
            cells.append("–" if loss is None else decimal(loss))
        cells += [_measured(pair[1], row.get(pair)) for pair in pairs]
        rows.append([f"**{cell}**" for cell in cells] if row is evaluations.best and len(shown) > 1 else cells)
    best_by = evaluations.best_by
    return {
        "header": header,
        "rows": rows,
        "left_out": len(evaluations.rows) - len(shown),
        "total": count(len(evaluations.rows)),
        "best_by": plain(_spoken(best_by, several)) if best_by and evaluations.best else None,
    }


def _spoken(pair: tuple[str, str], several: bool) -> str:
    name = metric_name(pair[1])
    name = name if name[1:2].isupper() else name[:1].lower() + name[1:]
    return f"{name} on {pair[0]}" if several and pair[0] else name


def _column(pair: tuple[str, str], several: bool) -> str:
    dataset, metric = pair
    name = "Validation loss" if metric == "loss" and not several else metric_name(metric)
    return plain(
        f"{one_line(dataset, 40)}: {name.lower() if name == 'Loss' else name}" if several and dataset else name
    )


def _thinned(evaluations: Evaluations) -> list[Evaluation]:
    rows = evaluations.rows
    if len(rows) <= MAX_ROWS:
        return rows
    keep = {id(row) for row in (evaluations.best, evaluations.of_weights, rows[-1]) if row is not None}
    spaced = MAX_ROWS - len(keep)
    keep |= {id(rows[round(i * (len(rows) - 1) / spaced)]) for i in range(spaced)}
    return [row for row in rows if id(row) in keep]


def _training_loss(progress: dict[str, Any]) -> list[tuple[float, float]]:
    training = progress.get("training") or {}
    pairs = zip(training.get("step") or [], training.get("loss") or [], strict=False)
    return [
        (s, v) for step, value in pairs if (s := number(step)) is not None and (v := number(value)) is not None
    ]


def _loss_until(training: list[tuple[float, float]], step: float) -> float | None:
    """The training loss that was logged last at that step."""
    found = None
    for logged, value in training:
        if logged > step:
            break
        found = value
    return found


# ------------------------------------------------------------------------------------------------ the rest


def _data(setup: dict[str, Any], options: CardOptions) -> list[tuple[str, str]]:
    facts = setup.get("datasets") or {}
    rows = [("Training", facts.get("train"))]
    rows += [
        (f"Evaluation ({plain(name, 40)})" if name else "Evaluation", item)
        for name, item in (facts.get("eval") or {}).items()
    ]
    found = []
    for label, item in rows:
        text = _dataset(item or {})
        if text:
            found.append((label, text))
    return found


def _dataset(facts: dict[str, Any]) -> str:
    parts = []
    if is_repo_id(facts.get("hub_id")):
        parts.append(_links([facts["hub_id"]], "datasets/"))
    if facts.get("config"):
        parts.append(f"configuration {code(facts['config'], 60)}")
    if facts.get("split") and parts:
        parts.append(f"split {code(facts['split'], 60)}")
    if number(facts.get("size")) is not None:
        parts.append(f"{count(facts['size'])} example{'s' if facts['size'] != 1 else ''}")
    return ", ".join(parts)


def _model_facts(setup: dict[str, Any]) -> list[tuple[str, str]]:
    model = setup.get("model") or {}
    found = []
    if model.get("class"):
        found.append(("Architecture", code(model["class"], 80)))
    total, trainable = number(model.get("parameters")), number(model.get("trainable_parameters"))
    if total:
        text = big(total)
        if trainable is not None and trainable < total:
            text += f", of which {big(trainable)} ({decimal(100 * trainable / total, 3)} %) were trained"
        found.append(("Parameters", text))
    if model.get("dtype"):
        found.append(("Data type", code(model["dtype"], 40)))
    if model.get("quantization"):
        found.append(("Quantization", plain(model["quantization"])))
    adapter = model.get("adapter") or {}
    details = [
        f"{name} {plain(setting(adapter[key]))}"
        for key, name in (("r", "rank"), ("lora_alpha", "alpha"), ("lora_dropout", "dropout"))
        if adapter.get(key) is not None
    ]
    modules = adapter.get("target_modules")
    if modules:
        shown = [modules] if isinstance(modules, str) else modules[:12]
        details.append(
            f"on {', '.join(code(name, 60) for name in shown)}"
            + (" …" if len(modules) > 12 and not isinstance(modules, str) else "")
        )
    if details:
        found.append((f"{_adapter_name(adapter)} adapter", ", ".join(details)))
    return found


def _run_facts(setup: dict[str, Any], progress: dict[str, Any]) -> list[tuple[str, str]]:
    step, epoch = number(progress.get("step")), number(progress.get("epoch"))
    totals = progress.get("totals") or {}
    found = []
    if step:
        text = f"{count(step)} steps" + (f", {spoken_epoch(epoch)} epochs" if epoch else "")
        found.append(("Length", text.replace("1 steps", "1 step") if step == 1 else text))
    batch = number((setup.get("training") or {}).get("total_train_batch_size"))
    if step and batch:
        found.append(("Examples seen", f"about {count(step * batch)}"))
    if number(progress.get("tokens_seen")):
        found.append(("Tokens seen", count(progress["tokens_seen"])))
    if number(totals.get("train_runtime")) is not None:
        found.append(("Time", duration(totals["train_runtime"])))
    if number(totals.get("train_samples_per_second")):
        found.append(("Speed", f"{decimal(totals['train_samples_per_second'])} examples per second"))
    energy = progress.get("energy") or {}
    if number(energy.get("energy_consumed")):
        found.append(("Energy", f"{decimal(energy['energy_consumed'])} kWh"))
    if number(energy.get("emissions")):
        found.append(("Emissions", f"{decimal(energy['emissions'])} kg CO₂ equivalent"))
    return found


def _environment(setup: dict[str, Any]) -> list[tuple[str, str]]:
    hardware = setup.get("hardware") or {}
    found = []
    devices = hardware.get("accelerators") or []
    kinds = dict.fromkeys((device.get("name"), device.get("memory")) for device in devices)
    for name, size in kinds:
        number_of = sum(device.get("name") == name and device.get("memory") == size for device in devices)
        times = f"{number_of} × " if number_of > 1 else ""
        found.append(("Accelerator", f"{times}{plain(name)}" + (f", {memory(size)}" if number(size) else "")))
    if not devices and hardware.get("cpu"):
        cores = hardware.get("cores")
        found.append(("Processor", plain(hardware["cpu"]) + (f", {cores} cores" if number(cores) else "")))
    processes = number(hardware.get("processes"))
    if processes and processes > 1:
        kind = f" ({plain(hardware['distributed'].replace('_', ' '))})" if hardware.get("distributed") else ""
        found.append(("Processes", f"{count(processes)}{kind}"))
    precision = hardware.get("precision")
    if precision and precision != "no":
        found.append(("Mixed precision", code(precision, 40)))
    if hardware.get("system"):
        found.append(("System", plain(hardware["system"])))
    return found
