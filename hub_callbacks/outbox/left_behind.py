"""Which checkpoints of a run's folder a training has left behind, because it began before them.

Neither numbers nor times tell: a training that began anew is at lower steps than the one before, and a copy of the
folder has times of its own. So it is noted, when a training begins, what is there beyond the step that it goes on
from. What was never noted (another machine's, a Trainer's without the callback, a save that a kill kept from its
note) is nobody's rest: it is gone on from.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..checkpoints.files import TRAINER_STATE
from ..checkpoints.manifest import sha256_of
from .durable import replace_file
from .push import make

NAME = "left-behind.jsonl"


@dataclass(frozen=True)
class LeftBehind:
    """What is known of the trainings in a folder; a checkpoint is known by the digest of its `trainer_state.json`.

    Args:
        at: The step that the one which began last went on from; 0 where it began anew.
        left: Checkpoints that one which began later did not go on from → their steps.
        saved: The same of those that the one which began last has saved, and those before it on its way.
    """

    at: int = 0
    left: dict[str, int] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)

    def begin(self, at: int, there: dict[str, int]) -> LeftBehind:
        """Of a training that begins.

        Args:
            at: The step that it goes on from.
            there: The checkpoints in the folder → their steps.
        """
        known = self.left | {digest: step for digest, step in (self.saved | there).items() if step > at}
        if at in {step for digest, step in there.items() if digest in self.left}:
            known = {digest: step for digest, step in known.items() if step > at}  # it is gone on from after all
        return LeftBehind(at, known, {digest: step for digest, step in self.saved.items() if step <= at})

    def save(self, digest: str, step: int) -> LeftBehind:
        """The training that began last has saved a checkpoint."""
        left = {known: of for known, of in self.left.items() if known != digest}
        return replace(self, left=left, saved=self.saved | {digest: step})


class Trainings:
    """The note in an outbox: what was known when the last training began, and a line for each of its saves.

    A line is added and not flushed: for a flush, or a file that takes another's place, the training would wait for
    the disk. What a loss of power takes of it is what was never noted.

    Args:
        root: The outbox.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / NAME

    def known(self) -> LeftBehind:
        """What is noted; without a note nothing is left behind."""
        known = LeftBehind()
        with contextlib.suppress(OSError, UnicodeError):
            for line in self._path.read_text(encoding="ascii").splitlines():
                with contextlib.suppress(ValueError, TypeError, AttributeError):  # a crash has cut it off
                    values = json.loads(line)
                    known = known.save(**values) if "digest" in values else make(LeftBehind, values)
        return known

    def begin(self, at: int, there: dict[int, Path]) -> None:
        """A training begins; see `LeftBehind.begin`.

        Args:
            there: Step → folder of each checkpoint.
        """
        digests = ((digest_of(folder / TRAINER_STATE), step) for step, folder in there.items())
        known = self.known().begin(at, {digest: step for digest, step in digests if digest})
        with contextlib.suppress(OSError):  # a disk that cannot take it is noticed at the push that follows
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, f"{json.dumps(asdict(known))}\n".encode())

    def save(self, folder: Path, step: int) -> None:
        """The training that began last has saved a checkpoint."""
        digest = digest_of(folder / TRAINER_STATE)
        with contextlib.suppress(OSError):
            if digest is not None:
                with self._path.open("a", encoding="ascii") as file:
                    file.write(f"{json.dumps({'digest': digest, 'step': step})}\n")


def digest_of(state: Path) -> str | None:
    """What a checkpoint is known by, where the file can be read.

    Args:
        state: Its `trainer_state.json`.
    """
    try:
        return sha256_of(state)
    except OSError:
        return None
