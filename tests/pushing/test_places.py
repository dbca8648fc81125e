"""Where a run goes on: the repository that it has begun with, whatever happens to accounts, names and branches."""

from __future__ import annotations

import pytest

from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.places import Place, Places
from hub_callbacks.outbox.push import MODEL, CreateRepository, Target
from outboxes import put
from pushing.test_pusher import Sender, sha


@pytest.fixture
def sender(hub, api, repo, tmp_path) -> Sender:
    return Sender(tmp_path / "_hub_sync", repo, api)


@pytest.fixture
def other(hub, repo, monkeypatch):
    """Logs in as another user, as `hf auth switch` does; returns their name."""

    def log_in() -> str:
        name = f"other-{repo.lower()[-20:]}"
        monkeypatch.setenv("HF_TOKEN", hub.add_user(name))
        return name

    return log_in


def begin(sender: Sender, target: Target) -> None:
    """What a start of a training queues."""
    put(sender.outbox, target=target, content=CreateRepository(), message="create the repository")


def test_the_owner_that_a_name_had_first_is_the_runs(sender, hub, repo, other):
    target = Target(repo)
    begin(sender, target)
    sender.put({MODEL: b"1"}, target=target)
    sender.send()
    name = other()
    push = sender.put({MODEL: b"2"}, target=target)
    begin(sender, target)  # the script is started again, too
    sender.send()
    assert not sender.api.repo_exists(f"{name}/{repo}")
    assert sender.there() == {"weights.bin": sha(b"1")}
    entry = sender.outbox.ledger.latest()[push.id]
    assert entry.state == ledger.REFUSED and "may not write there" in entry.why


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_renamed_repository_is_followed_and_its_old_name_stays_free(sender, repo, is_same_process):
    sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    pusher.run()
    old, new = sender.target.repo_id, f"local/{repo}-renamed"
    sender.api.move_repo(old, new)
    sender.api.update_repo_settings(new, private=True)
    push = sender.put({MODEL: b"2"})
    if is_same_process:
        pusher.run()
    else:
        begin(sender, sender.target)
        sender.send()
    assert {model.id for model in sender.api.list_models(author="local", search=repo)} == {new}
    assert sender.api.model_info(new).private
    assert sender.there() == {"weights.bin": sha(b"2")}
    entries = sender.outbox.ledger.all_entries()
    assert [n for e in entries for n in e.notes] == [f"{old} is called {new} now, and pushes go there"]
    assert sender.outbox.ledger.latest()[push.id].repo_id == new


def test_a_repository_that_was_renamed_before_is_followed_from_the_start(sender, repo):
    sender.api.create_repo(sender.target.repo_id)
    sender.api.move_repo(sender.target.repo_id, f"local/{repo}-renamed")
    begin(sender, sender.target)
    sender.send()
    assert {model.id for model in sender.api.list_models(author="local", search=repo)} == {f"local/{repo}-renamed"}


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_deleted_repository_is_not_made_again_by_a_save(sender, is_same_process):
    sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    pusher.run()
    sender.api.delete_repo(sender.target.repo_id)
    pushes = [sender.put({MODEL: b"2"}), sender.put({"checkpoint-3": b"3"})]
    pusher.run() if is_same_process else sender.send()
    assert not sender.api.repo_exists(sender.target.repo_id)
    for push in pushes:
        entry = sender.outbox.ledger.latest()[push.id]
        assert entry.state == ledger.REFUSED and "is gone" in entry.why and "hub-callbacks sync" in entry.why
    sender.api.create_repo(sender.target.repo_id, private=True)
    sender.send()
    assert sender.there() == {"weights.bin": sha(b"2"), "checkpoint-3/weights.bin": sha(b"3")}


def test_a_new_start_makes_it_again_as_private_as_it_was(sender):
    begin(sender, sender.target)
    sender.send()
    sender.api.update_repo_settings(sender.target.repo_id, private=True)
    sender.put({MODEL: b"1"})
    sender.send()
    sender.api.delete_repo(sender.target.repo_id)
    begin(sender, sender.target)
    sender.send()
    assert sender.api.model_info(sender.target.repo_id).private


def test_a_branch_that_was_deleted_is_made_again(sender):
    target = Target(sender.target.repo_id, "dev")
    sender.put({MODEL: b"1"}, target=target)
    pusher = sender.pusher()
    pusher.run()
    sender.api.delete_branch(target.repo_id, branch="dev")
    push = sender.put({MODEL: b"2"}, target=target)
    pusher.run()
    assert sender.states()[push.id] == ledger.DONE
    assert sender.api.file_exists(target.repo_id, "weights.bin", revision="dev")


def test_it_is_remembered_on_disk_and_a_damaged_memory_stops_nothing(tmp_path, caplog):
    path = tmp_path / "places.json"
    Places(path).note("http://hub", "m", Place("me/m", True))
    assert Places(path).get("http://hub", "m") == Place("me/m", True)
    assert Places(path).get("http://other", "m") is None
    Places(path).forget("http://hub", "me/m")
    assert Places(path).get("http://hub", "m") is None
    path.write_text("[1")
    assert Places(path).get("http://hub", "m") is None and "cannot be read" in caplog.text
