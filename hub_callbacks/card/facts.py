"""What is gathered once per training, in the training process: the facts that do not change.

Objects are looked at as they are, without an import of torch, transformers, peft or datasets: what is not
loaded in this process cannot have made them. Nothing here touches the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .jsonsafe import json_safe
from .progress import gather_progress
from .tasks import task_of, task_of_adapter

__all__ = ["CardOptions", "gather_progress", "gather_setup"]

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

    Returns:
        `name`, `repo_id`, `revision`, `model`, `processing`, `datasets`, `hyperparameters`, `training`,
        `hardware` and `versions`. What cannot be found out is left out: a fact never stops a training.
    """
    output_dir = getattr(args, "output_dir", None)
    setup: dict[str, Any] = {
        "name": repo_id.rsplit("/", 1)[-1] if repo_id else Path(output_dir).name if output_dir else None,
        "repo_id": repo_id,
        "revision": revision,
    }
    for name, gather in {
        "model": lambda: _model(model),
        "processing": lambda: _processing(processing_class),
        "datasets": lambda: {"train": _dataset(train_dataset), "eval": _eval_datasets(eval_dataset)},
        "hyperparameters": lambda: _hyperparameters(args),
        "training": lambda: _training(args),
        "hardware": lambda: _hardware(args, accelerator_state),
        "versions": _versions,
    }.items():
        setup[name] = _attempt(gather, {})
    return json_safe(_without_none(setup))


def _attempt(gather: Callable[[], Any], default: Any = None) -> Any:
    """Foreign objects may raise anything when they are looked at."""
    with contextlib.suppress(Exception):
        return gather()
    return default


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


# --------------------------------------------------------------------------------------------------- model


def _model(model: Any) -> dict[str, Any]:
    if model is None:
        return {}
    adapter = _adapter(model)
    inner = _attempt(model.get_base_model, model) if adapter and hasattr(model, "get_base_model") else model
    config = getattr(inner, "config", None)
    class_name = type(inner).__name__
    facts: dict[str, Any] = {
        "class": class_name,
        "library": _library(model, config, adapter),
        "model_type": getattr(config, "model_type", None),
        "quantization": _attempt(lambda: _quantization(config)),
        "tags": _attempt(lambda: list(model.model_tags)),
        "labels": _attempt(lambda: len(config.id2label)),  # type: ignore[union-attr]
        "adapter": adapter,
    }
    task = task_of(
        class_name,
        has_vision=getattr(config, "vision_config", None) is not None,
        takes_audio=getattr(inner, "main_input_name", "") in ("input_features", "input_values"),
    ) or task_of_adapter((adapter or {}).get("task_type"))
    if task and facts["library"]:
        facts |= {"task": task.pipeline_tag, "auto_class": task.auto_class}
    elif facts["library"] == "transformers":
        facts["auto_class"] = "AutoModel"
    facts["base_model"] = _hub_name((adapter or {}).pop("base_model", None)) or _hub_name(
        getattr(config, "_name_or_path", None) or getattr(model, "name_or_path", None)
    )
    facts |= _attempt(lambda: _parameters(model), {})
    return facts


def _library(model: Any, config: Any, adapter: dict[str, Any] | None) -> str | None:
    """The Hub's `library_name`: the library whose `from_pretrained` loads what is pushed."""
    origins = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    if adapter and "peft" in origins:
        return "peft"
    if "sentence_transformers" in origins:
        return "sentence-transformers"
    if "transformers" in origins and config is not None:
        return "peft" if adapter else "transformers"
    return None


def _adapter(model: Any) -> dict[str, Any] | None:
    """The active adapter of a model of PEFT, or of a transformers model that got one by `add_adapter`."""
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, Mapping) or not configs:
        return None
    active = getattr(model, "active_adapter", None)
    config = configs.get(active) if isinstance(active, str) else None
    config = config or next(iter(configs.values()))

    def get(name: str) -> Any:
        value = getattr(config, name, None)
        return getattr(value, "value", value)

    modules = get("target_modules")
    return {
        "type": get("peft_type"),
        "task_type": get("task_type"),
        "base_model": get("base_model_name_or_path"),
        "r": get("r"),
        "lora_alpha": get("lora_alpha"),
        "lora_dropout": get("lora_dropout"),
        "target_modules": sorted(modules) if isinstance(modules, set | list | tuple) else modules,
    }


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
    from .hub_names import is_repo_id

    return name if is_repo_id(name) and not Path(name).exists() else None


def _processing(processing_class: Any) -> dict[str, Any]:
    if processing_class is None:
        return {}
    name = type(processing_class).__name__
    if hasattr(processing_class, "tokenizer"):
        auto_class = "AutoProcessor"
    elif "ImageProcessor" in name:
        auto_class = "AutoImageProcessor"
    elif "VideoProcessor" in name:
        auto_class = "AutoVideoProcessor"
    elif "FeatureExtractor" in name:
        auto_class = "AutoFeatureExtractor"
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
    facts: dict[str, Any] = {"size": _attempt(lambda: len(dataset))}
    for _ in range(5):  # a torch Subset has the dataset that it was taken from
        if hasattr(dataset, "info") or not hasattr(dataset, "dataset"):
            break
        dataset = dataset.dataset
    info = getattr(dataset, "info", None)
    if info is not None:
        hub_id = _attempt(lambda: _HUB_URL.match(next(iter(info.download_checksums or ()), "")))
        config = getattr(info, "config_name", None)
        split = getattr(dataset, "split", None)
        facts |= {
            "hub_id": hub_id.group(1) if hub_id else None,
            "config": config if config != "default" and not str(config).startswith("default-") else None,
            "split": str(split) if split is not None else None,
        }
        if not hub_id:
            facts["config"] = None  # "default-0a1b2c…": the hash of the local files
    return facts if any(value is not None for value in facts.values()) else None


def _eval_datasets(dataset: Any) -> dict[str, Any] | None:
    """Name → facts; the only dataset has the empty name."""
    named = dict(dataset) if isinstance(dataset, Mapping) and not hasattr(dataset, "column_names") else None
    if named is None and type(dataset).__name__ == "DatasetDict":
        named = dict(dataset)
    found = {str(name): _dataset(item) for name, item in (named or {"": dataset}).items()}
    return {name: facts for name, facts in found.items() if facts} or None


# ------------------------------------------------------------------------------------------------ training

_IF_NOT_DEFAULT = (
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "gradient_checkpointing",
    "neftune_noise_alpha",
    "optim_target_modules",
    "torch_compile",
    "tf32",
    "group_by_length",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "data_seed",
    "full_determinism",
    "use_liger_kernel",
    "auto_find_batch_size",
)
_PRIVATE = re.compile(
    r"token(?!s|iz)|key|secret|password|path|dir$|url|file|hub_|run_name|_name_or|project|repo", re.I
)
"""Fields of argument subclasses that say where or who, not how."""


def _hyperparameters(args: Any) -> dict[str, Any]:
    """The hyperparameters that matter always, and the others where they are not the default."""
    if args is None:
        return {}

    def get(name: str) -> Any:
        value = _attempt(lambda: getattr(args, name))
        return getattr(value, "value", value)

    found: dict[str, Any] = {"learning_rate": get("learning_rate")}
    found["train_batch_size"] = get("train_batch_size")
    found["eval_batch_size"] = get("eval_batch_size")
    accumulation = get("gradient_accumulation_steps") or 1
    if accumulation > 1:
        found["gradient_accumulation_steps"] = accumulation
    total = _total_batch_size(args)
    if total and total != found["train_batch_size"]:
        found["total_train_batch_size"] = total
    found["optimizer"] = _optimizer(get)
    found["lr_scheduler_type"] = get("lr_scheduler_type")
    warmup_steps, warmup_ratio = get("warmup_steps"), get("warmup_ratio")
    if warmup_steps:
        # From transformers 5 on a number below 1 is the share of the steps.
        found["warmup_steps" if warmup_steps >= 1 else "warmup_ratio"] = warmup_steps
    elif warmup_ratio:
        found["warmup_ratio"] = warmup_ratio
    if (get("max_steps") or -1) > 0:
        found["max_steps"] = get("max_steps")
    else:
        found["num_train_epochs"] = get("num_train_epochs")
    for precision, label in (("bf16", "bfloat16"), ("fp16", "float16")):
        if get(precision) is True:
            found["mixed_precision"] = label
    defaults = _defaults(args)
    for name in _IF_NOT_DEFAULT:
        value = get(name)
        if value is not None and name in defaults and value != defaults[name]:
            found[name] = value
    found["seed"] = get("seed")
    return found | _of_subclass(args, get, defaults)


def _defaults(args: Any) -> dict[str, Any]:
    fields = dataclasses.fields(args) if dataclasses.is_dataclass(args) else ()
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def _of_subclass(args: Any, get: Callable[[str], Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What TRL's configurations and the like add, where it is a number, a switch or a short word."""
    base = next((cls for cls in type(args).__mro__ if cls.__name__ == "TrainingArguments"), None)
    if base is None or base is type(args):
        return {}
    known = {f.name for f in dataclasses.fields(base)}
    found = {}
    for name, default in defaults.items():
        value = get(name)
        if name in known or _PRIVATE.search(name) or value is None or value == default:
            continue
        if isinstance(value, bool | int | float) or (
            isinstance(value, str) and len(value) <= 40 and "/" not in value
        ):
            found[name] = value
    return found


def _optimizer(get: Callable[[str], Any]) -> str | None:
    name = get("optim")
    if not name:
        return None
    details = []
    if "adam" in str(name).lower():
        details = [f"betas=({get('adam_beta1')}, {get('adam_beta2')})", f"epsilon={get('adam_epsilon')}"]
    if get("optim_args"):
        details.append(str(get("optim_args")))
    return f"{name} ({', '.join(details)})" if details else str(name)


def _total_batch_size(args: Any) -> int | None:
    """Examples that one optimizer step sees, over all processes."""
    return _attempt(
        lambda: args.train_batch_size * (args.gradient_accumulation_steps or 1) * max(1, args.world_size)
    )


def _training(args: Any) -> dict[str, Any]:
    metric = getattr(args, "metric_for_best_model", None)
    return {
        "total_train_batch_size": _total_batch_size(args),
        "best_metric": metric,
        "greater_is_better": getattr(args, "greater_is_better", None),
        "weights_file": None if getattr(args, "save_safetensors", True) else "pytorch_model.bin",
        "loads_best": bool(getattr(args, "load_best_model_at_end", False)),
    }


# ------------------------------------------------------------------------------------------- surroundings


def _hardware(args: Any, state: Any) -> dict[str, Any]:
    state = getattr(state, "state", None) or state or _attempt(lambda: args.distributed_state)
    distributed = getattr(state, "distributed_type", None)
    distributed = getattr(distributed, "value", distributed)
    facts: dict[str, Any] = {
        "processes": getattr(state, "num_processes", None) or _attempt(lambda: args.world_size),
        "distributed": None if distributed in (None, "NO") else str(distributed),
        "precision": getattr(state, "mixed_precision", None),
        "accelerators": _attempt(_accelerators, []),
        "system": f"{platform.system()} {platform.machine()}".strip(),
    }
    if not facts["accelerators"]:
        facts |= {"cpu": _attempt(_cpu_name), "cores": os.cpu_count()}
    return facts


def _accelerators() -> list[dict[str, Any]]:
    """The devices of this machine that torch sees, with their memory in bytes."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [{"name": p.name, "memory": p.total_memory} for p in properties]
    if torch.backends.mps.is_available():
        return [{"name": "Apple GPU (MPS)"}]
    xpu = getattr(torch, "xpu", None)
    if xpu is not None and xpu.is_available():
        return [{"name": xpu.get_device_name(i)} for i in range(xpu.device_count())]
    return []


def _cpu_name() -> str | None:
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M)
        if match:
            return match.group(1).strip()
    return platform.processor() or None


_LIBRARIES = {
    "transformers": "Transformers",
    "torch": "PyTorch",
    "accelerate": "Accelerate",
    "datasets": "Datasets",
    "tokenizers": "Tokenizers",
    "peft": "PEFT",
    "trl": "TRL",
    "sentence_transformers": "Sentence Transformers",
    "timm": "timm",
    "deepspeed": "DeepSpeed",
    "bitsandbytes": "bitsandbytes",
}


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {"Python": platform.python_version()}
    for module, label in _LIBRARIES.items():
        version = getattr(sys.modules.get(module), "__version__", None)
        if version:
            found[label] = str(version)
    from ..version import __version__

    return found | {"hub_callbacks": __version__}
