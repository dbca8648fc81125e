"""Whatever goes wrong around a push, training ends as it would have without it, and it is said."""

from __future__ import annotations

import gc
import os
import shutil
import weakref
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback, PushNotSent
from hub_callbacks.cli import drain
from hub_callbacks.localhub import Answer, Fault, Hang
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.settings import resolve
from hub_callbacks.training.engine import Engine
from hub_callbacks.training.plan import plan_save
from models import Sentences, arguments, classifier
from runs import below, digests, on_hub, root_of, titles, train
from savers import wait_until


class AtSave(TrainerCallback):
    """Does something to each checkpoint folder before the callback sees it."""

    def __init__(self, act) -> None:
        self.act = act

    def on_save(self, args, state, control, **kwargs):
        self.act(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def run(output_dir, *callbacks, keywords=None, **changes):
    callback = HubSyncCallback(**(keywords or {}))
    trainer = Trainer(
        classifier(),
        arguments(output_dir, **changes),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        callbacks=[*callbacks, callback],
    )
    trainer.train()
    return trainer, callback


def test_a_name_that_no_one_can_write_down_is_left_out_and_named(hub, api, repo, tmp_path, caplog):
    act = AtSave(lambda folder: open(os.fsencode(folder) + b"/\xff.txt", "w").close())
    _, callback = run(tmp_path / repo, act, keywords={"on_error": "raise"}, hub_strategy="every_save")
    callback.close()
    assert "model.safetensors" in on_hub(tmp_path, repo)
    assert "left out" in caplog.text and "udcff.txt" in caplog.text


@pytest.mark.parametrize("name", [".git", ".GIT", ".cache", "git~1", "sub/.git", "back\\slash.txt", "new\nline"])
def test_a_name_that_no_commit_can_have_is_left_out_and_named(hub, api, repo, tmp_path, caplog, name):
    def write(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("gitdir: ../.git/worktrees/run")

    _, callback = run(
        tmp_path / repo,
        AtSave(write),
        keywords={"on_error": "raise"},
        hub_strategy="checkpoint",
        max_steps=2,
        save_steps=2,
    )
    callback.close()
    there = on_hub(tmp_path, repo)
    assert "last-checkpoint/model.safetensors" in there and not any(name.split("/")[-1] in path for path in there)
    assert "no commit can have" in caplog.text


def test_links_to_folders_are_not_followed(hub, api, repo, tmp_path):
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    (elsewhere / "all.txt").write_text("all of it")

    def link(folder):
        for name, to in (("loop", "."), ("again", "."), ("data", elsewhere)):
            (folder / name).symlink_to(to)
        (folder / "file.txt").symlink_to(elsewhere / "all.txt")

    run(tmp_path / repo, AtSave(link), keywords={"hub_strategy": "all_checkpoints"}, max_steps=2, save_steps=2)
    names = {Path(path).name for path in on_hub(tmp_path, repo)}
    assert "file.txt" in names and "all.txt" not in names
    assert not any("loop" in path or "again" in path for path in on_hub(tmp_path, repo))


def test_the_outbox_of_a_run_below_stays_here(hub, api, repo, tmp_path):
    trainer, _ = run(tmp_path / repo, max_steps=2, save_steps=2)
    run(tmp_path / repo / "second", keywords={"hub_model_id": f"{repo}-second"}, max_steps=2, save_steps=2)
    trainer.push_to_hub()
    there = on_hub(tmp_path, repo)
    assert "second/checkpoint-2/model.safetensors" in there
    assert not [path for path in there if "_hub_sync" in path]


def test_a_very_long_file_name_arrives(hub, api, repo, tmp_path):
    name = "x" * 240 + ".json"
    _, callback = run(tmp_path / repo, AtSave(lambda folder: (folder / name).write_text("{}")))
    callback.close()
    assert name in on_hub(tmp_path, repo)


@pytest.mark.parametrize("is_saved", [False, True], ids=["on_the_hub", "in_the_checkpoint"])
def test_a_gitignore_keeps_nothing_back(hub, api, repo, tmp_path, is_saved):
    if not is_saved:
        api.create_repo(f"local/{repo}")
        rules = b"checkpoint-*/\n*.md\n*.safetensors\n"
        api.upload_file(path_or_fileobj=rules, path_in_repo=".gitignore", repo_id=f"local/{repo}")
    at_save = AtSave(lambda checkpoint: is_saved and (checkpoint / ".gitignore").write_text("*\n"))
    run(tmp_path / repo, at_save, keywords={"hub_strategy": "all_checkpoints"}, max_steps=4, save_steps=2)
    there = set(api.list_repo_files(f"local/{repo}"))
    assert {"README.md", "model.safetensors", "checkpoint-2/hub_checkpoint.json"} <= there
    assert digests(tmp_path / repo / "checkpoint-4", "checkpoint-4/").keys() <= there


def test_lost_saves_count_when_errors_are_to_be_raised(hub, api, repo, tmp_path, mocker):
    mocker.patch("hub_callbacks.training.staging.freeze", side_effect=OSError(28, "No space left on device"))
    with pytest.raises(PushNotSent, match="could not be kept"):
        run(tmp_path / repo, keywords={"on_error": "raise"})


def test_a_full_disk_at_the_end_does_not_end_the_training(hub, api, repo, tmp_path, mocker):
    mocker.patch("transformers.Trainer.save_model", side_effect=OSError(28, "No space left on device"))
    _, callback = run(tmp_path / repo, save_strategy="no")
    assert callback.summary().lost == 1 and "No space left" in " ".join(callback.summary().notes)
    callback.close()


def test_an_outbox_that_cannot_be_made_does_not_stop_the_trainer(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    (tmp_path / repo / "_hub_sync").write_text("a file is in the way")
    _, callback = run(tmp_path / repo)
    assert callback.summary().lost > 0
    callback.close()


def test_a_changed_working_directory_changes_nothing(hub, api, repo, tmp_path, monkeypatch):
    class Moves(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                os.chdir(tmp_path)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    callback = HubSyncCallback(hub_strategy="all_checkpoints")
    trainer = Trainer(
        classifier(),
        arguments(repo),
        train_dataset=Sentences(),
        callbacks=[Moves(), callback],
    )
    trainer.train()
    callback.close()
    # The Trainer itself writes later checkpoints elsewhere.
    assert (tmp_path / "elsewhere" / repo / "checkpoint-2").is_dir()
    assert (tmp_path / repo / "checkpoint-4").is_dir()
    assert {f"checkpoint-{step}/model.safetensors" for step in (2, 4, 6, 8)} <= on_hub(tmp_path, repo).keys()
    assert callback.summary().lost == 0


def test_an_output_dir_that_is_set_later_is_pushed_from(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_strategy="all_checkpoints", on_error="raise")
    args = arguments(tmp_path / repo, max_steps=4)
    trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback])
    args.output_dir = str(tmp_path / f"{repo}-other")
    trainer.train()
    callback.close()
    assert (tmp_path / f"{repo}-other" / "checkpoint-4").is_dir()
    there = on_hub(tmp_path, f"{repo}-other").keys()
    assert {"checkpoint-2/model.safetensors", "checkpoint-4/model.safetensors"} <= there


def test_the_outbox_can_be_moved_without_the_checkpoints(hub, api, repo, tmp_path):
    keywords = {"output_dir": str(tmp_path / "outbox"), "hub_model_id": repo, "on_error": "raise"}
    _, callback = run(tmp_path / "run", keywords=keywords, hub_strategy="checkpoint")
    callback.close()
    saved = digests(tmp_path / "run" / "checkpoint-8")
    assert on_hub(tmp_path, repo) == root_of(saved) | below("last-checkpoint", saved)


def test_a_push_cannot_be_cancelled(hub, api, repo, tmp_path):
    _, callback = run(tmp_path / repo, keywords={"finish_timeout": 60})
    assert not callback.last_push.cancel()
    assert callback.last_push.result().oid
    callback.close()


def test_an_evaluation_before_training_is_no_push(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_always_push=True)
    trainer = Trainer(
        classifier(),
        arguments(tmp_path / repo),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        callbacks=[callback],
    )
    trainer.evaluate()
    trainer.train()
    callback.close()
    assert not any("step 0" in title for title in titles(api, repo))


def test_one_callback_in_two_trainers_keeps_their_cards_apart(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_always_push=True)
    one, other = (
        Trainer(
            classifier(),
            arguments(tmp_path / f"{repo}-{name}"),
            train_dataset=Sentences(),
            eval_dataset=Sentences(8),
            callbacks=[callback],
        )
        for name in ("one", "other")
    )
    one.train()
    other.train()
    one.evaluate()
    callback.close()
    assert titles(api, f"{repo}-one")[-1] == "Evaluation, step 8"
    assert not any("Evaluation" in title for title in titles(api, f"{repo}-other"))


def test_a_callback_that_is_added_later_works(hub, api, repo, tmp_path):
    callback = HubSyncCallback()
    trainer = Trainer(classifier(), arguments(tmp_path / repo), train_dataset=Sentences())
    trainer.add_callback(callback)
    trainer.train()
    callback.close()
    assert titles(api, repo)[-1] == "End of training"


def test_the_same_cell_run_again_pushes_again(hub, api, repo, tmp_path):
    """A new callback on the same folder while the old one is alive, as in a notebook."""
    _, first = run(tmp_path / repo, hub_strategy="end")
    _, second = run(tmp_path / repo, hub_strategy="end", learning_rate=1e-2)
    second.close()
    first.close()
    assert on_hub(tmp_path, repo) == root_of(digests(tmp_path / repo / "checkpoint-8"))


def test_a_right_token_after_a_wrong_one_is_taken(hub, api, repo, tmp_path):
    _, first = run(tmp_path / repo, keywords={"hub_token": "hf_wrong", "finish_timeout": 1}, hub_strategy="end")
    assert first.summary().waiting > 0
    _, second = run(tmp_path / repo, keywords={"hub_token": hub.token}, hub_strategy="end")
    second.close()
    assert titles(api, repo)[-1] == "End of training"
    first.close()


def test_a_trainer_is_freed_as_without_the_callback(hub, api, repo, tmp_path):
    callback = HubSyncCallback()
    trainer = Trainer(
        classifier(), arguments(tmp_path / repo, push_to_hub=True), train_dataset=Sentences(), callbacks=[callback]
    )
    gc.collect()
    gc.disable()
    try:
        model = weakref.ref(trainer.model)
        del trainer
        assert model() is None
    finally:
        gc.enable()
    callback.close()


def test_the_tokenizer_of_a_collator_goes_along(hub, api, repo, tmp_path):
    from transformers import DataCollatorWithPadding

    from models import tokenizer

    train(
        tmp_path,
        repo,
        hub_strategy="end",
        save_strategy="no",
        trainer_options={"processing_class": None, "data_collator": DataCollatorWithPadding(tokenizer())},
    )
    assert "tokenizer.json" in on_hub(tmp_path, repo)


def test_results_that_are_written_on_after_a_push_arrive_as_they_were(hub, api, repo, tmp_path):
    trainer, callback = run(tmp_path / repo, hub_strategy="end")
    results = tmp_path / repo / "predictions.jsonl"
    results.write_bytes(b"x" * 500_000)
    future = trainer.push_to_hub(blocking=False)
    with results.open("ab") as file:
        file.write(b"more")
    future.result(timeout=60)
    callback.close()
    assert api.get_paths_info(f"local/{repo}", "predictions.jsonl")[0].size == 500_000


def test_a_folder_that_is_deleted_after_training_takes_the_scripts_final_push(hub, api, repo, tmp_path):
    trainer, callback = run(tmp_path / repo, hub_strategy="end")
    shutil.rmtree(tmp_path / repo)
    assert trainer.push_to_hub(commit_message="After all").oid
    callback.close()


def test_the_offline_switch_ends_the_wait_at_once_and_keeps_what_was_saved(hub, api, repo, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, callback = run(tmp_path / repo, keywords={"finish_timeout": 1e9})
    callback.close()
    assert callback.summary().waiting > 0 and "HF_HUB_OFFLINE" in callback.summary().why
    monkeypatch.delenv("HF_HUB_OFFLINE")
    drain(Outbox(tmp_path / repo / "_hub_sync"), patience=30, quiet=True)
    assert titles(api, repo)[-1] == "End of training"


def test_the_end_speaks_of_one_push_as_one_and_ends_each_sentence_once(hub, repo, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sync = Engine(resolve(overrides={"output_dir": tmp_path / repo}))
    weights = tmp_path / repo / "checkpoint-1" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    sync.push(plan_save("every_save", weights.parent, 1, "step 1"))
    sync.finish()
    sync.close()
    assert "hub-callbacks sync DIR sends it. 1 push is safe in" in caplog.text


def test_the_end_does_not_wait_for_pushes_whose_outbox_was_deleted(hub, api, repo, tmp_path, caplog):
    outbox = Outbox(tmp_path / repo / "_hub_sync")

    class Deletes(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                wait_until(lambda: ledger.RUNNING in [entry.state for entry in outbox.ledger.latest().values()])
                outbox.root.rename(tmp_path / "gone")  # in one go, whatever the pusher writes meanwhile

    with hub.inject(Fault("preupload", Hang(seconds=1))), hub.inject(Fault("commit", Answer(503))):
        run(tmp_path / repo, Deletes(), keywords={"finish_timeout": 1}, max_steps=4, save_steps=2)
    assert " safe in " in caplog.text and "1 push is not in" in caplog.text
