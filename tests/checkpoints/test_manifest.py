"""Each checkpoint folder on the Hub says what belongs to it, so that a reader can tell a whole one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path

import pytest

from hub_callbacks.checkpoints.manifest import NAME, CheckpointManifest, FileFacts, Origin, load
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.settings import OUTBOX_NAME
from runs import below, commit_titled, digests, download, on_hub, train
from savers import Run


def manifest_at(folder: Path) -> CheckpointManifest:
    return load((folder / NAME).read_bytes())


def test_the_manifest_names_every_file_as_it_was_pushed(hub, api, repo, tmp_path, upload_path):
    _, callback, _ = train(tmp_path, repo, hub_strategy="checkpoint", hub_token=hub.token)
    folder = download(tmp_path, repo) / "last-checkpoint"
    manifest = manifest_at(folder)
    there = digests(folder)
    del there[NAME]
    assert {path: facts.sha256 for path, facts in manifest.files.items()} == there
    assert all(facts.size == (folder / path).stat().st_size for path, facts in manifest.files.items())
    assert (manifest.step, manifest.origin.world_size, manifest.run_id) == (8, 1, callback.engine.run_id)
    for package in ("torch", "transformers", "accelerate", "huggingface_hub"):
        assert manifest.origin.versions[package] == importlib.metadata.version(package)
    # The token was taken out of this file on its way.
    local = tmp_path / repo / "checkpoint-8" / "training_args.bin"
    assert manifest.files["training_args.bin"].sha256 != hashlib.sha256(local.read_bytes()).hexdigest()


def test_it_comes_with_the_commit_of_its_files(hub, api, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="all_checkpoints", hub_always_push=True)
    for step in (2, 4, 6, 8):
        commit = commit_titled(api, repo, f"Training in progress, step {step}")
        manifest = manifest_at(download(tmp_path, repo, commit) / f"checkpoint-{step}")
        files = on_hub(tmp_path, repo, commit)
        assert manifest.step == step
        assert (
            files.items() >= below(f"checkpoint-{step}", {p: f.sha256 for p, f in manifest.files.items()}).items()
        )


def test_what_was_left_out_as_a_secret_does_not_belong_to_it(hub, api, repo, tmp_path):
    with Run(tmp_path / repo, api, hub_strategy="checkpoint") as run:
        folder = tmp_path / repo / "checkpoint-1"
        folder.mkdir(parents=True)
        (folder / ".env").write_text("PASSWORD=1")
        (folder / "weights.bin").write_bytes(b"weights")
        from hub_callbacks.training.plan import plan_save

        run.engine.push(plan_save("checkpoint", folder, 1, "step 1")).result(timeout=60)
    assert manifest_at(download(tmp_path, repo) / "last-checkpoint").files.keys() == {"weights.bin"}


def test_a_manifest_that_lies_in_a_local_folder_is_not_pushed_as_a_file(hub, api, repo, tmp_path):
    with Run(tmp_path / repo, api, hub_strategy="checkpoint") as run:
        folder = tmp_path / repo / "checkpoint-1"
        folder.mkdir(parents=True)
        (folder / NAME).write_text("an older one")
        (folder / "weights.bin").write_bytes(b"weights")
        from hub_callbacks.training.plan import plan_save

        run.engine.push(plan_save("checkpoint", folder, 1, "step 1")).result(timeout=60)
    there = download(tmp_path, repo)
    assert manifest_at(there / "last-checkpoint").files.keys() == {"weights.bin"}
    assert not (there / NAME).exists()


def test_a_run_keeps_its_identifier_in_its_folder(hub, api, repo, tmp_path):
    with Run(tmp_path / repo, api) as first:
        pass
    with Run(tmp_path / repo, api) as second, Run(tmp_path / "other", api) as other:
        assert first.engine.run_id == second.engine.run_id != other.engine.run_id
    Outbox(tmp_path / "third" / OUTBOX_NAME).adopt("abc")
    with Run(tmp_path / "third", api) as third:
        assert third.engine.run_id == "abc"


def test_what_a_manifest_says_survives_writing_and_reading():
    manifest = CheckpointManifest(7, "run", Origin(4, {"torch": "2"}), {"a/b": FileFacts(3, "0" * 64)})
    assert load(manifest.dump()) == manifest
    newer = json.loads(manifest.dump()) | {"mood": "good"}
    assert load(json.dumps(newer)) == manifest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 99}',
        '{"format": 1, "step": 1, "run": "a"}',
        '{"format": 1, "step": 1, "run": "a", "files": {"../x": {"size": 1, "sha256": ""}}}',
        '{"format": 1, "step": 1, "run": "a", "files": {"/x": {"size": 1, "sha256": ""}}}',
    ],
)
def test_what_is_no_manifest_is_refused_with_a_reason(text):
    with pytest.raises(ValueError, match=r"."):
        load(text)
