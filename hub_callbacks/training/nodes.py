"""Finds out, once before the first step, which nodes of a job write to which folder.

Each node's first process leaves a mark in its `output_dir`; who sees a mark writes to the same folder. That takes
two small collectives of accelerate (`gather_object`), which all processes enter whatever went wrong on one of
them before. They are the only ones: no save and no push has any.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..outbox.push import NODE_BRANCH
from ..settings import OUTBOX_NAME

logger = logging.getLogger(__name__)

LOOK_FOR = 2.0
"""Seconds that a file which another node has written may take to be seen (NFS keeps what it knows of a folder)."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of a job that has several, and the folders that they write to.

    Args:
        training: Identifier of this training, the same on all processes.
        hub_model_id: The repository as the main process names it; `None` if it pushes nothing.
        rank: This process's number in the job.
        heads: For each node, the rank of its first process.
        folder_of: For each rank, the number of the first node that writes to the same folder; node 0 is the
            main process's.
    """

    training: str
    hub_model_id: str | None
    rank: int
    heads: tuple[int, ...]
    folder_of: tuple[int, ...]

    @property
    def here(self) -> int:
        """The node that this process's folder is named after."""
        return self.folder_of[self.rank]

    @property
    def is_head(self) -> bool:
        """Whether this process is the one that sends what is in its folder."""
        return self.heads[self.here] == self.rank

    @property
    def branch(self) -> str:
        """Where nodes with folders of their own put their files."""
        return f"{NODE_BRANCH}-{self.training}"

    @property
    def apart(self) -> tuple[int, ...]:
        """The nodes with a folder of their own that the main process does not see."""
        return tuple(sorted(set(self.folder_of) - {0}))

    @property
    def ranks_here(self) -> tuple[int, ...]:
        """The processes whose files are in this process's folder."""
        return tuple(rank for rank, folder in enumerate(self.folder_of) if folder == self.here)


@dataclass(frozen=True)
class _Greeting:
    rank: int
    is_head: bool
    mark: str | None
    training: str
    hub_model_id: str | None


def find_nodes(args: Any, hub_model_id: str | None) -> Nodes | None:
    """Has to be called by all processes of the job.

    Args:
        args: The `TrainingArguments`; its process indices are accelerate's.
        hub_model_id: On the main process, the repository that it pushes to.

    Returns:
        `None` for a job on one node, and where it cannot be found out: then all processes are taken to write to
        one folder.
    """
    if args.world_size == 1:
        return None
    from accelerate.utils import gather_object

    marks = Path(args.output_dir).absolute() / OUTBOX_NAME / "nodes"
    is_head = args.local_process_index == 0
    mark = _leave_mark(marks) if is_head else None
    greeting = _Greeting(args.process_index, is_head, mark, uuid.uuid4().hex[:12], hub_model_id)
    try:
        greetings: list[_Greeting] = sorted(gather_object([greeting]), key=lambda one: one.rank)
        heads = tuple(one.rank for one in greetings if one.is_head)
        if len(heads) < 2:
            return None
        wanted = {one.mark: number for number, one in enumerate(g for g in greetings if g.is_head) if one.mark}
        seen = dict(gather_object([(args.process_index, _see(marks, wanted))]))
    except (NotImplementedError, RuntimeError) as error:  # the same on all processes: the job's own trouble
        logger.warning("Which nodes share a folder cannot be found out here (%s); they are taken to.", error)
        return None
    finally:
        if mark is not None:
            _remove_mark(marks / mark)
    main = greetings[0]
    folders = _folders([seen[rank] for rank in range(len(greetings))], len(heads))
    return Nodes(main.training, main.hub_model_id, args.process_index, heads, folders)


def _leave_mark(marks: Path) -> str | None:
    name = uuid.uuid4().hex
    try:
        marks.mkdir(parents=True, exist_ok=True)
        (marks / name).touch()
    except OSError as error:
        logger.warning("%s cannot be written to: %s", marks, error)
        return None
    return name


def _remove_mark(mark: Path) -> None:
    with contextlib.suppress(OSError):
        mark.unlink()
    for folder in (mark.parent, mark.parent.parent):
        with contextlib.suppress(OSError):  # others' marks, or an outbox, are in it
            folder.rmdir()


def _see(marks: Path, wanted: dict[str, int]) -> frozenset[int]:
    """Numbers of the nodes whose marks are in this process's folder."""
    until = time.monotonic() + LOOK_FOR
    while True:
        seen = frozenset(number for mark, number in wanted.items() if (marks / mark).exists())
        if len(seen) == len(wanted) or time.monotonic() > until:
            return seen
        time.sleep(0.1)


def _folders(seen: list[frozenset[int]], nodes: int) -> tuple[int, ...]:
    """For each rank, the first node that writes to its folder.

    What one process sees holds for all whose marks are in the same folder, even if some of them look at an old
    state of it. A process that sees none (its disk is full) is taken to share the main one's folder.
    """
    first = list(range(nodes))
    for numbers in seen:
        same = {number for number in range(nodes) if first[number] in {first[n] for n in numbers}}
        for number in same:
            first[number] = min(first[n] for n in same)
    return tuple(first[min(numbers)] if numbers else 0 for numbers in seen)
