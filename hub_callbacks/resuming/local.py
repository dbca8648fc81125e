"""The checkpoints on this machine: in the run's folder, and in its outbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoints.completeness import problem_of, processes_that_wrote
from ..checkpoints.files import TRAINER_STATE, checkpoints_in
from ..outbox.left_behind import digest_of
from ..outbox.push import Commit, Push, PushPart
from ..outbox.queue import Outbox


@dataclass(frozen=True)
class LocalCheckpoints:
    """What of a run is on this machine.

    Args:
        steps: Of the complete checkpoints, in its folder or in the outbox.
        waiting: Step → the push that holds such a checkpoint, and the part of it that does.
        writers: Number of processes that wrote those in the folder, where that is known.
        digests: Step → what that checkpoint is known by (see `left_behind`).
        passed_over: What cannot be taken, in words.
    """

    steps: frozenset[int] = frozenset()
    waiting: dict[int, tuple[Push, PushPart]] = field(default_factory=dict)
    writers: int | None = None
    digests: dict[int, str | None] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)


def find_local(output_dir: Path, outbox: Outbox, world_size: int | None) -> LocalCheckpoints:
    """Looks for complete checkpoints.

    Args:
        world_size: Number of processes that are to continue, if it is known.
    """
    folders = checkpoints_in(output_dir)
    writers = None
    if world_size is not None:
        writers = min(world_size, processes_that_wrote(folders.values()) or world_size)
    problems = {step: problem_of(folder, writers) for step, folder in folders.items()}
    complete = {step: folders[step] for step, problem in problems.items() if problem is None}
    waiting = _waiting(outbox)
    return LocalCheckpoints(
        steps=frozenset(complete) | frozenset(waiting),
        waiting=waiting,
        writers=writers,
        digests={step: _digest_of_waiting(*held) for step, held in waiting.items()}
        | {step: digest_of(folder / TRAINER_STATE) for step, folder in complete.items()},
        passed_over=[f"{folders[step]}: {problem}" for step, problem in problems.items() if problem],
    )


def _digest_of_waiting(push: Push, part: PushPart) -> str | None:
    frozen = part.files.get(f"{part.prefix}/{TRAINER_STATE}")
    return None if frozen is None else digest_of(push.folder / frozen.stored)


def _waiting(outbox: Outbox) -> dict[int, tuple[Push, PushPart]]:
    waiting = {}
    for push in outbox.pending() if outbox.root.is_dir() else ():
        if not isinstance(push.content, Commit):
            continue
        for part in push.content.parts:
            names = [path.removeprefix(f"{part.prefix}/") for path in part.files]
            if part.whole_folder and problem_of(names, push.content.origin.world_size) is None:
                waiting[push.content.step] = (push, part)
    return waiting
