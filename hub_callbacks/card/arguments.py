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
_CAN_BE_GIVEN = ("warmup_steps", "warmup_ratio", "weight_decay")
_PRIVATE = re.compile(
    r"token(?!s|iz)|key|secret|password|path|dir$|url|file|hub_|run_name|_name_or|project|repo", re.I
)
"""Fields of argument subclasses that say where or who, not how."""


def hyperparameters(
    args: Any, batch_size: int | None = None, optimizer: Any = None, lr_scheduler: Any = None
) -> dict[str, Any]:
    """The hyperparameters that matter always, and the others where they are not the default.

    Args:
        args: `TrainingArguments`.
        batch_size: Examples of one process at a time, where `auto_find_batch_size` came down to less.
        optimizer: The one that the training uses, which the Trainer may have been given.
        lr_scheduler: The same.
    """
    if args is None:
        return {}

    def get(name: str) -> Any:
        value = attempt(lambda: getattr(args, name))
        return getattr(value, "value", value)

    found: dict[str, Any] = {"learning_rate": get("learning_rate")}
    found["train_batch_size"] = batch_size or get("train_batch_size")
    found["eval_batch_size"] = get("eval_batch_size")
    accumulation = get("gradient_accumulation_steps") or 1
    if accumulation > 1:
        found["gradient_accumulation_steps"] = accumulation
    total = _total_batch_size(args, batch_size)
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
    found |= _given(get, optimizer, lr_scheduler)
    found = {name: value for name, value in found.items() if value is not None or name not in _CAN_BE_GIVEN}
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


def _given(get: Callable[[str], Any], optimizer: Any, lr_scheduler: Any) -> dict[str, Any]:
    """What a Trainer was given in place of what its arguments say."""
    optimizer, lr_scheduler = _unwrapped(optimizer, "optimizer"), _unwrapped(lr_scheduler, "scheduler")
    found = _given_optimizer(get, optimizer)
    words = str(get("lr_scheduler_type")).split("_")
    name = _name_of_schedule(lr_scheduler)
    is_said = words[0] in name.lower() or (words[1:] and name.startswith("".join(word[0] for word in words)))
    if lr_scheduler is not None and not is_said:
        found["lr_scheduler_type"] = name
        found |= dict.fromkeys(("warmup_steps", "warmup_ratio"))
    return found


def _given_optimizer(get: Callable[[str], Any], optimizer: Any) -> dict[str, Any]:
    is_torchs = any(cls.__module__.startswith("torch.optim") for cls in type(optimizer).__mro__)
    groups = attempt(lambda: list(optimizer.param_groups)) if is_torchs else None
    if not groups:
        return {}
    found: dict[str, Any] = {}
    name, of_arguments = type(optimizer).__name__, str(get("optim")).lower()
    betas = (get("adam_beta1"), get("adam_beta2"))
    is_other = name.lower() not in of_arguments.split("_") and of_arguments.replace("_", "") != name.lower()
    if is_other or ("adam" in name.lower() and groups[0].get("betas", betas) != betas):
        shown = [f"{key}={groups[0][key]}" for key in ("momentum", "betas", "eps") if groups[0].get(key)]
        found["optimizer"] = f"{name} ({', '.join(shown)})" if shown else name
    logged = [group.get("initial_lr", group.get("lr")) for group in groups]
    rates = {float(rate) for rate in logged if rate is not None}
    if rates - {get("learning_rate")}:
        found["learning_rate"] = min(rates) if len(rates) == 1 else f"{min(rates):g} to {max(rates):g}"
    # The Trainer's own has a group without any, for biases and norms.
    decay = max(group.get("weight_decay") or 0.0 for group in groups)
    if decay != get("weight_decay"):
        found["weight_decay"] = decay or None
    return found


def _name_of_schedule(lr_scheduler: Any) -> str:
    """The class, or the function that transformers makes a `LambdaLR` of."""
    function = attempt(lambda: lr_scheduler.lr_lambdas[0])
    name = getattr(getattr(function, "func", function), "__name__", "")
    return re.sub(r"^_?get_|_lr_lambda$|_lambda$|^<.*", "", name) or type(lr_scheduler).__name__


def _unwrapped(thing: Any, name: str) -> Any:
    """What is in accelerate's wrappers, which have it under that name."""
    while thing is not None and hasattr(thing, name) and type(thing).__module__.startswith("accelerate"):
        thing = getattr(thing, name)
    return thing


def _total_batch_size(args: Any, batch_size: int | None = None) -> int | None:
    """Examples that one optimizer step sees, over all processes."""
    return attempt(
        lambda: (
            (batch_size or args.train_batch_size)
            * (args.gradient_accumulation_steps or 1)
            * max(1, args.world_size)
        )
    )


def is_likelihood(args: Any) -> bool:
    """Whether the loss is that of the labels' likelihood, as far as the arguments tell: those of preference
    optimization and of rewards have classes of their own, in TRL."""
    classes = type(args).__mro__
    names = {cls.__name__ for cls in classes if cls.__module__.split(".")[0] == "trl"}
    is_plain = str(getattr(args, "loss_type", "nll")).endswith("nll") and not args.label_smoothing_factor
    return (not names or "SFTConfig" in names) and is_plain


def training_facts(args: Any, batch_size: int | None = None) -> dict[str, Any]:
    return {
        "total_train_batch_size": _total_batch_size(args, batch_size),
        "best_metric": getattr(args, "metric_for_best_model", None),
        "greater_is_better": getattr(args, "greater_is_better", None),
        "weights_file": None if getattr(args, "save_safetensors", True) else "pytorch_model.bin",
        "loads_best": bool(getattr(args, "load_best_model_at_end", False)),
    }
