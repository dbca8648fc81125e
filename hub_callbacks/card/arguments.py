"""What `TrainingArguments` say about how a model was trained."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from .jsonsafe import attempt

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


def hyperparameters(args: Any) -> dict[str, Any]:
    """The hyperparameters that matter always, and the others where they are not the default."""
    if args is None:
        return {}

    def get(name: str) -> Any:
        value = attempt(lambda: getattr(args, name))
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
        value, default = get(name), defaults.get(name)
        if value != default and (value or default):  # False instead of None says nothing
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
    return attempt(
        lambda: args.train_batch_size * (args.gradient_accumulation_steps or 1) * max(1, args.world_size)
    )


def training_facts(args: Any) -> dict[str, Any]:
    return {
        "total_train_batch_size": _total_batch_size(args),
        "best_metric": getattr(args, "metric_for_best_model", None),
        "greater_is_better": getattr(args, "greater_is_better", None),
        "weights_file": None if getattr(args, "save_safetensors", True) else "pytorch_model.bin",
        "loads_best": bool(getattr(args, "load_best_model_at_end", False)),
    }
