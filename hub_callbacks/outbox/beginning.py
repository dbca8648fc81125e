"""Where the training that began last in a folder began: which of the checkpoints there are an earlier one's.

Neither their numbers nor their times tell: a training that began anew is at lower steps than the one before, and a
copy of the folder has times of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

NAME = "beginning.json"


@dataclass(frozen=True)
class Beginning:
    """
    Args:
        at: The step that the training went on from; 0 where it began anew.
        before: The highest step that any training before it had a checkpoint of, as far as is known.
        saved: Steps that it has saved itself, so far.
    """

    at: int = 0
    before: int = 0
    saved: tuple[int, ...] = ()

    def next(self, at: int, there: Iterable[int]) -> Beginning:
        """Of the training that begins after this one.

        Args:
            at: The step that it goes on from.
            there: Steps of the checkpoints in the folder.
        """
        return Beginning(at, max(self.before, *self.saved, *there, 0))

    def is_earlier(self, step: int) -> bool:
        """Whether the checkpoint of a step is one that an earlier training has left."""
        return self.at < step <= self.before and step not in self.saved


class Beginnings:
    """
    Args:
        root: The outbox.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / NAME

    def newest(self) -> Beginning:
        """That of the training that began last; without a note, of one that had nothing before it."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            values = json.loads(self._path.read_text(encoding="ascii"))
            return Beginning(int(values["at"]), int(values["before"]), tuple(map(int, values["saved"])))
        return Beginning()

    def begin(self, at: int, there: Iterable[int]) -> None:
        """A training begins; see `Beginning.next`."""
        self._note(self.newest().next(at, there))

    def add(self, step: int) -> None:
        """The training that began last has saved a step."""
        newest = self.newest()
        if step not in newest.saved:
            self._note(replace(newest, saved=(*newest.saved, step)))

    def _note(self, beginning: Beginning) -> None:
        values = {"at": beginning.at, "before": beginning.before, "saved": beginning.saved}
        new = self._path.with_name(f"{NAME}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a disk that cannot take it is noticed at the push that follows
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(values), encoding="ascii")
            new.replace(self._path)
