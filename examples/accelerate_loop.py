"""A training loop with Accelerate and no Trainer, which pushes what it saves while it goes on.

A small Vision Transformer learns scikit-learn's digits. `accelerator.save_state` writes a checkpoint after each
epoch, and next to it `sync.push_from_checkpoint` queues it for the Hub. The Hub is the embedded one: it runs in
this process and keeps ordinary git repositories in `runs/accelerate_loop/hub`. With a real account the two lines
that set `HF_ENDPOINT` and `HF_TOKEN` go away, and nothing else changes.

    python examples/accelerate_loop.py
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from hub_callbacks import LocalHub

HERE = Path("runs/accelerate_loop")
shutil.rmtree(HERE, ignore_errors=True)
hub = LocalHub(HERE / "hub").start()
# huggingface_hub reads these when it is imported.
os.environ["HF_ENDPOINT"] = hub.endpoint
os.environ["HF_TOKEN"] = hub.token

import torch  # noqa: E402
from accelerate.utils import set_seed  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402
from transformers import ViTConfig, ViTForImageClassification  # noqa: E402

from hub_callbacks import HubSync  # noqa: E402

REPO = "local/digits-loop"
EPOCHS = 10


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Images of handwritten digits, float32 in [-1, 1] of shape (1, 8, 8), with labels: to train and to test."""
    data = load_digits()
    parts = train_test_split(data.images, data.target, test_size=0.2, random_state=0, stratify=data.target)
    train_x, test_x, train_y, test_y = parts
    pairs = (train_x, train_y), (test_x, test_y)
    made = [
        TensorDataset(torch.tensor(x, dtype=torch.float32).unsqueeze(1) / 8 - 1, torch.tensor(y)) for x, y in pairs
    ]
    return made[0], made[1]


def vision_transformer() -> ViTForImageClassification:
    return ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            num_labels=10,
        )
    )


@torch.no_grad()
def accuracy(model: torch.nn.Module, loader: DataLoader) -> float:
    model.eval()
    right = [(model(pixel_values=images).logits.argmax(-1) == labels).float() for images, labels in loader]
    model.train()
    return float(torch.cat(right).mean())


def main() -> None:
    set_seed(0)
    output_dir = HERE / "digits-loop"
    sync = HubSync(output_dir=output_dir, hub_model_id=REPO, hub_strategy="all_checkpoints")
    accelerator = sync.create_accelerator_and_postprocess(cpu=True)
    sync.init_hf_repo()

    train, test = digits()
    model = vision_transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train_loader = DataLoader(train, batch_size=32, shuffle=True)
    test_loader = DataLoader(test, batch_size=128)
    sync.describe(model=model, train_dataset=train, eval_dataset=test)
    model, optimizer, train_loader, test_loader = accelerator.prepare(model, optimizer, train_loader, test_loader)

    began = time.monotonic()
    step = 0
    for epoch in range(1, EPOCHS + 1):
        for images, labels in train_loader:
            loss = model(pixel_values=images, labels=labels).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        sync.log({"loss": loss.item(), "epoch": epoch}, step)
        sync.log({"eval_accuracy": accuracy(model, test_loader), "epoch": epoch}, step)

        checkpoint = output_dir / f"checkpoint-{step}"
        accelerator.save_state(str(checkpoint))
        if accelerator.is_main_process:  # what `from_pretrained` wants beside the weights
            accelerator.unwrap_model(model).config.save_pretrained(checkpoint)
        sync.push_from_checkpoint(checkpoint)  # returns at once; the next epoch does not wait

    sync.log({"train_runtime": time.monotonic() - began}, step)
    trained = accuracy(model, test_loader)
    accelerator.unwrap_model(model).save_pretrained(output_dir)
    sync.create_model_card(license="mit", tasks="image-classification", dataset="scikit-learn's digits")
    commit = sync.push_to_hub(commit_message="Release", tags=["v1.0.0"])

    again = ViTForImageClassification.from_pretrained(REPO, revision="v1.0.0")
    loaded = accuracy(again, DataLoader(test, batch_size=128))
    print(f"\nAccuracy on {len(test)} held-out images: {trained:.4f} after training,")
    print(f"{loaded:.4f} of the model loaded back from the Hub as v1.0.0 ({commit.commit_url}).")
    print(sync.summary())
    sync.close()
    hub.stop()
    assert loaded == trained >= 0.9, (loaded, trained)


if __name__ == "__main__":
    main()
