"""What each `hub_strategy` leaves on the Hub: commits, messages, and files byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from models import Sentences, accuracy, arguments, classifier, tokenizer
from transformers import Trainer

from hub_callbacks import HubSyncCallback
from hub_callbacks.plan import is_training_state, list_files


def train(
    tmp_path: Path, repo: str, model: Any = None, callback: dict[str, Any] | None = None, **changes: Any
) -> tuple[Trainer, HubSyncCallback]:
    hub_sync = HubSyncCallback(**(callback or {}))
    trainer = Trainer(
        model or classifier(),
        arguments(tmp_path / repo, **changes),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        processing_class=tokenizer(),
        compute_metrics=accuracy,
        callbacks=[hub_sync],
    )
    trainer.train()
    hub_sync.close()
    return trainer, hub_sync


def titles(api: HfApi, repo: str, revision: str | None = None) -> list[str]:
    """Titles of the commits after the first, oldest first."""
    commits = api.list_repo_commits(f"local/{repo}", revision=revision)
    return [commit.title for commit in reversed(commits)][1:]


def digests(folder: Path, prefix: str = "") -> dict[str, str]:
    return {
        f"{prefix}{file}": hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in list_files(folder)
    }


def on_hub(tmp_path: Path, repo: str, revision: str | None = None) -> dict[str, str]:
    """Path → sha256 of all that people get, but the card and .gitattributes."""
    folder = snapshot_download(
        f"local/{repo}", revision=revision, cache_dir=tmp_path / f"cache-{revision}", local_dir=None
    )
    found = digests(Path(folder))
    return {path: digest for path, digest in found.items() if path not in (".gitattributes", "README.md")}


def root_of(checkpoint: Path) -> dict[str, str]:
    return {path: digest for path, digest in digests(checkpoint).items() if not is_training_state(path)}


def card_of(api: HfApi, tmp_path: Path, repo: str) -> str:
    return Path(api.hf_hub_download(f"local/{repo}", "README.md", cache_dir=tmp_path / "card-cache")).read_text()


def test_end_pushes_the_final_model_in_one_commit(hub, api, repo, tmp_path, upload_path):
    train(tmp_path, repo, hub_strategy="end")
    assert titles(api, repo) == ["End of training"]
    assert without_pictures(on_hub(tmp_path, repo)) == root_of(tmp_path / repo / "checkpoint-8")


def test_every_save_is_one_commit_of_loadable_files(hub, api, repo, tmp_path, upload_path):
    train(tmp_path, repo, hub_strategy="every_save", hub_always_push=True)
    assert titles(api, repo) == [f"Training in progress, step {n}" for n in (2, 4, 6, 8)] + ["End of training"]
    commits = {c.title: c.commit_id for c in api.list_repo_commits(f"local/{repo}")}
    for step in (2, 4, 6, 8):
        there = on_hub(tmp_path, repo, commits[f"Training in progress, step {step}"])
        assert without_pictures(there) == root_of(tmp_path / repo / f"checkpoint-{step}")


def test_checkpoint_keeps_the_newest_whole_checkpoint(hub, api, repo, tmp_path, upload_path):
    train(tmp_path, repo, hub_strategy="checkpoint", hub_always_push=True)
    checkpoint = tmp_path / repo / "checkpoint-8"
    assert without_pictures(on_hub(tmp_path, repo)) == root_of(checkpoint) | digests(
        checkpoint, "last-checkpoint/"
    )


def test_all_checkpoints_keeps_each_checkpoint(hub, api, repo, tmp_path, upload_path):
    train(tmp_path, repo, hub_strategy="all_checkpoints", save_total_limit=1)
    there = on_hub(tmp_path, repo)
    assert {path.split("/")[0] for path in there if path.startswith("checkpoint-")} == {
        f"checkpoint-{n}" for n in (2, 4, 6, 8)
    }
    last = tmp_path / repo / "checkpoint-8"
    assert there.items() >= (digests(last, "checkpoint-8/") | root_of(last)).items()


def without_pictures(files: dict[str, str]) -> dict[str, str]:
    return {path: digest for path, digest in files.items() if not path.endswith((".png", ".svg"))}
