"""Time that a save costs the training thread: the Trainer's own push against the callback, side by side.

    python benchmarks/save_time.py [--sizes 30 250 800] [--saves 4]

Both train the same model for the same steps in one process, one after the other, and push to the same embedded
Hub, which runs in a process of its own. What is timed is what comes on top of writing the checkpoint: the
Trainer's `_push_from_checkpoint` on one side, all events of the callback on the other, the wait at the end of
training left out on both.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from pathlib import Path
from typing import Any

from common import hub_process, timed, work_folder


def model_of(megabytes: int) -> Any:
    """A causal language model with about so many MB of float32 weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden = 512
    per_layer = (4 * hidden * hidden + 3 * hidden * 4 * hidden) * 4 / 1e6
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_attention_heads=8,
            num_hidden_layers=max(1, round(megabytes / per_layer)),
        )
    )


def run(megabytes: int, saves: int, ours: bool, folder: Path) -> list[float]:
    """Seconds on the training thread for each save."""
    from transformers import Trainer, TrainingArguments

    from hub_callbacks import HubSyncCallback

    rows = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}] * 8
    callback = HubSyncCallback() if ours else None
    trainer = Trainer(
        model_of(megabytes),
        TrainingArguments(
            output_dir=str(folder / f"{'callback' if ours else 'stock'}-{megabytes}"),
            max_steps=saves,
            save_steps=1,
            save_total_limit=2,
            per_device_train_batch_size=1,
            optim="sgd",
            push_to_hub=not ours,
            hub_strategy="checkpoint",
            hub_always_push=True,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=rows,
        callbacks=[callback] if callback else None,
    )
    seconds: list[float] = []
    if callback:
        callback.on_save = timed(callback.on_save, seconds)  # type: ignore[method-assign]
    else:
        trainer._push_from_checkpoint = timed(trainer._push_from_checkpoint, seconds)
    with contextlib.redirect_stdout(None):
        trainer.train()
    if callback:
        callback.close()
        waiting = callback.summary().waiting
        assert waiting == 0, f"{waiting} pushes have not arrived"
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 250, 800], help="MB of weights")
    parser.add_argument("--saves", type=int, default=4)
    options = parser.parse_args()
    with work_folder() as folder, hub_process(folder / "hub"):
        print(f"{'weights':>10} {'stock, median':>14} {'callback, median':>17} {'worst':>10} {'ratio':>8}")
        for size in options.sizes:
            stock = run(size, options.saves, ours=False, folder=folder)
            ours = run(size, options.saves, ours=True, folder=folder)
            a, b, worst = (1000 * t for t in (statistics.median(stock), statistics.median(ours), max(ours)))
            print(f"{size:>7} MB {a:>11.0f} ms {b:>14.1f} ms {worst:>7.1f} ms {a / b:>7.0f}x", flush=True)


if __name__ == "__main__":
    main()
