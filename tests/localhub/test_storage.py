"""Where the bytes of large files lie, how often, and when they are deleted."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import BadRequestError
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import Fault, Hang, LocalHub
from hub_callbacks.localhub.housekeeping import PATIENCE
from hub_callbacks.pytest_plugin import client_at

from .raw_http import raw


def upload(api: HfApi, repo: str, data: bytes, path: str = "w.bin") -> None:
    api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=repo)


def download(api: HfApi, repo: str, folder: Path, path: str = "w.bin") -> bytes:
    return Path(api.hf_hub_download(repo, path, local_dir=folder, force_download=True)).read_bytes()


def xet_hash(hub: LocalHub, repo: str, path: str = "w.bin") -> str | None:
    url = f"{hub.endpoint}/api/models/{repo}/paths-info/main"
    (found,) = get_session().post(url, json={"paths": [path]}).json()
    return found.get("xetHash")


def wait_for(condition: Callable[[], Any]) -> None:
    while not condition():
        time.sleep(0.01)


def large_files(hub: LocalHub) -> int:
    """The bytes on the disk, wherever they lie, but without the index of the Xet store.

    Once nothing is on its way into the Xet store: until then bytes may lie there twice.
    """
    wait_for(lambda: not [*hub.root.glob("lfs/*/*/*"), *hub.root.glob("packing/*")])
    folders = [hub.root / "xet" / "xorbs", hub.root / "parts"]
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[LocalHub]:
    """A hub whose disk nobody else uses."""
    with (
        LocalHub(tmp_path / "root", lfs_part_size=1_000_000) as hub,
        client_at(hub.endpoint, hub.token, tmp_path / "cache"),
    ):
        yield hub


@pytest.fixture
def user(own_hub: LocalHub) -> HfApi:
    api = HfApi(endpoint=own_hub.endpoint, token=own_hub.token)
    for name in ("m", "n"):
        api.create_repo(name)
    return api


@pytest.mark.parametrize("size", [5000, 3_500_000])
def test_what_came_by_lfs_gets_a_xet_hash_and_is_stored_once(
    own_hub: LocalHub, user: HfApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    upload(user, "local/m", data)
    assert "lfs_put" in {seen.operation for seen in own_hub.requests}
    wait_for(lambda: xet_hash(own_hub, "local/m"))
    head = get_session().head(f"{own_hub.endpoint}/local/m/resolve/main/w.bin")
    assert head.headers["X-Xet-Hash"] == xet_hash(own_hub, "local/m")
    assert size <= large_files(own_hub) < size * 1.1 + 1000
    assert download(user, "local/m", tmp_path / "lfs") == data
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    own_hub.clear_requests()
    assert download(user, "local/m", tmp_path / "xet") == data
    assert "xet_get" in {seen.operation for seen in own_hub.requests}
    upload(user, "local/n", data)
    assert xet_hash(own_hub, "local/n") == xet_hash(own_hub, "local/m")
    assert large_files(own_hub) < size * 1.1 + 1000


def test_a_stopped_move_into_the_xet_store_goes_on_after_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(5000)
    sha256 = hashlib.sha256(data).hexdigest()
    place = tmp_path / "lfs" / sha256[:2] / sha256[2:4]
    place.mkdir(parents=True)
    (place / sha256).write_bytes(data)
    (tmp_path / "packing" / "half").mkdir(parents=True)
    with LocalHub(tmp_path) as hub:
        wait_for(lambda: not (place / sha256).exists())
        assert large_files(hub) >= 5000
        assert not (tmp_path / "packing" / "half").exists()


def test_deleting_large_files_frees_the_disk(
    own_hub: LocalHub, user: HfApi, transport: str, tmp_path: Path
) -> None:
    data = os.urandom(1_000_000)
    for number in range(3):
        upload(user, "local/m", os.urandom(700_000) + bytes([number]))
    upload(user, "local/m", data, "kept.bin")
    user.permanently_delete_lfs_files(
        "local/m", [file for file in user.list_lfs_files("local/m") if file.filename == "w.bin"]
    )
    assert large_files(own_hub) < 1_200_000
    assert download(user, "local/m", tmp_path, "kept.bin") == data
    user.permanently_delete_lfs_files("local/m", user.list_lfs_files("local/m"))
    assert large_files(own_hub) == 0


def test_content_that_another_repository_names_stays(
    own_hub: LocalHub, user: HfApi, transport: str, tmp_path: Path
) -> None:
    data = os.urandom(300_000)
    upload(user, "local/m", data)
    upload(user, "local/n", data)
    user.permanently_delete_lfs_files("local/m", user.list_lfs_files("local/m"))
    assert download(user, "local/n", tmp_path) == data
    user.create_tag("local/n", tag="v1")
    user.delete_file("w.bin", "local/n")
    user.permanently_delete_lfs_files("local/m", user.list_lfs_files("local/m"))
    assert user.file_exists("local/n", "w.bin", revision="v1") and large_files(own_hub) >= 300_000
    user.delete_repo("local/n")
    assert large_files(own_hub) == 0


def test_chunks_that_two_files_share_stay_until_both_are_deleted(
    own_hub: LocalHub, user: HfApi, tmp_path: Path
) -> None:
    shared = os.urandom(2_000_000)
    upload(user, "local/m", shared + b"one", "one.bin")
    upload(user, "local/m", shared + b"two", "two.bin")
    assert large_files(own_hub) < 3_000_000
    first = [file for file in user.list_lfs_files("local/m") if file.filename == "one.bin"]
    user.permanently_delete_lfs_files("local/m", first)
    assert download(user, "local/m", tmp_path, "two.bin") == shared + b"two"
    user.permanently_delete_lfs_files("local/m", user.list_lfs_files("local/m"))
    assert large_files(own_hub) == 0


def test_deleted_content_can_be_uploaded_again(
    own_hub: LocalHub, user: HfApi, transport: str, tmp_path: Path
) -> None:
    """A client remembers which chunks a service has; it must not rely on those that were deleted."""
    data = os.urandom(600_000)
    for turn in range(2):
        upload(user, "local/m", data)
        assert download(user, "local/m", tmp_path / str(turn)) == data
        user.permanently_delete_lfs_files("local/m", user.list_lfs_files("local/m"))
        assert large_files(own_hub) == 0


def test_a_commit_that_is_under_way_keeps_its_content(own_hub: LocalHub, user: HfApi, tmp_path: Path) -> None:
    """The commit has checked that the bytes are there, and its ref moves only after they are to be deleted."""
    from hub_callbacks.localhub import gitwrite

    data = os.urandom(5000)
    upload(user, "local/m", data)
    checked, deleted = threading.Event(), threading.Event()
    write = gitwrite.commit

    def slow(*args: Any) -> str:
        checked.set()
        deleted.wait(60)
        return write(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gitwrite, "commit", slow)
        writer = threading.Thread(target=upload, args=(user, "local/n", data))
        writer.start()
        assert checked.wait(60)
        user.permanently_delete_lfs_files("local/m", user.list_lfs_files("local/m"))
        deleted.set()
        writer.join()
    assert download(user, "local/n", tmp_path) == data


def test_after_a_restart_deleted_content_is_gone_and_the_rest_is_there(tmp_path: Path) -> None:
    kept, lost = os.urandom(400_000), os.urandom(400_000)
    with LocalHub(tmp_path / "root") as hub, client_at(hub.endpoint, hub.token, tmp_path / "cache"):
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("m")
        operations = [CommitOperationAdd("kept.bin", kept), CommitOperationAdd("lost.bin", lost)]
        api.create_commit("local/m", operations, commit_message="both in one shard")
        files = [file for file in api.list_lfs_files("local/m") if file.filename == "lost.bin"]
        api.permanently_delete_lfs_files("local/m", files)
    with LocalHub(tmp_path / "root") as hub:
        assert get_session().get(f"{hub.endpoint}/local/m/resolve/main/kept.bin").content == kept
        index = "".join(path.read_text() for path in (tmp_path / "root" / "xet" / "index").glob("*"))
        assert hashlib.sha256(kept).hexdigest() in index and hashlib.sha256(lost).hexdigest() not in index


def test_what_was_uploaded_and_never_committed_is_deleted_after_a_day(
    own_hub: LocalHub, user: HfApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keeper = own_hub._now.housekeeper
    kept = os.urandom(300_000)
    upload(user, "local/m", kept)
    user.preupload_lfs_files("local/m", [CommitOperationAdd("by-xet.bin", os.urandom(300_000))])
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    user.preupload_lfs_files("local/m", [CommitOperationAdd("by-lfs.bin", os.urandom(300_000))])
    with ThreadPoolExecutor() as pool, own_hub.inject(Fault("lfs_complete", Hang())) as fault:
        parts = CommitOperationAdd("in-parts.bin", os.urandom(2_500_000))
        waiting = pool.submit(user.preupload_lfs_files, "local/m", [parts])
        wait_for(lambda: fault.hits)
        assert large_files(own_hub) > 3_300_000
        keeper.tidy(time.time())
        assert large_files(own_hub) > 3_300_000
        keeper.tidy(time.time() + PATIENCE + 60)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        waiting.result()
    assert 300_000 < large_files(own_hub) < 320_000
    assert download(user, "local/m", tmp_path) == kept


def test_half_an_upload_by_xet_is_deleted_after_a_day(own_hub: LocalHub, user: HfApi) -> None:
    """Its chunks came, and the shard that says what they are never did."""
    with ThreadPoolExecutor() as pool, own_hub.inject(Fault("POST shards", Hang())) as fault:
        writer = pool.submit(upload, user, "local/m", os.urandom(300_000))
        wait_for(lambda: fault.hits)
        assert large_files(own_hub) >= 300_000
        own_hub._now.housekeeper.tidy(time.time() + PATIENCE + 60)
        assert large_files(own_hub) == 0
    with pytest.raises((ConnectionError, RuntimeError), match="400 Bad Request"):
        writer.result()


def test_nobody_can_put_other_bytes_under_a_known_sha256(
    hub: LocalHub, api: HfApi, stranger: HfApi, model: str, owner: str, transport: str, tmp_path: Path
) -> None:
    data, other = os.urandom(5000), os.urandom(5000)
    upload(api, model, data)
    mine = stranger.create_repo("mine").repo_id
    false = CommitOperationAdd("w.bin", other)
    false.upload_info = type(false.upload_info).from_bytes(data)
    unknown = CommitOperationAdd("w.bin", other)
    unknown.upload_info = type(unknown.upload_info).from_bytes(os.urandom(5000))
    for operation in (unknown, false):
        with pytest.raises((BadRequestError, RuntimeError)):
            stranger.create_commit(mine, [operation], commit_message="x")
    assert download(api, model, tmp_path / "a") == data
    assert not stranger.file_exists(mine, "w.bin")


@pytest.mark.parametrize("oid", ["/etc/hostname", "../../accounts.json", "..", "", "A" * 64, "0" * 63 + "\n"])
def test_a_pointer_to_something_else_than_a_sha256_leads_nowhere(
    hub: LocalHub, model: str, token: str, oid: str
) -> None:
    session, headers = get_session(), {"authorization": f"Bearer {token}"}
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": oid}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    answer = session.post(f"{hub.endpoint}/api/models/{model}/commit/main", headers=headers, **raw(body))
    assert (answer.status_code, "does not exist" in answer.json()["error"]) == (400, True)
    size = os.path.getsize(hub.root / "accounts.json")
    found = session.post(f"{hub.endpoint}/lfs/{'0' * 64}/verify", json={"oid": oid, "size": size})
    assert found.status_code == 404
