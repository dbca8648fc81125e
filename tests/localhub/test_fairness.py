"""One slow, large or abandoned request takes nothing from the others."""

from __future__ import annotations

import base64
import http.client
import json
import os
import resource
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub, clone, patience
from hub_callbacks.localhub.xet import XetStore

from .processes import ServerProcess
from .raw_http import raw

MEGABYTE = 1 << 20


def wait_for(condition: Callable[[], Any]) -> None:
    while not condition():
        time.sleep(0.01)


def open_request(hub: LocalHub, method: str, path: str, body: bytes, promised: int, token: str) -> socket.socket:
    """A request that goes on after this."""
    connection = socket.socket()
    connection.settimeout(60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)  # else the system reads ahead by megabytes
    connection.connect(("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1])))
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    connection.sendall(f"{head}Content-Length: {promised}\r\n\r\n".encode() + body)
    return connection


@pytest.fixture
def slow_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git that says nothing for as long as it lives, and a file in which each one notes its child."""
    notes = tmp_path / "notes"
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! >> {notes}\nwait\n")
    program.chmod(0o755)
    notes.touch()
    monkeypatch.setattr(clone.shutil, "which", lambda name: str(program))
    return notes


def test_clones_that_were_left_end_and_others_are_served_meanwhile(
    hub: LocalHub, api: HfApi, model: str, token: str, slow_git: Path
) -> None:
    path = f"/{model}.git/git-upload-pack"
    left = [open_request(hub, "POST", path, b"0000", 4, token) for _ in range(25)]
    wait_for(lambda: len(slow_git.read_text().splitlines()) == 25)
    assert api.whoami()["name"]
    for connection in left:
        connection.close()
    children = slow_git.read_text().split()
    wait_for(lambda: not any(is_alive(child) for child in children))


def is_alive(process: str) -> bool:
    """Not so for one that has ended, and of which nobody has asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_the_check_of_a_shard_ends_when_its_client_leaves(
    hub: LocalHub, api: HfApi, model: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It repeats one segment, so that what is to be read is much more than what came."""
    api.upload_file(path_or_fileobj=os.urandom(100_000), path_in_repo="w.bin", repo_id=model)
    known = hub._now._content.xet.find(next(iter(api.list_lfs_files(model))).oid)
    assert known is not None
    (segment,) = known.segments
    began, ended = threading.Event(), threading.Event()
    put_shard, nodes = XetStore.put_shard, XetStore._nodes

    def told(store: XetStore, *rest: Any) -> Any:
        try:
            return put_shard(store, *rest)
        finally:
            ended.set()

    def endless(store: XetStore, *rest: Any) -> Iterator[Any]:
        began.set()
        while True:
            yield from nodes(store, *rest)

    monkeypatch.setattr(XetStore, "put_shard", told)
    monkeypatch.setattr(XetStore, "_nodes", endless)
    words = [int(segment.xorb[place : place + 16], 16) for place in range(0, 64, 16)]
    rows = struct.pack("<4QIIII", *words, 0, segment.size, segment.start, segment.end) * 1000
    shard = bytes(48 + 32) + struct.pack("<IIQ", 0, 1000, 0) + rows + b"\xff" * 32 + bytes(16)
    url = f"{hub.endpoint}/api/models/{model}/xet-write-token/main"
    given = get_session().get(url, headers={"Authorization": f"Bearer {token}"}).json()
    path = given["casUrl"].removeprefix(hub.endpoint) + "/v1/shards"
    connection = open_request(hub, "POST", path, shard, len(shard), given["accessToken"])
    assert began.wait(60)
    connection.close()
    assert ended.wait(60)


@pytest.mark.parametrize("admitted", [True, False])
def test_a_body_that_does_not_come_ends_its_connection(
    hub: LocalHub, model: str, token: str, monkeypatch: pytest.MonkeyPatch, admitted: bool
) -> None:
    monkeypatch.setattr(patience, "_SENDING", 0.2)
    path = f"/api/models/{model}/commit/main" if admitted else "/api/repos/create"
    with open_request(hub, "POST", path, b"{", 1000, token) as connection, pytest.raises(ConnectionResetError):
        connection.recv(100)
    assert not [*hub.root.glob("tmp/body-*")]


def test_an_answer_that_nobody_takes_ends_its_connection(
    hub: LocalHub, api: HfApi, model: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_READING", 0.2)
    api.upload_file(path_or_fileobj=bytes(9 * MEGABYTE), path_in_repo="a.txt", repo_id=model)
    with open_request(hub, "GET", f"/{model}/resolve/main/a.txt", b"", 0, token) as connection:
        open_connections = hub._now.trouble.connections._transports
        wait_for(lambda: connection.getsockname() not in open_connections)


def test_the_log_and_the_table_of_routes_take_no_endless_paths(hub: LocalHub) -> None:
    assert get_session().get(f"{hub.endpoint}/{'x' * 60_000}").status_code == 404
    assert [len(seen.path) for seen in hub.requests if seen.path.startswith("/xxx")] == [500]


def test_pages_of_long_files_and_large_changes_stay_small(
    hub: LocalHub, api: HfApi, model: str, token: str
) -> None:
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "x"}}]
    for number in range(21):
        content = base64.b64encode(b"\n" * 499_000 if number == 20 else b"<" * 99_000).decode()
        value = {"path": f"{number}.txt", "content": content, "encoding": "base64"}
        lines.append({"key": "file", "value": value})
    get_session().post(
        f"{hub.endpoint}/api/models/{model}/commit/main",
        headers={"Authorization": f"Bearer {token}"},
        **raw("\n".join(map(json.dumps, lines)).encode()),
    ).raise_for_status()
    for page in (f"commit/{api.model_info(model).sha}", "blob/main/20.txt"):
        answer = get_session().get(f"{hub.endpoint}/{model}/{page}")
        assert answer.status_code == 200 and len(answer.content) < 2 * MEGABYTE


def test_a_full_disk_is_said_and_leaves_nothing_behind(small_disk: Path) -> None:
    with LocalHub(small_disk / "hub") as hub:
        headers = {"Authorization": f"Bearer {hub.token}"}
        session, url = get_session(), f"{hub.endpoint}/api/repos/create"
        assert session.post(url, json={"name": "m"}, headers=headers).status_code == 200
        (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
        body = b'{"key": "header", "value": {"summary": "x"}}\n' + b" " * 500_000
        for answer in (
            session.post(f"{hub.endpoint}/api/models/local/m/commit/main", headers=headers, **raw(body)),
            session.post(url, json={"name": "n"}, headers=headers),
        ):
            assert answer.status_code == 507, answer.text
            assert answer.json()["error"].startswith("The disk of the hub is full, so nothing was stored.")
        (small_disk / "ballast").unlink()
        assert not [*hub.root.glob("tmp/body-*")]
        for name in ("n", "o"):
            assert session.post(url, json={"name": name}, headers=headers).status_code == 200


def test_a_hub_is_served_with_as_many_files_as_the_machine_allows(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        server = ServerProcess(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        server.end(9)


def test_too_few_files_are_said_and_pass(hub: LocalHub, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> Any:
        raise OSError(24, "Too many open files")

    path = f"/{model}/resolve/main/.gitattributes"
    with monkeypatch.context() as patch:
        patch.setattr("hub_callbacks.localhub.gitstore.open_at", none)
        connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"))
        connection.request("GET", path)
        assert connection.getresponse().status == 503
        connection.close()
    assert get_session().get(f"{hub.endpoint}{path}").status_code == 200
