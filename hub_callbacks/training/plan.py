"""What goes where under which message: the meaning of `hub_strategy`, in pure functions.

A push is made of *parts*. A part is what a newer push takes over as a whole: the model at the root of the
repository, the card, the folder `last-checkpoint/`, one folder `checkpoint-N/`, other files of `output_dir`.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from ..checkpoints import manifest as checkpoint_manifest
from ..settings import OUTBOX_NAME

logger = logging.getLogger(__name__)

MODEL = "model"
CARD = "card"
OUTPUTS = "outputs"
LAST_CHECKPOINT = "last-checkpoint"
NODE_FILES = "node-files"
MEETING = "hub-callbacks-parts"
"""Folder that the files of several nodes meet in, and how the branch begins that it is on; see `meeting`."""

END_OF_TRAINING = "End of training"
"""Title of the commit of the final model, as the Trainer words it."""
INCOMPLETE_MARKER = "checkpoint-is-incomplete.txt"
"""Stands in a checkpoint folder while the Trainer (`enable_jit_checkpoint`) still writes to it."""

# What the Trainer, accelerate, FSDP and DeepSpeed write into a checkpoint to continue training, and nobody
# needs to load the model (transformers/trainer.py: *_NAME constants, accelerate/utils/constants.py).
_TRAINING_STATE = re.compile(
    r"""(
      optimizer([-_.].*)?\.(pt|bin|safetensors) | optimizer(_\d+)?/.* | optimizer_\d+/.*
    | scheduler([-_.].*)?\.(pt|bin)
    | scaler([-_.].*)?\.pt
    | (rng_state|random_states)([-_.].*)?\.(pth|pkl)
    | (sampler|dl_state_dict)(_\d+)?\.bin | custom_checkpoint_\d+\.pkl
    | trainer_state\.json
    | pytorch_model_fsdp_\d+/.* | pytorch_model_fsdp(_\d+)?\.bin
    | global_step\d+/.* | latest | zero_to_(fp32|torch)\.py
    | user_content\.pt
    | checkpoint-is-incomplete\.txt | hub_checkpoint\.json
    )""",
    re.VERBOSE,
)


_WEIGHTS = re.compile(
    r"(?!training_args\.bin).+\.(safetensors|bin|pt|pth|ckpt|distcp|msgpack|h5|gguf)(\.index\.json)?"
)


@dataclass(frozen=True)
class Meeting:
    """Where files of a folder are that exist on other nodes only; they come with the same commit.

    Args:
        branch: Branch of the same repository.
        nodes: Numbers of the nodes that put files there.
    """

    branch: str
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Files of one folder under one place in the repository.

    Args:
        slot: Name of what a newer push with the same slot takes over as a whole.
        source: Folder that the files are in.
        files: Their paths relative to `source`, with `/`.
        prefix: Folder of the repository that they go to; empty for the root.
        whole_folder: Whether files that stand under `prefix` and are not among `files` are deleted in the
            same commit.
        copied: Whether the files may be written to at any time, so that links to them are not enough.
        meeting: Where the folder's other files are, if some exist on other nodes only.
    """

    slot: str
    source: Path
    files: tuple[str, ...]
    prefix: str = ""
    whole_folder: bool = False
    copied: bool = False
    meeting: Meeting | None = None

    def path_in_repo(self, file: str) -> str:
        return f"{self.prefix}/{file}" if self.prefix else file


@dataclass(frozen=True)
class Plan:
    """One commit to be.

    Args:
        message: Title of the commit.
        step: Optimizer step that the files belong to.
        parts: What is pushed; the card is rendered by the pusher and is no part here.
        card: Whether the model card goes along.
        urgent: Whether it goes ahead of what is queued: the machine may be gone soon.
        best: Step of the best checkpoint so far; it is neither taken over nor deleted.
        node: The node whose files these are, where they go to a meeting.
        removes_branch: Whether the branch that it goes to is removed, once nothing waits for what is on it.
    """

    message: str
    step: int
    parts: tuple[Part, ...] = ()
    card: bool = True
    urgent: bool = False
    best: int | None = None
    node: int | None = None
    removes_branch: bool = False


def checkpoint_step(name: str) -> int | None:
    """The step of a folder `checkpoint-N`; `None` for any other name."""
    start, _, number = name.partition("-")
    return int(number) if start == "checkpoint" and number.isdecimal() else None


def is_weights(file: str) -> bool:
    """Whether a file (relative path, with `/`) holds parameters, by its name."""
    return _WEIGHTS.fullmatch(file) is not None


def is_training_state(file: str) -> bool:
    """Whether a file of a checkpoint folder (relative path, with `/`) serves only to continue training."""
    return _TRAINING_STATE.fullmatch(file) is not None


def list_files(folder: Path, leave_out: Callable[[str], bool] = lambda name: False) -> tuple[str, ...]:
    """Relative paths, with `/`, of all files below a folder, sorted.

    Hidden folders, links to folders and outboxes are left out, and names that are not UTF-8: Git knows no others.

    Args:
        leave_out: Which names in `folder` itself are not looked at.
    """
    found = []
    for here, folders, files in os.walk(folder):
        at_top = Path(here) == folder
        folders[:] = [
            name
            for name in folders
            if not (name.startswith(".") or name == OUTBOX_NAME or (at_top and leave_out(name)))
        ]
        for name in files:
            path = Path(here, name)
            if path.is_file() and not (at_top and leave_out(name)):
                found.append(path.relative_to(folder).as_posix())
    return tuple(sorted(file for file in found if _is_utf8(file)))


def _is_utf8(file: str) -> bool:
    try:
        file.encode()
    except UnicodeEncodeError:
        _say_once("%a is left out of what is pushed: its name is not UTF-8.", file)
        return False
    return True


@functools.cache
def _say_once(message: str, file: str) -> None:
    logger.warning(message, file)


def stays_here(name: str) -> bool:
    """What of `output_dir` no push takes: names with `_`, hidden ones, checkpoints; the card has its own way."""
    return name.startswith(("_", ".", "checkpoint-")) or name == "README.md"


def model_part(source: Path, files: Iterable[str]) -> Part:
    """The loadable model at the root of the repository: all of a checkpoint but its training state.

    Its README (PEFT, sentence-transformers and others write one) is left to the card.
    """
    return Part(MODEL, source, tuple(f for f in files if not is_training_state(f) and f != "README.md"))


def checkpoint_part(source: Path, files: Iterable[str], prefix: str) -> Part:
    return Part(
        slot=prefix,
        source=source,
        files=tuple(f for f in files if f not in (INCOMPLETE_MARKER, checkpoint_manifest.NAME)),
        prefix=prefix,
        whole_folder=True,
    )


def plan_output_dir(output_dir: Path, model_files: Collection[str], step: int, message: str) -> Plan:
    """What a script's final push takes from `output_dir`: the model, and results, predictions and logs beside it.

    Names that start with `_`, checkpoints and hidden files stay here, as with the Trainer's own upload.

    Args:
        model_files: Those of the files that belong to the model; the rest is a part of its own.
    """
    files = list_files(output_dir, stays_here)
    model = tuple(file for file in files if file in model_files)
    rest = tuple(file for file in files if file not in model_files)
    parts = (Part(MODEL, output_dir, model), Part(OUTPUTS, output_dir, rest, copied=True))
    return Plan(message, step, tuple(part for part in parts if part.files))


def plan_save(strategy: str, checkpoint: Path, step: int, message: str) -> Plan | None:
    """What a save pushes; `None` where the strategy waits for the end."""
    if strategy == "end":
        return None
    files = list_files(checkpoint)
    parts = [model_part(checkpoint, files)]
    if strategy == "checkpoint":
        parts.append(checkpoint_part(checkpoint, files, LAST_CHECKPOINT))
    elif strategy == "all_checkpoints":
        parts.append(checkpoint_part(checkpoint, files, checkpoint.name))
    return Plan(message, step, tuple(parts))


def with_meeting(plan: Plan, meeting: Meeting) -> Plan:
    """The same save, where other nodes have files of its checkpoint folder."""
    parts = (replace(part, meeting=meeting) if part.whole_folder else part for part in plan.parts)
    return replace(plan, parts=tuple(parts))


_ON_EACH_NODE = re.compile(
    r"(model|pytorch_model|adapter_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)|(optimizer|scheduler|scaler)\.(pt|bin)"
)
"""Large files that each node's first process writes alike with `save_on_each_node`."""


def plan_node_files(checkpoint: Path, step: int, node: int, has_copies: bool) -> Plan:
    """What a node with a folder of its own sends of a checkpoint: what the main process does not have.

    Args:
        node: Number of the node.
        has_copies: Whether this node also has copies of what the main process writes (`save_on_each_node`).
    """
    files = tuple(
        file
        for file in list_files(checkpoint)
        if file not in (INCOMPLETE_MARKER, checkpoint_manifest.NAME)
        and not (has_copies and _ON_EACH_NODE.fullmatch(file))
    )
    part = Part(NODE_FILES, checkpoint, files, prefix=f"{MEETING}/{step}/node-{node}")
    return Plan(f"Files of node {node}, step {step}", step, (part,), card=False, node=node)


def plan_checkpoint(strategy: str, checkpoint: Path, step: int | None, newest_step: int) -> Plan:
    """What a script pushes that names a checkpoint folder: whatever the strategy, the model goes.

    Args:
        step: The step that it was saved at, if that is known.
        newest_step: The step that training is at.
    """
    message = f"Checkpoint {checkpoint.name}" if step is None else progress_message("step", step, None)
    strategy = "every_save" if strategy == "end" else strategy
    plan = plan_save(strategy, checkpoint, newest_step if step is None else step, message)
    assert plan is not None
    return plan


def plan_evaluate(strategy: str, step: int, message: str) -> Plan | None:
    """What an evaluation without a save pushes: the card alone."""
    return None if strategy == "end" else Plan(message, step)


def plan_end(final_model: Path, step: int, message: str = END_OF_TRAINING) -> Plan:
    """What the end of training pushes, whatever the strategy.

    Args:
        final_model: Folder that holds the final weights, loadable; a checkpoint that holds them will do.
    """
    return Plan(message, step, (model_part(final_model, list_files(final_model)),))


def progress_message(unit: Literal["step", "epoch"], step: int, epoch: float | None) -> str:
    """The title of a commit during training, as the Trainer words it."""
    if unit == "epoch" and epoch is not None:
        return f"Training in progress, epoch {int(epoch)}"
    return f"Training in progress, step {step}"


_SHARD = re.compile(
    r"(?P<stem>.+)-\d{5}-of-\d{5}\.(safetensors|bin)|(?P<index>.+)\.(safetensors|bin)\.index\.json"
)


def stale_shards(new: Iterable[str], remote: Iterable[str]) -> list[str]:
    """Weight shards at the root of a repository that an earlier, differently sharded save left there.

    They would be downloaded, or even loaded, in place of the new weights.

    Args:
        new: Paths in the repository that a push writes.
        remote: Paths that are there.
    """
    written = set(new)
    stems = {_stem(path) for path in written} - {None}
    return [path for path in remote if path not in written and _SHARD.fullmatch(path) and _stem(path) in stems]


def _stem(path: str) -> str | None:
    """`model` for model.safetensors, model-00001-of-00002.safetensors and model.safetensors.index.json."""
    if "/" in path:
        return None
    shard = _SHARD.fullmatch(path)
    if shard:
        return shard["stem"] or shard["index"]
    name = PurePosixPath(path)
    return name.stem if name.suffix in (".safetensors", ".bin") else None
