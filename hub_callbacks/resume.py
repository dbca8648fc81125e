"""`latest_checkpoint(args)`: the checkpoint to continue from, in the same script line that starts a run.

>>> trainer.train(resume_from_checkpoint=hub_callbacks.latest_checkpoint(args))  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .checkpoints.completeness import is_the_end
from .checkpoints.files import (
    DEEPSPEED,
    OPTIMIZER,
    RANDOM_STATE,
    SCALER,
    SCHEDULER,
    kinds_of_state,
    list_files,
    state_kind,
)
from .hub.client import address
from .hub.downloads import Downloads
from .outbox.queue import Outbox
from .resuming.placing import Restored
from .resuming.search import Search
from .settings import resolve
from .training.ranks import processes

logger = logging.getLogger(__name__)


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
    job = processes()
    outbox = Outbox(settings.outbox)
    downloads = Downloads(outbox.places.name_of(address(), settings.hub_model_id), settings.hub_token)
    search = Search(
        output_dir=Path(args.output_dir),
        outbox=outbox,
        downloads=downloads,
        revision=settings.hub_revision,
        world_size=args.world_size,
    )
    try:
        found = search.run(job)
    finally:
        if job.is_local_main:
            for why in search.passed_over:
                logger.warning("Not continued from: %s.", why)
    if found is None:
        if job.is_main:
            why = f" ({downloads.missing})" if downloads.missing else ""
            logger.warning(
                "No checkpoint of %s was found%s; training starts at step 0.", settings.hub_model_id, why
            )
        return None
    if job.is_main:
        logger.warning("%s", describe(found, args.world_size, args.ignore_data_skip))
    return str(found.folder)


def describe(found: Restored, world_size: int, ignore_data_skip: bool = False) -> str:
    """What a checkpoint restores, in words.

    Args:
        world_size: Number of processes that continue.
        ignore_data_skip: Whether the Trainer does not pass over the examples that were trained on.
    """
    files = list_files(found.folder)
    kinds = kinds_of_state(files)
    parts = ["weights", *(kind for kind in (OPTIMIZER, SCHEDULER, SCALER) if kind in kinds)]
    states = [file for file in files if state_kind(file) == RANDOM_STATE]
    before = found.manifest.origin.world_size if found.manifest else None
    before = before or len(states)
    text = f"Continuing from {found.folder}, which comes from {found.source}. "
    if found.is_left:
        text += "An earlier training has left it: the one that began last has no checkpoint. "
    if is_the_end(found.folder):
        text += (
            f"Its training was over at step {found.step}: there is nothing to do without more epochs or steps. "
        )
    if ignore_data_skip:
        text += "With ignore_data_skip the examples of its epoch are gone through from the first one again. "
    text += f"Restored: {', '.join(parts)}"
    if OPTIMIZER not in kinds:
        return f"{text}. It holds no optimizer (save_only_model): that, schedule and random states begin anew."
    by = f"{before} process{'es' if before > 1 else ''}"
    if before == world_size:
        return f"{text}, random states of {by}."
    text += (
        f". It was saved by {by} and is continued by {world_size}: the Trainer finds no random state for some of "
        "them, and a step covers another number of examples. So it goes on correctly, but not bit for bit as it "
        "would have without the interruption."
    )
    if DEEPSPEED in kinds:
        text += " DeepSpeed refuses its optimizer with another number of processes, unless it is a universal one."
    return text
