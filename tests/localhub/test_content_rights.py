"""Large files are stored once for all repositories: what it takes to get at those of others, and at one's own."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi, constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session

from hub_callbacks.localhub import LocalHub
from hub_callbacks.localhub.gitlfs import pointer
from hub_callbacks.localhub.senders import Senders

from .raw_http import raw


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ask(who: HfApi, method: str, path: str, **options: Any) -> Any:
    headers = build_hf_headers(token=who.token) | options.pop("headers", {})
    url = path if path.startswith("http") else f"{who.endpoint}{path}"
    return get_session().request(method, url, headers=headers, **options)


def commit(who: HfApi, repo: str, key: str, value: dict[str, Any], revision: str = "main") -> Any:
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": key, "value": value}]
    body = "\n".join(map(json.dumps, lines)).encode()
    return ask(who, "POST", f"/api/models/{repo}/commit/{revision}", **raw(body))


def put(who: HfApi, repo: str, data: bytes, path: str = "w.bin") -> None:
    who.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=repo)


def get(who: HfApi, repo: str, path: str = "w.bin", revision: str = "main") -> bytes:
    return bytes(ask(who, "GET", f"/{repo}/resolve/{revision}/{path}").content)


def xet_access(who: HfApi, repo: str, access: str) -> tuple[str, dict[str, str]]:
    found = ask(who, "GET", f"/api/models/{repo}/xet-{access}-token/main").json()
    return found["casUrl"], {"authorization": f"Bearer {found['accessToken']}"}


def reconstruction(who: HfApi, repo: str, path: str) -> Any:
    base, headers = xet_access(who, repo, "read")
    return ask(who, "GET", f"{base}/v1/reconstructions/{xet_hash(who, repo, path)}", headers=headers)


def xet_hash(who: HfApi, repo: str, path: str) -> str:
    return str(ask(who, "HEAD", f"/{repo}/resolve/main/{path}").headers["X-Xet-Hash"])


@pytest.fixture
def secret(api: HfApi) -> tuple[str, bytes]:
    """A gated repository and the content of its file `w.bin`, whose hash everybody can see."""
    repo = api.create_repo("gated").repo_id
    data = os.urandom(5000)
    put(api, repo, data)
    api.update_repo_settings(repo, gated="manual")
    return repo, data


@pytest.fixture
def own(stranger: HfApi) -> str:
    return stranger.create_repo("own").repo_id


@pytest.mark.parametrize("as_text", [False, True])
def test_a_hash_alone_commits_nothing(stranger: HfApi, own: str, secret: tuple[str, bytes], as_text: bool) -> None:
    sha256 = sha256_of(secret[1])
    named = {"content": pointer(sha256, 5000).decode()} if as_text else {"oid": sha256, "size": 5000}
    answer = commit(stranger, own, "file" if as_text else "lfsFile", {"path": "v.txt", **named})
    assert answer.status_code == 400 and "file that does not exist" in answer.json()["error"]
    assert get(stranger, own, "v.txt") != secret[1]


def test_what_others_sent_is_uploaded_again_as_proof(
    hub: LocalHub, stranger: HfApi, own: str, secret: tuple[str, bytes], transport: str
) -> None:
    hub.clear_requests()
    put(stranger, own, secret[1])
    assert {"xet_put", "lfs_put"} & {seen.operation for seen in hub.requests}
    assert get(stranger, own) == secret[1]


def test_a_user_commits_elsewhere_what_they_sent_before(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(5000)
    with LocalHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        put(api, api.create_repo("a").repo_id, data)
    with LocalHub(tmp_path) as hub:  # it does not forget
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        repo = api.create_repo("b").repo_id
        put(api, repo, data)
        assert "lfs_put" not in {seen.operation for seen in hub.requests}
        assert get(api, repo) == data


def test_a_member_commits_again_what_somebody_else_sent_there(hub: LocalHub, api: HfApi, owner: str) -> None:
    other = HfApi(endpoint=hub.endpoint, token=hub.add_user(f"member-{owner}"))
    hub.add_organization(f"of-{owner}", {owner: "write", f"member-{owner}": "write"})
    repo = api.create_repo(f"of-{owner}/model").repo_id
    data = os.urandom(5000)
    put(api, repo, data)
    put(api, repo, b"other")
    named = {"path": "w.bin", "oid": sha256_of(data), "size": len(data)}
    assert commit(other, repo, "lfsFile", named).status_code == 200
    assert get(other, repo) == data


def test_large_files_are_copied_from_where_one_may_read(
    api: HfApi, stranger: HfApi, own: str, model: str, secret: tuple[str, bytes]
) -> None:
    if "src_repo_id" not in CommitOperationCopy.__dataclass_fields__:
        pytest.skip("this client copies within one repository only")
    data = os.urandom(5000)
    put(api, model, data)

    def copy(source: str) -> None:
        operation = CommitOperationCopy("w.bin", "copy.bin", src_repo_id=source, src_repo_type="model")
        stranger.create_commit(own, [operation], commit_message="copy")

    copy(model)
    assert get(stranger, own, "copy.bin") == data
    with pytest.raises(GatedRepoError):
        copy(secret[0])
    wanted = {"target": {"type": "model", "name": own}, "files": [{"sha256": sha256_of(secret[1])}]}
    answer = ask(stranger, "POST", f"/api/models/{own}/lfs-files/duplicate", json=wanted)
    assert [row["sha256"] for row in answer.json()["failed"]] == [sha256_of(secret[1])]


def test_a_merge_makes_no_pointer_out_of_two_texts(
    api: HfApi, stranger: HfApi, own: str, secret: tuple[str, bytes]
) -> None:
    version, oid, size = pointer(sha256_of(secret[1]), 5000).decode().splitlines()

    def write(*lines: str, revision: str) -> None:
        value = {"path": "v.txt", "content": "".join(f"{line}\n" for line in lines)}
        assert commit(stranger, own, "file", value, revision).status_code == 200

    write("a", oid, "b", revision="main")
    request = stranger.create_pull_request(own, "A request")
    write(version, oid, "b", revision="refs%2Fpr%2F1")
    write("a", oid, size, revision="main")
    with pytest.raises(HfHubHTTPError, match="cannot be merged"):
        stranger.merge_pull_request(own, request.num)
    assert get(stranger, own, "v.txt") == f"a\n{oid}\n{size}\n".encode()


def test_a_pull_request_that_moves_a_large_file_is_merged(api: HfApi, model: str) -> None:
    data = os.urandom(5000)
    put(api, model, data)
    api.create_pull_request(model, "A request")
    operations = [CommitOperationCopy("w.bin", "moved.bin"), CommitOperationAdd("a.txt", b"a")]
    api.create_commit(model, operations, commit_message="move", revision="refs/pr/1")
    api.delete_file("w.bin", model, revision="refs/pr/1")
    put(api, model, b"b", "b.txt")
    api.merge_pull_request(model, 1)
    assert get(api, model, "moved.bin") == data


def little_endian(xet: str) -> bytes:
    return struct.pack("<4Q", *(int(xet[start : start + 16], 16) for start in range(0, 64, 16)))


def test_a_shard_that_gives_ones_own_bytes_for_anothers_file_is_refused(
    stranger: HfApi, own: str, api: HfApi, secret: tuple[str, bytes]
) -> None:
    put(stranger, own, os.urandom(5000))
    segment = reconstruction(stranger, own, "w.bin").json()["terms"][0]
    rows = [
        bytes(48),
        little_endian(xet_hash(api, secret[0], "w.bin")) + struct.pack("<II", 0, 1) + bytes(8),
        little_endian(segment["hash"]) + struct.pack("<IIII", 0, segment["unpacked_length"], 0, 1),
        b"\xff" * 48,
    ]
    base, headers = xet_access(stranger, own, "write")
    answer = ask(stranger, "POST", f"{base}/v1/shards", headers=headers, **raw(b"".join(rows)))
    assert answer.status_code == 400 and "has another hash than" in answer.json()["error"]
    named = {"path": "v.bin", "oid": sha256_of(secret[1]), "size": 5000}
    assert commit(stranger, own, "lfsFile", named).status_code == 400


def test_an_address_opens_only_its_bytes_of_a_xorb(api: HfApi, model: str, tmp_path: Path) -> None:
    """In the rest of it may be what another repository of the same user has."""
    operations = [CommitOperationAdd(f"{name}.bin", os.urandom(300_000)) for name in "ab"]
    api.create_commit(model, operations, commit_message="two files in one xorb")
    fetch = [next(iter(reconstruction(api, model, f"{name}.bin").json()["fetch_info"].items())) for name in "ab"]
    assert fetch[0][0] == fetch[1][0]
    (first, other) = (infos[0] for _, infos in fetch)
    for wanted, status in ((first["url_range"], 206), (other["url_range"], 403), (None, 403)):
        headers = {"Range": f"bytes={wanted['start']}-{wanted['end']}"} if wanted else {}
        assert ask(api, "GET", first["url"], headers=headers).status_code == status


def test_a_xet_token_is_worth_what_its_user_may_now(api: HfApi, stranger: HfApi, model: str, owner: str) -> None:
    put(api, model, os.urandom(5000))
    base, headers = xet_access(stranger, model, "read")
    address = f"{base}/v1/reconstructions/{xet_hash(api, model, 'w.bin')}"
    api.move_repo(model, f"{owner}/moved")
    assert ask(stranger, "GET", address, headers=headers).status_code == 200
    api.update_repo_settings(f"{owner}/moved", gated="auto")
    assert ask(stranger, "GET", address, headers=headers).status_code == 403
    api.update_repo_settings(f"{owner}/moved", gated=False, private=True)
    assert ask(stranger, "GET", address, headers=headers).status_code == 404
    api.delete_repo(f"{owner}/moved")
    assert ask(stranger, "GET", address, headers=headers).status_code == 404


def test_an_older_commit_still_opens_its_large_files(api: HfApi, model: str, tmp_path: Path) -> None:
    """Also after its branch forgot it."""
    data = os.urandom(5000)
    put(api, model, data)
    before = api.model_info(model).sha
    put(api, model, b"other")
    api.super_squash_history(model)
    assert Path(api.hf_hub_download(model, "w.bin", revision=before, cache_dir=tmp_path)).read_bytes() == data


def test_a_branch_called_like_a_pull_request_is_not_its_openers(api: HfApi, stranger: HfApi, model: str) -> None:
    stranger.create_pull_request(model, "A request")
    api.create_branch(model, branch="1")
    assert commit(stranger, model, "file", {"path": "a", "content": "a"}, "1").status_code == 403
    assert commit(stranger, model, "file", {"path": "a", "content": "a"}, "refs%2Fpr%2F1").status_code == 200
    assert not api.file_exists(model, "a", revision="1")
    for make in (api.create_branch, api.create_tag):
        with pytest.raises(HfHubHTTPError, match="Invalid reference name"):
            make(model, **{"branch" if make == api.create_branch else "tag": "refs/pr/1"})


def test_a_pull_request_is_against_a_branch(api: HfApi, model: str) -> None:
    api.create_pull_request(model, "A request")
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(
            path_or_fileobj=b"a", path_in_repo="a", repo_id=model, revision="refs/pr/1", create_pr=True
        )
    info = api.upload_file(
        path_or_fileobj=b"a", path_in_repo="a", repo_id=model, revision="refs/heads/main", create_pr=True
    )
    assert info.pr_num is not None
    api.merge_pull_request(model, info.pr_num)
    assert api.file_exists(model, "a")


def test_a_line_cut_off_by_a_loss_of_power_spoils_no_other(tmp_path: Path) -> None:
    Senders(tmp_path / "senders").add("a", ["0" * 64, "1" * 64])
    whole = (tmp_path / "senders").read_text()
    (tmp_path / "senders").write_text(whole[:-1])
    Senders(tmp_path / "senders").add("b", ["2" * 64])
    after = Senders(tmp_path / "senders")
    known = [(user, digit) for user in "ab" for digit in "012" if after.has(user, digit * 64)]
    assert len(known) == 2 and ("b", "2") in known
