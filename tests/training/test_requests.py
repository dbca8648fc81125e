"""What a push may ask for beyond its files: Git tags, a missing repository's fate, a repository's replacement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from hub_callbacks import SettingsError
from hub_callbacks.hub.repository import Repository
from hub_callbacks.localhub import Answer, Fault, LoseResponse
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.control import Control, Orders
from hub_callbacks.outbox.push import MODEL, Target, dump, load
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.pushing.pusher import Pusher
from hub_callbacks.pushing.replacing import NOTED
from hub_callbacks.training.request import read_request
from outboxes import put


class Sender:
    """Queues pushes to one repository, and sends them as `hub-callbacks sync` does."""

    def __init__(self, root: Path, repo_id: str, api: HfApi) -> None:
        self.outbox = Outbox(root)
        self.target = Target(repo_id)
        self.api = api

    def put(self, content: bytes, **more):
        return put(self.outbox, {MODEL: content}, **({"target": self.target, "keep": True} | more))

    def send(self) -> None:
        Pusher(Outbox(self.outbox.root), Repository(), Control(orders=Orders(longest_wait=0.05))).run()

    def state(self, push) -> ledger.Entry:
        return self.outbox.ledger.latest()[push.id]

    def notes(self) -> str:
        return " ".join(note for entry in self.outbox.ledger.all_entries() for note in entry.notes)

    def titles(self, revision=None) -> list[str]:
        commits = self.api.list_repo_commits(self.target.repo_id, revision=revision)
        return [commit.title for commit in reversed(commits)][1:]

    def tags(self) -> dict[str, str]:
        return {ref.name: ref.target_commit for ref in self.api.list_repo_refs(self.target.repo_id).tags}

    def weights(self, revision=None) -> bytes:
        return Path(self.api.hf_hub_download(self.target.repo_id, "weights.bin", revision=revision)).read_bytes()


@pytest.fixture
def sender(hub, api, repo, tmp_path):
    return Sender(tmp_path / "_hub_sync", f"local/{repo}", api)


def deletions(hub) -> int:
    """How many were carried out, answered or not."""
    return sum(seen.operation == "delete_repo" and seen.status in (200, None) for seen in hub.requests)


# -- Git tags


def test_tags_name_the_commit_of_their_push(sender):
    first = sender.put(b"1", tags=("v1", "release/one"))
    sender.put(b"2")
    sender.send()
    commit = sender.state(first).commit
    assert sender.tags() == {"v1": commit, "release/one": commit}
    assert sender.weights("v1") == b"1" and sender.weights() == b"2"


def test_a_tag_that_exists_is_moved(sender):
    sender.put(b"1", tags=("best", "v1"))
    second = sender.put(b"2", tags=("best",))
    sender.send()
    assert sender.tags()["best"] == sender.state(second).commit != sender.tags()["v1"]


@pytest.mark.parametrize("operation", ["create_tag", "delete_tag"])
def test_tags_are_set_though_the_answer_was_lost(sender, hub, operation):
    sender.put(b"1", tags=("best",))
    sender.send()
    second = sender.put(b"2", message="second", tags=("best",))
    with hub.inject(Fault(operation, LoseResponse(), times=1)) as fault:
        sender.send()
    assert fault.hits == 1
    assert sender.tags() == {"best": sender.state(second).commit}
    assert sender.titles().count("second") == 1


def test_a_push_that_is_sent_twice_makes_no_second_commit_and_leaves_its_tags(sender):
    sender.put(b"1", message="once", tags=("v1",))
    sender.send()
    before = sender.tags()
    sender.put(b"1", message="again", tags=("v1",))
    sender.send()
    assert sender.titles() == ["once"] and sender.tags() == before


# -- the repository


def test_without_create_repo_a_missing_repository_is_refused_and_the_push_waits(sender):
    push = sender.put(b"1", target=replace(sender.target, create=False))
    sender.send()
    assert sender.state(push).state == ledger.REFUSED
    assert "create_repo=False" in sender.state(push).why
    assert not sender.api.repo_exists(sender.target.repo_id)
    sender.api.create_repo(sender.target.repo_id)
    sender.send()
    assert sender.weights() == b"1"


def test_a_branch_is_made_for_a_push(sender):
    sender.put(b"1", message="there", target=replace(sender.target, revision="dev"))
    sender.send()
    assert sender.titles("dev") == ["there"] and sender.titles() == []


@pytest.mark.parametrize("what", ["tag", "commit"])
def test_a_tag_or_a_commit_is_no_place_to_push_to(sender, what):
    first = sender.put(b"1", tags=("v1",))
    sender.send()
    revision = "v1" if what == "tag" else sender.state(first).commit
    push = sender.put(b"2", target=replace(sender.target, revision=revision))
    sender.send()
    assert sender.state(push).state == ledger.REFUSED
    assert ("is a tag" if what == "tag" else "identifier of a commit") in sender.state(push).why
    assert sender.weights("v1") == b"1"


def test_a_repository_that_is_not_as_private_as_wanted_is_said(sender):
    sender.api.create_repo(sender.target.repo_id, private=False)
    sender.put(b"1", target=replace(sender.target, private=True))
    sender.send()
    assert "is public" in sender.notes()


# -- its replacement


def test_the_repository_is_deleted_and_made_anew(sender, hub):
    sender.put(b"1", message="old", tags=("old",))
    sender.send()
    sender.put(b"2", message="new", replaces=True, target=replace(sender.target, private=True))
    sender.send()
    assert sender.titles() == ["new"] and sender.tags() == {}
    assert sender.api.model_info(sender.target.repo_id).private
    assert f"{sender.target.repo_id} is deleted" in sender.notes() and "2 files" in sender.notes()


def test_a_replacement_where_there_is_nothing_is_a_push(sender, hub):
    sender.put(b"1", message="new", replaces=True)
    sender.send()
    assert sender.titles() == ["new"] and "deleted" not in sender.notes()


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("delete_repo", LoseResponse()),
        ("delete_repo", Answer(503)),
        ("create_repo", LoseResponse()),
        ("commit", LoseResponse()),
        ("create_tag", Answer(500)),
    ],
)
@pytest.mark.parametrize("was_there", [True, False])
def test_the_replacement_is_never_deleted_by_a_retry(sender, hub, operation, action, was_there):
    """Each attempt by a pusher that knows nothing of the one before, as after a crash."""
    if was_there:
        sender.put(b"1", message="old")
        sender.send()
    hub.clear_requests()
    sender.put(b"2", message="new", replaces=True, tags=("v2",))
    with hub.inject(Fault(operation, action, times=1)):
        for _ in range(3):
            control = Control(orders=Orders(longest_wait=0.05))
            pusher = Pusher(Outbox(sender.outbox.root), Repository(), control)
            pusher._failed = lambda push, error, control=control: setattr(control, "stop", True)
            pusher.run()
    assert sender.titles() == ["new"] and sender.weights("v2") == b"2"
    assert deletions(hub) == (1 if was_there else 0)


def test_newer_pushes_that_are_there_are_not_deleted(sender, hub):
    sender.put(b"1", message="old")
    sender.send()
    push = sender.put(b"2", message="late", replaces=True)
    # As if the newer one had passed by while this one failed.
    sender.outbox.record(
        ledger.Entry(
            f"{int(push.id) + 1:06d}",
            ledger.DONE,
            commit="c" * 40,
            repo_id=sender.target.repo_id,
            place=sender.target.place,
            slots=("checkpoint-9",),
        )
    )
    sender.send()
    assert "old" in sender.titles() and "was not deleted" in sender.notes()


def test_a_repository_of_another_user_is_never_deleted(sender, hub, api, repo):
    name = repo[-20:].strip("-_") + "-x"
    other = HfApi(token=hub.add_user(name))
    other.create_repo(f"{name}/theirs", private=False)
    push = sender.put(b"1", replaces=True, target=Target(f"{name}/theirs"))
    sender.send()
    assert sender.state(push).state == ledger.REFUSED and "is not deleted" in sender.state(push).why
    assert other.repo_exists(f"{name}/theirs") and not (push.folder / NOTED).exists()


def test_a_token_that_may_not_delete_is_said_and_stops_no_other_push(sender, hub):
    sender.put(b"1", message="old")
    sender.send()
    push, other = sender.put(b"2", replaces=True), sender.put(b"3", message="other")
    with hub.inject(Fault("delete_repo", Answer(403))):
        sender.send()
    assert sender.state(push).state == ledger.REFUSED and "may not delete" in sender.state(push).why
    assert sender.state(other).state == ledger.DONE and sender.titles() == ["old", "other"]


def test_a_deleted_repository_is_gone_when_its_replacement_waits(sender, hub):
    """The order: whole on disk, deleted, pushed."""
    sender.put(b"1")
    sender.send()
    push = sender.put(b"2", replaces=True)
    with hub.inject(Fault("create_repo", Answer(400))):
        sender.send()
    assert load(push.folder).content.replaces and json.loads((push.folder / NOTED).read_text())
    with pytest.raises(RepositoryNotFoundError):
        sender.api.model_info(sender.target.repo_id)
    sender.send()
    assert sender.weights() == b"2"


# -- what is asked for


def test_a_request_survives_on_disk(tmp_path):
    outbox = Outbox(tmp_path)
    push = put(outbox, tags=("v1",), replaces=True, target=Target("local/x", create=False))
    again = load(push.folder)
    assert (again.content.tags, again.content.replaces, again.target.create) == (("v1",), True, False)
    values = json.loads(dump(again))
    for name in ("tags", "replaces"):  # as an older version wrote it
        del values["content"][name]
    del values["target"]["create"]
    (push.folder / "manifest.json").write_text(json.dumps(values))
    assert (load(push.folder).content.tags, load(push.folder).target.create) == ((), True)


def test_a_request_takes_the_runs_place_unless_it_names_another():
    target = Target("local/x", "dev", private=True)
    assert read_request(target, {}).target == target
    request = read_request(target, {"revision": "v2", "private": False, "create_repo": False, "tags": "one"})
    assert request.target == Target("local/x", "v2", False, create=False) and request.tags == ("one",)
    assert read_request(target, {"tags": ["a", "b", "a"]}).tags == ("a", "b")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tags": ["two words"]}, "A tag cannot be 'two words'"),
        ({"tags": "v1..2"}, "A tag cannot be"),
        ({"tags": "main"}, "the branch that is pushed to has that name"),
        ({"tags": "dev", "revision": "dev"}, "the branch that is pushed to has that name"),
        ({"tags": "run-0123456789ab"}, "branches of runs have such names"),
        ({"tags": 1}, "tags is 1"),
        ({"tags": [1]}, "tags is"),
        ({"revision": "no good"}, "revision cannot be 'no good'"),
        ({"revision": 7}, "revision cannot be 7"),
        ({"private": "yes"}, "private is 'yes'"),
        ({"create_repo": None}, "create_repo is None"),
        ({"delete_existing_repo": "yes"}, "delete_existing_repo is 'yes'"),
        ({"delete_existing_repo": True, "create_repo": False}, "goes with create_repo=True only"),
        ({"commit_description": False}, "commit_description is False"),
    ],
)
def test_a_bad_value_is_said(values, says):
    with pytest.raises(SettingsError, match=says.replace("(", r"\(")):
        read_request(Target("local/x"), values)
