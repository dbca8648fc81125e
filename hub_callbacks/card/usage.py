"""How to load this very model: code for its library, architecture and revision."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .formatting import code
from .hub_names import is_repo_id

_EXAMPLES = {
    "text-classification": '"I like this a lot."',
    "token-classification": '"Ada Lovelace lived in London."',
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
    "AutoTokenizer": {"text-classification", "token-classification", "text-generation", "fill-mask"},
    "AutoImageProcessor": {
        "image-classification",
        "object-detection",
        "image-segmentation",
        "depth-estimation",
    },
    "AutoVideoProcessor": {"video-classification"},
    "AutoFeatureExtractor": {"audio-classification"},
    "AutoProcessor": {"automatic-speech-recognition", "audio-classification"},
}
"""What a pipeline has to find beside the model. Transformers 5 has none for answers, summaries, translations."""
_ANSWER = """
inputs = tokenizer("Where do I live?", "My name is Ada and I live in London.", return_tensors="pt")
outputs = model(**inputs)
start, end = outputs.start_logits.argmax(), outputs.end_logits.argmax()
print(tokenizer.decode(inputs.input_ids[0, start : end + 1]))"""
_GENERATE = """
inputs = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))"""
_WITH_TOKENIZER = {
    "question-answering": _ANSWER,
    "text-generation": _GENERATE,
    "text2text-generation": _GENERATE.replace("[0]", "[0], skip_special_tokens=True"),
}
"""Pipeline tag → code that uses `model` and `tokenizer`."""


class Usage(NamedTuple):
    """`before` is a sentence that leads to the code, in markdown."""

    code: str
    before: str = ""


class _Facts(NamedTuple):
    """The facts that go into code, each of a form that cannot be anything but what it should be."""

    where: str
    at: str
    trust: str
    task: str
    model_class: str
    auto_class: str
    processor: str
    base: str
    base_folder: str
    adapter_at: str
    adapter_task: str
    labels: int
    chat: bool
    masks: bool
    weights_file: str


def usage(setup: dict[str, Any]) -> Usage | None:
    """The snippet, `None` where it is not known where the model will be."""
    repo_id, revision = setup.get("repo_id"), setup.get("revision")
    if not is_repo_id(repo_id):
        return None
    model, processing = setup.get("model") or {}, setup.get("processing") or {}
    adapter = model.get("adapter") or {}
    base, labels = model.get("base_model"), model.get("labels")
    at = _at(revision)
    facts = _Facts(
        where=f"{_quoted(repo_id)}{at}",
        at=at,
        trust=", trust_remote_code=True" if model.get("remote_code") else "",
        task=str(model.get("task") or ""),
        model_class=_identifier(model.get("class")),
        auto_class="" if model.get("own_code") else _identifier(model.get("auto_class")) or "AutoModel",
        processor=_identifier(processing.get("auto_class")),
        base=f"{_quoted(base)}{_at(adapter.get('base_revision'))}" if is_repo_id(base) else "",
        base_folder=str(adapter.get("base_folder") or ""),
        adapter_at=f", subfolder={_quoted(adapter['folder'])}" if adapter.get("folder") else "",
        adapter_task=str(adapter.get("task_type") or ""),
        labels=labels if isinstance(labels, int) else 0,
        chat=bool(processing.get("chat")),
        masks=bool(processing.get("mask_token")),
        weights_file=str((setup.get("training") or {}).get("weights_file") or "model.safetensors"),
    )
    library = model.get("library")
    if library == "peft" or adapter:
        return _adapter(facts)
    if library == "sentence-transformers":
        loader = _identifier(model.get("auto_class")) or facts.model_class or "SentenceTransformer"
        return Usage(f"from sentence_transformers import {loader}\n\nmodel = {loader}({facts.where})")
    if library == "transformers":
        return _pipeline(facts) or _from_pretrained(facts)
    return _state_dict(facts, repo_id) if model else None


def _pipeline(facts: _Facts) -> Usage | None:
    if not facts.auto_class or facts.task not in _NEEDS.get(facts.processor, ()):
        return None
    if facts.task == "fill-mask" and not facts.masks:
        return None
    load = (
        f'from transformers import pipeline\n\npipe = pipeline("{facts.task}", model={facts.where}{facts.trust})\n'
    )
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


def _from_pretrained(facts: _Facts) -> Usage:
    loader, before = facts.auto_class or facts.model_class or "...", ""
    if not facts.auto_class:
        before = f"The model is a `{loader}`, whose code is not part of this repository: import it first."
    imports = [_import("transformers", facts.auto_class, facts.processor), ""]
    lines = imports if facts.auto_class or facts.processor else []
    lines = [*lines, *_load_processor(facts), f"model = {loader}.from_pretrained({facts.where}{facts.trust})"]
    return Usage("\n".join(lines + _example(facts)), before)


def _adapter(facts: _Facts) -> Usage:
    generates = facts.task == "text-generation" and facts.adapter_task == "CAUSAL_LM"
    if generates and facts.base and not facts.adapter_at:
        lines = ["from peft import AutoPeftModelForCausalLM"]
        lines += [_import("transformers", facts.processor)] if facts.processor else []
        lines += ["", f"model = AutoPeftModelForCausalLM.from_pretrained({facts.where}{facts.trust})"]
        return Usage("\n".join([*lines, *_load_processor(facts), *_example(facts)]))
    base, before = _base(facts)
    loader = facts.auto_class if base.startswith(f"{facts.auto_class}.") else ""
    lines = ["from peft import PeftModel"]
    lines += [_import("transformers", loader, facts.processor)] if loader or facts.processor else []
    lines += ["", f"base = {base}", f"model = PeftModel.from_pretrained(base, {facts.where}{facts.adapter_at})"]
    return Usage("\n".join([*lines, *_load_processor(facts), *_example(facts)]), before)


def _base(facts: _Facts) -> tuple[str, str]:
    """Code that makes the model that an adapter was trained on, and a sentence about what it lacks."""
    loader = facts.auto_class or facts.model_class
    heads = f", num_labels={facts.labels}" if "Classification" in facts.auto_class and facts.labels else ""
    if facts.base and loader:
        return f"{loader}.from_pretrained({facts.base}{heads}{facts.trust})", _lacks_code(facts)
    kind = f"a `{facts.model_class}`" if facts.model_class else "one"
    if facts.base_folder and loader:
        return (
            f"{loader}.from_pretrained({_quoted(f'path/to/{facts.base_folder}')}{heads}{facts.trust})",
            f"The base model, {kind}, came from a folder, {code(facts.base_folder, 80)}, which is not part of "
            f"this repository. {_lacks_code(facts)}".rstrip(),
        )
    return (
        f"{facts.model_class}(...)" if facts.model_class else "...",
        f"The base model is {kind} that names no repository or folder that it came from. Its weights are needed, "
        "and are not part of this repository.",
    )


def _lacks_code(facts: _Facts) -> str:
    return "" if facts.auto_class else f"Import its class `{facts.model_class}` first, whose code is not here."


def _state_dict(facts: _Facts, repo_id: str) -> Usage:
    module = f"the PyTorch module `{facts.model_class}`" if facts.model_class else "a PyTorch module"
    file = f"hf_hub_download({_quoted(repo_id)}, {_quoted(facts.weights_file)}{facts.at})"
    target = f"{facts.model_class}(...)" if facts.model_class else "..."
    make = f"model = {target}  # made as it was for the training"
    if facts.weights_file.endswith(".safetensors"):  # what several names share is saved once: `load_model` knows
        lines = ["from huggingface_hub import hf_hub_download", "from safetensors.torch import load_model", ""]
        lines += [make, f"load_model(model, {file})"]
    else:
        lines = ["import torch", "from huggingface_hub import hf_hub_download", "", make]
        lines += [f'model.load_state_dict(torch.load({file}, map_location="cpu", weights_only=True))']
    return Usage(
        "\n".join(lines),
        f"The weights are the state dict of {module}, whose code is not part of this repository.",
    )


def _example(facts: _Facts) -> list[str]:
    """Lines that use the model, after a blank one; none where the repository lacks what they need."""
    example = _WITH_TOKENIZER.get(facts.task) if facts.processor == "AutoTokenizer" else None
    return [example] if example else []


def _load_processor(facts: _Facts) -> list[str]:
    variable = {
        "AutoTokenizer": "tokenizer",
        "AutoImageProcessor": "image_processor",
        "AutoFeatureExtractor": "feature_extractor",
    }.get(facts.processor, "processor")
    return (
        [f"{variable} = {facts.processor}.from_pretrained({facts.where}{facts.trust})"] if facts.processor else []
    )


def _at(revision: Any) -> str:
    return f", revision={_quoted(revision)}" if revision and revision != "main" else ""


def _import(module: str, *names: str) -> str:
    return f"from {module} import {', '.join(sorted({name for name in names if name}))}"


def _identifier(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() else ""


def _quoted(text: Any) -> str:
    """A Python string literal in double quotes."""
    return json.dumps(str(text), ensure_ascii=False)
