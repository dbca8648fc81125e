"""Whether a checkpoint folder is complete: to be pushed, and to be continued from.

The Trainer calls `on_save` when this process has written its files. Other processes may still write theirs: each
saves its own random state, and nothing makes the main process wait for that. Here it does not wait either; the
folder is looked at again at the next step, in which all processes have to take part.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..training.plan import INCOMPLETE_MARKER, checkpoint_step, is_weights, list_files

WAIT_FOR_RANKS = 10.0
"""Seconds that the end of training gives to other processes to write their last files."""


TRAINER_STATE = "trainer_state.json"

# transformers/trainer.py, accelerate/utils/constants.py: *_NAME constants
_WEIGHTS = re.compile(r".*\.safetensors|(.*/)?(pytorch_model|adapter_model\.bin)|global_step\d+/")
_OPTIMIZER = re.compile(r".*optimizer|global_step\d+/")
_RANDOM_STATE = re.compile(r"rng_state(_(?P<rank>\d+))?\.pth")
_SHARD = re.compile(r".*\.distcp|global_step\d+/")
_TORCH_FILE = re.compile(r".*\.pth?$|(pytorch_model|adapter_model|training_args|optimizer|scheduler).*\.bin$")


def is_marked_incomplete(checkpoint: Path) -> bool:
    """Whether the Trainer (`enable_jit_checkpoint`) still writes to it, or was killed while it did."""
    return (checkpoint / INCOMPLETE_MARKER).exists()


def is_complete(checkpoint: Path, args: Any, ranks: Iterable[int] | None = None) -> bool:
    """Whether no marker stands in it, and the random state of each process does.

    Args:
        args: The `TrainingArguments`.
        ranks: The processes that write to this folder; `None` for all.
    """
    if is_marked_incomplete(checkpoint):
        return False
    if args.world_size == 1 or args.save_only_model:
        return True
    ranks = range(args.world_size) if ranks is None else ranks
    states = [checkpoint / f"rng_state_{rank}.pth" for rank in ranks]
    return all(zipfile.is_zipfile(state) for state in states)  # its end is written last


def wait_for_ranks(checkpoint: Path, args: Any, ranks: Iterable[int] | None = None) -> None:
    """Gives the other processes a moment to finish their files; they wait for nothing meanwhile."""
    until = time.monotonic() + WAIT_FOR_RANKS
    while not is_marked_incomplete(checkpoint) and time.monotonic() < until:
        if is_complete(checkpoint, args, ranks):
            return
        time.sleep(0.02)


def stamps(files: Iterable[Path]) -> dict[Path, tuple[int, int, int]]:
    """File → what changes when it is written anew. No clock is asked: that of a file server may be another."""
    found = {}
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            found[file] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    return found


def unannounced(
    written: Iterable[Path], saved: Collection[int], before: Mapping[Path, tuple[int, int, int]]
) -> list[int]:
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


def gaps(files: Collection[str], world_size: int | None) -> str | None:
    """What a checkpoint lacks to continue a training from, by the names of its files; `None` when nothing.

    A checkpoint of `save_only_model` lacks nothing: it has neither an optimizer nor random states.

    Args:
        files: Relative paths, with `/`.
        world_size: Number of processes that wrote it; `None` where it is not known.
    """
    if INCOMPLETE_MARKER in files:
        return f"the Trainer had not finished writing it ({INCOMPLETE_MARKER})"
    if TRAINER_STATE not in files:
        return f"{TRAINER_STATE} is missing, which is written last"
    if not any(_WEIGHTS.match(file) for file in files):
        return "there are no weights in it"
    has_optimizer = any(_OPTIMIZER.match(file) for file in files)
    states = [file for file in files if _RANDOM_STATE.fullmatch(file)]
    if has_optimizer != bool(states):
        return "its optimizer is missing" if states else "the random states of its processes are missing"
    if states and "rng_state.pth" not in states and world_size is not None:
        missing = {f"rng_state_{rank}.pth" for rank in range(world_size)} - set(states)
        if missing:
            return f"{', '.join(sorted(missing))} of {world_size} processes are missing"
    return None


def processes_that_wrote(checkpoints: Iterable[Path]) -> int | None:
    """How many processes saved the checkpoints of a folder, by the random states in all of them.

    One that was cut off has too few of them, so one alone does not tell. Of shards, others may be on other
    machines; so it is not known then. Neither is it where there is but one state of several.
    """
    ranks = set()
    for folder in checkpoints:
        if any(_SHARD.match(file) for file in list_files(folder)):
            return None
        states = (_RANDOM_STATE.fullmatch(file.name) for file in folder.glob("rng_state_*.pth"))
        ranks |= {int(state["rank"]) for state in states if state}
    return max(ranks) + 1 if ranks - {0} else None


def problem_of(checkpoint: Path, world_size: int | None = None) -> str | None:
    """Why a checkpoint folder on this disk cannot be continued from; `None` when it can.

    The Trainer writes `trainer_state.json` last; what it wrote before can still be cut off by a full disk or a
    loss of power, and rotation can be killed between two files. Headers and ends of files are read, not all of
    them.

    Args:
        world_size: Number of processes whose files are expected where it was more than one that wrote it.
    """
    if not checkpoint.is_dir():
        return "it is not there"
    files = list_files(checkpoint)
    missing = gaps(files, world_size)
    if missing is not None:
        return missing
    step = checkpoint.name.rpartition("-")[2]
    try:
        state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
        if step.isdigit() and state["global_step"] != int(step):
            return f"{TRAINER_STATE} is that of step {state['global_step']}"
        for file in files:
            if not _is_whole(checkpoint / file):
                return f"{file} is cut off"
            if file.endswith(".index.json"):
                shards = set(json.loads((checkpoint / file).read_text(encoding="utf-8"))["weight_map"].values())
                absent = shards - set(files)
                if absent:
                    return f"{', '.join(sorted(absent))} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({type(error).__name__}: {error})"
    return None


def _is_whole(file: Path) -> bool:
    """Whether a file of a format whose end is known has it."""
    if file.suffix == ".safetensors":
        with file.open(
            "rb"
        ) as opened:  # the header's length, the header, the data: huggingface.co/docs/safetensors
            length = int.from_bytes(opened.read(8), "little")
            if length > file.stat().st_size:
                return False
            header = json.loads(opened.read(length))
        ends = (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        return file.stat().st_size == 8 + length + max(ends, default=0)
    if _TORCH_FILE.match(file.name):
        return zipfile.is_zipfile(file)  # its end is written last
    return True


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
    if is_marked_incomplete(found):
        raise SettingsError(
            f"{folder} is not a complete checkpoint: {INCOMPLETE_MARKER} stands in it, so it is being written, or "
            "its writer was killed. Nothing was pushed."
        )
    if not any(is_weights(file) for file in list_files(found)):
        raise SettingsError(f"{folder} is not a checkpoint: there are no weights in it. Nothing was pushed.")
    return found


def step_of(checkpoint: Path) -> int | None:
    """The optimizer step that a checkpoint was saved at: from its state, else from its name."""
    try:
        step = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
        return int(step)
    except (OSError, ValueError, TypeError, KeyError):
        number = checkpoint.name.rpartition("-")[2]
        return int(number) if number.isdecimal() else None
