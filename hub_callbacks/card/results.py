"""The results as people read them: how far training is, what these weights reach, and how it went."""

from __future__ import annotations

from typing import Any

from .evaluations import Evaluation, Evaluations, first
from .formatting import count, decimal, measure, metric_name, one_line, plain, spoken_epoch, step_of
from .jsonsafe import number

MAX_ROWS = 20
MAX_COLUMNS = 8
MAX_OTHERS = 300
"""Metrics that can be unfolded: cards with thousands are slow to show."""


def status(progress: dict[str, Any]) -> str | None:
    """That training goes on, while it does; or that it was stopped."""
    step, max_steps = number(progress.get("step")), number(progress.get("max_steps"))
    if progress.get("finished") or not step or not max_steps or step >= max_steps:
        return None  # of a loop without a Trainer nobody knows
    epoch, epochs = number(progress.get("epoch")), number(progress.get("num_train_epochs"))
    where = f", epoch {spoken_epoch(epoch)}" + (f" of {spoken_epoch(epochs)}" if epochs else "") if epoch else ""
    what = "was stopped" if progress.get("stopped") else "in progress"
    return f"Training {what}: {step_of(step, max_steps)}{where}."


def headline(progress: dict[str, Any], evaluations: Evaluations) -> dict[str, Any] | None:
    """The results of the weights: a row for each dataset; many metrics go below each other instead."""
    row = evaluations.of_weights
    if row is None:
        return None
    pairs = [pair for pair in evaluations.metrics if row.get(pair) is not None]
    datasets = list(dict.fromkeys(dataset for dataset, _ in pairs))
    metrics = list(dict.fromkeys(metric for _, metric in pairs))
    columns = [[_measured(metric, row.get((dataset, metric))) for dataset in datasets] for metric in metrics]
    titles = [plain(metric_name(metric)) for metric in metrics]
    labels = [plain(dataset, 40) or "evaluation" for dataset in datasets] if datasets != [""] else None
    if len(metrics) <= MAX_COLUMNS:
        header, rows = titles, [list(cells) for cells in zip(*columns, strict=True)]
        side = labels
    else:
        header, rows, side = labels or ["Value"], columns, titles
    if side is not None:
        header, rows = ["", *header], [[name, *cells] for name, cells in zip(side, rows, strict=True)]
    return {
        "note": _about(progress, evaluations, row),
        "others": _others(evaluations, row),
        "header": header,
        "rows": rows,
        "labelled": side is not None,
    }


def _others(evaluations: Evaluations, row: Evaluation) -> list[tuple[str, str]]:
    """The metrics of the weights that are too many for the table, and their values."""
    several = len(evaluations.datasets) > 1
    found = [(pair, value) for pair in evaluations.others if (value := row.get(pair)) is not None]
    shown = [(_column(pair, several), _measured(pair[1], value)) for pair, value in found[:MAX_OTHERS]]
    more = len(found) - len(shown)
    return [*shown, (f"and {count(more)} more", "…")] if more else shown


def _measured(metric: str, value: float | None) -> str:
    return "–" if value is None else measure(metric, value)


def _about(progress: dict[str, Any], evaluations: Evaluations, row: Evaluation) -> str:
    """Which step was measured, and how that step relates to the weights."""
    weights = number(progress.get("weights_step", progress.get("step")))
    is_earlier = weights is not None and weights < (number(progress.get("step")) or 0)
    by, best = evaluations.best_by, ""
    if by and evaluations.best is not None and evaluations.best.step == weights:
        best = f", the best by {plain(_spoken(by, len(evaluations.datasets) > 1))}"
    if evaluations.afterwards:
        whose = f": those of step {count(weights)}{best}" if weights is not None and is_earlier else ""
        return f"Measured after training, on the weights that are here{whose}."
    assert row.step is not None
    at = f"after {step_of(row.step)}"
    at += f" (epoch {spoken_epoch(row.epoch)})" if row.epoch is not None else ""
    if weights is not None and row.step < weights:
        return f"Measured {at}; the weights here are those of step {count(weights)}, which was not evaluated."
    if is_earlier:
        return f"Measured {at}. The weights here are those of that step{best}."
    return f"Measured {at}."


def results(progress: dict[str, Any], evaluations: Evaluations) -> dict[str, Any] | None:
    """The table of evaluations, thinned to `MAX_ROWS` with the best, the weights' and the last kept."""
    if len(evaluations.rows) < 2:
        return None
    pairs = [pair for pair in evaluations.metrics if any(row.get(pair) is not None for row in evaluations.rows)]
    several = len({dataset for dataset, _ in pairs}) > 1
    left_out = len(pairs) + len(evaluations.others)
    pairs = first(pairs, MAX_COLUMNS, evaluations.best_by)
    left_out -= len(pairs)
    training = _training_loss(progress)
    shown = _thinned(evaluations)
    has_loss = any(_loss_until(training, row.step or 0) is not None for row in shown)
    has_epoch = any(row.epoch is not None for row in shown)
    header = ["Step", *(["Epoch"] if has_epoch else []), *(["Training loss"] if has_loss else [])]
    header += [_column(pair, several) for pair in pairs]
    rows = []
    for row in shown:
        cells = [count(row.step)]
        cells += [spoken_epoch(row.epoch) if row.epoch is not None else "–"] if has_epoch else []
        if has_loss:
            loss = _loss_until(training, row.step or 0)
            cells.append("–" if loss is None else decimal(loss))
        cells += [_measured(pair[1], row.get(pair)) for pair in pairs]
        rows.append([f"**{cell}**" for cell in cells] if row is evaluations.best and len(shown) > 1 else cells)
    best_by = evaluations.best_by
    return {
        "header": header,
        "rows": rows,
        "left_out": len(evaluations.rows) - len(shown),
        "total": count(len(evaluations.rows)),
        "metrics_left_out": count(left_out) if left_out else None,
        "best_by": plain(_spoken(best_by, several)) if best_by and evaluations.best else None,
    }


def _spoken(pair: tuple[str, str], several: bool) -> str:
    name = metric_name(pair[1])
    name = name if name.split()[0].isupper() or name[1:2].isupper() else name[:1].lower() + name[1:]
    return f"{name} on {pair[0]}" if several and pair[0] else name


def _column(pair: tuple[str, str], several: bool) -> str:
    dataset, metric = pair
    if not several or not dataset:
        return "Validation loss" if metric == "loss" else plain(metric_name(metric))
    return plain(f"{metric_name(metric)} ({one_line(dataset, 40)})")


def _thinned(evaluations: Evaluations) -> list[Evaluation]:
    rows = evaluations.rows
    if len(rows) <= MAX_ROWS:
        return rows
    keep = {id(row) for row in (evaluations.best, evaluations.of_weights, rows[-1]) if row is not None}
    spaced = MAX_ROWS - len(keep)
    keep |= {id(rows[round(i * (len(rows) - 1) / spaced)]) for i in range(spaced)}
    return [row for row in rows if id(row) in keep]


def _training_loss(progress: dict[str, Any]) -> list[tuple[float, float]]:
    training = progress.get("training") or {}
    pairs = zip(training.get("step") or [], training.get("loss") or [], strict=False)
    return [
        (s, v) for step, value in pairs if (s := number(step)) is not None and (v := number(value)) is not None
    ]


def _loss_until(training: list[tuple[float, float]], step: float) -> float | None:
    """The training loss that was logged last at that step."""
    found = None
    for logged, value in training:
        if logged > step:
            break
        found = value
    return found
