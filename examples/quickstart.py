"""Trains a small Vision Transformer on scikit-learn's digits and pushes it, while it trains, to a Hub.

The Hub is the embedded one: it runs in this process and keeps ordinary git repositories in
`runs/quickstart/hub`. No account, no token, no network. With a real account the two lines that set
`HF_ENDPOINT` and `HF_TOKEN` go away, and nothing else changes.

    make quickstart
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from hub_callbacks import LocalHub

HERE = Path("runs/quickstart")
shutil.rmtree(HERE, ignore_errors=True)
hub = LocalHub(HERE / "hub").start()
# huggingface_hub reads these when it is imported.
os.environ["HF_ENDPOINT"] = hub.endpoint
os.environ["HF_TOKEN"] = hub.token

import numpy as np  # noqa: E402
import torch  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from transformers import (  # noqa: E402
    EvalPrediction,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from hub_callbacks import HubSyncCallback  # noqa: E402

REPO = "local/digits-vit"


class Digits(torch.utils.data.Dataset):
    """Images of handwritten digits: float32 in [-1, 1], shape (1, 8, 8)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = torch.tensor(images, dtype=torch.float32).unsqueeze(1) / 8 - 1
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main() -> None:
    set_seed(0)
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    test = Digits(test_x, test_y)
    labels = {i: str(i) for i in range(10)}
    model = ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=192,
            id2label=labels,
            label2id={name: i for i, name in labels.items()},
        )
    )
    args = TrainingArguments(
        output_dir=str(HERE / "digits-vit"),
        num_train_epochs=20,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=128,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=45,
        weight_decay=0.01,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=45,
        save_total_limit=2,
        hub_model_id=REPO,
        hub_strategy="checkpoint",
        report_to=[],
        use_cpu=True,
    )
    callback = HubSyncCallback()
    trainer = Trainer(
        model,
        args,
        train_dataset=Digits(train_x, train_y),
        eval_dataset=test,
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    trainer.train()
    trained = trainer.evaluate()["eval_accuracy"]
    callback.finish()

    again = ViTForImageClassification.from_pretrained(REPO)
    with torch.no_grad():
        predicted = again(pixel_values=test.images).logits.argmax(-1)
    loaded = float(np.mean((predicted == test.labels).numpy()))

    repository = hub.root / "repos" / "models" / "local" / "digits-vit.git"
    print(f"\nAccuracy on {len(test)} held-out images: {trained:.4f} after training,")
    print(f"{loaded:.4f} of the model loaded back from the Hub.")
    print(callback.summary())
    print("\nThis Hub ends with the script. To look at the card, its curves and the commits in a browser, run")
    print(f"    {Path(sys.executable).parent / 'hub-callbacks'} serve --root {hub.root}")
    print("and open the address that it prints.")
    print(f"Its repositories are ordinary git repositories: git --git-dir {repository} log --stat")
    callback.close()
    hub.stop()
    assert loaded == trained >= 0.95, (loaded, trained)


if __name__ == "__main__":
    main()
