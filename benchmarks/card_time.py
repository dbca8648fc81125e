"""What the model card costs: in the training process at each event, and in the pusher.

    python benchmarks/card_time.py [--rows 10000]

A training that has logged so many rows, with an evaluation every hundred.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hub_callbacks.card import combine_edits, gather_progress, merge_card, render_card

SETUP = {
    "name": "model",
    "repo_id": "me/model",
    "model": {"architecture": "BertForSequenceClassification", "library": "transformers"},
}


def median(function: Callable[[], Any], rounds: int) -> float:
    """Milliseconds."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    rows = parser.parse_args().rows
    history: list[dict[str, float]] = []
    for step in range(1, rows + 1):
        history.append({"step": step, "epoch": step / rows, "loss": 1 / step, "learning_rate": 1e-4})
        if step % 100 == 0:
            history.append({"step": step, "epoch": step / rows, "eval_loss": 1 / step, "eval_accuracy": 0.9})
    state = SimpleNamespace(
        log_history=history,
        global_step=rows,
        max_steps=2 * rows,
        epoch=1.0,
        num_train_epochs=2,
        best_global_step=None,
        best_metric=None,
        best_model_checkpoint=None,
        total_flos=0.0,
        num_input_tokens_seen=0,
        trial_params=None,
    )
    progress = gather_progress(state)
    card = render_card(SETUP, progress)
    print(f"{rows:,} rows, {rows // 100} evaluations; medians")
    print(f"on the training thread: gathering {median(lambda: gather_progress(state), 50):.2f} ms,", end=" ")
    print(f"writing it down {median(lambda: json.dumps(progress), 50):.2f} ms")
    print(
        f"in the pusher: rendering with curves {median(lambda: render_card(SETUP, progress), 5):.0f} ms,", end=" "
    )
    print(f"merging {median(lambda: merge_card(card.text, card.text), 20):.1f} ms,", end=" ")
    print(f"edits of both sides {median(lambda: combine_edits(card.text, card.text, card.text), 20):.1f} ms")


if __name__ == "__main__":
    main()
