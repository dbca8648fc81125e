"""Files of several nodes meet on a branch: what waits for what, what is passed over, what is left at the end."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, snapshot_download

from hub_callbacks.checkpoints.files import LAST_CHECKPOINT
from hub_callbacks.checkpoints.manifest import NAME, load
from hub_callbacks.hub.repository import Repository
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.control import Control, Orders
from hub_callbacks.outbox.push import MODEL, NODE_BRANCH, OtherNodes, Push, RemoveBranch, Target
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.pushing.node_files import LISTS
from hub_callbacks.pushing.pusher import Pusher
from hub_callbacks.training.nodes import Nodes, _folders
from outboxes import put
from savers import wait_until

BRANCH = f"{NODE_BRANCH}-test"


class Job:
    """The outboxes of the main process and of other nodes, and pushers for them."""

    def __init__(self, folder: Path, repo: str, nodes: tuple[int, ...] = (1,)) -> None:
        self.target = Target(f"local/{repo}")
        self.branch = replace(self.target, revision=BRANCH)
        self.folder = folder
        self.nodes = nodes
        self.outboxes = {node: Outbox(folder / f"node-{node}") for node in (0, *nodes)}

    def save(self, step: int, slot: str = LAST_CHECKPOINT, **more: Any) -> Push:
        """What the main process queues; the others', too, is `save_on`."""
        others = OtherNodes(BRANCH, self.nodes)
        slots = {MODEL: b"model %d" % step, slot: b"main %d" % step}
        push = put(
            self.outboxes[0],
            slots,
            target=self.target,
            step=step,
            message=f"step {step}",
            others=others,
            **more,
        )
        return push

    def save_on(self, node: int, step: int, name: str = "", content: bytes = b"") -> Push:
        return put(
            self.outboxes[node],
            {f"{NODE_BRANCH}/{step}/node-{node}": content or b"node %d, %d" % (node, step)},
            name=name or f"shard-{node}.bin",
            target=self.branch,
            step=step,
            message=f"Files of node {node}, step {step}",
            node=node,
        )

    def pusher(self, node: int) -> Pusher:
        control = Control(orders=Orders(longest_wait=0.05))
        return Pusher(Outbox(self.outboxes[node].root), Repository(), control)

    def send(self, node: int) -> None:
        self.pusher(node).run()

    def send_in_background(self) -> tuple[Pusher, threading.Thread]:
        pusher = self.pusher(0)
        thread = threading.Thread(target=pusher.run)
        thread.start()
        return pusher, thread

    def state(self, push: Push, node: int = 0) -> str:
        return self.outboxes[node].ledger.latest()[push.id].state

    def files(self, prefix: str = LAST_CHECKPOINT) -> dict[str, bytes]:
        folder = Path(snapshot_download(self.target.repo_id, cache_dir=self.folder / "cache")) / prefix
        return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file() and path.name != NAME}

    def titles(self, api) -> list[str]:
        return [commit.title for commit in reversed(api.list_repo_commits(self.target.repo_id))][1:]


@pytest.fixture
def job(hub, repo, tmp_path):
    return Job(tmp_path, repo)


def waits(job: Job, push: Push) -> bool:
    entries = job.outboxes[0].ledger.latest()
    return entries[push.id].state == ledger.WAITING_FOR_NODES


def test_a_save_is_committed_when_the_files_of_all_nodes_are_there(hub, api, repo, tmp_path):
    job = Job(tmp_path, repo, nodes=(1, 2))
    push = job.save(2)
    _, thread = job.send_in_background()
    wait_until(lambda: waits(job, push))
    assert "nodes 1, 2" in (job.outboxes[0].ledger.latest()[push.id].why or "")
    job.save_on(1, 2)
    job.send(1)
    wait_until(lambda: (job.outboxes[0].ledger.latest()[push.id].why or "").endswith("node 2"))
    assert job.titles(api) == []
    job.save_on(2, 2, name="notes.txt", content=b"a small file that is no pointer")
    job.send(2)
    thread.join()
    assert job.titles(api) == ["step 2"]
    assert job.files() == {
        "weights.bin": b"main 2",
        "shard-1.bin": b"node 1, 2",
        "notes.txt": b"a small file that is no pointer",
    }
    folder = Path(snapshot_download(job.target.repo_id, cache_dir=tmp_path / "cache")) / LAST_CHECKPOINT
    assert load((folder / NAME).read_bytes()).files.keys() == job.files().keys()


def test_large_files_are_taken_over_without_being_sent_again(hub, job):
    push = job.save(2)
    job.save_on(1, 2)
    job.send(1)
    hub.clear_requests()
    job.send(0)
    assert job.state(push) == ledger.DONE
    fetched = [seen for seen in hub.requests if "resolve" in seen.path and "shard-1.bin" in seen.path]
    assert fetched == []
    assert job.files()["shard-1.bin"] == b"node 1, 2"


def test_what_the_main_process_has_by_the_same_name_is_its_own(job):
    job.save(2)
    job.save_on(1, 2, name="weights.bin", content=b"a copy that differs")
    job.send(1)
    job.send(0)
    assert job.files() == {"weights.bin": b"main 2"}


def test_files_of_a_node_that_the_newer_save_has_not_are_deleted(api, job):
    job.save(2)
    job.save_on(1, 2, name="old.bin")
    job.send(1)
    job.send(0)
    assert "old.bin" in job.files()
    job.save(4)
    job.save_on(1, 4)
    job.send(1)
    job.send(0)
    assert job.files() == {"weights.bin": b"main 4", "shard-1.bin": b"node 1, 4"}
    assert job.titles(api) == ["step 2", "step 4"]


def test_what_need_not_wait_passes_a_save_that_does(api, job):
    push = job.save(2)
    final = put(job.outboxes[0], {MODEL: b"final"}, target=job.target, message="End of training")
    _, thread = job.send_in_background()
    wait_until(lambda: job.state(final) == ledger.DONE)
    assert job.titles(api) == ["End of training"]
    job.save_on(1, 2)
    job.send(1)
    thread.join()
    assert job.state(push) == ledger.DONE
    assert job.titles(api) == ["End of training", "step 2"]
    assert job.files("")["weights.bin"] == b"final"


def test_saves_that_are_passed_over_are_passed_over_on_all_nodes(api, job):
    pushes = [job.save(step) for step in (2, 4, 6)]
    of_node = [job.save_on(1, step) for step in (2, 4, 6)]
    _, thread = job.send_in_background()
    wait_until(lambda: waits(job, pushes[2]))
    job.send(1)
    thread.join()
    assert [job.state(push) for push in pushes] == [ledger.SUPERSEDED, ledger.SUPERSEDED, ledger.DONE]
    assert [job.state(push, 1) for push in of_node] == [ledger.SUPERSEDED, ledger.SUPERSEDED, ledger.DONE]
    assert job.files() == {"weights.bin": b"main 6", "shard-1.bin": b"node 1, 6"}


def test_a_save_whose_own_files_were_sent_is_not_given_up_for_one_that_waits_too(api, job):
    first = job.save(2)
    pusher, thread = job.send_in_background()
    wait_until(lambda: waits(job, first))
    newer = [job.save(4), job.save(6)]
    pusher.control.ring()
    wait_until(lambda: job.state(newer[0]) == ledger.SUPERSEDED)
    assert job.state(first) != ledger.SUPERSEDED
    job.save_on(1, 2)
    job.send(1)
    wait_until(lambda: job.state(first) == ledger.DONE)
    job.save_on(1, 6)
    job.send(1)
    thread.join()
    assert job.titles(api) == ["step 2", "step 6"]


def test_a_save_that_lacks_a_nodes_files_for_good_is_replaced_by_the_next_whole_one(api, job):
    first = job.save(2)
    _, thread = job.send_in_background()
    wait_until(lambda: waits(job, first))
    second = job.save(4)
    job.save_on(1, 4)
    job.send(1)
    thread.join()
    assert (job.state(first), job.state(second)) == (ledger.SUPERSEDED, ledger.DONE)
    assert job.titles(api) == ["step 4"]


def test_one_that_never_comes_does_not_hold_up_those_that_come_in_order(api, job):
    job.save(2, "checkpoint-2", keep=True)
    job.save(4, "checkpoint-4", keep=True)
    job.save_on(1, 4)
    job.send(1)
    pusher, thread = job.send_in_background()
    wait_until(lambda: job.titles(api) == ["step 4"])
    assert job.files("checkpoint-2") == {}
    pusher.control.stop = True
    thread.join()


def test_files_that_are_not_what_the_list_says_are_not_taken_over(api, job):
    push = job.save(2)
    job.save_on(1, 2)
    job.send(1)
    path = f"{NODE_BRANCH}/2/node-1/shard-1.bin"
    api.create_commit(
        job.target.repo_id,
        [CommitOperationAdd(path, b"another content")],
        commit_message="tamper",
        revision=BRANCH,
    )
    job.send(0)
    entry = job.outboxes[0].ledger.latest()[push.id]
    assert entry.state == ledger.REFUSED and "not the file that node 1 has listed" in (entry.why or "")
    assert job.titles(api) == []


def test_the_branch_is_removed_when_nothing_waits_for_it(api, job):
    push = job.save(2)
    removal = put(job.outboxes[0], target=job.branch, content=RemoveBranch())
    job.save_on(1, 2)
    job.send(1)
    assert BRANCH in [branch.name for branch in api.list_repo_refs(job.target.repo_id).branches]
    job.send(0)
    assert (job.state(push), job.state(removal)) == (ledger.DONE, ledger.DONE)
    assert [branch.name for branch in api.list_repo_refs(job.target.repo_id).branches] == ["main"]
    assert job.files()["shard-1.bin"] == b"node 1, 2"


def test_sending_a_nodes_files_twice_makes_no_second_commit(api, job):
    job.save_on(1, 2)
    job.send(1)
    before = [commit.commit_id for commit in api.list_repo_commits(job.target.repo_id, revision=BRANCH)]
    job.save_on(1, 2)
    job.send(1)
    assert [c.commit_id for c in api.list_repo_commits(job.target.repo_id, revision=BRANCH)] == before
    assert f"{LISTS}/2-node-1.json" in api.list_repo_files(job.target.repo_id, revision=BRANCH)


# -- which node writes to which folder, without a job


@pytest.mark.parametrize(
    ("seen", "folders"),
    [
        ([{0, 1}, {0, 1}], (0, 0)),  # one folder
        ([{0}, {1}], (0, 1)),  # a folder each
        ([{0}, {0}, {1}, {1}], (0, 0, 1, 1)),  # two processes on each
        ([{0}, {1, 2}, {1, 2}], (0, 1, 1)),  # nodes 1 and 2 share one that is not the main process's
        ([{0, 1}, {1}], (0, 0)),  # one looks at an old state of the folder
        ([{0}, set()], (0, 0)),  # a node that could not write a mark
    ],
)
def test_nodes_are_told_apart_by_the_marks_that_their_processes_see(seen, folders):
    assert _folders([frozenset(numbers) for numbers in seen], 1 + max(max(n, default=0) for n in seen)) == folders


def test_the_first_process_of_a_folder_sends_what_is_in_it():
    nodes = [Nodes("training", "model", rank, (0, 2, 4), (0, 0, 1, 1, 1, 1)) for rank in range(6)]
    assert [one.is_head for one in nodes] == [True, False, True, False, False, False]
    assert {one.apart for one in nodes} == {(1,)}
    assert nodes[3].ranks_here == (2, 3, 4, 5) and nodes[1].ranks_here == (0, 1)
