"""Facts of a training that never was, with everything in them that a card can show: to try a template with."""

from __future__ import annotations

from typing import Any

from .facts import CardOptions

_OF_EACH_CLASS = {f"eval_f1_class_{number}": 0.9 for number in range(20)}
_EVALUATIONS = [
    {
        "step": step,
        "epoch": step / 10,
        "metrics": {"eval_loss": 1 / step, "eval_accuracy": 1 - 1 / step, **_OF_EACH_CLASS},
    }
    for step in range(10, 260, 10)
]

SETUP: dict[str, Any] = {
    "name": "example",
    "repo_id": "owner/example",
    "model": {
        "class": "BertForSequenceClassification",
        "library": "transformers",
        "model_type": "bert",
        "task": "text-classification",
        "auto_class": "AutoModelForSequenceClassification",
        "base_model": "google-bert/bert-base-uncased",
        "labels": 2,
        "parameters": 109_483_778,
        "trainable_parameters": 109_483_778,
        "dtype": "float32",
    },
    "processing": {"class": "BertTokenizerFast", "auto_class": "AutoTokenizer", "chat": False},
    "datasets": {
        "train": {"size": 3668, "hub_id": "nyu-mll/glue", "config": "mrpc", "split": "train"},
        "eval": {"": {"size": 408, "hub_id": "nyu-mll/glue", "config": "mrpc", "split": "validation"}},
    },
    "hyperparameters": {"learning_rate": 5e-05, "num_train_epochs": 30.0, "optim": "adamw_torch"},
    "training": {"total_train_batch_size": 32, "best_metric": "loss", "greater_is_better": False},
    "hardware": {"accelerators": [{"name": "NVIDIA A100", "memory": 85_899_345_920}], "system": "Linux"},
    "versions": {"transformers": "5.0.0", "torch": "2.9.0"},
}
PROGRESS: dict[str, Any] = {
    "step": 250,
    "max_steps": 300,
    "weights_step": 250,
    "epoch": 25.0,
    "num_train_epochs": 30.0,
    "evaluations": _EVALUATIONS,
    "training": {"step": [10, 250], "loss": [0.7, 0.1]},
    "totals": {"train_runtime": 120.0, "train_samples_per_second": 30.0},
}
OPTIONS = CardOptions(language="en", license="apache-2.0")
