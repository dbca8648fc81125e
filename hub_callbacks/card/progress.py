"""What is gathered at each event: how far training is and what was measured so far.

This runs on the training thread, so it does one cheap pass over the log and converts only what it keeps.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from .jsonsafe import json_safe

MAX_TRAINING_ROWS = 1000
MAX_EVALUATIONS = 200
CURVES = ("step", "loss", "learning_rate")
"""The columns of training rows that are kept."""
UNKNOWN_STEP = -1
"""The `weights_step` of weights that may be of any step."""
_RUN_TOTALS = (
    "train_runtime",
    "train_loss",
    "train_samples_per_second",
    "train_steps_per_second",
    "total_flos",
)
_ENERGY = ("energy_consumed", "emissions")
"""What CodeCarbon calls the energy in kWh and the emissions in kg of CO2 equivalent."""


def gather_progress(state: Any, *, weights_step: int | None = None, is_stopped: bool = False) -> dict[str, Any]:
    """The facts of one event, ready for `json.dumps`.

    Args:
        state: A `TrainerState`, or anything with its `global_step`, `max_steps` and `log_history`.
        weights_step: The optimizer step whose weights the commit carries: that of the checkpoint which was loaded
            at the end, `None` for the current one, `UNKNOWN_STEP` where nobody knows.
        is_stopped: Whether the training came to no end of its own, and is under way no more.

    Returns:
        `step`, `weights_step`, `evaluations` (one dict for each evaluated step, at most `MAX_EVALUATIONS`;
        the first, the last, the best and the one of `weights_step` are always among them), `training`
        (columns of equal length, at most `MAX_TRAINING_ROWS` evenly spaced rows) and, where known,
        `max_steps`, `epoch`, `num_train_epochs`, `best_step`, `best_metric`, `tokens_seen`, `finished`, `stopped`,
        `totals`, `energy` and `afterwards` (metrics of these weights, measured after the training).
    """
    history = getattr(state, "log_history", None) or []
    step = int(getattr(state, "global_step", 0) or 0)
    progress: dict[str, Any] = {"step": step, "weights_step": step if weights_step is None else weights_step}
    if weights_step == UNKNOWN_STEP:
        progress["weights_step"] = None
    for name, attribute in (
        ("max_steps", "max_steps"),
        ("epoch", "epoch"),
        ("num_train_epochs", "num_train_epochs"),
        ("best_step", "best_global_step"),
        ("best_metric", "best_metric"),
        ("tokens_seen", "num_input_tokens_seen"),
        ("total_flos", "total_flos"),
    ):
        value = getattr(state, attribute, None)
        if value:
            progress[name] = json_safe(value)

    end = _end_of_run(history, step, getattr(state, "is_over", False))
    progress["training"] = _columns(_training_rows(history))
    keep = {progress["weights_step"], progress.get("best_step")}
    progress["evaluations"] = _evaluations(history[:end], keep)
    if is_stopped and end is None:
        progress["stopped"] = True
    if end is not None:
        progress |= _totals(history[end])
        if afterwards := list(filter(_is_evaluation, history[end:])):
            progress["afterwards"] = json_safe(_metrics_of(afterwards))
    return progress


def has_ended(state: Any) -> bool:
    """Whether a `TrainerState` says how long its training took: the Trainer logs that when it is over."""
    history = getattr(state, "log_history", None) or []
    return _end_of_run(history, int(getattr(state, "global_step", 0) or 0), False) is not None


def _spaced(length: int, limit: int) -> list[int]:
    """At most `limit` of the indices of a list, evenly spaced, the first and the last among them."""
    if length <= limit:
        return list(range(length))
    return [round(i * (length - 1) / (limit - 1)) for i in range(limit)]


def _training_rows(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a training loss, thinned; where the spacing meets another row, the next one counts."""
    if len(history) <= MAX_TRAINING_ROWS:
        return [row for row in history if "loss" in row]
    rows, done = [], -1
    for i in _spaced(len(history), MAX_TRAINING_ROWS):
        i = max(i, done + 1)
        while i < len(history) and "loss" not in history[i]:
            i += 1
        if i < len(history):
            rows.append(history[i])
        done = i
    last = next((row for row in reversed(history) if "loss" in row), None)
    return rows if last is None or rows[-1] is last else [*rows[: MAX_TRAINING_ROWS - 1], last]


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    columns = {}
    for name in CURVES:
        column = [row.get(name) for row in rows]
        if not _are_plain(column):
            column = [json_safe(value) for value in column]
        if any(value is not None for value in column):
            columns[name] = column
    return columns


def _are_plain(values: Collection[Any]) -> bool:
    """Whether all are Python's own finite numbers: their sum tells, at a tenth of the time of a look at each."""
    try:
        total = sum(values)
        return type(total) in (float, int) and math.isfinite(total)
    except (TypeError, OverflowError):
        return False


def _is_evaluation(row: dict[str, Any]) -> bool:
    """Whether the Trainer's `evaluate` wrote the row; its prefix is `eval` unless a script says otherwise."""
    first = next(iter(row), "")
    return (isinstance(first, str) and first.startswith("eval_")) or "eval_runtime" in row or "test_runtime" in row


def _evaluations(rows: list[dict[str, Any]], keep: set[int | None]) -> list[dict[str, Any]]:
    """One dict for each evaluated step: several evaluation datasets write one row each."""
    by_step: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if "loss" not in row and _is_evaluation(row):
            by_step.setdefault(row.get("step"), []).append(row)
    steps = list(by_step)
    kept = {steps[i] for i in _spaced(len(steps), MAX_EVALUATIONS - len(keep))} | keep
    evaluations = []
    for step in steps:
        if step in kept:
            epoch = next((row["epoch"] for row in reversed(by_step[step]) if "epoch" in row), None)
            merged = _metrics_of(by_step[step])
            plain = _are_plain(merged.values()) and all(isinstance(key, str) for key in merged)
            metrics = merged if plain else json_safe(merged)
            evaluations.append({"step": json_safe(step), "epoch": json_safe(epoch), "metrics": metrics})
    return evaluations


def _metrics_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for row in rows for key, value in row.items() if key not in ("epoch", "step")}


def _end_of_run(history: list[dict[str, Any]], step: int, is_over: bool) -> int | None:
    """Where the row is that says how long training took, if it is over and has not gone on since.

    Args:
        is_over: Whether a loop without a Trainer has said so.
    """
    for place in range(len(history) - 1, -1, -1):
        row = history[place]
        if "loss" in row or row.get("step", step) < step:
            return None
        # That of the Trainer has the operations, too; an evaluation with the prefix `train` has only the rest.
        if "train_runtime" in row and (is_over or "total_flos" in row):
            return place
    return None


def _totals(row: dict[str, Any]) -> dict[str, Any]:
    """What the row says that is logged when training stops."""
    found = {"finished": True, "totals": json_safe({name: row[name] for name in _RUN_TOTALS if name in row})}
    energy = json_safe({name: row[name] for name in _ENERGY if name in row})
    return found | ({"energy": energy} if energy else {})
