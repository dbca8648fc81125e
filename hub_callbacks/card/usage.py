"""How to load this very model: code for its library, architecture and revision."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .hub_names import is_repo_id

_EXAMPLES = {
    "text-classification": '"I like this a lot."',
    "token-classification": '"Ada Lovelace lived in London."',
    "question-answering": 'question="Where do I live?", context="My name is Ada and I live in London."',
    "image-classification": '"image.png"',
    "object-detection": '"image.png"',
    "image-segmentation": '"image.png"',
    "depth-estimation": '"image.png"',
    "video-classification": '"video.mp4"',
    "audio-classification": '"audio.wav"',
    "automatic-speech-recognition": '"audio.wav"',
}
"""Pipeline tag → an input of its pipeline in transformers."""
_NEEDS = {
    "AutoTokenizer": {
        "text-classification",
        "token-classification",
        "question-answering",
        "text-generation",
        "fill-mask",
    },
    "AutoImageProcessor": {
        "image-classification",
        "object-detection",
        "image-segmentation",
        "depth-estimation",
    },
    "AutoVideoProcessor": {"video-classification"},
    "AutoFeatureExtractor": {"audio-classification", "automatic-speech-recognition"},
    "AutoProcessor": {"automatic-speech-recognition", "audio-classification"},
}
"""What a pipeline has to find in the repository beside the model."""


class Usage(NamedTuple):
    """`before` is a sentence that leads to the code, in markdown."""

    code: str
    before: str = ""


class _Facts(NamedTuple):
    """The facts that go into code, each of a form that cannot be anything but what it should be."""

    where: str
    at: str
    task: str
    model_class: str
    auto_class: str
    processor: str
    base_model: str
    labels: int
    chat: bool
    weights_file: str


def usage(setup: dict[str, Any]) -> Usage | None:
    """The snippet, `None` where it is not known where the model will be."""
    repo_id, revision = setup.get("repo_id"), setup.get("revision")
    if not is_repo_id(repo_id):
        return None
    model, processing = setup.get("model") or {}, setup.get("processing") or {}
    at = f", revision={_quoted(revision)}" if revision and revision != "main" else ""
    base, labels = model.get("base_model"), model.get("labels")
    trust = ", trust_remote_code=True" if model.get("remote_code") else ""
    facts = _Facts(
        where=f"{_quoted(repo_id)}{at}{trust}",
        at=at,
        task=str(model.get("task") or ""),
        model_class=_identifier(model.get("class")),
        auto_class=_identifier(model.get("auto_class")) or "AutoModel",
        processor=_identifier(processing.get("auto_class")),
        base_model=base if is_repo_id(base) else "",
        labels=labels if isinstance(labels, int) else 0,
        chat=bool(processing.get("chat")),
        weights_file=str((setup.get("training") or {}).get("weights_file") or "model.safetensors"),
    )
    library = model.get("library")
    if library == "peft" or model.get("adapter"):
        return _adapter(facts)
    if library == "sentence-transformers":
        loader = facts.model_class or "SentenceTransformer"
        return Usage(f"from sentence_transformers import {loader}\n\nmodel = {loader}({facts.where})")
    if library == "transformers":
        return _pipeline(facts) or _auto_class(facts)
    return _state_dict(facts, repo_id) if model else None


def _pipeline(facts: _Facts) -> Usage | None:
    if facts.task not in _NEEDS.get(facts.processor, ()):
        return None
    load = f'from transformers import pipeline\n\npipe = pipeline("{facts.task}", model={facts.where})\n'
    if facts.task == "text-generation":
        if facts.chat:
            return Usage(
                f'{load}messages = [{{"role": "user", "content": "Tell me something about the sea."}}]\n'
                f'print(pipe(messages, max_new_tokens=100)[0]["generated_text"][-1]["content"])'
            )
        return Usage(f'{load}print(pipe("Once upon a time", max_new_tokens=50)[0]["generated_text"])')
    if facts.task == "fill-mask":
        return Usage(f'{load}print(pipe(f"The sea is {{pipe.tokenizer.mask_token}}."))')
    return Usage(f"{load}print(pipe({_EXAMPLES[facts.task]}))")


def _auto_class(facts: _Facts) -> Usage:
    lines = [_import("transformers", facts.auto_class, facts.processor), "", *_load_processor(facts)]
    return Usage("\n".join([*lines, f"model = {facts.auto_class}.from_pretrained({facts.where})"]))


def _adapter(facts: _Facts) -> Usage:
    if not facts.base_model:
        return Usage(
            "from peft import PeftModel\n\n"
            "base = ...  # the model that the adapter was trained on\n"
            f"model = PeftModel.from_pretrained(base, {facts.where})"
        )
    if facts.task == "text-generation":
        lines = ["from peft import AutoPeftModelForCausalLM"]
        lines += [_import("transformers", facts.processor)] if facts.processor else []
        lines += ["", f"model = AutoPeftModelForCausalLM.from_pretrained({facts.where})"]
    else:
        heads = f", num_labels={facts.labels}" if "Classification" in facts.auto_class and facts.labels else ""
        lines = ["from peft import PeftModel", _import("transformers", facts.auto_class, facts.processor), ""]
        lines += [f"base = {facts.auto_class}.from_pretrained({_quoted(facts.base_model)}{heads})"]
        lines += [f"model = PeftModel.from_pretrained(base, {facts.where})"]
    lines += _load_processor(facts)
    if facts.task == "text-generation" and facts.processor == "AutoTokenizer":
        lines += ["", 'inputs = tokenizer("Once upon a time", return_tensors="pt")']
        lines += ["print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))"]
    return Usage("\n".join(lines))


def _state_dict(facts: _Facts, repo_id: str) -> Usage:
    module = f"the PyTorch module `{facts.model_class}`" if facts.model_class else "a PyTorch module"
    file = f"hf_hub_download({_quoted(repo_id)}, {_quoted(facts.weights_file)}{facts.at})"
    if facts.weights_file.endswith(".safetensors"):
        lines = ["from huggingface_hub import hf_hub_download", "from safetensors.torch import load_file", ""]
        lines += [f"weights = load_file({file})"]
    else:
        lines = ["import torch", "from huggingface_hub import hf_hub_download", ""]
        lines += [f'weights = torch.load({file}, map_location="cpu", weights_only=True)']
    target = f"{facts.model_class}(...)" if facts.model_class else "..."
    lines += [f"model = {target}  # made as it was for the training", "model.load_state_dict(weights)"]
    return Usage(
        "\n".join(lines),
        f"The weights are the state dict of {module}, whose code is not part of this repository.",
    )


def _load_processor(facts: _Facts) -> list[str]:
    variable = {
        "AutoTokenizer": "tokenizer",
        "AutoImageProcessor": "image_processor",
        "AutoFeatureExtractor": "feature_extractor",
    }.get(facts.processor, "processor")
    return [f"{variable} = {facts.processor}.from_pretrained({facts.where})"] if facts.processor else []


def _import(module: str, *names: str) -> str:
    return f"from {module} import {', '.join(sorted({name for name in names if name}))}"


def _identifier(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() else ""


def _quoted(text: Any) -> str:
    """A Python string literal in double quotes."""
    return json.dumps(str(text), ensure_ascii=False)
