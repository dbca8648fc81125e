"""Whether a checkpoint folder is complete.

The Trainer calls `on_save` when this process has written its files. Other processes may still write theirs: each
saves its own random state, and nothing makes the main process wait for that. Here it does not wait either; the
folder is looked at again at the next step, in which all processes have to take part.
"""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

from .errors import SettingsError
from .plan import INCOMPLETE_MARKER, is_weights, list_files

WAIT_FOR_RANKS = 10.0
"""Seconds that the end of training gives to other processes to write their last files."""


def is_marked_incomplete(checkpoint: Path) -> bool:
    """Whether the Trainer (`enable_jit_checkpoint`) still writes to it, or was killed while it did."""
    return (checkpoint / INCOMPLETE_MARKER).exists()


def is_complete(checkpoint: Path, args: Any) -> bool:
    """Whether no marker stands in it, and the random state of each process does.

    Args:
        args: The `TrainingArguments`.
    """
    if is_marked_incomplete(checkpoint):
        return False
    if args.world_size == 1 or args.save_only_model:
        return True
    states = [checkpoint / f"rng_state_{rank}.pth" for rank in range(args.world_size)]
    return all(zipfile.is_zipfile(state) for state in states)  # its end is written last


def wait_for_ranks(checkpoint: Path, args: Any) -> None:
    """Gives the other processes a moment to finish their files; they wait for nothing meanwhile."""
    until = time.monotonic() + WAIT_FOR_RANKS
    while not is_marked_incomplete(checkpoint) and not is_complete(checkpoint, args) and time.monotonic() < until:
        time.sleep(0.02)


def find_checkpoint(folder: Any, output_dir: Path) -> Path:
    """The checkpoint that a user names, absolute.

    Args:
        folder: Its path: absolute, relative to the working directory, or relative to `output_dir`.
        output_dir: Where the run writes.

    Raises:
        SettingsError: when it is no checkpoint, or not a complete one.
    """
    if not isinstance(folder, str | Path) or not str(folder):
        raise SettingsError(f"checkpoint_folder is {folder!r}; it is the path of a folder.")
    given = Path(folder).expanduser()
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
