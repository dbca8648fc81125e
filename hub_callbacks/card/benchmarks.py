"""`.eval_results/*.yaml`: results on benchmarks, which the Hub shows on the model's page and the benchmark's
leaderboard (https://huggingface.co/docs/hub/eval-results)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .evaluations import Evaluations, split_key
from .jsonsafe import number

Benchmark = tuple[str, str, str]
"""A metric, the benchmark's dataset on the Hub, and its task there."""


def eval_results(
    benchmarks: Iterable[Benchmark], progress: Mapping[str, Any], evaluations: Evaluations
) -> bytes | None:
    """The file with what these very weights have scored; `None` where they were not evaluated.

    Args:
        benchmarks: Which metrics are results on which benchmarks.
        progress: Of `gather_progress`.
        evaluations: Of `read_evaluations`.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    measured = evaluations.of_weights
    if measured is None or measured.step is None or measured.step != number(progress.get("weights_step")):
        return None
    entries = []
    for metric, dataset, task in benchmarks:
        key = metric if metric.startswith(("eval_", "test_")) else f"eval_{metric}"
        value = measured.get(split_key(key, evaluations.datasets))
        if value is not None and math.isfinite(value):
            entries.append(EvalResultEntry(dataset_id=dataset, task_id=task, value=value))
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True).encode()
