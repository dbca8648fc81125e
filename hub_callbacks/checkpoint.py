"""Whether a checkpoint folder is complete.

The Trainer calls `on_save` when this process has written its files. Other processes may still write theirs: each
saves its own random state, and nothing makes the main process wait for that. Here it does not wait either; the
folder is looked at again at the next step, in which all processes have to take part.
"""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

from .plan import INCOMPLETE_MARKER

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
