"""Where a run goes on: the repository that it has begun with, whatever happens to accounts, names and branches."""

from __future__ import annotations

import threading

import pytest
from typer.testing import CliRunner

from hub_callbacks.localhub import Answer, Fault, LoseResponse
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.places import Place, Places
from hub_callbacks.outbox.push import MODEL, CreateRepository, Target
from hub_callbacks.pushing.schedule import Known
from outboxes import put
from pushing.test_pusher import Sender, attempts, sha


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


def test_a_hub_that_knows_nothing_is_asked_twice_and_then_refuses(sender, hub):
    push = sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    with hub.inject(Fault("*", Answer(404))):
        thread = threading.Thread(target=pusher.run)
        thread.start()
        thread.join(20)
        pusher.control.stop = True
        pusher.control.ring()
        thread.join()
    assert sender.states() == {push.id: ledger.REFUSED}
    assert attempts(sender) == 2


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


def test_a_public_repository_under_the_name_of_a_private_one_gets_nothing(sender, repo):
    begin(sender, Target(sender.target.repo_id, private=True))
    sender.send()
    sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    pusher.run()
    sender.api.move_repo(sender.target.repo_id, f"local/{repo}-moved")
    sender.api.create_repo(sender.target.repo_id, private=False)
    push = sender.put({MODEL: b"2"})
    pusher.run()
    entry = sender.outbox.ledger.latest()[push.id]
    assert entry.state == ledger.REFUSED and "another repository" in entry.why
    assert not sender.api.file_exists(sender.target.repo_id, "weights.bin")


def test_a_repository_that_was_made_anew_is_said(sender):
    sender.put({MODEL: b"1"})
    sender.send()
    sender.api.delete_repo(sender.target.repo_id)
    sender.api.create_repo(sender.target.repo_id)
    push = sender.put({MODEL: b"2"})
    sender.send()
    entry = sender.outbox.ledger.latest()[push.id]
    assert entry.state == ledger.DONE and "made anew" in entry.notes[0]


def test_a_new_name_is_said_though_the_first_attempt_after_it_fails(sender, hub, repo):
    sender.put({MODEL: b"1"})
    sender.send()
    sender.api.move_repo(sender.target.repo_id, f"local/{repo}-renamed")
    push = sender.put({MODEL: b"2"})
    with hub.inject(Fault("commit", Answer(520), times=1)):
        sender.send()
    assert "is called" in sender.outbox.ledger.latest()[push.id].notes[0]


def test_a_start_makes_what_an_earlier_run_needs_too(sender):
    begin(sender, sender.target)
    sender.put({MODEL: b"1"})
    sender.send()
    left = sender.put({MODEL: b"2", "checkpoint-2": b"2"})
    sender.api.delete_repo(sender.target.repo_id)
    begin(sender, sender.target)
    sender.send()
    assert sender.states()[left.id] == ledger.DONE


def test_a_deletion_whose_answer_was_lost_is_no_loss(sender, hub):
    begin(sender, Target(sender.target.repo_id, private=True))
    sender.put({MODEL: b"old"})
    sender.send()
    sender.put({MODEL: b"new"}, replaces=True, keep=True)
    with hub.inject(Fault("delete_repo", LoseResponse(), times=1)):
        sender.send()
    assert sender.there() == {"weights.bin": sha(b"new")}
    assert sender.api.model_info(sender.target.repo_id).private


@pytest.mark.parametrize("token", ["hf_of_nobody", ""])
def test_a_token_that_is_not_accepted_is_no_repository_that_is_gone(sender, monkeypatch, token):
    begin(sender, Target(sender.target.repo_id, private=True))
    sender.put({MODEL: b"1"})
    sender.send()
    monkeypatch.setenv("HF_TOKEN", token)
    push = sender.put({MODEL: b"2"})
    sender.send()
    why = sender.outbox.ledger.latest()[push.id].why
    assert "is gone" not in why and "401" in why


def test_a_branch_gets_its_second_look_after_other_trouble_too(sender, hub):
    target = Target(sender.target.repo_id, "dev")
    sender.put({MODEL: b"1"}, target=target)
    pusher = sender.pusher()
    pusher.run()
    push = sender.put({MODEL: b"2"}, target=target)
    pusher._known[push.id] = Known(failures=1)
    sender.api.delete_branch(target.repo_id, branch="dev")
    pusher.run()
    assert sender.states()[push.id] == ledger.DONE


def test_what_continues_a_run_looks_where_the_run_was(sender, hub, repo, other):
    from hub_callbacks.cli import app

    target = Target(repo)
    begin(sender, target)
    sender.send()
    other()
    hub.clear_requests()
    CliRunner().invoke(app, ["resume", repo, str(sender.outbox.root.parent)])
    asked = {request.path for request in hub.requests}
    assert asked and all(path.startswith(f"/api/models/local/{repo}") for path in asked)


def test_it_is_remembered_on_disk_and_a_damaged_memory_stops_nothing(tmp_path, caplog):
    path = tmp_path / "places.json"
    Places(path).note("http://hub", "m", Place("me/m", True))
    assert Places(path).get("http://hub", "m") == Place("me/m", True)
    assert Places(path).get("http://other", "m") is None
    Places(path).delete("http://hub", "me/m")
    assert Places(path).get("http://hub", "m") == Place("me/m", True, is_deleted=True)
    path.write_text("[1")
    assert Places(path).get("http://hub", "m") is None and "cannot be read" in caplog.text
