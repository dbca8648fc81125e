"""The processes of a job, as accelerate sees them, deciding together without waiting long inside a collective."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ResumeError
from ..resuming.processes import OneProcess, Processes

T = TypeVar("T")
BEAT = 0.2
"""Seconds between two of the short exchanges by which processes wait for each other."""


class Ranks:
    """The processes that accelerate's state knows of; see `Processes`.

    One that downloads for an hour would trip the others' time-out if they waited for it in a collective. So
    each works in a thread, and asks the others every moment whether they are done: many short collectives.
    """

    def __init__(self) -> None:
        from accelerate import PartialState

        state = PartialState()
        self.is_main: bool = state.is_main_process
        self.is_local_main: bool = state.is_local_main_process

    def exchange(self, value: T) -> list[T]:
        from accelerate.utils import gather_object

        return gather_object([value])

    def together(self, work: Callable[[], T]) -> list[T]:
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="hub_callbacks-resume", daemon=True)
        thread.start()
        while any(self.exchange(thread.is_alive())):
            time.sleep(BEAT)
        failed = [why for why in self.exchange(repr(errors[0]) if errors else None) if why]
        if errors:
            raise errors[0]
        if failed:
            raise ResumeError(f"Another process of this job could not do its part: {failed[0]}")
        return self.exchange(results[0])


def processes() -> Processes:
    """Those of this job."""
    ranks: Any = Ranks()
    return ranks if len(ranks.exchange(0)) > 1 else OneProcess()
