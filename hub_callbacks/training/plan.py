"""What goes where under which message: the meaning of `hub_strategy`, in pure functions.

A push is made of *parts*. A part is what a newer push takes over as a whole: the model at the root of the
repository, the card, the folder `last-checkpoint/`, one folder `checkpoint-N/`, other files of `output_dir`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoints.completeness import step_of
from ..checkpoints.files import (
    LAST_CHECKPOINT,
    belongs_to_checkpoint,
    is_on_each_node,
    is_training_state,
    list_files,
)
from ..outbox.push import EVAL_RESULTS, MODEL, NODE_BRANCH, NODE_FILES, OUTPUTS, OWN_EVAL_RESULTS, OtherNodes

END_OF_TRAINING = "End of training"
"""Title of the commit of the final model, as the Trainer words it."""


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
        others: Where the folder's other files are, if some exist on other nodes only.
    """

    slot: str
    source: Path
    files: tuple[str, ...]
    prefix: str = ""
    whole_folder: bool = False
    copied: bool = False
    others: OtherNodes | None = None

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
    """

    message: str
    step: int
    parts: tuple[Part, ...] = ()
    card: bool = True
    urgent: bool = False
    best: int | None = None


def eval_results(output_dir: Path) -> tuple[Part, ...]:
    """Results on benchmarks, as the Hub reads them: of hidden folders theirs alone is pushed."""
    found = (file for file in (output_dir / EVAL_RESULTS).glob("*.yaml") if file.is_file())
    files = sorted(f"{EVAL_RESULTS}/{file.name}" for file in found if file.name != OWN_EVAL_RESULTS)
    return (Part(EVAL_RESULTS, output_dir, tuple(files), copied=True),) if files else ()


def stays_here(name: str) -> bool:
    """What of `output_dir` no push takes: names with `_`, hidden ones, checkpoints; the card has its own way."""
    return name.startswith(("_", ".", "checkpoint-")) or name == "README.md"


def model_part(source: Path, files: Iterable[str]) -> Part:
    """The loadable model at the root of the repository: all of a checkpoint but its training state.

    Its README (PEFT, sentence-transformers and others write one) is left to the card.
    """
    return Part(MODEL, source, tuple(f for f in files if not is_training_state(f) and f != "README.md"))


def plan_output_dir(output_dir: Path, model_files: Collection[str], step: int, message: str) -> Plan:
    """What a script's final push takes from `output_dir`: the model, and results, predictions and logs beside it.

    Names that start with `_`, checkpoints and hidden files stay here, as with the Trainer's own upload.

    Args:
        model_files: Those of the files that belong to the model; the rest is a part of its own.
    """
    files = list_files(output_dir, stays_here)
    model = tuple(file for file in files if file in model_files)
    rest = tuple(file for file in files if file not in model_files)
    parts = (
        Part(MODEL, output_dir, model),
        Part(OUTPUTS, output_dir, rest, copied=True),
        *eval_results(output_dir),
    )
    return Plan(message, step, tuple(part for part in parts if part.files))


def plan_save(strategy: str, checkpoint: Path, step: int, message: str) -> Plan | None:
    """What a save pushes; `None` where the strategy waits for the end."""
    if strategy == "end":
        return None
    files = list_files(checkpoint)
    parts = [model_part(checkpoint, files)]
    folder = {"checkpoint": LAST_CHECKPOINT, "all_checkpoints": checkpoint.name}.get(strategy)
    if folder is not None:
        own = tuple(filter(belongs_to_checkpoint, files))
        parts.append(Part(folder, checkpoint, own, prefix=folder, whole_folder=True))
    return Plan(message, step, tuple(parts))


def with_other_nodes(plan: Plan, others: OtherNodes) -> Plan:
    """The same save, where other nodes have files of its checkpoint folder."""
    parts = (replace(part, others=others) if part.whole_folder else part for part in plan.parts)
    return replace(plan, parts=tuple(parts))


def plan_node_files(checkpoint: Path, step: int, node: int, has_copies: bool) -> Plan:
    """What a node with a folder of its own sends of a checkpoint: what the main process does not have.

    Args:
        node: Number of the node.
        has_copies: Whether this node also has copies of what the main process writes (`save_on_each_node`).
    """
    files = (file for file in list_files(checkpoint) if not (has_copies and is_on_each_node(file)))
    own = tuple(filter(belongs_to_checkpoint, files))
    part = Part(NODE_FILES, checkpoint, own, prefix=f"{NODE_BRANCH}/{step}/node-{node}")
    return Plan(f"Files of node {node}, step {step}", step, (part,), card=False)


def plan_checkpoint(strategy: str, checkpoint: Path, newest_step: int) -> Plan:
    """What a script pushes that names a checkpoint folder: whatever the strategy, the model goes.

    Args:
        newest_step: The step that training is at; it counts where the checkpoint does not say its own.
    """
    step = step_of(checkpoint)
    message = f"Checkpoint {checkpoint.name}" if step is None else progress_message(step)
    strategy = "every_save" if strategy == "end" else strategy
    plan = plan_save(strategy, checkpoint, newest_step if step is None else step, message)
    assert plan is not None
    return plan


def plan_evaluate(strategy: str, step: int, message: str) -> Plan | None:
    """What an evaluation without a save pushes: the card alone."""
    return None if strategy == "end" else Plan(message, step)


def plan_end(final_model: Path, step: int, output_dir: Path | None = None) -> Plan:
    """What the end of training pushes, whatever the strategy.

    Args:
        final_model: Folder that holds the final weights, loadable; a checkpoint that holds them will do.
        output_dir: Folder of the run, whose results on benchmarks go along.
    """
    results = () if output_dir is None else eval_results(output_dir)
    return Plan(END_OF_TRAINING, step, (model_part(final_model, list_files(final_model)), *results))


def progress_message(step: int, epoch: float | None = None) -> str:
    """The title of a commit during training, as the Trainer words it; by the epoch where that is given."""
    return f"Training in progress, step {step}" if epoch is None else f"Training in progress, epoch {int(epoch)}"
