"""Starting, stopping, restarting, and surviving a SIGKILL."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from hub_callbacks.localhub import LocalHub, gitwrite
from hub_callbacks.localhub.xet import XetStore
from hub_callbacks.localhub.xet_format import XetFile
from hub_callbacks.pytest_plugin import client_at

from .processes import ServerProcess, write_and_kill


@pytest.fixture
def servers() -> Iterator[list[ServerProcess]]:
    started: list[ServerProcess] = []
    yield started
    for server in started:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def test_a_stopped_hub_leaves_no_port_thread_or_folder() -> None:
    before = set(threading.enumerate())
    with LocalHub() as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("m")
        root, port = hub.root, int(hub.endpoint.rsplit(":", 1)[1])
    assert not root.exists()
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in left if "tqdm" not in name] == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_an_idle_connection_is_let_go_of_by_the_client_first(hub: LocalHub) -> None:
    """A client sends on a connection that was idle for up to 5 s; a Hub that closes it then resets the request."""
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"))
    connection.connect()
    connection.auto_open = 0
    for idle in (0, 5.5):
        time.sleep(idle)
        connection.request("GET", "/api/models")
        assert connection.getresponse().read().startswith(b"[")
    connection.close()


def test_a_restart_finds_repositories_users_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(5000)
    with LocalHub(tmp_path) as hub, monkeypatch.context() as patch:
        # 0.36 compares the address in the answer with its own.
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        assert hub.first_start
        token = hub.add_user("somebody")
        reader = hub.add_token("somebody", "read")
        api = HfApi(endpoint=hub.endpoint, token=token)
        api.create_repo("m", private=True)
        api.create_repo("n")
        api.move_repo("somebody/n", "somebody/o")
        api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id="somebody/m")
        api.create_discussion("somebody/m", "A question")
    with LocalHub(tmp_path) as hub:
        assert not hub.first_start
        api = HfApi(endpoint=hub.endpoint, token=reader)
        assert api.model_info("somebody/m").private
        assert api.model_info("somebody/n").id == "somebody/o"
        path = api.hf_hub_download("somebody/m", "w.bin", local_dir=tmp_path / "back")
        assert Path(path).read_bytes() == data
        assert [item.title for item in api.get_repo_discussions("somebody/m")] == ["A question"]
        assert HfApi(endpoint=hub.endpoint, token=hub.token).whoami()["name"] == "local"


def test_two_hubs_do_not_share_a_folder(tmp_path: Path) -> None:
    with LocalHub(tmp_path), pytest.raises(RuntimeError, match="Another hub already works on"):
        LocalHub(tmp_path).start()
    with LocalHub(tmp_path):
        pass


def test_a_taken_port_is_an_error_and_leaves_the_folder_free(tmp_path: Path) -> None:
    with LocalHub() as hub:
        port = int(hub.endpoint.rsplit(":", 1)[1])
        with pytest.raises(OSError):
            LocalHub(tmp_path, port=port).start()
    with LocalHub(tmp_path):
        pass


def test_a_hub_that_is_not_running_says_so() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = LocalHub().endpoint


def test_users_and_roles_are_checked(hub: LocalHub) -> None:
    with pytest.raises(ValueError, match="already exists"):
        hub.add_user("LOCAL")
    with pytest.raises(ValueError, match="cannot be the name"):
        hub.add_user("a/b")
    with pytest.raises(ValueError, match="no user called"):
        hub.add_token("nobody")
    with pytest.raises(ValueError, match="role"):
        hub.add_token("local", "admin")  # type: ignore[arg-type]


def test_the_process_prints_its_address_and_at_first_its_token(
    tmp_path: Path, servers: list[ServerProcess]
) -> None:
    first = ServerProcess(tmp_path)
    servers.append(first)
    assert HfApi(endpoint=first.endpoint, token=first.token).whoami()["name"] == "local"
    assert first.end(signal.SIGTERM) == 0
    second = ServerProcess(tmp_path)
    servers.append(second)
    assert second.token is None
    assert HfApi(endpoint=second.endpoint, token=first.token).whoami()["name"] == "local"
    assert second.end(signal.SIGINT) == 0


def test_answers_do_not_wait_for_an_acknowledgement(hub: LocalHub) -> None:
    """Else each takes 40 ms: its head and its body are sent in two pieces."""
    with socket.create_connection(("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1]))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(10)
        connections = hub._now.trouble.connections._transports
        accepted = connections[client.getsockname()].get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_locks_that_a_killed_hub_left_do_not_stop_the_next_one(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("m")
    folder = tmp_path / "repos" / "models" / "local" / "m.git"
    for name in ("refs/heads/main.lock", "packed-refs.lock", "HEAD.lock"):
        (folder / name).touch()
    with LocalHub(tmp_path) as hub, client_at(hub.endpoint, hub.token, tmp_path / "cache"):
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id="local/m")
        api.create_branch("local/m", branch="b")
        api.delete_branch("local/m", branch="b")


def test_commits_of_eight_writers_survive_sigkills_wholly_or_not_at_all(tmp_path: Path) -> None:
    """The long form is `benchmarks/hub_soak.py`."""
    outcome = write_and_kill(tmp_path / "root", kills=3, seed=0, longest=0.4)
    assert outcome.commits >= outcome.acknowledged >= 11


def cut_off(create_commit: Callable[..., Any], repo: str, operations: list[CommitOperationAdd]) -> None:
    with contextlib.suppress(Exception):  # in whatever form the client says that nobody answers
        create_commit(repo, operations, commit_message="m")


def test_a_hub_has_stopped_when_nothing_writes_to_its_folder_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one on the folder reads what is there when it starts."""
    began, ended = threading.Event(), threading.Event()
    commit = gitwrite.commit

    def slowly(*args: Any) -> str:
        began.set()
        time.sleep(3)  # longer than requests have to come to an end
        oid = commit(*args)
        ended.set()
        return oid

    monkeypatch.setattr(gitwrite, "commit", slowly)
    with LocalHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("m")
        began.clear()
        ended.clear()
        operation = CommitOperationAdd("a.txt", b"text")
        client = threading.Thread(target=cut_off, args=(api.create_commit, "local/m", [operation]))
        client.start()
        assert began.wait(60)
        hub.stop()
        assert ended.is_set()
    client.join(60)


def test_a_hub_stops_while_it_checks_what_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which it reads from itself, and nobody answers any more."""
    began = threading.Event()
    checked = XetStore._checked

    def told(self: XetStore, file: XetFile, *rest: Any) -> XetFile:
        began.set()
        time.sleep(3)
        return checked(self, file, *rest)

    monkeypatch.setattr(XetStore, "_checked", told)
    with LocalHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("m")
        model = os.urandom(100_000)
        operation = CommitOperationAdd("m.bin", model)
        client = threading.Thread(target=cut_off, args=(api.create_commit, "local/m", [operation]), daemon=True)
        client.start()
        assert began.wait(60)
        hub.stop()
    assert XetStore(tmp_path / "xet", lambda: ("", "", 0)).find(hashlib.sha256(model).hexdigest()) is None
