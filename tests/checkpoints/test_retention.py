"""What stays on the Hub: checkpoints that are kept, history that is dropped, a branch for each save."""

from __future__ import annotations

import pytest

from hub_callbacks import SettingsError, latest_checkpoint
from hub_callbacks.checkpoints.retention import Retention, retired
from hub_callbacks.localhub import Answer, Fault
from hub_callbacks.settings import resolve
from models import arguments
from runs import below, commit_titled, on_hub, root_of, titles, train


def test_which_checkpoints_go():
    steps = [10, 20, 30, 40, 50]
    assert retired(steps, 60, Retention()) == []
    assert retired(steps, 60, Retention(squash=True)) == []
    assert retired(steps, 60, Retention(keep_last=2)) == [10, 20, 30, 40]
    assert retired(steps, 60, Retention(keep_last=2, best=20)) == [10, 30, 40]
    assert retired(steps, 60, Retention(keep_every=20)) == [10, 30, 50]
    assert retired(steps, 60, Retention(keep_last=2, keep_every=30, best=10)) == [20, 40]
    assert retired(steps, 30, Retention(keep_last=1)) == [10, 20]  # what is beyond it is not its own
    assert retired([], 60, Retention(keep_last=1)) == []


def folders(files):
    return sorted({path.partition("/")[0] for path in files if "/" in path})


def test_older_checkpoints_go_in_the_commit_of_a_newer_one(hub, api, repo, tmp_path):
    train(tmp_path, repo, callback={"hub_keep_last": 2}, hub_strategy="all_checkpoints", hub_always_push=True)
    made = {
        step: folders(on_hub(tmp_path, repo, commit_titled(api, repo, f"Training in progress, step {step}")))
        for step in (2, 4, 6, 8)
    }
    assert made == {
        2: ["checkpoint-2"],
        4: ["checkpoint-2", "checkpoint-4"],
        6: ["checkpoint-4", "checkpoint-6"],
        8: ["checkpoint-6", "checkpoint-8"],
    }
    assert len(titles(api, repo)) == 5


def test_the_best_is_never_deleted(hub, api, repo, tmp_path):
    trainer, _, saved = train(
        tmp_path,
        repo,
        callback={"hub_keep_last": 1, "hub_keep_every": 3},
        hub_strategy="all_checkpoints",
        hub_always_push=True,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="accuracy",
        trainer_options={"compute_metrics": lambda prediction: {"accuracy": 0.5}},  # the first stays the best
    )
    best = trainer.state.best_global_step
    assert best < 8
    files = on_hub(tmp_path, repo)
    assert folders(files) == sorted({"checkpoint-6", "checkpoint-8", f"checkpoint-{best}"})
    assert files.items() >= below(f"checkpoint-{best}", saved.checkpoints[best]).items()


def test_the_best_is_what_was_saved_of_it_where_its_step_was_not(hub, repo, tmp_path):
    """The best of all is step 3, which was never saved: the Trainer's best checkpoint is that of step 2."""
    accuracies = iter([0.1, 0.5, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    trainer, _, saved = train(
        tmp_path,
        repo,
        callback={"hub_keep_last": 1},
        hub_strategy="all_checkpoints",
        hub_always_push=True,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="accuracy",
        trainer_options={"compute_metrics": lambda prediction: {"accuracy": next(accuracies)}},
    )
    assert trainer.state.best_global_step == 3 and trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    files = on_hub(tmp_path, repo)
    assert folders(files) == ["checkpoint-2", "checkpoint-8"]
    assert files.items() >= below("checkpoint-2", saved.checkpoints[2]).items()


def test_checkpoints_of_another_run_are_never_deleted(hub, api, repo, tmp_path):
    options = {"hub_strategy": "all_checkpoints", "hub_always_push": True}
    train(tmp_path / "theirs", repo, max_steps=4, **options)
    _, callback, _ = train(
        tmp_path / "ours", repo, callback={"hub_keep_last": 1}, max_steps=8, save_steps=3, **options
    )
    names = folders(on_hub(tmp_path, repo))
    assert {"checkpoint-2", "checkpoint-4"} <= set(names) and "checkpoint-3" not in names
    assert any("checkpoint-2 on the Hub is not this run's, and stays" in note for note in callback.summary().notes)


def test_all_stay_where_nothing_is_set(hub, api, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="all_checkpoints")
    assert folders(on_hub(tmp_path, repo)) == [f"checkpoint-{step}" for step in (2, 4, 6, 8)]


def test_the_history_of_a_branch_is_dropped_so_that_storage_is_freed(hub, api, repo, tmp_path):
    _, _, saved = train(
        tmp_path,
        repo,
        callback={"hub_squash": True},
        hub_strategy="checkpoint",
        hub_revision="training",
        hub_always_push=True,
    )
    # The last save left one commit; the end of training may have made another on top of it.
    assert len(api.list_repo_commits(f"local/{repo}", revision="training")) <= 2
    files = saved.checkpoints[8]
    assert on_hub(tmp_path, repo, "training") == root_of(files) | below("last-checkpoint", files)
    assert len(api.list_repo_commits(f"local/{repo}")) == 1  # main is as it was


def test_a_history_that_cannot_be_dropped_is_said_and_the_push_has_arrived(hub, api, repo, tmp_path):
    with hub.inject(Fault("POST super-squash", Answer(403))):
        _, callback, _ = train(
            tmp_path, repo, callback={"hub_squash": True}, hub_strategy="checkpoint", hub_revision="training"
        )
    summary = callback.summary()
    assert summary.waiting == 0 and any("could not be squashed" in note for note in summary.notes)


def test_each_save_can_have_a_branch_of_its_own(hub, api, repo, tmp_path):
    options = {"hub_revision": "step-{step}"}
    _, _, saved = train(
        tmp_path, repo, callback=options, hub_strategy="checkpoint", eval_strategy="steps", eval_steps=1
    )
    names = {branch.name for branch in api.list_repo_refs(f"local/{repo}").branches}
    assert names == {"main", "step-2", "step-4", "step-6", "step-8"}
    for step in (2, 4, 6, 8):
        files = saved.checkpoints[step]
        assert on_hub(tmp_path, repo, f"step-{step}") == root_of(files) | below("last-checkpoint", files)
    assert on_hub(tmp_path, repo) == root_of(saved.checkpoints[8])
    elsewhere = tmp_path / "elsewhere"
    found = latest_checkpoint(arguments(elsewhere), hub_model_id=repo, **options)
    assert found == str(elsewhere / "checkpoint-8")


def test_each_save_can_have_a_tag(hub, api, repo, tmp_path):
    hub.throttle(200_000)  # saves come faster than they are sent, and each has its own commit all the same
    _, _, saved = train(tmp_path, repo, callback={"hub_tag": "step-{step}"}, hub_strategy="every_save")
    titles_of = {commit.commit_id: commit.title for commit in api.list_repo_commits(f"local/{repo}")}
    tags = {tag.name: titles_of[tag.target_commit] for tag in api.list_repo_refs(f"local/{repo}").tags}
    assert tags == {f"step-{step}": f"Training in progress, step {step}" for step in (2, 4, 6, 8)}
    assert on_hub(tmp_path, repo, "step-4") == root_of(saved.checkpoints[4])


@pytest.mark.parametrize(
    "values",
    [
        {"hub_tag": "newest"},
        {"hub_tag": "a b {step}"},
        {"hub_tag": "step-{step}", "hub_revision": "step-{step}"},
        {"hub_tag": "step-{step}", "hub_revision": "dev", "hub_squash": True},
        {"hub_keep_last": 0, "hub_strategy": "all_checkpoints"},
        {"hub_keep_last": True, "hub_strategy": "all_checkpoints"},
        {"hub_keep_every": -5, "hub_strategy": "all_checkpoints"},
        {"hub_keep_every": 1.5, "hub_strategy": "all_checkpoints"},
        {"hub_keep_last": 2, "hub_strategy": "checkpoint"},
        {"hub_squash": True},
        {"hub_squash": True, "hub_revision": "main"},
        {"on_foreign_run": "sometimes"},
        {"hub_revision": "step {step}"},
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, values):
    with pytest.raises(SettingsError):
        resolve(overrides={"output_dir": tmp_path / "run", **values})
