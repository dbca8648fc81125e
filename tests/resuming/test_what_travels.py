"""What a checkpoint holds besides the Trainer's own files travels with it; what is not restored is said."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback, latest_checkpoint
from hub_callbacks.checkpoints.files import TRAINER_STATE
from hub_callbacks.localhub import Answer, Fault
from models import Sentences, arguments, classifier
from runs import digests, on_hub, train


class Library(TrainerCallback):
    """Keeps files of its own in each checkpoint."""

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for name in ("rollouts", "deep/er"):
            (folder / name).mkdir(parents=True)
        (folder / "rollouts" / ".position").write_text("17")
        (folder / "deep" / "er" / "no extension").write_bytes(bytes(200_000))
        (folder / "dataset_state.json").write_text(json.dumps({"examples_iterable": 3}))
        (folder / "tree.index.json").write_text("[]")
        (folder / "rollouts" / "buffer.pt").write_bytes(pickle.dumps([1, 2, 3]))
        (folder / "raw.pt").write_bytes(b"\0\1\2\3")


def test_what_a_library_keeps_in_a_checkpoint_comes_back_with_it(hub, repo, tmp_path, caplog):
    callback = HubSyncCallback(hub_strategy="checkpoint")
    args = arguments(tmp_path / repo, max_steps=2)
    Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback, Library()]).train()
    callback.close()
    assert latest_checkpoint(args) == str(tmp_path / repo / "checkpoint-2")
    assert "Not continued from" not in caplog.text
    saved = digests(tmp_path / repo / "checkpoint-2")
    assert "rollouts/.position" in saved
    shutil.rmtree(tmp_path / repo)
    assert latest_checkpoint(args) == str(tmp_path / repo / "checkpoint-2")
    assert digests(tmp_path / repo / "checkpoint-2") == saved


def test_links_to_folders_and_hidden_folders_are_said_to_stay(hub, api, repo, tmp_path, caplog):
    class Links(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            (tmp_path / "data").mkdir()
            (Path(args.output_dir) / "checkpoint-2" / "linked").symlink_to(tmp_path / "data")
            (Path(args.output_dir) / "checkpoint-2" / ".aws").mkdir()
            (Path(args.output_dir) / "checkpoint-2" / ".aws" / "credentials").write_text("a secret")

    callback = HubSyncCallback(hub_strategy="checkpoint")
    args = arguments(tmp_path / repo, max_steps=2)
    Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback, Links()]).train()
    callback.close()
    assert not any(".aws" in file for file in api.list_repo_files(f"local/{repo}"))
    assert ".aws' is left out of what is pushed: it is a hidden folder" in caplog.text
    assert "linked' is left out of what is pushed: it is a link to a folder" in caplog.text


def streamed() -> object:
    rows = Sentences(32)
    columns = {name: [row[name].tolist() for row in rows] for name in rows[0]}
    return Dataset.from_dict(columns).to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=8)


@pytest.mark.parametrize("is_skipped", [True, False], ids=["exactly", "ignore_data_skip"])
def test_a_streamed_data_set_goes_on_where_it_was_or_it_is_said(hub, repo, tmp_path, caplog, is_skipped):
    caplog.set_level(logging.WARNING)

    def run(name, until=6, resume=None):
        options = {"train_dataset": streamed()}
        changes = {
            "max_steps": 6,
            "save_steps": 3,
            "hub_strategy": "checkpoint",
            "ignore_data_skip": not is_skipped,
        }
        train(tmp_path, name, trainer_options=options, resume=resume, **changes)
        state = json.loads((tmp_path / name / "checkpoint-6" / TRAINER_STATE).read_text())
        return [entry["loss"] for entry in state["log_history"] if "loss" in entry]

    whole = run(repo)
    args = arguments(tmp_path / repo, ignore_data_skip=not is_skipped)
    shutil.rmtree(tmp_path / repo / "checkpoint-6")
    args.hub_revision = "none-yet"  # the Hub has a newer one
    found = latest_checkpoint(args)
    assert Path(found).name == "checkpoint-3"
    assert ("ignore_data_skip" in caplog.text) == (not is_skipped)
    assert (run(repo, resume=found) == whole) == is_skipped


def best_at_step_2(tmp_path, repo, **changes):
    train(
        tmp_path,
        repo,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="accuracy",
        trainer_options={"compute_metrics": lambda prediction: {"accuracy": 0.5}},
        max_steps=4,
        hub_strategy="all_checkpoints",
        **changes,
    )


def test_the_best_checkpoint_of_a_folder_without_it_comes_from_the_hub(hub, repo, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("hub_callbacks.hub.downloads.TRIES", 1)
    best_at_step_2(tmp_path, repo)
    saved = digests(tmp_path / repo / "checkpoint-2")
    (tmp_path / repo).rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere" / "checkpoint-2")
    found = latest_checkpoint(arguments(tmp_path / "elsewhere"), hub_model_id=repo)
    assert found == str(tmp_path / "elsewhere" / "checkpoint-4")
    assert digests(tmp_path / "elsewhere" / "checkpoint-2") == saved
    state = json.loads(Path(found, TRAINER_STATE).read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "elsewhere" / "checkpoint-2")
    with hub.inject(Fault("*", Answer(503))):
        shutil.rmtree(tmp_path / "elsewhere" / "checkpoint-2")
        assert latest_checkpoint(arguments(tmp_path / "elsewhere"), hub_model_id=repo) == found
    assert "is neither here nor could it be had from the Hub" in caplog.text


def test_retention_keeps_the_best_one_where_its_path_is_another_machines(hub, repo, tmp_path):
    best_at_step_2(tmp_path, repo)
    (tmp_path / repo).rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere" / "checkpoint-2")
    train(
        tmp_path,
        "elsewhere",
        resume=str(tmp_path / "elsewhere" / "checkpoint-4"),
        callback={"hub_model_id": repo, "hub_keep_last": 1},
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="accuracy",
        trainer_options={"compute_metrics": lambda prediction: {"accuracy": 0.5}},
        hub_strategy="all_checkpoints",
    )
    folders = {path.split("/")[0] for path in on_hub(tmp_path, repo) if path.startswith("checkpoint-")}
    assert folders == {"checkpoint-2", "checkpoint-6"}
