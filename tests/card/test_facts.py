"""What is gathered once, from real objects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from hub_callbacks.card import gather_setup, tasks

from .runs import Images, Regressor, from_the_hub, gpt2, tokenizer, vit


def test_nothing_given_is_no_facts_but_the_surroundings() -> None:
    setup = gather_setup()
    assert setup["versions"]["Python"]
    assert not setup["model"] and not setup["datasets"] and not setup["hyperparameters"]


def test_a_model_of_the_hub_is_the_base_model_and_a_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def base_model(name: str) -> Any:
        return gather_setup(model=gpt2(name))["model"].get("base_model")

    assert base_model("openai-community/gpt2") == "openai-community/gpt2"
    assert base_model("gpt2") == "gpt2"
    for path in (str(tmp_path), "./gpt2", "../gpt2", "~/gpt2", r"C:\models\gpt2", "a/b/c", ""):
        assert base_model(path) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "final").mkdir(parents=True)
    assert base_model("runs/final") is None, "a folder that looks like the name of a repository"


def test_an_adapter_is_told_with_what_it_was_put_on() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    model = gather_setup(model=get_peft_model(gpt2("openai-community/gpt2"), config))["model"]
    assert model["library"] == "peft" and model["class"] == "GPT2LMHeadModel"
    assert model["base_model"] == "openai-community/gpt2" and model["task"] == "text-generation"
    assert model["adapter"]["type"] == "LORA" and model["adapter"]["target_modules"] == ["c_attn"]
    assert model["trainable_parameters"] == 128 < model["parameters"]


def test_an_adapter_is_told_with_the_folder_that_it_and_its_base_are_in(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
    for base, name, where, came_from in (
        ("gpt2", "default", None, None),
        (str(tmp_path / "base"), "poems", "poems", "base"),
        ("C:\\models\\base\\", "poems", "poems", "base"),
        ("", "default", None, None),
    ):
        setup = gather_setup(model=get_peft_model(gpt2(base), config, adapter_name=name))
        adapter = setup["model"]["adapter"]
        assert (adapter.get("folder"), adapter.get("base_folder")) == (where, came_from)
        assert str(tmp_path) not in json.dumps(setup)


def test_the_active_one_of_several_adapters_is_told() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = get_peft_model(gpt2(), config)
    model.add_adapter("poems", LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True))
    for active, r, folder in (("default", 2, None), ("poems", 4, "poems"), (["poems", "default"], 4, "poems")):
        model.base_model.set_adapter(active)
        adapter = gather_setup(model=model)["model"]["adapter"]
        assert (adapter["r"], adapter.get("folder")) == (r, folder)


def test_a_model_is_loaded_by_what_transformers_lists_it_under() -> None:
    from transformers.models.auto import modeling_auto

    wrong = []
    for auto_class, list_of in tasks.LISTS.items():
        for names in getattr(modeling_auto, f"MODEL_FOR_{list_of}_MAPPING_NAMES").values():
            for name in [names] if isinstance(names, str) else names:
                guess = tasks.task_of(name, has_vision=False, takes_audio=False)
                found = tasks.as_listed(guess, name, vars(modeling_auto))
                same_list = f"MODEL_FOR_{tasks.LISTS[found.auto_class]}_MAPPING_NAMES"
                wrong += [] if name in str(getattr(modeling_auto, same_list)) else [(name, auto_class, found)]
    assert not wrong
    for name in ("BertForNextSentencePrediction", "OwlViTForObjectDetection"):
        guess = tasks.task_of(name, has_vision=False, takes_audio=False)
        assert tasks.as_listed(guess, name, vars(modeling_auto)) is None


def test_code_that_is_saved_with_a_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered in this process, and loaded from the repository that it came to."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    (tmp_path / "modeling_own.py").write_text(
        "from transformers import GPT2LMHeadModel\n\n\nclass Own(GPT2LMHeadModel):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import modeling_own

    kind = modeling_own.Own
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    assert gather_setup(model=kind(config))["model"]["own_code"] is True
    kind.register_for_auto_class("AutoModelForCausalLM")
    assert isinstance(kind(config), GPT2LMHeadModel)
    kind(config).save_pretrained(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    for model in (kind(config), loaded):
        facts = gather_setup(model=model)["model"]
        assert facts["remote_code"] is True and facts["auto_class"] == "AutoModelForCausalLM"
        assert "own_code" not in facts


def test_a_plain_module_has_no_library_and_no_task() -> None:
    model = gather_setup(model=Regressor())["model"]
    assert model == {"class": "Regressor", "parameters": 193, "trainable_parameters": 193, "dtype": "float32"}


def test_a_dataset_of_the_hub_is_named_and_data_loaders_are_looked_into() -> None:
    loader = torch.utils.data.DataLoader(from_the_hub("AI-Lab-Makerere/beans", "train", 8), batch_size=2)
    part = torch.utils.data.Subset(from_the_hub("AI-Lab-Makerere/beans", "test", 8), range(5))
    datasets = gather_setup(train_dataset=loader, eval_dataset=part)["datasets"]
    assert datasets["train"] == {"size": 8, "hub_id": "AI-Lab-Makerere/beans", "split": "train"}
    assert datasets["eval"] == {"": {"size": 5, "hub_id": "AI-Lab-Makerere/beans", "split": "test"}}


def test_local_data_have_a_size_and_no_name(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "data.json").write_text('{"text": "a"}\n{"text": "b"}\n')
    local = datasets.load_dataset("json", data_files=str(tmp_path / "data.json"), cache_dir=str(tmp_path))["train"]
    assert gather_setup(train_dataset=local)["datasets"]["train"] == {"size": 2, "split": "train"}
    stream = local.to_iterable_dataset()
    assert "size" not in gather_setup(train_dataset=stream)["datasets"].get("train", {})


def test_several_evaluation_datasets_keep_their_names() -> None:
    datasets = gather_setup(eval_dataset={"a": Images(3), "b": Images(4)})["datasets"]
    assert datasets["eval"] == {"a": {"size": 3}, "b": {"size": 4}}


def test_hyperparameters_are_the_important_ones_and_what_is_not_the_default(tmp_path: Path) -> None:
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    plain = gather_setup(args=args)["hyperparameters"]
    assert {
        "learning_rate",
        "train_batch_size",
        "optimizer",
        "lr_scheduler_type",
        "num_train_epochs",
        "seed",
    } <= set(plain)
    assert not {"weight_decay", "label_smoothing_factor", "max_grad_norm"} & set(plain)
    args = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        weight_decay=0.1,
        gradient_accumulation_steps=4,
        max_steps=7,
        warmup_steps=3,
        hub_token="hf_secret",
    )
    setup = gather_setup(args=args)
    found = setup["hyperparameters"]
    assert found["weight_decay"] == 0.1 and found["max_steps"] == 7 and found["warmup_steps"] == 3
    assert found["total_train_batch_size"] == 32 and "num_train_epochs" not in found
    assert "hf_secret" not in json.dumps(setup) and str(tmp_path) not in json.dumps(setup)


def test_hyperparameters_of_a_subclass_are_told_without_its_paths_and_names(tmp_path: Path) -> None:
    from dataclasses import dataclass

    @dataclass
    class PreferenceArguments(TrainingArguments):
        beta: float = 0.1
        loss_type: str = "sigmoid"
        max_length: int = 1024
        api_key: str = ""
        ref_model_path: str = ""

    args = PreferenceArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        beta=0.5,
        api_key="s3cret",
        ref_model_path="/data/ref",
    )
    found = gather_setup(args=args)["hyperparameters"]
    assert found["beta"] == 0.5
    assert not {"loss_type", "max_length", "api_key", "ref_model_path"} & set(found)


def test_the_surroundings_come_from_accelerate(tmp_path: Path) -> None:
    state = SimpleNamespace(num_processes=8, distributed_type="FSDP", mixed_precision="bf16")
    hardware = gather_setup(accelerator_state=state)["hardware"]
    assert (hardware["processes"], hardware["distributed"], hardware["precision"]) == (8, "FSDP", "bf16")
    accelerator = SimpleNamespace(state=state)
    assert gather_setup(accelerator_state=accelerator)["hardware"]["processes"] == 8


def test_the_processing_class_is_told_by_what_loads_it() -> None:
    from transformers import ViTImageProcessor

    assert gather_setup(processing_class=tokenizer())["processing"]["auto_class"] == "AutoTokenizer"
    assert gather_setup(processing_class=ViTImageProcessor())["processing"]["auto_class"] == "AutoImageProcessor"


def test_objects_that_raise_when_looked_at_cost_their_own_facts_only() -> None:
    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("do not look")

        def __len__(self) -> int:
            raise RuntimeError("do not count")

    setup = gather_setup(args=Hostile(), model=Hostile(), processing_class=Hostile(), train_dataset=Hostile())
    json.dumps(setup, allow_nan=False)
    assert setup["versions"]
    assert gather_setup(args=Hostile(), model=vit())["model"]["class"] == "ViTForImageClassification"


def test_a_card_is_rendered_and_merged_without_torch_and_transformers() -> None:
    code = (
        "import sys; from hub_callbacks.card import *; "
        "setup = gather_setup(repo_id='a/b'); "
        "progress = {'step': 2, 'training': {'step': [1, 2], 'loss': [2.0, 1.0]}}; "
        "text = render_card(setup, progress, CardOptions(license='mit')).text; "
        "card = model_card(merge_card(text, '# Mine')); "
        "combine_edits('a', 'b', None); "
        "print([name for name in ('torch', 'transformers', 'datasets', 'peft') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
