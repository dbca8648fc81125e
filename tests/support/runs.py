"""Running a Trainer with the callback, and reading what it left on the Hub."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback
from hub_callbacks.checkpoints.files import is_training_state, list_files
from hub_callbacks.checkpoints.manifest import NAME
from models import Sentences, accuracy, arguments, classifier, tokenizer

PICTURE = "training_curves.png"


class Witness(TrainerCallback):
    """Notes the digests of each checkpoint as the Trainer wrote it, before anything rotates it away."""

    def __init__(self) -> None:
        self.checkpoints: dict[int, dict[str, str]] = {}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.checkpoints[state.global_step] = digests(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def train(
    tmp_path: Path,
    repo: str,
    model: Any = None,
    callback: dict[str, Any] | None = None,
    trainer_class: type[Trainer] = Trainer,
    trainer_options: dict[str, Any] | None = None,
    resume: str | None = None,
    **changes: Any,
) -> tuple[Trainer, HubSyncCallback, Witness]:
    """A whole run into `tmp_path / repo`, from the checkpoint `resume`; `changes` are of `TrainingArguments`."""
    hub_sync, witness = HubSyncCallback(**(callback or {})), Witness()
    options: dict[str, Any] = {
        "train_dataset": Sentences(),
        "eval_dataset": Sentences(8),
        "processing_class": tokenizer(),
        "compute_metrics": accuracy,
    }
    trainer = trainer_class(
        model if model is not None else classifier(),
        arguments(tmp_path / repo, **changes),
        callbacks=[witness, hub_sync],
        **(options | (trainer_options or {})),
    )
    trainer.train(resume_from_checkpoint=resume)
    hub_sync.close()
    return trainer, hub_sync, witness


def titles(api: HfApi, repo: str, revision: str | None = None) -> list[str]:
    """Titles of the commits after the first, oldest first."""
    commits = api.list_repo_commits(f"local/{repo}", revision=revision)
    return [commit.title for commit in reversed(commits)][1:]


def commit_titled(api: HfApi, repo: str, title: str) -> str:
    return next(c.commit_id for c in api.list_repo_commits(f"local/{repo}") if c.title == title)


def digests(folder: Path, prefix: str = "") -> dict[str, str]:
    """Relative path, behind `prefix` → sha256 of each file below a folder."""
    return {
        f"{prefix}{file}": hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in list_files(folder)
    }


def download(tmp_path: Path, repo: str, revision: str | None = None) -> Path:
    return Path(snapshot_download(f"local/{repo}", revision=revision, cache_dir=tmp_path / "cache"))


def on_hub(tmp_path: Path, repo: str, revision: str | None = None) -> dict[str, str]:
    """Path → sha256 of all that people get, but what is made on the way: card, picture, manifests."""
    found = digests(download(tmp_path, repo, revision))
    made = (".gitattributes", "README.md", PICTURE)
    return {path: d for path, d in found.items() if path not in made and Path(path).name != NAME}


def below(prefix: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}/{path}": digest for path, digest in files.items()}


def root_of(checkpoint: dict[str, str]) -> dict[str, str]:
    """What of a checkpoint's files belongs to the root of the repository."""
    return {path: d for path, d in checkpoint.items() if not is_training_state(path) and path != "README.md"}


def left_by(strategy: str, saved: Witness) -> dict[str, str]:
    """All that a strategy leaves on the Hub: path → sha256."""
    newest = saved.checkpoints[max(saved.checkpoints)]
    expected = root_of(newest)
    if strategy == "checkpoint":
        expected |= below("last-checkpoint", newest)
    if strategy == "all_checkpoints":
        for step, files in saved.checkpoints.items():
            expected |= below(f"checkpoint-{step}", files)
    return expected
