"""Preupload and commit."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pygit2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub, gitstore, gitwrite, packs
from hub_callbacks.pytest_plugin import client_at

from .processes import ServerProcess
from .raw_http import raw


def content(api: HfApi, repo: str, path: str, revision: str = "main") -> bytes:
    return Path(api.hf_hub_download(repo, path, revision=revision)).read_bytes()


def add(path: str, data: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, data)


def test_one_commit_adds_copies_and_deletes(api: HfApi, model: str) -> None:
    first = [add("a.txt", b"a"), add("d/b.bin", b"b" * 1000), add("d/e/c.txt", b"c"), add("old/x.txt", b"x")]
    api.create_commit(model, first, commit_message="first", commit_description="long\ntext")
    second: list[Any] = [
        CommitOperationDelete("old/"),
        CommitOperationDelete("a.txt"),
        CommitOperationCopy("d/b.bin", "copy.bin"),
        CommitOperationCopy("d/e/c.txt", "copy.txt"),
        add("d/e/new.txt", b"new"),
    ]
    info = api.create_commit(model, second, commit_message="second")
    assert set(api.list_repo_files(model)) == {
        ".gitattributes",
        "copy.bin",
        "copy.txt",
        "d/b.bin",
        "d/e/c.txt",
        "d/e/new.txt",
    }
    assert content(api, model, "copy.bin") == b"b" * 1000
    assert content(api, model, "copy.txt") == b"c"
    newest, middle, _ = api.list_repo_commits(model)
    assert (newest.commit_id, newest.title) == (info.oid, "second")
    assert middle.message == "long\ntext"


def test_a_folder_can_be_replaced_in_one_commit(api: HfApi, model: str) -> None:
    api.create_commit(model, [add("last/a", b"1"), add("last/b", b"2")], commit_message="one")
    operations: list[Any] = [CommitOperationDelete("last/"), add("last/a", b"3")]
    api.create_commit(model, operations, commit_message="two")
    assert set(api.list_repo_files(model)) == {".gitattributes", "last/a"}
    assert content(api, model, "last/a") == b"3"


def test_a_file_can_become_a_folder_and_back(api: HfApi, model: str) -> None:
    api.create_commit(model, [add("x", b"1")], commit_message="file")
    api.create_commit(model, [CommitOperationDelete("x"), add("x/y", b"2")], commit_message="folder")
    assert content(api, model, "x/y") == b"2"
    api.create_commit(model, [CommitOperationDelete("x/"), add("x", b"3")], commit_message="file again")
    assert content(api, model, "x") == b"3"


def test_deleting_a_folder_as_a_file_works_and_what_is_missing_is_refused(api: HfApi, model: str) -> None:
    api.create_commit(model, [add("dir/a", b"1")], commit_message="one")
    operation = CommitOperationDelete("dir", is_folder=False)
    api.create_commit(model, [operation], commit_message="two")
    assert api.list_repo_files(model) == [".gitattributes"]
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.delete_file("dir/a", model)


def test_unchanged_files_make_no_commit(api: HfApi, model: str, transport: str) -> None:
    operations = [("a.txt", b"a"), ("b.bin", b"b" * 100)]
    one = api.create_commit(model, [add(*item) for item in operations], commit_message="one")
    two = api.create_commit(model, [add(*item) for item in operations], commit_message="two")
    assert one.oid == two.oid


def test_a_stale_parent_is_refused_and_a_current_one_accepted(api: HfApi, model: str) -> None:
    start = api.model_info(model).sha
    assert start is not None
    now = api.create_commit(model, [add("a", b"1")], commit_message="one", parent_commit=start)
    with pytest.raises(HfHubHTTPError, match="The branch was updated since you opened this page") as error:
        api.create_commit(model, [add("b", b"1")], commit_message="two", parent_commit=start)
    assert error.value.response.status_code == 412
    api.create_commit(model, [add("b", b"1")], commit_message="two", parent_commit=now.oid)


def test_a_missing_branch_or_an_oid_is_no_target(api: HfApi, model: str) -> None:
    sha = api.model_info(model).sha
    for target in ("none", sha):
        with pytest.raises(RevisionNotFoundError):
            api.create_commit(model, [add("a", b"1")], commit_message="x", revision=target)


@pytest.mark.parametrize(
    "path",
    [
        *("..\\ddd", "a/../../b", ".git/config", "/abs", "", "C:\\a", "c:/a", "a\0b", "\ud800", "a" * 1025),
        *("a/.GIT/config", ".gi\u200ct/config", ".git /config", "git~1/config", "\u2025/a", "a/.../b"),
    ],
)
def test_paths_that_leave_the_repository_are_refused(hub: LocalHub, model: str, path: str, token: str) -> None:
    lines = '{"key": "header", "value": {"summary": "x"}}\n{"key": "file", "value": {"path": %s, "content": ""}}'
    answer = get_session().post(
        f"{hub.endpoint}/api/models/{model}/commit/main",
        headers={"authorization": f"Bearer {token}"},
        **raw((lines % json.dumps(path)).encode()),
    )
    assert answer.status_code == 422


def test_a_pointer_to_content_that_is_not_here_is_refused(hub: LocalHub, model: str, token: str) -> None:
    body = (
        '{"key": "header", "value": {"summary": "x"}}\n'
        '{"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": "%s", "size": 3}}' % ("0" * 64)
    )
    answer = get_session().post(
        f"{hub.endpoint}/api/models/{model}/commit/main",
        headers={"authorization": f"Bearer {token}"},
        **raw(body.encode()),
    )
    assert answer.status_code == 400 and "does not exist" in answer.json()["error"]


def test_the_upload_mode_follows_gitattributes_and_size(api: HfApi, model: str) -> None:
    attributes = Path(api.hf_hub_download(model, ".gitattributes")).read_bytes()
    api.upload_file(
        path_or_fileobj=attributes + b"special/*.txt filter=lfs -text\n",
        path_in_repo=".gitattributes",
        repo_id=model,
    )
    operations = [
        add("w.safetensors", b"1"),
        add("special/a.txt", b"2"),
        add("b.txt", b"3"),
        add("big.txt", b"4" * (10 * 1024 * 1024 + 1)),
    ]
    api.create_commit(model, operations, commit_message="x")
    found: list[Any] = api.get_paths_info(model, [op.path_in_repo for op in operations])
    large = {file.path for file in found if file.lfs}
    assert large == {"w.safetensors", "special/a.txt", "big.txt"}


def test_ignored_files_are_left_out(api: HfApi, model: str, tmp_path: Path) -> None:
    api.upload_file(path_or_fileobj=b"*.log\n!keep.log\ncache/\n", path_in_repo=".gitignore", repo_id=model)
    files = [add("a.log", b"1"), add("keep.log", b"2"), add("cache/x", b"3"), add("a.txt", b"4")]
    api.create_commit(model, files, commit_message="x")
    assert set(api.list_repo_files(model)) == {".gitattributes", ".gitignore", "keep.log", "a.txt"}
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / ".gitignore").write_text("*.txt\n")
    (tmp_path / "up" / "b.txt").write_text("b")
    (tmp_path / "up" / "b.log").write_text("b")
    api.upload_folder(folder_path=tmp_path / "up", repo_id=model)
    assert not api.file_exists(model, "b.txt") and api.file_exists(model, "b.log")


def test_no_commit_of_concurrent_writers_is_lost(hub: LocalHub, api: HfApi, model: str) -> None:
    acknowledged: list[str] = []

    def write(number: int) -> None:
        for turn in range(5):
            operation = add(f"{number}/{turn}.txt", f"{number}-{turn}".encode())
            info = api.create_commit(model, [operation], commit_message=f"{number}-{turn}")
            acknowledged.append(info.oid)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(acknowledged) == 40
    history = [commit.commit_id for commit in api.list_repo_commits(model)]
    assert set(acknowledged) <= set(history) and len(history) == 41
    assert len(api.list_repo_files(model)) == 41


def test_a_large_commit_body_is_taken(api: HfApi, model: str) -> None:
    operations = [add(f"{number}.txt", os.urandom(9_000_000)) for number in range(4)]
    api.create_commit(model, operations, commit_message="48 MB of base64")
    listed: Any = api.list_repo_tree(model)
    sizes = [file.size for file in listed if file.path.endswith(".txt")]
    assert sizes == [9_000_000] * 4


def test_more_than_256_files_go_into_one_commit(hub: LocalHub, api: HfApi, model: str, token: str) -> None:
    operations = [
        add(f"d/{number}.{'bin' if number % 100 == 0 else 'txt'}", b"%d" % number) for number in range(300)
    ]
    api.create_commit(model, operations, commit_message="many")
    assert len(api.list_repo_files(model)) == 301 and len(api.list_repo_commits(model)) == 2
    assert content(api, model, "d/200.bin") == b"200"
    answer = get_session().post(
        f"{hub.endpoint}/api/models/{model}/preupload/main",
        json={"files": [{"path": f"{number}.txt", "size": 1, "sample": ""} for number in range(257)]},
        headers={"authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 413


@pytest.mark.slow
def test_a_commit_of_hundreds_of_megabytes_is_not_held_in_memory(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "root")
    try:
        with client_at(server.endpoint, server.token, tmp_path / "cache"):
            api = HfApi(endpoint=server.endpoint, token=server.token)
            api.create_repo("m")
            api.create_commit("local/m", [add("small.txt", bytes(9_000_000))], commit_message="small")
            before = peak_memory(server.process.pid)
            operations = [add(f"{number}.txt", os.urandom(9_000_000)) for number in range(30)]
            api.create_commit("local/m", operations, commit_message="360 MB of base64")
            assert peak_memory(server.process.pid) - before < 100_000_000
            assert content(api, "local/m", "29.txt") == operations[29].path_or_fileobj
    finally:
        server.end(signal.SIGTERM)


def peak_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def test_a_body_that_the_client_cuts_leaves_nothing(hub: LocalHub, api: HfApi, model: str, token: str) -> None:
    address = ("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1]))
    head = (
        f"POST /api/models/{model}/commit/main HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 5000000\r\n\r\n"
    )
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + b'{"key": "header", "value": {"summary": "cut"}}\n' + b" " * 3_000_000)
    while not [seen for seen in hub.requests if seen.operation == "commit"]:
        threading.Event().wait(0.01)
    assert list((hub.root / "tmp").iterdir()) == []
    assert [commit.title for commit in api.list_repo_commits(model)] == ["initial commit"]


def test_many_files_in_one_commit_are_a_few_packs(
    hub: LocalHub, api: HfApi, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "_FEW", 2)
    monkeypatch.setattr(packs, "_MAX_PACK", 60_000)
    sizes = [0, 1, 15, 16, 2047, 2048, 2049, 70_000, 5, 70_000, 5]
    contents = {f"folder/{number}": random.Random(number % 9).randbytes(size) for number, size in enumerate(sizes)}
    api.create_commit(model, [CommitOperationAdd(*file) for file in contents.items()], commit_message="many")
    git = hub.root / "repos" / "models" / f"{model}.git"
    assert len(list((git / "objects/pack").glob("*.pack"))) == 3
    subprocess.run(["git", "-C", str(git), "fsck", "--full", "--strict"], check=True)
    for path, content in contents.items():
        assert get_session().get(f"{hub.endpoint}/{model}/resolve/main/{path}").content == content
    assert not list((hub.root / "tmp").glob("pack-*"))


def test_packs_of_a_refused_commit_leave_nothing(
    hub: LocalHub, api: HfApi, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "_FEW", 0)
    files = [CommitOperationAdd("a", b"a"), CommitOperationAdd("b", b"b")]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(model, files, commit_message="late", parent_commit="0" * 40)
    assert not list((hub.root / "tmp").glob("pack-*"))
    assert not list((hub.root / "repos" / "models" / f"{model}.git" / "objects/pack").iterdir())


def test_a_folder_of_many_files_is_in_memory_while_it_is_looked_at(hub: LocalHub, tmp_path: Path) -> None:
    """Libgit2 leaves folders above 4 kB to the disk, and preupload asks for one file after the other."""
    gitwrite.create(tmp_path / "git", "me", {f"{number:04}": b"" for number in range(1000)})
    git, at = gitstore.open_at(tmp_path / "git", "main")
    before, _ = pygit2.settings.cached_memory
    assert gitstore.find(git, at, "0500")
    assert pygit2.settings.cached_memory[0] - before > 20_000
