"""Both ways in and out of large files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi, constants, snapshot_download
from huggingface_hub.errors import BadRequestError
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub

from .raw_http import raw


def operations(hub: LocalHub) -> set[str | None]:
    return {seen.operation for seen in hub.requests}


def download(api: HfApi, repo: str, path: str, folder: Path) -> bytes:
    return Path(api.hf_hub_download(repo, path, local_dir=folder)).read_bytes()


def xet_hash(hub: LocalHub, repo: str, path: str) -> str | None:
    answer = get_session().head(f"{hub.endpoint}/{repo}/resolve/main/{path}")
    return str(answer.headers["X-Xet-Hash"]) if "X-Xet-Hash" in answer.headers else None


@pytest.mark.parametrize("back", ["xet", "lfs"])
@pytest.mark.parametrize("size", [40, 700_000, 20_000_000])
def test_large_files_come_back_byte_for_byte(
    hub: LocalHub,
    api: HfApi,
    model: str,
    transport: str,
    back: str,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
) -> None:
    data = os.urandom(size // 2) + bytes(size - size // 2)
    (tmp_path / "w.bin").write_bytes(data)
    api.upload_file(path_or_fileobj=tmp_path / "w.bin", path_in_repo="w.bin", repo_id=model)
    expected = "xet_put" if transport == "xet" else "lfs_put"
    assert {"xet_put", "lfs_put"} & operations(hub) == {expected}
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", back == "lfs")
    assert download(api, model, "w.bin", tmp_path / "back") == data
    snapshot = snapshot_download(
        model, endpoint=hub.endpoint, token=token, cache_dir=tmp_path / "cache", max_workers=2
    )
    assert (Path(snapshot) / "w.bin").read_bytes() == data


def test_git_holds_only_pointers_to_large_files(hub: LocalHub, api: HfApi, model: str, transport: str) -> None:
    import subprocess

    data = os.urandom(1000)
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=model)
    folder = hub.root / "repos" / "models" / f"{model}.git"
    shown = subprocess.run(["git", "-C", folder, "show", "main:w.bin"], capture_output=True, check=True)
    sha256 = hashlib.sha256(data).hexdigest()
    assert shown.stdout.decode() == (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 1000\n"
    )


def test_a_large_lfs_upload_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    data = os.urandom(3_500_000)
    with LocalHub(lfs_part_size=1_000_000) as small_parts:
        # 0.36 compares the address in the answer with its own.
        monkeypatch.setattr(constants, "ENDPOINT", small_parts.endpoint)
        api = HfApi(endpoint=small_parts.endpoint, token=small_parts.token)
        api.create_repo("model")
        api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id="local/model")
        parts = [seen for seen in small_parts.requests if "/parts/" in seen.path]
        assert len(parts) == 4 and "lfs_complete" in operations(small_parts)
        url = f"{small_parts.endpoint}/local/model/resolve/main/w.bin"
        assert get_session().get(url).content == data
        assert list((small_parts.root / "parts").iterdir()) == []


def test_file_objects_go_by_lfs_also_with_xet(hub: LocalHub, api: HfApi, model: str, tmp_path: Path) -> None:
    data = os.urandom(5000)
    api.upload_file(path_or_fileobj=io.BytesIO(data), path_in_repo="w.bin", repo_id=model)
    assert "lfs_put" in operations(hub)
    assert download(api, model, "w.bin", tmp_path) == data


def test_content_that_is_there_is_not_uploaded_again(
    hub: LocalHub, api: HfApi, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(5000)
    api.upload_file(path_or_fileobj=data, path_in_repo="by-xet.bin", repo_id=model)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    api.upload_file(path_or_fileobj=data, path_in_repo="by-lfs.bin", repo_id=model)
    assert "lfs_batch" in operations(hub) and "lfs_put" not in operations(hub)


def test_content_of_lfs_gets_its_xet_hash_when_it_also_comes_by_xet(
    hub: LocalHub, api: HfApi, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(5000)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    api.upload_file(path_or_fileobj=data, path_in_repo="a.bin", repo_id=model)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    api.upload_file(path_or_fileobj=data, path_in_repo="b.bin", repo_id=model)
    hashes = {xet_hash(hub, model, name) for name in ("a.bin", "b.bin")}
    assert len(hashes) == 1 and None not in hashes


def test_large_files_are_copied_between_repositories(api: HfApi, model: str, tmp_path: Path, owner: str) -> None:
    if "src_repo_id" not in CommitOperationCopy.__dataclass_fields__:
        pytest.skip("this client copies within one repository only")
    data = os.urandom(5000)
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=model)
    api.create_repo("other")
    copy = CommitOperationCopy("w.bin", "copy.bin", src_repo_id=model, src_repo_type="model")
    api.create_commit(f"{owner}/other", [copy], commit_message="copy")
    assert download(api, f"{owner}/other", "copy.bin", tmp_path) == data


def test_a_changed_file_under_a_known_name_is_served_anew(
    api: HfApi, model: str, transport: str, tmp_path: Path
) -> None:
    """A client that has read from the store before sees what came later."""
    for number in range(3):
        data = os.urandom(300_000)
        api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=model)
        assert download(api, model, "w.bin", tmp_path / str(number)) == data


def test_bytes_that_do_not_match_their_sha256_are_refused(
    hub: LocalHub, api: HfApi, model: str, transport: str
) -> None:
    """As when a file is rewritten after its hash was computed."""
    operation = CommitOperationAdd("w.bin", os.urandom(5000))
    operation.upload_info = type(operation.upload_info).from_bytes(os.urandom(5000))
    with pytest.raises((BadRequestError, RuntimeError)):
        api.create_commit(model, [operation], commit_message="x")
    assert not api.file_exists(model, "w.bin")


def test_an_upload_link_cannot_be_made_up(hub: LocalHub) -> None:
    sha256 = hashlib.sha256(b"abc").hexdigest()
    url = f"{hub.endpoint}/lfs/{sha256}?size=3&upload=x&expiry=99999999999&signature=00"
    answer = get_session().request("PUT", url, **raw(b"abc"))
    assert answer.status_code == 403
    assert list((hub.root / "lfs").rglob(sha256)) == []


def test_the_xet_service_wants_a_token_of_the_hub(hub: LocalHub, api: HfApi, model: str, token: str) -> None:
    api.upload_file(path_or_fileobj=os.urandom(5000), path_in_repo="w.bin", repo_id=model)
    url = f"{hub.endpoint}/xet/any/v1/reconstructions/{xet_hash(hub, model, 'w.bin')}"
    for wrong in ("none", "read.99999999999.00", token):
        assert get_session().get(url, headers={"authorization": f"Bearer {wrong}"}).status_code == 401


def test_large_files_are_listed_and_removed_from_all_history(api: HfApi, model: str) -> None:
    for number in range(2):
        api.upload_file(path_or_fileobj=os.urandom(100), path_in_repo="w.bin", repo_id=model)
        api.upload_file(path_or_fileobj=b"x%d" % number, path_in_repo="a.txt", repo_id=model)
    api.create_tag(model, tag="v1")
    files = list(api.list_lfs_files(model))
    assert [file.filename for file in files] == ["w.bin", "w.bin"]
    assert {file.size for file in files} == {100}
    api.permanently_delete_lfs_files(model, files)
    assert list(api.list_lfs_files(model)) == []
    assert set(api.list_repo_files(model)) == {".gitattributes", "a.txt"}
    assert set(api.list_repo_files(model, revision="v1")) == {".gitattributes", "a.txt"}


def test_many_readers_at_once_do_not_block_each_other(
    hub: LocalHub, api: HfApi, model: str, tmp_path: Path
) -> None:
    """A plain download makes the hub a client of its own Xet service, which must always find a thread."""
    data = os.urandom(3_000_000)
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=model)
    url = f"{hub.endpoint}/{model}/resolve/main/w.bin"

    def read() -> bool:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return bool(answer.read() == data)

    with ThreadPoolExecutor(100) as pool:
        assert all(reading.result() for reading in [pool.submit(read) for _ in range(100)])


def test_multipart_uploads_have_a_limit(hub: LocalHub, model: str, token: str) -> None:
    def ask(*sizes: Any) -> Any:
        objects = [{"oid": "1" * 64, "size": size} for size in sizes]
        return get_session().post(
            f"{hub.endpoint}/{model}.git/info/lfs/objects/batch",
            json={"operation": "upload", "transfers": ["multipart"], "objects": objects},
            headers={"Authorization": f"Bearer {token}"},
        )

    large = ask(10**14)
    assert len(large.content) < 1000 and large.json()["objects"][0]["error"]["code"] == 422
    assert ask(*[10**14] * 6).status_code == 413
    assert ask(-1).status_code == ask("many").status_code == 400
    header = ask(5 * 10**11).json()["objects"][0]["actions"]["upload"]["header"]
    assert len(header) == 7452  # its parts, and their size


def test_a_pointer_that_comes_as_a_regular_file_is_checked_as_one(
    hub: LocalHub, api: HfApi, model: str, token: str
) -> None:
    def commit(content: str) -> Any:
        lines = [
            {"key": "header", "value": {"summary": "x"}},
            {"key": "file", "value": {"path": "p.txt", "content": content, "encoding": "utf-8"}},
        ]
        return get_session().post(
            f"{hub.endpoint}/api/models/{model}/commit/main",
            headers={"Authorization": f"Bearer {token}"},
            **raw("\n".join(map(json.dumps, lines)).encode()),
        )

    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
    answer = commit(pointer % ("1" * 64, 10**15))
    assert (answer.status_code, "does not exist" in answer.text) == (400, True)
    assert not api.file_exists(model, "p.txt")
    api.upload_file(path_or_fileobj=b"w" * 5000, path_in_repo="w.bin", repo_id=model)
    (file,) = api.list_lfs_files(model)
    assert commit(pointer % (file.oid, 5000)).status_code == 200
    assert get_session().get(f"{hub.endpoint}/{model}/resolve/main/p.txt").content == b"w" * 5000
