"""Trees, paths, files and ranges."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub


@pytest.fixture
def filled(api: HfApi, model: str) -> str:
    files = {"a.txt": b"a", "d/b.txt": b"bb", "d/e/c.bin": b"c" * 300}
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    api.create_commit(model, operations, commit_message="fill")
    api.upload_file(path_or_fileobj=b"bbb", path_in_repo="d/b.txt", repo_id=model, commit_message="change b")
    return model


def test_trees_list_files_and_folders(api: HfApi, filled: str) -> None:
    top = {entry.path for entry in api.list_repo_tree(filled)}
    assert top == {".gitattributes", "a.txt", "d"}
    everything: dict[str, Any] = {entry.path: entry for entry in api.list_repo_tree(filled, recursive=True)}
    assert set(everything) == {".gitattributes", "a.txt", "d", "d/b.txt", "d/e", "d/e/c.bin"}
    assert everything["d/b.txt"].size == 3
    assert everything["d/e/c.bin"].lfs.size == 300
    assert {entry.path for entry in api.list_repo_tree(filled, "d")} == {"d/b.txt", "d/e"}


def test_long_trees_come_in_pages(api: HfApi, model: str, hub: LocalHub) -> None:
    operations = [CommitOperationAdd(f"d/{number:04d}", b"x") for number in range(1200)]
    api.create_commit(model, operations, commit_message="many")
    assert len(list(api.list_repo_tree(model, "d"))) == 1200
    assert len([seen for seen in hub.requests if seen.operation == "tree"]) == 2


def test_expanded_entries_name_the_last_commit_that_touched_them(api: HfApi, filled: str) -> None:
    entries: dict[str, Any] = {
        entry.path: entry for entry in api.list_repo_tree(filled, recursive=True, expand=True)
    }
    titles = {path: entry.last_commit.title for path, entry in entries.items()}
    assert titles == {
        ".gitattributes": "initial commit",
        "a.txt": "fill",
        "d": "change b",
        "d/b.txt": "change b",
        "d/e": "fill",
        "d/e/c.bin": "fill",
    }
    (plain,) = api.get_paths_info(filled, "a.txt")
    expanded: Any = api.get_paths_info(filled, "a.txt", expand=True)[0]
    assert plain.last_commit is None and expanded.last_commit.title == "fill"


def test_paths_info_leaves_out_what_is_missing_and_knows_folders(api: HfApi, filled: str) -> None:
    found = api.get_paths_info(filled, ["a.txt", "d", "none", "d/e/c.bin"])
    assert [(entry.path, hasattr(entry, "tree_id")) for entry in found] == [
        ("a.txt", False),
        ("d", True),
        ("d/e/c.bin", False),
    ]


def test_what_is_missing_is_named_as_such(api: HfApi, filled: str) -> None:
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(filled, "none"))
    with pytest.raises(EntryNotFoundError) as error:
        get_hf_file_metadata(hf_hub_url(filled, "none"), token=api.token)
    headers = error.value.response.headers  # type: ignore[attr-defined]
    assert headers["X-Repo-Commit"] == api.model_info(filled).sha
    assert headers["X-Error-Code"] == "EntryNotFound"
    for call in (
        api.list_repo_commits,
        api.model_info,
        lambda repo, revision: list(api.list_repo_tree(repo, revision=revision)),
    ):
        with pytest.raises(RevisionNotFoundError):
            call(filled, revision="none")


def test_heads_of_files_have_all_that_a_download_needs(api: HfApi, filled: str) -> None:
    sha = api.model_info(filled).sha
    small = get_hf_file_metadata(hf_hub_url(filled, "a.txt"), token=api.token)
    assert (small.commit_hash, small.size) == (sha, 1)
    info: Any = api.get_paths_info(filled, "a.txt")[0]
    assert small.etag == info.blob_id
    url = hf_hub_url(filled, "d/e/c.bin")
    large = get_hf_file_metadata(url, token=api.token)
    info = api.get_paths_info(filled, "d/e/c.bin")[0]
    assert (large.etag, large.size) == (info.lfs.sha256, 300)
    headers = get_session().head(url).headers
    assert headers["ETag"] == headers["X-Linked-Etag"] == f'"{info.lfs.sha256}"'
    assert headers["X-Linked-Size"] == "300" and headers["X-Request-Id"]


def test_ranges_and_conditional_requests(
    hub: LocalHub, api: HfApi, model: str, transport: str, tmp_path: Path
) -> None:
    data = os.urandom(500_000)
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=model)
    api.upload_file(path_or_fileobj=data[:1000], path_in_repo="s.txt", repo_id=model)
    for name, content in (("w.bin", data), ("s.txt", data[:1000])):
        url = hf_hub_url(model, name)
        size = len(content)

        def get(url: str = url, **headers: str):  # type: ignore[no-untyped-def]
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            return get_session().get(url, headers=named)

        for wanted, part in {
            "bytes=0-0": content[:1],
            "bytes=10-19": content[10:20],
            "bytes=100-": content[100:],
            "bytes=-7": content[-7:],
            f"bytes={size - 1}-{size + 5}": content[-1:],
        }.items():
            answer = get(Range=wanted)
            assert (answer.status_code, answer.content) == (206, part)
            assert answer.headers["Content-Range"].endswith(f"/{size}")
        outside = get(Range=f"bytes={size}-")
        assert (outside.status_code, outside.headers["Content-Range"]) == (416, f"bytes */{size}")
        whole = get()
        assert (whole.status_code, whole.content) == (200, content)
        assert get(If_None_Match=whole.headers["ETag"]).status_code == 304
        assert get(Range="bytes=0-0", If_Range='"other"').status_code == 200


def test_names_with_special_characters_are_served(api: HfApi, model: str) -> None:
    names = ["a b.txt", "50%.txt", "what?.txt", "ab:c,d.txt", "ünï/cödé.txt", "a#b&c=d+e.txt", "%2F.txt"]
    operations = [CommitOperationAdd(name, name.encode()) for name in names]
    api.create_commit(model, operations, commit_message="names")
    assert set(api.list_repo_files(model)) == {".gitattributes", *names}
    for name in names:
        assert Path(api.hf_hub_download(model, name)).read_bytes() == name.encode()
    assert len(api.get_paths_info(model, names)) == len(names)


def test_snapshots_hold_the_files_of_their_revision(
    hub: LocalHub, api: HfApi, filled: str, transport: str, tmp_path: Path, token: str
) -> None:
    old = api.list_repo_commits(filled)[1].commit_id
    for revision, content in (("main", b"bbb"), (old, b"bb"), (old[:7], b"bb")):
        folder = Path(
            snapshot_download(
                filled,
                revision=revision,
                endpoint=hub.endpoint,
                token=token,
                local_dir=tmp_path / revision,
                max_workers=2,
            )
        )
        assert (folder / "d/b.txt").read_bytes() == content
        assert (folder / "d/e/c.bin").read_bytes() == b"c" * 300


def test_history_is_newest_first_and_can_be_formatted(api: HfApi, filled: str, owner: str) -> None:
    commits = api.list_repo_commits(filled, formatted=True)
    assert [commit.title for commit in commits] == ["change b", "fill", "initial commit"]
    assert commits[0].formatted_title == "change b"
    assert {tuple(commit.authors) for commit in commits} == {(owner,)}


def test_an_unknown_address_is_a_plain_404(hub: LocalHub) -> None:
    answer = get_session().get(f"{hub.endpoint}/api/nothing/here/at/all")
    assert answer.status_code == 404 and "error" in answer.json()


def test_errors_carry_the_request_id(api: HfApi, owner: str) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        api.model_info(f"{owner}/none")
    assert error.value.request_id
