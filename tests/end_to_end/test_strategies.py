"""What each `hub_strategy` leaves on the Hub: commits, messages, and files byte for byte."""

from __future__ import annotations

from runs import below, commit_titled, on_hub, root_of, titles, train


def test_end_pushes_the_final_model_in_one_commit(hub, api, repo, tmp_path, upload_path):
    _, _, saved = train(tmp_path, repo, hub_strategy="end")
    assert titles(api, repo) == ["End of training"]
    assert on_hub(tmp_path, repo) == root_of(saved.checkpoints[8])


def test_every_save_is_one_commit_of_loadable_files(hub, api, repo, tmp_path, upload_path):
    _, _, saved = train(tmp_path, repo, hub_strategy="every_save", hub_always_push=True)
    assert titles(api, repo) == [f"Training in progress, step {n}" for n in (2, 4, 6, 8)] + ["End of training"]
    for step in (2, 4, 6, 8):
        commit = commit_titled(api, repo, f"Training in progress, step {step}")
        assert on_hub(tmp_path, repo, commit) == root_of(saved.checkpoints[step])


def test_checkpoint_keeps_the_newest_whole_checkpoint(hub, api, repo, tmp_path, upload_path):
    _, _, saved = train(tmp_path, repo, hub_strategy="checkpoint", hub_always_push=True)
    for step in (2, 8):
        commit = commit_titled(api, repo, f"Training in progress, step {step}")
        files = saved.checkpoints[step]
        assert on_hub(tmp_path, repo, commit) == root_of(files) | below("last-checkpoint", files)


def test_all_checkpoints_keeps_each_one_even_when_it_was_rotated_away(hub, api, repo, tmp_path, upload_path):
    _, _, saved = train(tmp_path, repo, hub_strategy="all_checkpoints", save_total_limit=1)
    expected = root_of(saved.checkpoints[8])
    for step in (2, 4, 6, 8):
        expected |= below(f"checkpoint-{step}", saved.checkpoints[step])
    assert on_hub(tmp_path, repo) == expected


def test_a_newer_save_takes_over_from_one_that_waits(hub, api, repo, tmp_path):
    # The pusher takes longer to start than this training: all but the last pushes are taken over.
    _, callback, _ = train(tmp_path, repo, hub_strategy="every_save")
    assert callback.summary().superseded > 0
    assert titles(api, repo)[-1] == "End of training"
    assert {push.result().oid for push in callback.pushes} <= {
        commit.commit_id for commit in api.list_repo_commits(f"local/{repo}")
    }


def test_last_checkpoint_loses_files_that_the_newer_one_does_not_have(hub, api, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="checkpoint")
    _, _, saved = train(tmp_path, repo, hub_strategy="checkpoint", save_only_model=True)
    assert on_hub(tmp_path, repo) == root_of(saved.checkpoints[8]) | below("last-checkpoint", saved.checkpoints[8])


def test_titles_name_the_epoch_when_saves_come_by_epoch(hub, api, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="every_save", save_strategy="epoch", hub_always_push=True)
    assert titles(api, repo) == [
        "Training in progress, epoch 1",
        "Training in progress, epoch 2",
        "End of training",
    ]


def test_the_repository_can_be_private_and_the_branch_another(hub, api, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="end", hub_private_repo=True, hub_revision="dev")
    assert api.repo_info(f"local/{repo}").private
    assert titles(api, repo, "dev") == ["End of training"]
    assert titles(api, repo) == []


def test_keywords_of_the_callback_override_the_arguments(hub, api, repo, tmp_path):
    train(
        tmp_path,
        "unused-name",
        callback={"hub_model_id": repo, "hub_strategy": "end", "hub_revision": "kept"},
        hub_strategy="every_save",
        hub_revision="other",
    )
    assert titles(api, repo, "kept") == ["End of training"]
    assert [branch.name for branch in api.list_repo_refs(f"local/{repo}").branches] == ["kept", "main"]
