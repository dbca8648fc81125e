"""Whether a checkpoint folder is complete: to be pushed, and to be continued from. `problem_of` is what all ask.

The Trainer calls `on_save` when this process has written its files. Other processes may still write theirs: each
saves its own random state, and nothing makes the main process wait for that. Here it does not wait either; the
folder is looked at again at the next step, in which all processes have to take part.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from ..errors import SettingsError
from .files import (
    INCOMPLETE_MARKER,
    OPTIMIZER,
    RANDOM_STATE,
    TRAINER_STATE,
    checkpoint_step,
    is_index_of_shards,
    is_shard_of_a_process,
    is_torch_file,
    is_trainers_weights,
    is_weights,
    kinds_of_state,
    list_files,
    rank_of,
)

WAIT_FOR_RANKS = 10.0
"""Seconds that the end of training gives to other processes to write their last files."""


@dataclass
class _Checkpoint:
    """
    Args:
        given: A folder, or the relative paths of files, with `/`.
        given_ranks: The processes whose random states have to be among them; `None` where its files tell.
        world_size: Number of processes that wrote it, if that is known.
    """

    given: Path | Collection[str]
    given_ranks: Collection[int] | None
    world_size: int | None

    @property
    def folder(self) -> Path | None:
        return self.given if isinstance(self.given, Path) else None

    @functools.cached_property
    def files(self) -> Collection[str]:
        return list_files(self.given) if isinstance(self.given, Path) else self.given

    @property
    def ranks(self) -> Collection[int]:
        if self.given_ranks is not None:
            return self.given_ranks
        several = "rng_state.pth" not in self.files and any(rank_of(file) is not None for file in self.files)
        return range(self.world_size) if several and self.world_size is not None else ()

    def has(self, file: str) -> bool:
        return file in self.files if self.folder is None else (self.folder / file).exists()


def _is_marked(checkpoint: _Checkpoint) -> str | None:
    if not checkpoint.has(INCOMPLETE_MARKER):
        return None
    return f"the Trainer had not finished writing it ({INCOMPLETE_MARKER})"


def _lacks_ranks(checkpoint: _Checkpoint) -> str | None:
    names = [f"rng_state_{rank}.pth" for rank in checkpoint.ranks]
    folder = checkpoint.folder
    # The end of a zip archive is written last.
    missing = [
        name for name in names if not (checkpoint.has(name) if folder is None else is_zipfile(folder / name))
    ]
    return f"{', '.join(sorted(missing))} of {len(names)} processes are missing" if missing else None


def _lacks_trainer_state(checkpoint: _Checkpoint) -> str | None:
    return None if TRAINER_STATE in checkpoint.files else f"{TRAINER_STATE} is missing, which is written last"


def _lacks_weights(checkpoint: _Checkpoint) -> str | None:
    return None if any(map(is_weights, checkpoint.files)) else "there are no weights in it"


def _lacks_trainers_weights(checkpoint: _Checkpoint) -> str | None:
    return None if any(map(is_trainers_weights, checkpoint.files)) else "there are no weights in it"


def _lacks_states(checkpoint: _Checkpoint) -> str | None:
    """One of `save_only_model` lacks nothing: it has neither an optimizer nor random states."""
    kinds = kinds_of_state(checkpoint.files)
    if (OPTIMIZER in kinds) == (RANDOM_STATE in kinds):
        return None
    return (
        "its optimizer is missing" if RANDOM_STATE in kinds else "the random states of its processes are missing"
    )


def _lacks_optimizer(checkpoint: _Checkpoint) -> str | None:
    return None if OPTIMIZER in kinds_of_state(checkpoint.files) else "its optimizer is missing"


def _is_cut_off(checkpoint: _Checkpoint) -> str | None:
    """What was written can still be cut off by a full disk or a loss of power, and rotation can be killed between
    two files. Headers and ends of files are read, not all of them."""
    folder = checkpoint.folder
    if folder is None:
        return None
    step = checkpoint_step(folder.name)
    try:
        at = json.loads((folder / TRAINER_STATE).read_text(encoding="utf-8"))["global_step"]
        if step is not None and at != step:
            return f"{TRAINER_STATE} is that of step {at}"
        for file in checkpoint.files:
            if not _is_whole(folder / file, file):
                return f"{file} is cut off"
            if is_index_of_shards(file):
                shards = set(json.loads((folder / file).read_text(encoding="utf-8"))["weight_map"].values())
                if absent := shards - set(checkpoint.files):
                    return f"{', '.join(sorted(absent))} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({type(error).__name__}: {error})"
    return None


def _is_whole(path: Path, file: str) -> bool:
    """Whether a file of a format whose end is known has it."""
    if path.suffix == ".safetensors":
        # The header's length, the header, the data: huggingface.co/docs/safetensors
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > path.stat().st_size:
                return False
            header = json.loads(opened.read(length))
        ends = (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        return path.stat().st_size == 8 + length + max(ends, default=0)
    return not is_torch_file(file) or is_zipfile(path)


_TO_NAME = (_lacks_trainer_state, _lacks_weights, _lacks_trainers_weights, _lacks_states)
TO_CONTINUE = (_is_marked, *_TO_NAME, _lacks_ranks, _is_cut_off)
"""What has to be right for a training to continue from it. What reads files comes last."""
TO_CONTINUE_AS_IT_WAS = (*_TO_NAME, _lacks_optimizer)
"""What a Trainer has to have written that does not leave states out (`save_only_model`)."""
TO_PUSH = (_is_marked, _lacks_ranks)
"""What tells that its processes still write to it. What else it lacks is its Trainer's business."""
TO_BE_ONE = (_is_marked, _lacks_weights)
"""What has to be right for a folder to be taken for a checkpoint: the weights of its step, under whatever name."""


def problem_of(
    checkpoint: Path | Collection[str],
    world_size: int | None = None,
    *,
    ranks: Collection[int] | None = None,
    needs: Iterable[Callable[[_Checkpoint], str | None]] = TO_CONTINUE,
) -> str | None:
    """Why a checkpoint is not complete, in words; `None` when it is.

    Args:
        checkpoint: A folder on this disk; or, where that is all there is, the names of its files.
        world_size: Number of processes that wrote it; `None` where that is not known.
        ranks: The processes whose random states have to be in it; `None` takes those of `world_size`, where its
            files tell that several wrote it.
        needs: What it has to be complete for: `TO_CONTINUE`, `TO_CONTINUE_AS_IT_WAS`, `TO_PUSH` or `TO_BE_ONE`.
    """
    if isinstance(checkpoint, Path) and not checkpoint.is_dir():
        return "it is not there"
    asked = _Checkpoint(checkpoint, ranks, world_size)
    return next((why for check in needs if (why := check(asked)) is not None), None)


def ranks_that_write(args: Any, ranks: Iterable[int] | None = None) -> Collection[int]:
    """The processes whose random states the Trainer saves.

    Args:
        args: The `TrainingArguments`.
        ranks: Those that write to this folder; `None` for all.
    """
    if args.world_size == 1 or args.save_only_model:
        return ()
    return range(args.world_size) if ranks is None else tuple(ranks)


def is_marked_incomplete(checkpoint: Path) -> bool:
    """Whether the Trainer (`enable_jit_checkpoint`) still writes to it, or was killed while it did."""
    return (checkpoint / INCOMPLETE_MARKER).exists()


def wait_for_ranks(checkpoint: Path, ranks: Collection[int]) -> None:
    """Gives the other processes a moment to finish their files; they wait for nothing meanwhile."""
    until = time.monotonic() + WAIT_FOR_RANKS
    while not is_marked_incomplete(checkpoint) and time.monotonic() < until:
        if problem_of(checkpoint, ranks=ranks, needs=TO_PUSH) is None:
            return
        time.sleep(0.02)


def processes_that_wrote(checkpoints: Iterable[Path]) -> int | None:
    """How many processes saved the checkpoints of a folder, by the random states in all of them.

    One that was cut off has too few of them, so one alone does not tell. Of shards, others may be on other
    machines; so it is not known then. Neither is it where there is but one state of several.
    """
    ranks: set[int] = set()
    for folder in checkpoints:
        files = list_files(folder)
        if any(map(is_shard_of_a_process, files)):
            return None
        ranks |= {rank for file in files if (rank := rank_of(file)) is not None}
    return max(ranks) + 1 if ranks - {0} else None


Stamp = tuple[int, int, int]


def stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    """File → what changes when it is written anew. No clock is asked: that of a file server may be another."""
    found = {}
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            found[file] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    return found


def unannounced(written: Iterable[Path], saved: Collection[int], before: Mapping[Path, Stamp]) -> list[int]:
    """Steps of checkpoints of a training that no save was announced for.

    The Trainer writes one on SIGTERM (`enable_jit_checkpoint`), in the middle of a step.

    Args:
        written: A file of each checkpoint folder that may be one, which is written late.
        saved: Steps that the training has announced.
        before: `stamps` of these files when the training began; what has not changed since is another one's.
    """
    found = []
    for file, stamp in stamps(written).items():
        step = checkpoint_step(file.parent.name)
        if step is not None and step not in saved and before.get(file) != stamp:
            found.append(step)
    return sorted(found)


def path_of(checkpoint_folder: Any) -> Path:
    """What a user names as a checkpoint.

    Raises:
        SettingsError: when it is no path.
    """
    if not isinstance(checkpoint_folder, str | Path) or not str(checkpoint_folder):
        raise SettingsError(f"checkpoint_folder is {checkpoint_folder!r}; it is the path of a folder.")
    return Path(checkpoint_folder).expanduser()


def find_checkpoint(folder: Any, output_dir: Path) -> Path:
    """The checkpoint that a user names, absolute.

    Args:
        folder: Its path: absolute, relative to the working directory, or relative to `output_dir`.
        output_dir: Where the run writes.

    Raises:
        SettingsError: when it is no checkpoint, or not a complete one.
    """
    given = path_of(folder)
    candidates = [given.absolute(), output_dir / given]
    found = next((candidate.resolve() for candidate in candidates if candidate.is_dir()), None)
    if found is None:
        there = sorted(path.name for path in output_dir.glob("checkpoint-*"))
        have = f"In {output_dir} there are {', '.join(there)}." if there else f"In {output_dir} there is none."
        raise SettingsError(f"{folder} is not a checkpoint: there is no such folder. {have} Nothing was pushed.")
    if output_dir.resolve() == found or found in output_dir.resolve().parents:
        raise SettingsError(
            f"{folder} is not a checkpoint but holds the whole run. `push_to_hub()` pushes it. Nothing was pushed."
        )
    if (why := problem_of(found, needs=TO_BE_ONE)) is not None:
        raise SettingsError(f"{folder} is not a complete checkpoint: {why}. Nothing was pushed.")
    return found


def step_of(checkpoint: Path) -> int | None:
    """The optimizer step that a checkpoint was saved at: from its state, else from its name."""
    try:
        step = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))["global_step"]
        return int(step)
    except (OSError, ValueError, TypeError, KeyError):
        number = checkpoint.name.rpartition("-")[2]
        return int(number) if number.isdecimal() else None


def is_the_end(checkpoint: Path) -> bool:
    """Whether a checkpoint is of the last step that its training had to do."""
    try:
        state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
        return 0 < int(state["max_steps"]) <= int(state["global_step"])
    except (OSError, ValueError, TypeError, KeyError):
        return False
