"""Which push goes when, what a newer one takes over, and that no commit holds what was not saved."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from outbox.test_push import WRITTEN_BY_0_1_0

from hub_callbacks.checkpoints import manifest as checkpoint_manifest
from hub_callbacks.checkpoints.files import LAST_CHECKPOINT
from hub_callbacks.hub.repository import Repository, facts_of
from hub_callbacks.localhub import Answer, Fault, Hang, LoseResponse
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.content import NOTED
from hub_callbacks.outbox.control import Control, Orders, Stalled
from hub_callbacks.outbox.push import MODEL, Target
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.pushing import attempt
from hub_callbacks.pushing import pusher as pusher_module
from hub_callbacks.pushing.node_files import NodeWaits
from hub_callbacks.pushing.pusher import Pusher
from hub_callbacks.pushing.retry_policy import RetryPolicy
from outboxes import put
from savers import digests, wait_until


class Sender:
    """An outbox, and a pusher for it that leaves when nothing is left that can be sent."""

    def __init__(self, root: Path, repo: str, api: HfApi) -> None:
        self.outbox = Outbox(root)
        self.target = Target(f"local/{repo}")
        self.api = api
        self.cache = root.parent / "cache"

    def put(self, slots: dict[str, Any], **more: Any) -> Any:
        return put(self.outbox, slots, **({"target": self.target} | more))

    def pusher(self, **orders: Any) -> Pusher:
        control = Control(orders=replace(Orders(longest_wait=0.05), **orders))
        outbox = Outbox(self.outbox.root)
        return Pusher(outbox, Repository(places=outbox.places), control)

    def send(self, **orders: Any) -> None:
        self.pusher(**orders).run()

    def states(self) -> dict[str, str]:
        return {push: entry.state for push, entry in self.outbox.ledger.latest().items()}

    def titles(self) -> list[str]:
        return [commit.title for commit in reversed(self.api.list_repo_commits(self.target.repo_id))][1:]

    def there(self) -> dict[str, str]:
        folder = snapshot_download(self.target.repo_id, cache_dir=self.cache)
        made = (".gitattributes", checkpoint_manifest.NAME)
        return {path: value for path, value in digests(Path(folder)).items() if Path(path).name not in made}


@pytest.fixture
def sender(hub, api, repo, tmp_path):
    return Sender(tmp_path / "_hub_sync", repo, api)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_pending_pushes_become_one_commit_of_the_newest_and_each_checkpoint(sender):
    for n in (1, 2, 3):
        sender.put({MODEL: b"model %d" % n, f"checkpoint-{n}": b"checkpoint %d" % n}, message=f"step {n}")
    sender.send()
    assert sender.there() == {
        "weights.bin": sha(b"model 3"),
        **{f"checkpoint-{n}/weights.bin": sha(b"checkpoint %d" % n) for n in (1, 2, 3)},
    }
    assert sender.titles() == ["step 1", "step 2", "step 3"]
    assert list(sender.outbox.pushes.iterdir()) == []


def test_an_outbox_of_version_0_1_0_is_sent(hub, api, tmp_path):
    shutil.copytree(WRITTEN_BY_0_1_0, tmp_path / "run")
    sender = Sender(tmp_path / "run/_hub_sync", "written-by-0-1-0", api)
    sender.send()
    assert set(sender.states().values()) == {ledger.DONE, ledger.SUPERSEDED}
    assert sender.titles() == ["step 1", "step 2"]
    there = sender.there()
    assert there["model.safetensors"] == sha(b"weights of step 2")
    assert there["checkpoint-1/optimizer.pt"] == sha(b"optimizer of step 1")
    assert there["checkpoint-2/rng_state_1.pth"] == sha(b"random state of process 1")
    refs = api.list_repo_refs(sender.target.repo_id)
    assert [tag.name for tag in refs.tags] == ["step-1"] and [b.name for b in refs.branches] == ["main"]


def test_superseded_pushes_say_by_which(sender):
    first, second = sender.put({MODEL: b"1"}), sender.put({MODEL: b"2"})
    sender.send()
    entries = sender.outbox.ledger.latest()
    assert (entries[first.id].state, entries[first.id].by) == (ledger.SUPERSEDED, second.id)
    assert len(sender.titles()) == 1


def test_kept_pushes_come_in_order_each_as_a_commit(sender):
    for n in (1, 2, 3):
        sender.put({MODEL: b"model %d" % n}, message=f"step {n}", keep=True)
    sender.send()
    assert sender.titles() == ["step 1", "step 2", "step 3"]


def test_an_urgent_push_goes_ahead_and_what_was_before_it_still_arrives(sender):
    sender.put({MODEL: b"1", "checkpoint-1": b"1"}, message="step 1")
    sender.put({MODEL: b"2", "checkpoint-2": b"2"}, message="emergency", urgent=True)
    sender.send()
    assert sender.titles() == ["emergency", "step 1"]
    assert sender.there()["weights.bin"] == sha(b"2")


def test_superseded_files_are_freed_while_an_upload_goes_on(sender, hub):
    sender.put({MODEL: b"1"})
    with hub.inject(Fault("commit", Hang())) as hanging:
        pusher = sender.pusher()
        thread = threading.Thread(target=pusher.run)
        thread.start()
        wait_until(lambda: hanging.hits)
        second, third = sender.put({MODEL: b"2"}), sender.put({MODEL: b"3"})
        pusher.control.ring()
        wait_until(lambda: not second.folder.exists())
        assert third.folder.exists()
    thread.join()
    assert sender.there() == {"weights.bin": sha(b"3")}
    assert len(sender.titles()) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_token_for_large_files_is_a_refusal_with_its_reason(sender, hub, weights, status):
    push = sender.put({MODEL: weights})
    with hub.inject(Fault("xet_token", Answer(status))):
        sender.send()
    entry = sender.outbox.ledger.latest()[push.id]
    # Before huggingface_hub 1, the client asks for it itself, and says what the Hub answered.
    assert entry.state == ledger.REFUSED and str(status) in entry.why
    assert "takes no large files" in entry.why or "The Hub answered" in entry.why
    sender.send()
    assert sender.states()[push.id] == ledger.DONE


def test_a_home_of_the_client_that_cannot_be_written_to_is_named(sender, weights, tmp_path, monkeypatch):
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("I/O error: I/O error: Not a directory (os error 20)")

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(HfApi, "preupload_lfs_files", fail)
    push = sender.put({MODEL: weights})
    with monkeypatch.context() as patched:
        patched.setattr(constants, "HF_HOME", str(tmp_path / "file/home"))
        sender.send()
    entry = sender.outbox.ledger.latest()[push.id]
    assert entry.state == ledger.REFUSED and f"HF_HOME is {tmp_path}/file/home" in entry.why


def test_where_the_repository_says_why_there_is_no_token_for_large_files_that_is_the_reason(
    sender, hub, weights, monkeypatch
):
    preupload = HfApi.preupload_lfs_files

    def refuse_large(api, repo_id, additions, **options):
        if additions[0].path_in_repo != "README.md":
            raise ConnectionError(
                "Network error: Request error: HTTP status client error (403 Forbidden), domain: "
                f"{api.endpoint}/api/models/{repo_id}/xet-write-token/main"
            )
        return preupload(api, repo_id, additions, **options)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", refuse_large)
    push = sender.put({MODEL: weights})
    with hub.inject(Fault("preupload", Answer(403, message="Your role lacks it"))):
        sender.send()
    entry = sender.outbox.ledger.latest()[push.id]
    assert entry.state == ledger.REFUSED and "may not write there" in entry.why and "no large" not in entry.why


def test_a_pusher_that_waits_for_another_process_says_for_which(sender):
    push = sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    thread = threading.Thread(target=pusher.run)
    with sender.outbox.lock():
        sender.outbox.note_sender()
        thread.start()
        wait_until(lambda: sender.states()[push.id] == ledger.WAITING)
        why = sender.outbox.ledger.latest()[push.id].why
        assert f"process {os.getpid()} on" in why and "since" in why
    thread.join()
    assert sender.states()[push.id] == ledger.DONE


def test_a_pusher_whose_lease_is_lost_stops_before_the_next_push(sender, monkeypatch):
    sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    monkeypatch.setattr("hub_callbacks.pushing.pusher.send", lambda *args: pusher._lose_turn("gone") or 1 / 0)
    pusher.run()
    assert pusher.control.stop and len(sender.outbox.pending()) == 1


def test_a_pusher_whose_lease_was_deleted_stops_before_the_next_push(sender, hub, monkeypatch, caplog):
    monkeypatch.setattr("hub_callbacks.outbox.queue._has_flock", lambda folder: False)
    monkeypatch.setattr("hub_callbacks.outbox.queue.LEASE", 1.5)
    first, second = sender.put({"checkpoint-1": b"1"}), sender.put({"checkpoint-2": b"2"})
    pusher = sender.pusher()
    with ThreadPoolExecutor(1) as aside, hub.inject(Fault("commit", Hang())) as hanging:
        running = aside.submit(pusher.run)
        wait_until(lambda: hanging.hits)
        (sender.outbox.root / "drainer.lease").unlink()
        wait_until(lambda: "no longer this process's to send from" in caplog.text, seconds=10)
    running.result()
    assert sender.states() == {first.id: ledger.DONE, second.id: ledger.QUEUED}


@pytest.fixture
def waiting_long(monkeypatch, hub, sender):
    """A pusher whose Hub is away, and that has failed once and waits for an hour; at the end it is stopped."""
    monkeypatch.setattr(RetryPolicy, "seconds_before", lambda self, attempt, longest: 3600.0)
    pusher = sender.pusher()
    pusher.control.drain = False
    thread = threading.Thread(target=pusher.run)
    with hub.inject(Fault("*", Answer(520))):
        sender.put({MODEL: b"1"})
        thread.start()
        wait_until(lambda: attempts(sender) == 1 and ledger.WAITING in sender.states().values())
        yield pusher
        pusher.control.stop = True
        pusher.control.ring()
        thread.join()


def attempts(sender):
    return sum(entry.state == ledger.RUNNING for entry in sender.outbox.ledger.all_entries())


def test_what_is_saved_meanwhile_makes_no_attempt_on_a_hub_that_is_away(sender, waiting_long):
    pushes = [sender.put({MODEL: b"%d" % n}) for n in range(5)]
    waiting_long.control.ring()
    wait_until(lambda: [push.id for push in sender.outbox.pending()] == [pushes[-1].id])
    assert attempts(sender) == 1, "and yet the house was kept"


@pytest.mark.parametrize("event", ["another token", "an urgent push", "the end of the training", "somebody waits"])
def test_what_shortens_the_wait(sender, waiting_long, event, monkeypatch):
    if event == "another token":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
    elif event == "an urgent push":
        sender.put({"checkpoint-1": b"1"}, urgent=True)
    elif event == "somebody waits":
        waiting_long.control.hurry = True
    else:
        waiting_long.control.drain = True
    waiting_long.control.ring()
    wait_until(lambda: attempts(sender) > 1)


def test_what_is_saved_meanwhile_is_worth_a_try_after_a_while(sender, waiting_long, monkeypatch):
    monkeypatch.setattr(pusher_module, "TRY_NEW_AFTER", 0.2)
    waiting_long.control.hurry = True  # so that the pause begins anew
    waiting_long.control.ring()
    wait_until(lambda: [e.state for e in sender.outbox.ledger.all_entries()].count(ledger.WAITING) == 2)
    sender.put({MODEL: b"new"})
    waiting_long.control.ring()
    wait_until(lambda: attempts(sender) > 2)


def test_a_refused_outbox_that_was_deleted_does_not_come_back(sender, hub, monkeypatch):
    push = sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    pusher.control.drain = False

    def delete_meanwhile(seconds: float) -> None:
        assert ledger.REFUSED in sender.states().values()
        wait_until((push.folder / NOTED).exists)  # nothing is written from aside any more
        shutil.rmtree(sender.outbox.root)

    monkeypatch.setattr(pusher.control, "sleep", delete_meanwhile)
    with hub.inject(Fault("*", Answer(403))):
        pusher.run()
    assert pusher.control.stop and not sender.outbox.root.exists()


def test_what_is_read_to_note_it_is_no_progress_of_an_upload(sender, hub, weights, tmp_path):
    sender.put({MODEL: b"1"})
    pusher = sender.pusher(stall_timeout=3.0)
    with hub.inject(Fault("commit", Hang())) as hanging, ThreadPoolExecutor(1) as aside:
        running = aside.submit(pusher.run)
        wait_until(lambda: hanging.hits)
        for number in range(60):
            copy = tmp_path / f"{number}.bin"
            shutil.copyfile(weights, copy)
            sender.put({f"checkpoint-{number}": copy})
            pusher.control.ring()
            if running.done():
                break
            time.sleep(0.5)
        with pytest.raises(Stalled):
            running.result(60)


def test_a_refused_push_that_is_sent_later_does_not_overwrite_what_is_newer(sender, hub):
    old = sender.put({MODEL: b"old", "checkpoint-1": b"kept"}, message="old")
    new = sender.put({MODEL: b"new"}, message="new")
    with hub.inject(Fault("commit", Answer(422), times=1)):
        sender.send()
    assert sender.states() == {old.id: ledger.REFUSED, new.id: ledger.DONE}
    sender.send()  # another pusher, which knows of the newer one from the ledger alone
    assert sender.states() == {old.id: ledger.DONE, new.id: ledger.DONE}
    assert sender.there() == {"weights.bin": sha(b"new"), "checkpoint-1/weights.bin": sha(b"kept")}


def test_a_refused_push_of_which_all_is_newer_on_the_hub_is_superseded(sender, hub):
    old = sender.put({MODEL: b"old"}, keep=True)
    new = sender.put({MODEL: b"new"}, keep=True)
    with hub.inject(Fault("commit", Answer(422), times=1)):
        sender.send()
    sender.send()
    assert sender.states() == {old.id: ledger.SUPERSEDED, new.id: ledger.DONE}
    assert sender.there() == {"weights.bin": sha(b"new")}


def test_a_refusal_of_one_push_stops_no_other(sender, hub):
    first = sender.put({"checkpoint-1": b"1"})
    second = sender.put({"checkpoint-2": b"2"})
    with hub.inject(Fault("commit", Answer(413), times=1)) as refusing:
        sender.send()
    assert refusing.hits == 1
    assert sender.states() == {first.id: ledger.REFUSED, second.id: ledger.DONE}
    assert [push.id for push in sender.outbox.pending()] == [first.id]


def test_a_refusal_of_the_token_stops_all_at_once_and_says_so_of_each(sender, hub):
    pushes = [sender.put({f"checkpoint-{n}": b"x"}) for n in (1, 2, 3)]
    with hub.inject(Fault("create_repo", Answer(401))) as refusing:
        sender.send()
    assert refusing.hits == 1
    assert sender.states() == {push.id: ledger.REFUSED for push in pushes}
    assert len(sender.outbox.pending()) == 3
    sender.send()
    assert set(sender.states().values()) == {ledger.DONE}


def test_a_token_of_the_settings_is_said_to_be_the_one_that_is_not_accepted(sender, hub):
    push = sender.put({MODEL: b"1"})
    with hub.inject(Fault("create_repo", Answer(401))):
        sender.send(token="hf_of_the_settings")
    entry = sender.outbox.ledger.latest()[push.id]
    assert entry.state == ledger.REFUSED and "hub_token is what is not accepted" in entry.why


def test_a_new_token_sends_what_was_refused(sender, hub, monkeypatch):
    monkeypatch.setattr("hub_callbacks.pushing.pusher.LOOK_FOR_TOKEN_EVERY", 0.05)
    monkeypatch.setenv("HF_TOKEN", hub.add_token("local", "read"))
    push = sender.put({MODEL: b"1"})
    pusher = sender.pusher()
    pusher.control.drain = False
    thread = threading.Thread(target=pusher.run)
    thread.start()
    try:
        wait_until(lambda: sender.states().get(push.id) == ledger.REFUSED)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        wait_until(lambda: sender.states()[push.id] == ledger.DONE)
    finally:
        pusher.control.stop = True
        pusher.control.ring()
        thread.join()


def test_who_may_not_send_lets_another_process_send(sender, hub, monkeypatch):
    monkeypatch.setattr("hub_callbacks.pushing.pusher.LOOK_FOR_TOKEN_EVERY", 2)
    refused = sender.put({MODEL: b"1"})
    control = Control(drain=False, orders=Orders(longest_wait=0.05))
    pusher = Pusher(sender.outbox, Repository(lambda: "hf_of_nobody"), control)
    thread = threading.Thread(target=pusher.run)
    thread.start()
    try:
        wait_until(lambda: sender.states().get(refused.id) == ledger.REFUSED)
        sender.send()
        assert sender.states() == {refused.id: ledger.DONE}
        sender.put({MODEL: b"2"})
        wait_until(lambda: ledger.REFUSED in sender.states().values())  # its turn again
    finally:
        control.stop = True
        control.ring()
        thread.join()


def test_a_push_that_fails_again_and_again_lets_others_pass(sender, hub, monkeypatch):
    poison, good = sender.put({"checkpoint-1": b"1"}), sender.put({"checkpoint-2": b"2"})
    real = attempt.send

    def send(push: Any, *rest: Any) -> Any:
        if push.id == poison.id and sender.states().get(good.id) != ledger.DONE:
            raise ConnectionError("always")
        return real(push, *rest)

    monkeypatch.setattr("hub_callbacks.pushing.pusher.send", send)
    sender.send()
    assert set(sender.states().values()) == {ledger.DONE}


def test_a_commit_that_the_hub_carries_out_late_does_not_land_on_a_newer_one(sender, hub):
    late = _commit(sender, b"old")
    repository, pusher = Repository(), sender.pusher()
    with ThreadPoolExecutor() as pool, hub.inject(Fault("commit", Hang(), times=1)) as hanging:
        old = pool.submit(repository.commit, *late)
        wait_until(lambda: hanging.hits)
        sender.put({MODEL: b"new"}, message="new")
        pusher.run()
        hanging.clear()
        with pytest.raises(HfHubHTTPError, match="412"):
            old.result()
    assert sender.there() == {"weights.bin": sha(b"new")}
    assert sender.titles() == ["new"]


def test_a_file_that_goes_to_several_paths_is_read_once(sender, weights, tmp_path, upload_path):
    small = tmp_path / "config.json"
    small.write_text("{}")
    repository = Repository()
    remote = repository.look(sender.target)
    files = {f"{folder}{file.name}": file for folder in ("", "last-checkpoint/") for file in (weights, small)}
    uploaded = repository.upload(remote, files)
    assert [operation.path_in_repo for operation in uploaded] == list(files)
    assert uploaded[0].upload_info is uploaded[2].upload_info
    weights.unlink()  # what was uploaded is not read again
    repository.commit(remote, uploaded, {}, [], "both", "")
    digests = {file: facts.sha256 for file, facts in facts_of(uploaded).items()}
    assert sender.there() == digests and len(digests) == 4


def test_what_is_there_under_one_path_comes_under_another_and_nothing_comes_twice(
    sender, weights, tmp_path, upload_path
):
    small = tmp_path / "config.json"
    small.write_text("{}")
    repository = Repository()
    for folders, commits in (([""], 1), (["", "last-checkpoint/"], 2), (["", "last-checkpoint/"], 2)):
        remote = repository.look(sender.target)
        files = {f"{folder}{file.name}": file for folder in folders for file in (weights, small)}
        repository.commit(remote, repository.upload(remote, files), {}, [], "more", "")
        assert sorted(sender.there()) == sorted(files)
        assert len(sender.titles()) == commits


def _commit(sender: Sender, content: bytes) -> tuple[Any, ...]:
    repository = Repository()
    remote = repository.look(sender.target)
    file = sender.cache.parent / "late.bin"
    file.write_bytes(content)
    return remote, repository.upload(remote, {"weights.bin": file}), {}, [], "late", ""


def test_a_lost_answer_makes_no_second_commit(sender, hub, upload_path):
    push = sender.put({MODEL: b"1", LAST_CHECKPOINT: b"2"})
    with hub.inject(Fault("commit", LoseResponse(), times=1)):
        sender.send()
    assert len(sender.titles()) == 1
    entry = sender.outbox.ledger.latest()[push.id]
    assert entry.state == ledger.DONE
    assert entry.commit == sender.api.list_repo_commits(sender.target.repo_id)[0].commit_id


def test_what_was_sent_by_a_pusher_that_died_before_it_said_so_is_not_sent_twice(sender):
    push = sender.put({MODEL: b"1"})
    attempt.send(push, Repository(), sender.outbox, NodeWaits())
    sender.send()
    assert len(sender.titles()) == 1
    assert sender.states() == {push.id: ledger.DONE}


def test_stale_files_of_the_last_checkpoint_go_in_the_same_commit(sender):
    sender.put({LAST_CHECKPOINT: b"1"}, shared=b"only in the first")
    sender.send()
    sender.put({LAST_CHECKPOINT: b"2"})
    sender.send()
    assert sender.there() == {"last-checkpoint/weights.bin": sha(b"2")}
    assert len(sender.titles()) == 2


# -- files that change


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(os.urandom(300_000))
    return file


def test_a_file_that_is_rewritten_before_it_is_sent_is_not_pushed_under_the_old_name(sender, weights):
    push = sender.put({"checkpoint-1": weights, "checkpoint-2": b"2"})
    weights.write_bytes(os.urandom(300_000))
    sender.send()
    entry = sender.outbox.ledger.latest()[push.id]
    assert sender.there() == {"checkpoint-2/weights.bin": sha(b"2")}
    assert "checkpoint-1 was left out: its files were rewritten" in entry.notes[0]
    assert entry.slots == ("checkpoint-2",)


def test_a_push_whose_files_were_all_rewritten_is_said_to_be_lost(sender, weights):
    push = sender.put({"checkpoint-1": weights})
    weights.write_bytes(b"")
    sender.send()
    assert sender.states() == {push.id: ledger.LOST}
    assert sender.titles() == []


@pytest.mark.parametrize("name", ["weights.bin", "vocab.txt"], ids=["large", "in the commit itself"])
def test_a_file_that_is_rewritten_while_it_is_sent_is_in_no_commit(
    sender, tmp_path, name, monkeypatch, upload_path
):
    file = tmp_path / name
    file.write_bytes(os.urandom(150_000).hex().encode())
    push = sender.put({"checkpoint-1": file, "checkpoint-2": b"2"})
    if name == "vocab.txt":
        push = _renamed(sender, push, "checkpoint-1/weights.bin", "checkpoint-1/vocab.txt")
    real = Repository.upload

    def upload(self: Repository, *args: Any) -> Any:
        uploaded = real(self, *args)
        if file.exists():
            file.write_bytes(os.urandom(150_000).hex().encode())
            file.unlink()
        return uploaded

    monkeypatch.setattr(Repository, "upload", upload)
    sender.send()
    assert sender.there() == {"checkpoint-2/weights.bin": sha(b"2")}
    assert len(sender.titles()) == 1
    assert ledger.WAITING in [entry.state for entry in sender.outbox.ledger.all_entries()]


def _renamed(sender: Sender, push: Any, old: str, new: str) -> Any:
    from hub_callbacks.outbox.push import MANIFEST

    manifest = push.folder / MANIFEST
    manifest.write_text(manifest.read_text().replace(old, new))
    return push


def test_what_is_committed_is_what_was_read_before_the_check(sender, tmp_path, monkeypatch):
    """A small file that is rewritten after the check, when only the commit is left to be sent."""
    file = tmp_path / "vocab.txt"
    old = os.urandom(150_000).hex().encode()
    file.write_bytes(old)
    push = sender.put({"checkpoint-1": file})
    _renamed(sender, push, "checkpoint-1/weights.bin", "checkpoint-1/vocab.txt")
    real = Repository.commit

    def commit(self: Repository, *args: Any) -> Any:
        file.write_bytes(b"n" * len(old))
        return real(self, *args)

    monkeypatch.setattr(Repository, "commit", commit)
    sender.send()
    assert sender.there() == {"checkpoint-1/vocab.txt": sha(old)}


def test_a_deleted_original_is_pushed(sender, weights):
    content = weights.read_bytes()
    sender.put({"checkpoint-1": weights})
    weights.unlink()
    sender.send()
    assert sender.there() == {"checkpoint-1/weights.bin": sha(content)}


# -- room


def test_what_gives_way_to_the_limit_is_reported_and_the_newest_arrives(sender):
    pushes = [sender.put({f"checkpoint-{n}": b"%d" % n * 5000}) for n in (1, 2, 3)]
    sender.send(max_pending_bytes=8000)
    entries = sender.outbox.ledger.latest()
    assert [entries[push.id].state for push in pushes] == [ledger.LOST, ledger.LOST, ledger.DONE]
    assert "max_pending_bytes" in (entries[pushes[0].id].why or "")
    assert list(sender.there()) == ["checkpoint-3/weights.bin"]


def test_a_part_that_gives_way_is_noted(sender):
    pushes = [sender.put({MODEL: b"%d" % n * 5000, f"checkpoint-{n}": b"s"}, keep=True) for n in (1, 2)]
    sender.send(max_pending_bytes=6000)
    noted = [note for entry in sender.outbox.ledger.all_entries() for note in entry.notes]
    assert len(noted) == 1 and "model" in noted[0]
    assert [sender.states()[push.id] for push in pushes] == [ledger.DONE, ledger.DONE]
    assert sorted(sender.there()) == ["checkpoint-1/weights.bin", "checkpoint-2/weights.bin", "weights.bin"]


def test_only_one_pusher_sends(sender):
    sender.put({MODEL: b"1"})
    waiting = sender.pusher()
    with sender.outbox.lock():
        thread = threading.Thread(target=waiting.run)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert set(sender.states().values()) <= {ledger.QUEUED, ledger.WAITING}
    thread.join()
    assert set(sender.states().values()) == {ledger.DONE}


def test_trouble_with_remembering_the_card_does_not_undo_a_push(sender, monkeypatch):
    def refuse(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hub_callbacks.pushing.commit.remember", refuse)
    push = sender.put({MODEL: b"1"}, has_card=True)
    (push.folder / "card.json").write_text("{}")
    sender.send()
    assert sender.states() == {push.id: ledger.DONE}
    assert len(sender.titles()) == 1


def test_a_session_that_the_client_makes_anew_has_the_time_out_too():
    """It makes one after each refused connection."""
    Repository(request_timeout=7)
    if not hasattr(huggingface_hub, "close_session"):
        pytest.skip("the client before 1.0 makes sessions by the given factory alone")
    for _ in range(2):
        assert huggingface_hub.get_session().timeout.read == 7
        huggingface_hub.close_session()
