"""What a model was trained on: devices, processes and the versions of the libraries."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from .jsonsafe import attempt


def hardware(args: Any, state: Any) -> dict[str, Any]:
    state = getattr(state, "state", None) or state or attempt(lambda: args.distributed_state)
    distributed = getattr(state, "distributed_type", None)
    distributed = getattr(distributed, "value", distributed)
    facts: dict[str, Any] = {
        "processes": getattr(state, "num_processes", None) or attempt(lambda: args.world_size),
        "distributed": None if distributed in (None, "NO") else str(distributed),
        "precision": attempt(lambda: state.mixed_precision),
        "accelerators": attempt(_accelerators, []),
        "system": f"{platform.system()} {platform.machine()}".strip(),
    }
    if not facts["accelerators"]:
        facts |= {"cpu": attempt(_cpu_name), "cores": os.cpu_count()}
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


def dashboard_tags() -> list[str]:
    """The tags by which the Hub shows the dashboard of a run that is logging to a Space of trackio now."""
    trackio: Any = sys.modules.get("trackio.context_vars")
    space = attempt(lambda: trackio.current_run.get() and trackio.current_space_id.get())
    return ["trackio", f"trackio:https://huggingface.co/spaces/{space}"] if space else []


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


def versions() -> dict[str, Any]:
    found: dict[str, Any] = {"Python": platform.python_version()}
    for module, label in _LIBRARIES.items():
        version = getattr(sys.modules.get(module), "__version__", None)
        if version:
            found[label] = str(version)
    from ..version import __version__

    return found | {"hub_callbacks": __version__}
