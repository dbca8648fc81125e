"""`latest_checkpoint(args)`: the checkpoint to continue from, in the same script line that starts a run.

>>> trainer.train(resume_from_checkpoint=hub_callbacks.latest_checkpoint(args))  # doctest: +SKIP
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from .hub.downloads import Downloads
from .outbox.queue import Outbox
from .resuming.search import Restored, Search
from .resuming.team import team
from .settings import resolve
from .training.plan import list_files

logger = logging.getLogger(__name__)

_PARTS = {
    "optimizer": re.compile(r".*optimizer|global_step\d+/"),
    "scheduler": re.compile(r"scheduler\.pt|global_step\d+/"),
    "gradient scaler": re.compile(r"scaler\.pt"),
}


def latest_checkpoint(args: Any, **overrides: Any) -> str | None:
    """The newest complete checkpoint of this run, on this machine or on the Hub; a newer one is fetched.

    Every process of the run calls it, before `trainer.train()`; all get the same step. Each node downloads once.
    What is taken is in `output_dir/checkpoint-N`, verified against its manifest, and the best checkpoint that it
    refers to lies beside it. One that is incomplete or damaged is named in the log, and the next older is taken.

    Args:
        args: The `TrainingArguments`.
        overrides: The same keywords that `HubSyncCallback` was given, where they say which repository and branch
            are meant (`hub_model_id`, `hub_revision`, `hub_token`, `output_dir`). `hub_revision` may also be a
            tag or a commit here.

    Returns:
        The folder, for `resume_from_checkpoint`; `None` when there is nothing yet, or when there is nothing here
        and the Hub cannot be asked (that is logged).

    Raises:
        SettingsError: for a value that cannot work.
        ResumeError: for a checkpoint on the Hub that is there and cannot be fetched: starting anew would lose it.
    """
    settings = resolve(args, overrides)
    processes = team()
    search = Search(
        output_dir=Path(args.output_dir),
        outbox=Outbox(settings.outbox),
        downloads=Downloads(settings.hub_model_id, settings.hub_token),
        revision=settings.hub_revision,
        world_size=args.world_size,
    )
    try:
        found = search.run(processes)
    finally:
        if processes.is_local_main:
            for why in search.passed_over:
                logger.warning("Not continued from: %s.", why)
    if found is None:
        if processes.is_main:
            missing = search.downloads.missing if search.downloads else None
            why = f" ({missing})" if missing else ""
            logger.warning(
                "No checkpoint of %s was found%s; training starts at step 0.", settings.hub_model_id, why
            )
        return None
    if processes.is_main:
        logger.warning("%s", describe(found, args.world_size))
    return str(found.folder)


def describe(found: Restored, world_size: int) -> str:
    """What a checkpoint restores, in words.

    Args:
        world_size: Number of processes that continue.
    """
    files = list_files(found.folder)
    parts = ["weights", *(name for name, pattern in _PARTS.items() if any(map(pattern.match, files)))]
    states = [file for file in files if re.fullmatch(r"rng_state(_\d+)?\.pth", file)]
    before = found.manifest.origin.world_size if found.manifest else None
    before = before or len(states)
    text = f"Continuing from {found.folder}, which comes from {found.source}. Restored: {', '.join(parts)}"
    if "optimizer" not in parts:
        return f"{text}. It was saved with save_only_model: optimizer, schedule and random states begin anew."
    by = f"{before} process{'es' if before > 1 else ''}"
    if before == world_size:
        return f"{text}, random states of {by}."
    text += (
        f". It was saved by {by} and is continued by {world_size}: the Trainer finds no random state for some of "
        "them, and a step covers another number of examples. So it goes on correctly, but not bit for bit as it "
        "would have without the interruption."
    )
    if any(file.startswith("global_step") for file in files):
        text += " DeepSpeed refuses its optimizer with another number of processes, unless it is a universal one."
    return text
