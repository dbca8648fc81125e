"""What a power cut may leave of a folder: from the operations of a real run to the states on disk.

The way of crash-consistency checkers (ALICE, CrashMonkey): `file_operations` notes what a run does to a folder,
`Crash` says which of the operations before an instant have reached the disk, and `build` makes the folder anew
with these alone.

What may be lost, for each of three models:

- strong: all that nothing flushed. The contents of a file are there from its own fsync on, a name (create, link,
  rename, unlink) from the fsync of its folder on.
- journal: as a file system with one journal (ext4, XFS): the names of all folders as they were at one instant; of
  each file any beginning of what was written to it.
- weak: each folder's names as they were at an instant of its own; contents as before.

What was flushed is there in all of them. A rename is one step even between two folders, and a write that was under
way may be torn at a page. A file that was enlarged before it was written to (as safetensors does) has holes.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from file_operations import ROOT, Enter, Flush, Leave, Move, Operation, Resize, Write, rename

PAGE = 4096
MODELS = ("strong", "journal", "weak")


@dataclass(frozen=True)
class Crash:
    """
    Args:
        instant: How many operations had been done.
        kept: Those that had reached the disk, as indices.
        torn: A write that has reached it in part → how many bytes of it.
    """

    instant: int
    kept: tuple[int, ...]
    torn: tuple[tuple[int, int], ...] = ()

    @classmethod
    def at(cls, operations: Sequence[Operation], instant: int, model: str, chance: random.Random) -> Crash:
        """What one of the `MODELS` leaves; all but the strong one leave it to chance."""
        names, contents, flushed = _queues(operations[:instant])
        cuts = {node: flushed[node] for node in names.keys() | contents.keys()}
        torn = {}
        loses_names, loses_contents = chance.choice([0.1, 0.5, 0.9]), chance.choice([0.1, 0.5, 0.9])
        if model == "journal":
            safe = max((names[node][cuts[node] - 1] for node in names if cuts[node]), default=-1)
            end = chance.randint(safe + 1, instant)
            cuts |= {node: sum(index < end for index in queue) for node, queue in names.items()}
        elif model == "weak":
            cuts |= {node: _cut(cuts[node], len(queue), loses_names, chance) for node, queue in names.items()}
        if model != "strong":
            for node, queue in contents.items():
                cuts[node] = _cut(cuts[node], len(queue), loses_contents, chance)
                following = operations[queue[cuts[node]]] if cuts[node] < len(queue) else None
                if isinstance(following, Write) and chance.random() < 0.5:
                    pages = chance.randint(0, len(following.data) // PAGE)
                    torn[queue[cuts[node]]] = max(0, pages * PAGE - following.offset % PAGE)
        kept = {index for node, queue in [*names.items(), *contents.items()] for index in queue[: cuts[node]]}
        _complete_moves(operations, names, kept)
        return cls(instant, tuple(sorted(kept)), tuple(sorted(torn.items())))


def _queues(
    operations: Sequence[Operation],
) -> tuple[dict[int, list[int]], dict[int, list[int]], dict[int, int]]:
    """For each folder, for each file: its operations in order; and how many of them were flushed."""
    names: dict[int, list[int]] = defaultdict(list)
    contents: dict[int, list[int]] = defaultdict(list)
    flushed: dict[int, int] = defaultdict(int)
    for index, operation in enumerate(operations):
        match operation:
            case Flush(node):
                flushed[node] = len(names.get(node, contents.get(node, ())))
            case Write(node) | Resize(node):
                contents[node].append(index)
            case Enter(folder) | Leave(folder):
                names[folder].append(index)
            case Move(folder, _, to):
                for node in {folder, to}:
                    names[node].append(index)
    return names, contents, flushed


def _cut(flushed: int, written: int, loses: float, chance: random.Random) -> int:
    """How much is kept; what is often lost is all that was not flushed, or the last of it."""
    if chance.random() >= loses:
        return written
    return chance.choice([flushed, chance.randint(flushed, written), max(flushed, written - 1)])


def _complete_moves(operations: Sequence[Operation], names: dict[int, list[int]], kept: set[int]) -> None:
    """A move that one of its folders knows of is known to the other, with all that came before it there."""
    todo = sorted(kept)
    while todo:
        index = todo.pop()
        operation = operations[index]
        if isinstance(operation, Move):
            for node in (operation.folder, operation.to):
                before = {other for other in names[node] if other <= index} - kept
                kept |= before
                todo += before


def build(operations: Sequence[Operation], crash: Crash, target: Path) -> None:
    """Makes the folder as a crash left it; what was never written is a hole."""
    names: dict[int, dict[str, int]] = {}
    written: dict[int, list[Operation]] = defaultdict(list)
    torn = dict(crash.torn)
    for index in sorted({*crash.kept, *torn}):
        operation = operations[index]
        rename(names, operation)
        if isinstance(operation, Write) and index in torn:
            operation = Write(operation.node, operation.offset, operation.data[: torn[index]])
        if isinstance(operation, Write | Resize):
            written[operation.node].append(operation)
    folders = {ROOT} | {op.node for op in operations if isinstance(op, Enter) and op.is_folder}
    made: dict[int, Path] = {}

    def make(node: int, path: Path) -> None:
        if node in folders:
            path.mkdir(exist_ok=node == ROOT)
            for name, child in names.get(node, {}).items():
                make(child, path / name)
        elif node in made:
            os.link(made[node], path)
        else:
            made[node] = path
            with path.open("wb") as file:
                for operation in written[node]:
                    if isinstance(operation, Write):
                        os.pwrite(file.fileno(), operation.data, operation.offset)
                    elif isinstance(operation, Resize):
                        file.truncate(operation.size)

    make(ROOT, target)
