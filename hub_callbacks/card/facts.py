"""What is gathered once per training, in the training process: the facts that do not change.

Objects are looked at as they are, without an import of torch, transformers, peft or datasets: what is not
loaded in this process cannot have made them. Nothing here touches the network.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .arguments import hyperparameters, is_likelihood, training_facts
from .hub_names import is_repo_id
from .jsonsafe import attempt, json_safe
from .surroundings import hardware, versions
from .tasks import Task, as_listed, task_of, task_of_adapter

Names = str | list[str] | None


@dataclasses.dataclass(frozen=True)
class CardOptions:
    """What a user says about the model, with the names of `Trainer.create_model_card`.

    Args:
        language: ISO 639 codes of the languages, such as `"en"`.
        license: Identifier from https://huggingface.co/docs/hub/repositories-licenses.
        tags: Tags of the model.
        model_name: Title of the card.
        finetuned_from: Repository of the model that this one was made from.
        tasks: Task identifiers, such as `"text-classification"`; the first becomes the pipeline tag.
        dataset_tags: Repositories of the datasets on the Hub.
        dataset: The datasets' names for people; as many as `dataset_tags` where both are given.
        dataset_args: What was passed to load each dataset, such as its configuration.
        dataset_language: ISO 639 codes of the languages of the datasets; taken as the model's languages
            where `language` is not given.
    """

    language: Names = None
    license: Names = None
    tags: Names = None
    model_name: str | None = None
    finetuned_from: Names = None
    tasks: Names = None
    dataset_tags: Names = None
    dataset: Names = None
    dataset_args: Names = None
    dataset_language: Names = None


def gather_setup(
    *,
    args: Any = None,
    model: Any = None,
    processing_class: Any = None,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    accelerator_state: Any = None,
    repo_id: str | None = None,
    revision: str | None = None,
    resumed_from_step: int | None = None,
    optimizer: Any = None,
    lr_scheduler: Any = None,
    has_own_loss: bool = False,
) -> dict[str, Any]:
    """The facts of a training that do not change while it runs, ready for `json.dumps`.

    Args:
        args: `TrainingArguments`, or a subclass.
        model: The model that is trained, unwrapped.
        processing_class: Tokenizer, image processor, feature extractor or processor.
        train_dataset: Dataset, or a data loader, whose dataset is taken.
        eval_dataset: The same, or a dict of names and datasets.
        accelerator_state: `Accelerator`, `AcceleratorState` or `PartialState`.
        repo_id: Where the model is pushed to, `"owner/name"`.
        revision: The branch, `None` for `main`.
        resumed_from_step: Optimizer step of the checkpoint that this training goes on from, if it does.
        optimizer: The one that it uses.
        lr_scheduler: The same.
        has_own_loss: Whether the loss may be another than the model's.

    Returns:
        `name`, `repo_id`, `revision`, `model`, `processing`, `datasets`, `hyperparameters`, `training`,
        `hardware` and `versions`. What cannot be found out is left out: a fact never stops a training.
    """
    output_dir = attempt(lambda: args.output_dir)
    batch_size = attempt(lambda: _smaller_batch(train_dataset, args))
    setup: dict[str, Any] = {
        "name": repo_id.rsplit("/", 1)[-1] if repo_id else Path(output_dir).name if output_dir else None,
        "repo_id": repo_id,
        "revision": revision,
    }
    for name, gather in {
        "model": lambda: _model(model),
        "processing": lambda: _processing(processing_class),
        "datasets": lambda: {"train": _dataset(train_dataset), "eval": _eval_datasets(eval_dataset)},
        "hyperparameters": lambda: hyperparameters(args, batch_size, optimizer, lr_scheduler),
        "training": lambda: training_facts(args, batch_size) | {"resumed_from_step": resumed_from_step or None},
        "hardware": lambda: hardware(args, accelerator_state),
        "versions": versions,
    }.items():
        setup[name] = attempt(gather, {})
    if not setup["model"].get("adapter"):
        setup["versions"].pop("PEFT", None)  # transformers imports it wherever it is installed
    is_language_model = setup["model"].get("task") in ("text-generation", "fill-mask")
    is_the_models = not (has_own_loss or attempt(lambda: model.config.output_router_logits))
    if args is not None and is_language_model and is_the_models:
        setup["training"]["has_perplexity"] = attempt(lambda: is_likelihood(args)) or None
    return json_safe(_without_none(setup))


def _smaller_batch(loader: Any, args: Any) -> int | None:
    """The batch size that `auto_find_batch_size` came down to, in examples of one process."""
    source = loader if getattr(loader, "batch_size", None) else getattr(loader, "batch_sampler", None)
    size = getattr(source, "batch_size", None)
    return size if args.auto_find_batch_size and isinstance(size, int) and size < args.train_batch_size else None


def gather_evaluation_data(dataset: Any) -> dict[str, Any]:
    """The facts of one data set, or of a data loader's, as `gather_setup` has them; empty where none is known."""
    found: dict[str, Any] = json_safe(_without_none(attempt(lambda: _dataset(dataset)) or {}))
    return found


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


# --------------------------------------------------------------------------------------------------- model


def _model(model: Any) -> dict[str, Any]:
    if model is None:
        return {}
    adapter = _adapter(model)
    inner = attempt(model.get_base_model, model) if adapter and hasattr(model, "get_base_model") else model
    config = getattr(inner, "config", None)
    class_name = type(inner).__name__
    facts: dict[str, Any] = {
        "class": class_name,
        "library": _library(model, config, adapter),
        "model_type": getattr(config, "model_type", None),
        "quantization": attempt(lambda: _quantization(config)),
        "tags": attempt(lambda: list(model.model_tags)),
        "labels": attempt(lambda: len(config.id2label)),  # type: ignore[union-attr]
        "adapter": adapter,
    }
    named = task_of(
        class_name,
        has_vision=getattr(config, "vision_config", None) is not None,
        takes_audio=getattr(inner, "main_input_name", "") in ("input_features", "input_values"),
    )
    lists = sys.modules.get("transformers.models.auto.modeling_auto")
    if lists and _is_of_transformers(type(inner)):
        named = as_listed(named, class_name, vars(lists))
    task = named or task_of_adapter((adapter or {}).get("task_type"))
    if task and facts["library"]:
        facts["task"] = task.pipeline_tag
    if facts["library"] == "sentence-transformers":  # or a class of a person's own that is made from one of it
        classes = (cls for cls in type(model).__mro__ if cls.__module__.startswith("sentence_transformers."))
        facts["auto_class"] = next(classes).__name__
    elif facts["library"]:
        facts |= _loader(type(inner), config, named)
    origin = (adapter or {}).pop("base_model", None) or getattr(config, "_name_or_path", None)
    origin = origin or getattr(model, "name_or_path", None)
    facts["base_model"] = _hub_name(origin)
    if adapter and not facts["base_model"]:
        adapter["base_folder"] = _last_part(origin)
    facts |= attempt(lambda: _parameters(model), {})
    return facts


def _library(model: Any, config: Any, adapter: dict[str, Any] | None) -> str | None:
    """The Hub's `library_name`: the library whose `from_pretrained` loads what is pushed."""
    origins = _packages(type(model))
    if adapter and "peft" in origins:
        return "peft"
    if "sentence_transformers" in origins:
        return "sentence-transformers"
    if "transformers" in origins and config is not None:
        return "peft" if adapter else "transformers"
    return None


def _packages(kind: type) -> set[str]:
    """The packages that a class and those that it is made from come from."""
    return {cls.__module__.partition(".")[0] for cls in kind.__mro__}


def _is_of_transformers(kind: type) -> bool:
    """Whether `from transformers import ...` gives this very class."""
    return attempt(lambda: getattr(sys.modules.get("transformers"), kind.__name__)) is kind


def _loader(kind: type, config: Any, task: Task | None) -> dict[str, Any]:
    """What loads a model class of transformers: a name in it, and whether it needs code of another's.

    A class whose name tells no task is named itself, for `AutoModel` would leave out its head. One of a person's
    own is loaded as what its name says, as long as its configuration is one of transformers'.
    """
    if config is None or "transformers" not in _packages(kind):
        return {}
    registered = getattr(kind, "_auto_class", None)  # of `register_for_auto_class`: its code is saved beside it
    if (registered and kind.__module__ != "__main__") or kind.__module__.startswith("transformers_modules"):
        code = getattr(config, "auto_map", None) or {}
        came_by = (name for name, place in code.items() if str(place).rpartition(".")[2] == kind.__name__)
        named = task.auto_class if task else "AutoModel"
        return {"auto_class": registered or next(came_by, named), "remote_code": True}
    if _is_of_transformers(kind):
        return {"auto_class": task.auto_class if task else kind.__name__}
    if task and type(config).__module__.partition(".")[0] == "transformers":
        return {"auto_class": task.auto_class}
    return {"own_code": True}


def _adapter(model: Any) -> dict[str, Any] | None:
    """The active adapter of a model of PEFT, or of a transformers model that got one by `add_adapter`."""
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, Mapping) or not configs:
        return None
    name = _active_adapter(model, configs)
    config = configs[name]

    def get(name: str) -> Any:
        value = getattr(config, name, None)
        return getattr(value, "value", value)

    modules = get("target_modules")
    return {
        "type": get("peft_type"),
        "task_type": get("task_type"),
        "base_model": get("base_model_name_or_path"),
        "base_revision": get("revision"),
        # PEFT saves each adapter in a folder of its name, transformers the active one beside the configuration.
        "folder": name if name != "default" and "peft" in _packages(type(model)) else None,
        "r": get("r"),
        "lora_alpha": get("lora_alpha"),
        "lora_dropout": get("lora_dropout"),
        "target_modules": sorted(modules) if isinstance(modules, set | list | tuple) else modules,
    }


def _active_adapter(model: Any, configs: Mapping[str, Any]) -> str:
    """The first active one; `active_adapters` is a list in PEFT, and a method in transformers."""
    active = attempt(lambda: model.active_adapters() if callable(model.active_adapters) else model.active_adapters)
    active = [active] if isinstance(active, str) else active or []
    return next((name for name in active if name in configs), next(iter(configs)))


def _quantization(config: Any) -> str | None:
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return None
    get = quantization.get if isinstance(quantization, Mapping) else lambda name: getattr(quantization, name, None)
    method = get("quant_method")
    bits = 4 if get("load_in_4bit") else 8 if get("load_in_8bit") else get("bits")
    name = str(getattr(method, "value", method) or "quantized")
    return f"{name}, {bits} bits" if bits else name


def _parameters(model: Any) -> dict[str, Any]:
    total = trainable = 0
    dtype = None
    for parameter in model.parameters():
        count = getattr(parameter, "ds_numel", None) or parameter.numel()  # DeepSpeed shards to size 0
        if type(parameter).__name__ == "Params4bit":  # two weights in each byte
            count *= 2
        total += count
        trainable += count if parameter.requires_grad else 0
        dtype = dtype or str(parameter.dtype).removeprefix("torch.")
    return {"parameters": total, "trainable_parameters": trainable, "dtype": dtype} if total else {}


def _hub_name(name: Any) -> str | None:
    """`name` if it can be a repository on the Hub and is nothing on this disk."""
    return name if is_repo_id(name) and not Path(name).exists() else None


def _last_part(path: Any) -> str | None:
    """The name of a folder: where it is on this machine is nobody's business."""
    return re.split(r"[/\\]", str(path).rstrip("/\\"))[-1] or None if path else None


def _processing(processing_class: Any) -> dict[str, Any]:
    if processing_class is None:
        return {}
    name = type(processing_class).__name__
    kind = next((kind for kind in ("ImageProcessor", "VideoProcessor", "FeatureExtractor") if kind in name), None)
    if hasattr(processing_class, "tokenizer"):
        auto_class = "AutoProcessor"
    elif kind:
        auto_class = f"Auto{kind}"
    elif hasattr(processing_class, "convert_tokens_to_ids"):
        auto_class = "AutoTokenizer"
    else:
        auto_class = "AutoProcessor"
    return {
        "class": name,
        "auto_class": auto_class,
        "chat": bool(getattr(processing_class, "chat_template", None)),
        "mask_token": getattr(processing_class, "mask_token", None),
    }


# ------------------------------------------------------------------------------------------------ datasets

_HUB_URL = re.compile(r"hf://datasets/([^@/]+/[^@/]+|[^@/]+)@")


def _dataset(dataset: Any) -> dict[str, Any] | None:
    """Name, configuration and split of a `datasets.Dataset`, the number of examples of any other."""
    if dataset is None:
        return None
    if hasattr(dataset, "dataset") and hasattr(dataset, "batch_size"):
        dataset = dataset.dataset
    facts: dict[str, Any] = {"size": attempt(lambda: len(dataset))}
    for _ in range(5):  # a torch Subset has the dataset that it was taken from
        if hasattr(dataset, "info") or not hasattr(dataset, "dataset"):
            break
        dataset = dataset.dataset
    info = getattr(dataset, "info", None)
    if info is not None:
        hub_id = attempt(lambda: _HUB_URL.match(next(iter(info.download_checksums or ()), "")))
        config = getattr(info, "config_name", None)
        if not hub_id or str(config).partition("-")[0] == "default":
            config = None  # "default-0a1b2c…": the hash of the local files
        split = getattr(dataset, "split", None)
        facts |= {
            "hub_id": hub_id.group(1) if hub_id else None,
            "config": config,
            "split": str(split) if split is not None else None,
        }
    return facts if any(value is not None for value in facts.values()) else None


def _eval_datasets(dataset: Any) -> dict[str, Any] | None:
    """Name → facts; the only dataset has the empty name."""
    named = dict(dataset) if isinstance(dataset, Mapping) and not hasattr(dataset, "column_names") else None
    if named is None and type(dataset).__name__ == "DatasetDict":
        named = dict(dataset)
    found = {str(name): _dataset(item) for name, item in (named or {"": dataset}).items()}
    return {name: facts for name, facts in found.items() if facts} or None
