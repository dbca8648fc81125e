"""The evaluations of a run, read from its progress: by dataset, with the best and the one of the weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from .formatting import lower_is_better
from .jsonsafe import number

_NOT_METRICS = re.compile(
    r"(^|_)(runtime|samples_per_second|steps_per_second|jit_compilation_time|model_preparation_time|"
    r"num_input_tokens_seen|num_tokens|total_flos|num_samples)$"
)
_RUNTIME = re.compile(r"eval_(.+)_runtime")
MAX_METRICS = 12
"""For each dataset; a compute_metrics that returns hundreds (one for each class) would bury the card."""


MAX_EXPONENT = 100.0
"""A loss above it is that of no language model, and its power a number that nobody reads."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluated step: `results[dataset][metric]`; the only dataset has the empty name. Of what was measured
    after the training the step may not be known."""

    step: float | None
    epoch: float | None
    results: dict[str, dict[str, float]]

    def get(self, metric: tuple[str, str]) -> float | None:
        return self.results.get(metric[0], {}).get(metric[1])


@dataclass(frozen=True)
class Evaluations:
    """All of a run's, oldest first, and what to make of them.

    Args:
        rows: The evaluations.
        metrics: (dataset, metric) pairs in the order in which to show them.
        others: Those that are too many for that.
        of_weights: The evaluation of the weights that the card stands beside; of an earlier step where
            that step was not evaluated, `None` where nothing was.
        afterwards: Whether these were measured after the training.
        best: The best by `best_by`, `None` where no metric is known to judge by.
        best_by: (dataset, metric) by which the best is chosen.
    """

    rows: list[Evaluation]
    metrics: list[tuple[str, str]]
    others: list[tuple[str, str]]
    of_weights: Evaluation | None
    afterwards: bool
    best: Evaluation | None
    best_by: tuple[str, str] | None

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(dataset for dataset, _ in self.metrics))


def read_evaluations(setup: dict[str, Any], progress: dict[str, Any]) -> Evaluations:
    raw = [row for row in progress.get("evaluations", []) if number(row.get("step")) is not None]
    after = {
        "step": progress.get("weights_step", progress.get("step")),
        "metrics": progress.get("afterwards") or {},
    }
    keys = [key for row in [*raw, after] for key in row["metrics"]]
    names = {match.group(1) for key in keys if (match := _RUNTIME.fullmatch(key))}
    names |= {name for name in (setup.get("datasets") or {}).get("eval") or {} if name}
    ordered = sorted(names, key=lambda name: (-len(name), name))
    has_perplexity = bool((setup.get("training") or {}).get("has_perplexity"))
    rows = [_evaluation(row, ordered, has_perplexity) for row in raw]
    rows = sorted((row for row in rows if row.results), key=lambda row: row.step or 0)
    last = _evaluation(after, ordered, has_perplexity)

    pairs = dict.fromkeys(
        (dataset, metric) for row in [*rows, last] for dataset in row.results for metric in row.results[dataset]
    )
    by_dataset: dict[str, list[tuple[str, str]]] = {}
    for dataset, metric in pairs:
        by_dataset.setdefault(dataset, []).append((dataset, metric))
    best_by = _best_by(setup, list(pairs), ordered)
    # The loss first, then the others as compute_metrics has them.
    groups = [sorted(group, key=lambda pair: pair[1] != "loss") for group in by_dataset.values()]
    metrics = [pair for group in groups for pair in first(group, MAX_METRICS, best_by)]
    return Evaluations(
        rows=rows,
        metrics=metrics,
        others=[pair for group in groups for pair in group if pair not in metrics],
        of_weights=_of_weights(rows, last),
        afterwards=bool(last.results),
        best=_best(setup, rows, best_by),
        best_by=best_by,
    )


def first(pairs: list[tuple[str, str]], limit: int, deciding: tuple[str, str] | None) -> list[tuple[str, str]]:
    """The first of (dataset, metric) pairs, the one that decides which step is the best among them."""
    shown = pairs[:limit]
    return [*shown[:-1], deciding] if deciding in pairs and deciding not in shown else shown


def _of_weights(rows: list[Evaluation], last: Evaluation) -> Evaluation | None:
    """
    Args:
        rows: What was measured while the training went on, oldest first.
        last: What was measured afterwards, if anything, under the step of the weights.
    """
    until = [] if last.step is None else [row for row in rows if row.step is not None and row.step <= last.step]
    newest = until[-1] if until else None
    if not last.results:
        return newest
    if newest is None or newest.step != last.step:
        return last
    datasets = {**newest.results, **last.results}
    results = {name: newest.results.get(name, {}) | last.results.get(name, {}) for name in datasets}
    return Evaluation(last.step, newest.epoch, results)


def _evaluation(row: dict[str, Any], names: list[str], has_perplexity: bool) -> Evaluation:
    results: dict[str, dict[str, float]] = {}
    for key, value in row["metrics"].items():
        found = number(value)
        if found is None or _NOT_METRICS.search(key):
            continue
        dataset, metric = split_key(key, names)
        results.setdefault(dataset, {})[metric] = found
    if has_perplexity:
        results = {dataset: _perplexity(metrics) | metrics for dataset, metrics in results.items()}
    return Evaluation(number(row["step"]), number(row.get("epoch")), results)


def _perplexity(metrics: dict[str, float]) -> dict[str, float]:
    """That of a language model is e to the power of its loss."""
    loss = metrics.get("loss", math.inf)
    return {"perplexity": math.exp(loss)} if 0 <= loss < MAX_EXPONENT else {}


def split_key(key: str, names: list[str]) -> tuple[str, str]:
    """`eval_a_loss` → (`a`, `loss`) where `a` is one of the `names` of the datasets, longest first."""
    if key.startswith("eval_"):
        rest = key.removeprefix("eval_")
        for name in names:
            if rest.startswith(f"{name}_") and len(rest) > len(name) + 1:
                return name, rest[len(name) + 1 :]
        return "", rest
    if key.startswith("test_"):
        return "test", key.removeprefix("test_")
    return "", key


def _best_by(setup: dict[str, Any], metrics: list[tuple[str, str]], names: list[str]) -> tuple[str, str] | None:
    asked = (setup.get("training") or {}).get("best_metric")
    if asked:
        key = asked if asked.startswith("eval_") else f"eval_{asked}"
        pair = split_key(key, names)
        return pair if pair in metrics else None
    losses = [pair for pair in metrics if pair[1] == "loss"]
    return losses[0] if len(losses) == 1 else metrics[0] if len(metrics) == 1 else None


def _best(setup: dict[str, Any], rows: list[Evaluation], by: tuple[str, str] | None) -> Evaluation | None:
    if by is None:
        return None
    greater = (setup.get("training") or {}).get("greater_is_better")
    if greater is None or not (setup.get("training") or {}).get("best_metric"):
        greater = not lower_is_better(by[1])
    judged = [(value, row) for row in rows if (value := row.get(by)) is not None and math.isfinite(value)]
    if not judged:
        return None
    choose = max if greater else min
    return choose(judged, key=lambda pair: pair[0])[1]
