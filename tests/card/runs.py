"""Short real trainings of tiny models, and what a callback gathers from them.

`python -m tests.card.runs` writes the facts that the golden cards are made from, with everything that
differs between machines replaced by fixed values, and then the golden cards.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    set_seed,
)

from hub_callbacks.card import CardOptions, gather_progress, gather_setup

from .conftest import GOLDEN, Facts, Scenario

FINAL = "final"
"""The folder in a run's own that holds what a user would load."""


class Gather(TrainerCallback):
    """Gathers as the engine does: the setup when training begins, the progress at each save and at the end."""

    def __init__(self, repo_id: str, revision: str | None = None, datasets: Facts | None = None) -> None:
        self.repo_id, self.revision, self.datasets = repo_id, revision, datasets or {}
        self.setup: Facts = {}
        self.saves: list[Facts] = []
        self.end: Facts = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.resumed_from_step = state.global_step
        self._gather(args, kwargs)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer makes the evaluation's data loader only now."""
        if not self.setup["datasets"].get("eval"):
            self._gather(args, kwargs)

    def _gather(self, args: Any, kwargs: Facts) -> None:
        self.setup = gather_setup(
            args=args,
            model=kwargs["model"],
            processing_class=kwargs["processing_class"],
            train_dataset=kwargs["train_dataloader"],
            eval_dataset=self.datasets.get("eval", kwargs["eval_dataloader"]),
            repo_id=self.repo_id,
            revision=self.revision,
            resumed_from_step=self.resumed_from_step,
        )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saves.append(gather_progress(state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        best = state.best_global_step if args.load_best_model_at_end else None
        self.end = gather_progress(state, weights_step=best)


class Images(torch.utils.data.Dataset):
    """Three classes of noise that differ in their mean."""

    def __init__(self, size: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 3, (size,), generator=generator)
        self.images = torch.randn(size, 3, 8, 8, generator=generator) + self.labels.view(-1, 1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"pixel_values": self.images[i], "labels": self.labels[i]}


class Texts(Images):
    def __getitem__(self, i: int) -> dict[str, Any]:
        ids = (torch.arange(8) * (1 + self.labels[i])) % 32
        return {"input_ids": ids, "labels": ids}


def from_the_hub(repo: str, split: str, size: int) -> Any:
    """A `datasets.Dataset` as `load_dataset` returns it for a repository on the Hub."""
    import datasets

    url = f"hf://datasets/{repo}@0123456789abcdef0123456789abcdef01234567/data/{split}-00000.parquet"
    info = datasets.DatasetInfo(
        config_name="default", download_checksums={url: {"num_bytes": 1, "checksum": None}}
    )
    images = Images(size)
    columns = {"pixel_values": images.images.tolist(), "labels": images.labels.tolist()}
    return datasets.Dataset.from_dict(columns, info=info, split=split).with_format("torch")


class Regressor(torch.nn.Module):
    """A module of nobody's library: no config, no tokenizer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * 8 * 8, 1)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, Any]:
        value = self.layer(pixel_values.flatten(1)).squeeze(1)
        found = {"logits": value}
        return found if labels is None else {"loss": ((value - labels) ** 2).mean(), **found}


def vit() -> Any:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    config.name_or_path = "google/vit-base-patch16-224-in21k"
    return ViTForImageClassification(config)


def gpt2(name: str = "") -> Any:
    config = GPT2Config(
        vocab_size=32, n_positions=16, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    config.name_or_path = name
    return GPT2LMHeadModel(config)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0")),
        eos_token="w0",
        pad_token="w0",
    )


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def train(folder: Path, gather: Gather, model: Any, *, resume: bool = False, **kwargs: Any) -> Gather:
    set_seed(0)
    given = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "max_steps": 12,
        "logging_steps": 2,
        "save_steps": 4,
        "learning_rate": 1e-3,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    } | kwargs.pop("args", {})
    trainer = Trainer(model=model, args=TrainingArguments(**given), callbacks=[gather], **kwargs)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(str(folder / FINAL))
    return gather


EVALUATE = {"eval_strategy": "steps", "eval_steps": 4}


def image_classification(folder: Path) -> Scenario:
    gather = train(
        folder,
        Gather("ada/vit-beans"),
        vit(),
        args=EVALUATE,
        train_dataset=from_the_hub("AI-Lab-Makerere/beans", "train", 64),
        eval_dataset=from_the_hub("AI-Lab-Makerere/beans", "validation", 16),
        processing_class=ViTImageProcessor(size={"height": 8, "width": 8}),
        compute_metrics=accuracy,
    )
    return (
        gather.setup,
        gather.end,
        CardOptions(license="apache-2.0", dataset="Beans", dataset_tags="AI-Lab-Makerere/beans"),
    )


def causal_lm(folder: Path) -> Scenario:
    """Looked at while it trains, and pushed to a branch."""
    gather = train(
        folder,
        Gather("ada/tiny-gpt2", revision="run-2"),
        gpt2(),
        args=EVALUATE | {"gradient_accumulation_steps": 2, "warmup_steps": 2, "weight_decay": 0.01},
        train_dataset=Texts(64),
        eval_dataset=Texts(16),
        processing_class=tokenizer(),
    )
    return gather.setup, gather.saves[1], CardOptions(language="en")


def lora_adapter(folder: Path) -> Scenario:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    # PEFT asks the Hub at each save whether the base model has another vocabulary.
    with mock.patch.dict(os.environ, HF_HUB_OFFLINE="1"):
        gather = train(
            folder,
            Gather("ada/gpt2-lora"),
            get_peft_model(gpt2("openai-community/gpt2"), config),
            args=EVALUATE | {"label_names": ["labels"]},
            train_dataset=Texts(64),
            eval_dataset=Texts(16),
            processing_class=tokenizer(),
        )
    return gather.setup, gather.end, CardOptions(license="mit")


def plain_module(folder: Path) -> Scenario:
    gather = train(
        folder,
        Gather("ada/regressor"),
        Regressor(),
        args=EVALUATE,
        train_dataset=Images(64),
        eval_dataset=Images(16),
    )
    return gather.setup, gather.end, CardOptions()


def several_eval_datasets(folder: Path) -> Scenario:
    named = {"easy": Images(16), "hard": Images(24, seed=1)}
    gather = train(
        folder,
        Gather("ada/vit-two-tests", datasets={"eval": named}),
        vit(),
        args=EVALUATE,
        train_dataset=Images(64),
        eval_dataset=named,
        processing_class=ViTImageProcessor(size={"height": 8, "width": 8}),
        compute_metrics=accuracy,
    )
    return gather.setup, gather.end, CardOptions()


def resumed(folder: Path) -> Scenario:
    kwargs = {"train_dataset": Texts(64), "eval_dataset": Texts(16), "processing_class": tokenizer()}
    train(folder, Gather("ada/resumed"), gpt2(), args=EVALUATE | {"max_steps": 8}, **kwargs)
    gather = train(folder, Gather("ada/resumed"), gpt2(), args=EVALUATE, resume=True, **kwargs)
    return gather.setup, gather.end, CardOptions()


def best_model_at_end(folder: Path) -> Scenario:
    """Its second evaluation is the best of four, by a metric that is the same on every machine."""
    accuracies = iter([0.5, 0.8125, 0.25, 0.625])
    gather = train(
        folder,
        Gather("ada/vit-best"),
        vit(),
        args=EVALUATE
        | {
            "load_best_model_at_end": True,
            "metric_for_best_model": "accuracy",
            "max_steps": 16,
        },
        train_dataset=Images(64),
        eval_dataset=Images(32),
        processing_class=ViTImageProcessor(size={"height": 8, "width": 8}),
        compute_metrics=lambda prediction: {"accuracy": next(accuracies)},
    )
    return gather.setup, gather.end, CardOptions()


def no_evaluation(folder: Path) -> Scenario:
    gather = train(
        folder, Gather("ada/no-evaluation"), gpt2(), train_dataset=Texts(64), processing_class=tokenizer()
    )
    return gather.setup, gather.end, CardOptions()


SCENARIOS: dict[str, Callable[[Path], Scenario]] = {
    scenario.__name__: scenario
    for scenario in (
        image_classification,
        causal_lm,
        lora_adapter,
        plain_module,
        several_eval_datasets,
        resumed,
        best_model_at_end,
        no_evaluation,
    )
}

HARDWARE = {
    "processes": 1,
    "precision": "no",
    "accelerators": [{"name": "NVIDIA A100-SXM4-80GB", "memory": 85_899_345_920}],
    "system": "Linux x86_64",
}
VERSIONS = {"Python": "3.11.7", "Transformers": "5.0.0", "PyTorch": "2.9.0", "hub_callbacks": "0.1.0"}


def fixed(setup: Facts, progress: Facts) -> tuple[Facts, Facts]:
    """The facts with what differs between machines and versions replaced."""
    setup = setup | {"hardware": HARDWARE, "versions": VERSIONS}
    progress = json.loads(json.dumps(progress))
    for row in progress["evaluations"]:
        for name in row["metrics"]:
            if name.endswith(("_runtime", "_per_second")):
                row["metrics"][name] = 0.5
    if "totals" in progress:
        progress["totals"] |= {"train_runtime": 754.2, "train_samples_per_second": 127.3}
        progress["totals"].pop("train_steps_per_second", None)
    return setup, progress


def shape(facts: Any) -> Any:
    """Facts without the numbers that a training computes: names, texts, counts and what is there."""
    if isinstance(facts, dict):
        return {name: shape(value) for name, value in facts.items()}
    if isinstance(facts, list):
        return [shape(item) for item in facts]
    return "a number" if isinstance(facts, float) and math.isfinite(facts) else facts


def write_golden() -> None:
    from hub_callbacks.card import render_card

    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as folder:
            setup, progress, options = scenario(Path(folder))
        setup, progress = fixed(setup, progress)
        facts = {"setup": setup, "progress": progress, "options": vars(options)}
        (GOLDEN / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (GOLDEN / f"{name}.md").write_text(render_card(setup, progress, options).text, encoding="utf-8")


if __name__ == "__main__":
    write_golden()
