"""What the template shows: each fact as text for people, escaped; what is not known is missing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .evaluations import Evaluations
from .facts import CardOptions
from .formatting import big, code, count, decimal, duration, memory, plain, setting, spoken_epoch
from .hub_names import is_repo_id
from .jsonsafe import number
from .metadata import dataset_ids, dataset_labels, model_name, names, pipeline_tag
from .results import headline, results, status
from .tasks import LABELS
from .usage import usage

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData


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
        "status": status(progress),
        "status_note": "" if progress.get("stopped") else "This card is brought up to date with each save.",
        "headline": headline(progress, evaluations),
        "usage": usage(setup),
        "results": results(progress, evaluations),
        "picture": picture,
        "data": _data(setup, options),
        "model_facts": _model_facts(setup),
        "run_facts": _run_facts(setup, progress),
        "hyperparameters": [
            (code(name), plain(setting(value), 200))
            for name, value in (setup.get("hyperparameters") or {}).items()
        ],
        "environment": _environment(setup),
        "versions": ", ".join(
            f"{plain(name)} {plain(version, 40)}" for name, version in (setup.get("versions") or {}).items()
        ),
    }


# --------------------------------------------------------------------------------------------- the sentence


def _summary(setup: dict[str, Any], options: CardOptions, metadata: ModelCardData) -> str:
    model = setup.get("model") or {}
    adapter, kind = model.get("adapter"), model.get("model_type")
    bases = _and([_link(name, name) for name in names(metadata.base_model)])
    task = LABELS.get(pipeline_tag(setup, options) or "")
    data = _trained_on(setup, options)
    purpose = (f" for {task}" if task else "") + (f" on {data}" if data else "")
    if adapter:
        name = _adapter_name(adapter)
        what = f"This is {_article(name)} {name} adapter" + (f" for {bases}" if bases else "")
        return f"{what}, trained{purpose}." if purpose else f"{what}."
    if bases:
        return f"This model is a fine-tuned version of {bases}{purpose}."
    if model.get("class") and not model.get("library"):
        what = f"This model is a PyTorch module, {code(model['class'], 80)}"
        return f"{what}, trained{purpose}." if purpose else f"{what}."
    return f"This{f' {plain(kind, 40)}' if kind else ''} model was trained{purpose}."


def _adapter_name(adapter: dict[str, Any]) -> str:
    kind = str(adapter.get("type") or "PEFT")
    return {"LORA": "LoRA", "ADALORA": "AdaLoRA", "IA3": "IA³"}.get(kind, plain(kind.replace("_", " ").lower()))


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _link(label: str, address: str) -> str:
    return f"[{plain(label)}](https://huggingface.co/{address})"


def _and(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _trained_on(setup: dict[str, Any], options: CardOptions) -> str:
    labels = dataset_labels(options)
    ids = [name for name in names(options.dataset_tags) if is_repo_id(name)] or dataset_ids(setup)
    if labels and len(labels) != len(ids):
        found = [plain(label) for label in labels]
    else:
        found = [_link(label, f"datasets/{name}") for label, name in zip(labels or ids, ids, strict=True)]
    return f"the {_and(found)} dataset{'s' if len(found) > 1 else ''}" if found else ""


# ------------------------------------------------------------------------------------------------ the rest


def _data(setup: dict[str, Any], options: CardOptions) -> list[tuple[str, str]]:
    facts = setup.get("datasets") or {}
    rows = [("Training data", facts.get("train"))]
    rows += [
        (f"Evaluation data ({plain(name, 40)})" if name else "Evaluation data", item)
        for name, item in (facts.get("eval") or {}).items()
    ]
    return [(label, text) for label, item in rows if (text := _dataset(item or {}))]


def _dataset(facts: dict[str, Any]) -> str:
    parts = []
    if is_repo_id(facts.get("hub_id")):
        parts.append(_link(facts["hub_id"], f"datasets/{facts['hub_id']}"))
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
    modules = adapter.get("target_modules") or []
    modules = [modules] if isinstance(modules, str) else modules
    if modules:
        shown = ", ".join(code(name, 60) for name in modules[:12])
        details.append(f"on {shown}" + (" …" if len(modules) > 12 else ""))
    if details:
        found.append((f"{_adapter_name(adapter)} adapter", ", ".join(details)))
    return found


def _run_facts(setup: dict[str, Any], progress: dict[str, Any]) -> list[tuple[str, str]]:
    step, epoch = number(progress.get("step")), number(progress.get("epoch"))
    resumed = number((setup.get("training") or {}).get("resumed_from_step"))
    totals = progress.get("totals") or {}
    found = []
    if dashboard := _dashboard(setup):
        found.append(("Dashboard", dashboard))
    if step:
        text = f"{count(step)} steps" + (f", {spoken_epoch(epoch)} epochs" if epoch else "")
        text = text.replace("1 steps", "1 step") if step == 1 else text
        found.append(("Length", f"{text}, resumed from step {count(resumed)}" if resumed else text))
    batch = number((setup.get("training") or {}).get("total_train_batch_size"))
    if step and batch:
        found.append(("Examples seen", f"about {count(step * batch)}"))
    if number(progress.get("tokens_seen")):
        found.append(("Tokens seen", count(progress["tokens_seen"])))
    if number(totals.get("train_runtime")) is not None and step != resumed:
        since = f" since step {count(resumed)}" if resumed else ""
        found.append(("Time", duration(totals["train_runtime"]) + since))
    if number(totals.get("train_samples_per_second")) and not resumed:
        found.append(("Speed", f"{decimal(totals['train_samples_per_second'])} examples per second"))
    energy = progress.get("energy") or {}
    if number(energy.get("energy_consumed")):
        found.append(("Energy", f"{decimal(energy['energy_consumed'])} kWh"))
    if number(energy.get("emissions")):
        found.append(("Emissions", f"{decimal(energy['emissions'])} kg CO₂ equivalent"))
    return found


def _dashboard(setup: dict[str, Any]) -> str | None:
    """The Space that a run has logged to, by the tag that the Hub finds it by."""
    tags = map(str, (setup.get("model") or {}).get("tags") or ())
    spaces = (
        tag.removeprefix("trackio:https://huggingface.co/spaces/") for tag in tags if tag.startswith("trackio:")
    )
    return next((_link(space, f"spaces/{space}") for space in spaces if is_repo_id(space)), None)


def _environment(setup: dict[str, Any]) -> list[tuple[str, str]]:
    hardware = setup.get("hardware") or {}
    found = []
    devices = Counter((device.get("name"), device.get("memory")) for device in hardware.get("accelerators") or [])
    for (name, size), number_of in devices.items():
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
    if precision and precision != "no" and "mixed_precision" not in (setup.get("hyperparameters") or {}):
        found.append(("Mixed precision", code(precision, 40)))
    if hardware.get("system"):
        found.append(("System", plain(hardware["system"])))
    return found
