"""The checkpoints that a Trainer writes during one training: which are whole, which are looked at again.

It is the same on the main process, which pushes them, and on a node that sends what exists on its own disk only.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.completeness import (
    TO_PUSH,
    is_marked_incomplete,
    problem_of,
    ranks_that_write,
    stamps,
    unannounced,
    wait_for_ranks,
)
from ..checkpoints.files import checkpoint_name

logger = logging.getLogger(__name__)


def output_dir(args: Any) -> Path:
    """Where the Trainer writes now: it takes `output_dir` as it is, and from the working directory."""
    return Path(args.output_dir).absolute()


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose turn has come.

    Args:
        folder: Where it is, or was.
        step: Optimizer step that it was saved at.
        is_urgent: Whether it was written because the machine may be gone soon.
    """

    folder: Path
    step: int
    is_urgent: bool = False


class Saves:
    """
    Args:
        args: The `TrainingArguments`.
        last_file: The file that this process writes last into each checkpoint folder.
        ranks: The processes that write to this process's folder; `None` for all.

    Attributes:
        steps: Of the checkpoints that were there when their turn came.
    """

    def __init__(self, args: Any, last_file: str, ranks: Collection[int] | None) -> None:
        self._args = args
        self._last_file = last_file
        self._ranks = ranks_that_write(args, ranks)
        self._incomplete: int | None = None
        self.steps: set[int] = set()
        self._before = stamps(self._last_files())

    def look_again(self) -> Iterator[Saved]:
        """A step begins: other processes have finished their files of the one before."""
        if self._incomplete is not None:
            yield from self._look_at(self._incomplete)

    def was_saved(self, step: int) -> Iterator[Saved]:
        if self._incomplete is not None and self._incomplete != step:
            yield from self._look_at(self._incomplete, whatever_is_there=True)
        yield from self._look_at(step)

    def end(self) -> Iterator[Saved]:
        """Training ends: the last checkpoint, if it is still due, and those that nobody announced."""
        if self._incomplete is not None:
            wait_for_ranks(output_dir(self._args) / checkpoint_name(self._incomplete), self._ranks)
            yield from self._look_at(self._incomplete, whatever_is_there=True)
        for step in unannounced(self._last_files(), self.steps, self._before):
            yield from self._look_at(step, is_urgent=True)

    def _last_files(self) -> list[Path]:
        return list(output_dir(self._args).glob(f"checkpoint-*/{self._last_file}"))

    def _look_at(self, step: int, whatever_is_there: bool = False, is_urgent: bool = False) -> Iterator[Saved]:
        """A checkpoint that is complete, or gone; one that is neither is looked at again later."""
        checkpoint = output_dir(self._args) / checkpoint_name(step)
        self._incomplete = None
        if not checkpoint.is_dir():
            yield Saved(checkpoint, step, is_urgent)
            return
        if problem_of(checkpoint, ranks=self._ranks, needs=TO_PUSH) is not None:
            if not whatever_is_there or is_marked_incomplete(checkpoint):
                self._incomplete = step
                return
            logger.warning("%s lacks files of other processes; it is pushed as it is here.", checkpoint)
        self.steps.add(step)
        yield Saved(checkpoint, step, is_urgent)
