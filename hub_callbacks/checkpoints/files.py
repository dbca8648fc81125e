"""What the files in a checkpoint folder are, by their names: the one table of names and patterns.

The names are those that the Trainer, accelerate, FSDP, DeepSpeed and PEFT give (transformers/trainer.py: `*_NAME`
constants; accelerate/utils/constants.py). Paths are relative to the folder, with `/`.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from ..settings import OUTBOX_NAME
from .manifest import NAME as MANIFEST

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last-checkpoint"
"""Folder on the Hub that holds the newest checkpoint with `hub_strategy="checkpoint"`."""
TRAINER_STATE = "trainer_state.json"
"""What the Trainer writes last."""
INCOMPLETE_MARKER = "checkpoint-is-incomplete.txt"
"""Stands in a checkpoint folder while the Trainer (`enable_jit_checkpoint`) still writes to it."""

OPTIMIZER = "optimizer"
SCHEDULER = "scheduler"
SCALER = "gradient scaler"
RANDOM_STATE = "random states"
FSDP_WEIGHTS = "FSDP weights"
DEEPSPEED = "DeepSpeed states"
OTHER_STATE = "other states"

_STATES = {
    OPTIMIZER: r"([^/]*[-_.])?optimizer([-_.].*)?\.(pt|bin|safetensors) | optimizer(_\d+)?/.*",
    SCHEDULER: r"scheduler([-_.].*)?\.(pt|bin)",
    SCALER: r"scaler([-_.].*)?\.pt",
    RANDOM_STATE: r"(rng_state|random_states)([-_.].*)?\.(pth|pkl)",
    FSDP_WEIGHTS: r"pytorch_model_fsdp_\d+/.* | pytorch_model_fsdp(_\d+)?\.bin",
    DEEPSPEED: r"global_step\d+/.*",
    OTHER_STATE: rf"""
        (sampler|dl_state_dict)(_\d+)?\.bin | custom_checkpoint_\d+\.pkl | user_content\.pt
        | latest | zero_to_(fp32|torch)\.py
        | {re.escape(TRAINER_STATE)} | {re.escape(INCOMPLETE_MARKER)} | {re.escape(MANIFEST)}""",
}
"""What serves only to continue a training, and nobody needs to load the model: kind → pattern of its files."""
_STATE_PATTERNS = {kind: re.compile(pattern, re.VERBOSE) for kind, pattern in _STATES.items()}

_WEIGHTS = re.compile(
    r"(?!training_args\.bin).+\.(safetensors|bin|pt|pth|ckpt|distcp|msgpack|h5|gguf)(\.index\.json)?"
)
_TRAINERS_WEIGHTS = re.compile(r".*\.safetensors|(.*/)?(pytorch_model.*|adapter_model\.bin)")
_RANK = re.compile(r"rng_state_(\d+)\.pth")
_SHARD_OF_A_PROCESS = re.compile(r".*\.distcp|global_step\d+/.*")
_TORCH_FILE = re.compile(r".*\.pth?|(.*/)?(pytorch_model|adapter_model|optimizer|scheduler)[^/]*\.bin")
_ARGUMENTS = "training_args.bin"
_INDEX = re.compile(r".+\.(safetensors|bin)\.index\.json")
_NO_COMMIT = re.compile(r"(^|/)(\.git|\.cache|git~1)[ .]*(/|$)|[\\\x00-\x1f\x7f]", re.IGNORECASE)
_ON_EACH_NODE = re.compile(
    r"(model|pytorch_model|adapter_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)|(optimizer|scheduler|scaler)\.(pt|bin)"
)
_SHARD = re.compile(
    r"(?P<stem>.+)-\d{5}-of-\d{5}\.(safetensors|bin)|(?P<index>.+)\.(safetensors|bin)\.index\.json"
)


def state_kind(file: str) -> str | None:
    """What a file continues a training with; `None` for one that belongs to the model."""
    return next((kind for kind, pattern in _STATE_PATTERNS.items() if pattern.fullmatch(file)), None)


def is_training_state(file: str) -> bool:
    """Whether a file serves only to continue training."""
    return state_kind(file) is not None


def is_weights(file: str) -> bool:
    """Whether a file holds parameters of the model, in whatever form."""
    kind = state_kind(file)
    return kind in (FSDP_WEIGHTS, DEEPSPEED) or (kind is None and _WEIGHTS.fullmatch(file) is not None)


def is_trainers_weights(file: str) -> bool:
    """Whether a file holds parameters under a name that the Trainer gives, so that it can load them."""
    kind = state_kind(file)
    return kind in (FSDP_WEIGHTS, DEEPSPEED) or (kind is None and _TRAINERS_WEIGHTS.fullmatch(file) is not None)


def kinds_of_state(files: Iterable[str]) -> set[str]:
    """What there is to continue a training with. DeepSpeed keeps optimizer and scheduler in one."""
    kinds = {kind for file in files if (kind := state_kind(file)) is not None}
    return kinds | {OPTIMIZER, SCHEDULER} if DEEPSPEED in kinds else kinds


def rank_of(file: str) -> int | None:
    """The process whose random state a file is, in a job of several."""
    found = _RANK.fullmatch(file)
    return int(found[1]) if found else None


def is_shard_of_a_process(file: str) -> bool:
    """Whether other processes have written the rest of what is in a file, perhaps to other machines."""
    return _SHARD_OF_A_PROCESS.fullmatch(file) is not None


def is_torch_file(file: str) -> bool:
    """Whether `torch.save` has written a file of the Trainer's, as a zip archive. A library's may be anything."""
    is_trainers = state_kind(file) is not None or is_trainers_weights(file)
    return file == _ARGUMENTS or (is_trainers and _TORCH_FILE.fullmatch(file) is not None)


def is_index_of_shards(file: str) -> bool:
    """Whether a file says in which others the weights are."""
    return _INDEX.fullmatch(file) is not None


def is_on_each_node(file: str) -> bool:
    """Whether it is a large file that each node's first process writes alike with `save_on_each_node`."""
    return _ON_EACH_NODE.fullmatch(file) is not None


def belongs_to_checkpoint(file: str) -> bool:
    """Whether a file of a checkpoint folder goes to the Hub with it."""
    return file not in (INCOMPLETE_MARKER, MANIFEST)


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint of a step."""
    return f"checkpoint-{step}"


def checkpoint_step(name: str) -> int | None:
    """The step of a folder `checkpoint-N`; `None` for any other name."""
    start, _, number = name.partition("-")
    return int(number) if start == "checkpoint" and number.isdecimal() else None


def checkpoints_in(output_dir: Path) -> dict[int, Path]:
    """Step → folder of each checkpoint in the folder of a run, complete or not."""
    folders = ((checkpoint_step(folder.name), folder) for folder in output_dir.glob("checkpoint-*"))
    return {step: folder for step, folder in folders if step is not None and folder.name == checkpoint_name(step)}


def list_files(folder: Path, leave_out: Callable[[str], bool] = lambda name: False) -> tuple[str, ...]:
    """Relative paths, with `/`, of all files below a folder, sorted.

    Outboxes are left out, and, which is said once, hidden folders (editors, notebooks and tools keep theirs there,
    some with secrets in them), links to folders, and names that no commit can have.

    Args:
        leave_out: Which names in `folder` itself are not looked at.

    Raises:
        OSError: when the disk does not say what something is.
    """
    found = []
    for here, folders, files in os.walk(folder, onerror=_cannot_look):
        below = os.path.relpath(here, folder).replace(os.sep, "/") + "/"
        at_top = below == "./"
        below = "" if at_top else below
        folders[:] = [
            name
            for name in folders
            if not (name == OUTBOX_NAME or (at_top and leave_out(name)))
            and _can_be_committed(below + name)
            and not _stays(os.path.join(here, name), below + name)
        ]
        for name in files:
            if not (at_top and leave_out(name)) and _is_file(os.path.join(here, name)):
                found.append(below + name)
    return tuple(sorted(file for file in found if _can_be_committed(file)))


def _cannot_look(error: OSError) -> None:
    if isinstance(error, PermissionError):
        _say_once("%a is left out of what is pushed: the folder may not be read.", str(error.filename))
    elif not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _stays(folder: str, name: str) -> bool:
    if os.path.basename(name).startswith("."):
        _say_once("%a is left out of what is pushed: it is a hidden folder.", name)
    elif os.path.islink(folder):
        _say_once("%a is left out of what is pushed: it is a link to a folder.", name)
    else:
        return False
    return True


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # it is gone, or a link to nothing
            return False
        raise


def _can_be_committed(file: str) -> bool:
    """Whether Git, the Hub's client and the manifest take a name: it is UTF-8, means no `.git` anywhere (in a
    worktree or submodule that is a file) and no `.cache`, and is one path on every system."""
    try:
        file.encode()
    except UnicodeEncodeError:
        _say_once("%a is left out of what is pushed: its name is not UTF-8.", file)
        return False
    if _NO_COMMIT.search(file):
        _say_once("%a is left out of what is pushed: no commit can have a file of that name.", file)
        return False
    return True


@functools.cache
def _say_once(message: str, file: str) -> None:
    logger.warning(message, file)


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
