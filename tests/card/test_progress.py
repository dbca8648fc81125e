"""What is gathered at each event, on the training thread."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from hub_callbacks.card import gather_progress
from hub_callbacks.card.jsonsafe import number
from hub_callbacks.card.progress import MAX_EVALUATIONS, MAX_TRAINING_ROWS

from .conftest import state_of


def log(steps: int, every: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        rows.append({"loss": 1 / step, "grad_norm": 1.0, "learning_rate": 1e-4, "epoch": step / 100, "step": step})
        if step % every == 0:
            rows.append({"eval_loss": 2 / step, "eval_runtime": 1.0, "epoch": step / 100, "step": step})
    return rows


def test_a_short_log_is_kept_whole() -> None:
    progress = gather_progress(state_of(log(20, 5), global_step=20, max_steps=40, epoch=0.2))
    assert progress["training"]["step"] == list(range(1, 21))
    assert [row["step"] for row in progress["evaluations"]] == [5, 10, 15, 20]
    assert (progress["step"], progress["weights_step"], progress["max_steps"]) == (20, 20, 40)


@pytest.mark.parametrize("every", [2, 7, 10, 1000])
def test_a_long_log_is_thinned_evenly_with_its_ends_kept(every: int) -> None:
    progress = gather_progress(state_of(log(10_000, every), global_step=10_000, max_steps=20_000))
    steps = progress["training"]["step"]
    assert 0.9 * MAX_TRAINING_ROWS <= len(steps) <= MAX_TRAINING_ROWS
    assert steps[0] == 1 and steps[-1] == 10_000
    gaps = [b - a for a, b in pairwise(steps)]
    assert min(gaps) >= 1 and max(gaps) <= 14
    evaluations = [row["step"] for row in progress["evaluations"]]
    assert len(evaluations) == min(10_000 // every, MAX_EVALUATIONS) or len(evaluations) <= MAX_EVALUATIONS
    assert evaluations[-1] == 10_000 // every * every


def test_the_best_evaluation_and_that_of_the_weights_survive_thinning() -> None:
    rows = log(5_000, 2)
    progress = gather_progress(state_of(rows, global_step=5_000, best_global_step=1_234), weights_step=4_322)
    steps = [row["step"] for row in progress["evaluations"]]
    assert {1_234, 4_322, 5_000} <= set(steps) and len(steps) <= MAX_EVALUATIONS


def test_several_evaluation_datasets_of_one_step_are_one_evaluation() -> None:
    rows = [
        {"eval_a_loss": 1.0, "eval_a_runtime": 0.1, "epoch": 1.0, "step": 5},
        {"eval_b_loss": 2.0, "eval_b_runtime": 0.1, "epoch": 1.0, "step": 5},
    ]
    (row,) = gather_progress(state_of(rows, global_step=5))["evaluations"]
    assert row["metrics"] == {"eval_a_loss": 1.0, "eval_a_runtime": 0.1, "eval_b_loss": 2.0, "eval_b_runtime": 0.1}


def test_whatever_a_script_logs_becomes_json() -> None:
    rows = [
        {"loss": float("nan"), "learning_rate": torch.tensor(0.5), "step": 1},
        {"loss": np.float32(2.5), "learning_rate": float("inf"), "step": np.int64(2)},
        {
            "eval_loss": -math.inf,
            7: np.float64(1.5),
            "eval_list": [torch.ones(2)],
            "eval_\ud800": object(),
            "step": 2,
        },
    ]
    progress = gather_progress(state_of(rows, global_step=2, best_metric=np.float64("nan"), epoch=np.float64(1.0)))
    text = json.dumps(progress, allow_nan=False)
    text.encode("utf-8")
    assert progress["training"]["loss"] == ["NaN", 2.5]
    assert progress["training"]["learning_rate"] == [0.5, "Infinity"]
    assert math.isnan(number(progress["training"]["loss"][0]) or 0)
    assert progress["evaluations"][0]["metrics"]["eval_loss"] == "-Infinity"
    assert progress["evaluations"][0]["metrics"]["7"] == 1.5


def test_a_training_has_finished_when_its_last_row_says_so() -> None:
    end = {
        "train_runtime": 12.5,
        "train_loss": 0.1,
        "train_samples_per_second": 3.0,
        "total_flos": 1.0,
        "step": 20,
    }
    assert gather_progress(state_of([*log(20, 5), end], global_step=20))["finished"] is True
    after = {"eval_loss": 0.5, "eval_runtime": 1.0, "step": 20}
    progress = gather_progress(state_of([*log(20, 5), end, after], global_step=20))
    assert progress["totals"]["train_runtime"] == 12.5
    resumed = [*log(20, 5), end, {"loss": 1.0, "step": 21}]
    assert "finished" not in gather_progress(state_of(resumed, global_step=21))


def test_energy_is_told_only_where_it_was_measured() -> None:
    end = {"train_runtime": 12.5, "total_flos": 1.0, "step": 20}
    assert "energy" not in gather_progress(state_of([end], global_step=20))
    measured = end | {"energy_consumed": 1.5, "emissions": 0.4}
    assert gather_progress(state_of([measured], global_step=20))["energy"] == {
        "energy_consumed": 1.5,
        "emissions": 0.4,
    }


def test_the_state_is_not_changed() -> None:
    rows = log(3_000, 3)
    before = json.dumps(rows)
    gather_progress(state_of(rows, global_step=3_000))
    assert json.dumps(rows) == before
