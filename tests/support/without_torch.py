"""Where torch is not installed, what needs it is skipped, and the rest runs: see `scripts/test-pythons`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None
NOT_THERE = {"torch", "transformers", "accelerate", "datasets", "peft"}

needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
"""For tests that need it in another process; what imports it here is found out."""


def _is_for_want_of_torch(error: BaseException | None) -> bool:
    return not HAS_TORCH and isinstance(error, ModuleNotFoundError) and error.name in NOT_THERE


def _skip(report: Any, path: object) -> None:
    report.outcome, report.longrepr = "skipped", (str(path), 1, "Skipped: torch is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    report = yield
    if report.failed and _is_for_want_of_torch(report.call.excinfo.value.__cause__):
        _skip(report, collector.path)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    if call.excinfo and _is_for_want_of_torch(call.excinfo.value):
        _skip(report, item.path)
    return report
