"""Two runs in one repository: what is said, and that neither loses the other's commits."""

from __future__ import annotations

import logging
import shutil
import threading

import pytest
from huggingface_hub import HfApi
from transformers import Trainer

from hub_callbacks import ForeignRun, HubSyncCallback, latest_checkpoint
from hub_callbacks.localhub import Answer, Fault, LocalHub
from hub_callbacks.pytest_plugin import client_at
from models import Sentences, arguments, classifier
from runs import below, digests, on_hub, root_of, titles, train
from savers import Run


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: caplog.text


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_a_run_says_that_another_ones_model_is_there_and_goes_on(hub, api, repo, tmp_path, strategy, said):
    _, first, _ = train(tmp_path, "first", callback={"hub_model_id": repo}, hub_strategy=strategy)
    assert "another run" not in said()
    _, _, saved = train(tmp_path, "second", callback={"hub_model_id": repo}, hub_strategy=strategy, max_steps=4)
    assert said().count("holds the model of another run") == 1
    assert ("unknown" if strategy == "every_save" else first.engine.run_id) in said()
    assert on_hub(tmp_path, repo).items() >= root_of(saved.checkpoints[4]).items()


def test_neither_a_restart_in_the_same_folder_nor_a_continued_run_is_another_one(hub, repo, tmp_path, said):
    for _ in range(2):
        train(tmp_path, repo, hub_strategy="every_save")
    train(tmp_path, repo, hub_strategy="checkpoint", max_steps=4)
    shutil.rmtree(tmp_path / repo)
    args = arguments(tmp_path / repo, hub_strategy="checkpoint")
    callback = HubSyncCallback(on_foreign_run="refuse")
    trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback])
    trainer.train(resume_from_checkpoint=latest_checkpoint(args))
    callback.close()
    assert "another run" not in said()


def test_a_run_that_refuses_does_not_train(hub, api, repo, tmp_path):
    train(tmp_path, "first", callback={"hub_model_id": repo}, hub_strategy="checkpoint")
    before = api.list_repo_commits(f"local/{repo}")
    with pytest.raises(ForeignRun, match="Nothing was pushed"):
        train(tmp_path, "second", callback={"hub_model_id": repo, "on_foreign_run": "refuse"})
    assert not list((tmp_path / "second").glob("checkpoint-*"))
    assert api.list_repo_commits(f"local/{repo}") == before


def test_what_another_hub_holds_is_not_what_was_sent_to_the_first(hub, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="every_save", max_steps=4)
    with LocalHub(tmp_path / "other") as other, client_at(other.endpoint, other.token, tmp_path / "other_cache"):
        api = HfApi(endpoint=other.endpoint, token=other.token)
        api.create_repo(f"local/{repo}")
        api.upload_file(path_or_fileobj=b"precious", path_in_repo="model.safetensors", repo_id=f"local/{repo}")
        with pytest.raises(ForeignRun, match="Nothing was pushed"):
            train(tmp_path, repo, callback={"on_foreign_run": "refuse"}, hub_strategy="every_save")


def test_a_run_that_refuses_does_not_train_when_the_hub_does_not_say(hub, repo, tmp_path, monkeypatch):
    monkeypatch.setattr("hub_callbacks.training.engine.ANSWER_WITHIN", 2.0)
    with hub.inject(Fault("*", Answer(503))), pytest.raises(ForeignRun, match="did not say"):
        train(tmp_path, repo, callback={"on_foreign_run": "refuse", "finish_timeout": 0})


def test_a_run_can_take_a_branch_of_its_own(hub, api, repo, tmp_path, said):
    train(tmp_path, "first", callback={"hub_model_id": repo}, hub_strategy="all_checkpoints")
    before = on_hub(tmp_path, repo)
    options = {"hub_model_id": repo, "on_foreign_run": "branch"}
    _, second, saved = train(tmp_path, "second", callback=options, hub_strategy="checkpoint", max_steps=4)
    branch = f"run-{second.engine.run_id}"
    assert branch in said()
    assert on_hub(tmp_path, repo) == before
    # Nothing of the first run is on it.
    files = saved.checkpoints[4]
    assert on_hub(tmp_path, repo, branch) == root_of(files) | below("last-checkpoint", files)
    # It goes on there after a restart, and can be continued elsewhere.
    train(tmp_path, "second", callback=options, hub_strategy="checkpoint", max_steps=6)
    found = latest_checkpoint(arguments(tmp_path / "third"), hub_model_id=repo, hub_revision=branch)
    assert found == str(tmp_path / "third" / "checkpoint-6")


def test_two_runs_at_once_lose_none_of_each_others_commits(hub, api, repo, tmp_path):
    runs = [Run(tmp_path / name, api, hub_model_id=f"local/{repo}", hub_always_push=True) for name in ("a", "b")]
    commits: list[list[str]] = [[], []]

    def save(number: int) -> None:
        with runs[number] as run:
            futures = [run.save(100 * number + step, card=False) for step in range(1, 7)]
            commits[number] = [future.result(timeout=120).oid for future in futures]

    threads = [threading.Thread(target=save, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = [commit.commit_id for commit in api.list_repo_commits(f"local/{repo}")][::-1]
    assert len(set(commits[0] + commits[1])) == 12
    for own in commits:
        assert [commit for commit in history if commit in own] == own
    there = on_hub(tmp_path, repo)
    for run in runs:
        for folder in run.saved:
            assert there.items() >= digests(folder, f"{folder.name}/").items()
    assert len(titles(api, repo)) == 12
