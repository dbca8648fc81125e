"""Datasets and spaces: the same code answers for them, so each thing is done once with each kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub


@pytest.fixture(params=["dataset", "space"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def thing(api: HfApi, kind: str) -> str:
    return api.create_repo("thing", repo_type=kind, space_sdk="static" if kind == "space" else None).repo_id


def test_files_trees_history_and_ranges(
    hub: LocalHub, api: HfApi, kind: str, thing: str, transport: str, tmp_path: Path
) -> None:
    data = os.urandom(50_000)
    operations = [CommitOperationAdd("d/w.bin", data), CommitOperationAdd("a.txt", b"a")]
    info = api.create_commit(thing, operations, commit_message="fill", repo_type=kind)
    assert info.commit_url.startswith(f"{hub.endpoint}/{kind}s/{thing}/commit/")
    path = api.hf_hub_download(thing, "d/w.bin", repo_type=kind, local_dir=tmp_path)
    assert Path(path).read_bytes() == data
    entries: Any = api.list_repo_tree(thing, repo_type=kind, recursive=True, expand=True)
    assert {entry.path: entry.last_commit.title for entry in entries} == {
        ".gitattributes": "initial commit",
        "a.txt": "fill",
        "d": "fill",
        "d/w.bin": "fill",
    }
    assert [entry.path for entry in api.get_paths_info(thing, ["d", "none"], repo_type=kind)] == ["d"]
    assert [commit.title for commit in api.list_repo_commits(thing, repo_type=kind)] == ["fill", "initial commit"]
    address = f"{hub.endpoint}/{kind}s/{thing}/resolve/main/d/w.bin"
    part = get_session().get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    etag = part.headers["ETag"]
    assert get_session().get(address, headers={"If-None-Match": etag}).status_code == 304
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(thing, "none", repo_type=kind)


def test_branches_tags_requests_and_squashing(api: HfApi, stranger: HfApi, kind: str, thing: str) -> None:
    api.create_branch(thing, branch="dev", repo_type=kind)
    api.create_tag(thing, tag="v1", repo_type=kind)
    stranger.upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id=thing, repo_type=kind, create_pr=True)
    refs = api.list_repo_refs(thing, repo_type=kind, include_pull_requests=True)
    assert {ref.name for ref in refs.branches} == {"main", "dev"}
    assert [ref.name for ref in refs.tags] == ["v1"] and len(refs.pull_requests or []) == 1
    api.merge_pull_request(thing, 1, repo_type=kind)
    assert api.file_exists(thing, "b.txt", repo_type=kind)
    second = api.create_pull_request(thing, "Another", repo_type=kind)
    api.change_discussion_status(thing, second.num, "closed", repo_type=kind)
    assert api.get_discussion_details(thing, second.num, repo_type=kind).status == "closed"
    with pytest.raises(HfHubHTTPError):
        api.merge_pull_request(thing, second.num, repo_type=kind)
    api.super_squash_history(thing, repo_type=kind)
    assert len(api.list_repo_commits(thing, repo_type=kind)) == 1
    api.delete_tag(thing, tag="v1", repo_type=kind)
    api.delete_branch(thing, branch="dev", repo_type=kind)


def test_settings_lists_moves_and_rights(
    hub: LocalHub, api: HfApi, stranger: HfApi, kind: str, thing: str, owner: str
) -> None:
    listing = {"dataset": stranger.list_datasets, "space": stranger.list_spaces}[kind]
    assert [found.id for found in listing(author=owner)] == [thing]
    assert api.repo_info(thing, repo_type=kind, expand=["private"]).private is False
    if kind == "dataset":
        api.update_repo_settings(thing, gated="auto", repo_type=kind)
        with pytest.raises(GatedRepoError):
            stranger.hf_hub_download(thing, ".gitattributes", repo_type=kind)
    api.update_repo_settings(thing, private=True, repo_type=kind)
    assert list(listing(author=owner)) == []
    with pytest.raises(RepositoryNotFoundError):
        stranger.repo_info(thing, repo_type=kind)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(thing)
    api.move_repo(thing, f"{owner}/moved", repo_type=kind)
    assert api.repo_info(thing.upper(), repo_type=kind).id == f"{owner}/moved"
    assert Path(api.hf_hub_download(thing, ".gitattributes", repo_type=kind)).read_bytes()
    api.upload_file(path_or_fileobj=b"c", path_in_repo="c.txt", repo_id=thing, repo_type=kind)
    assert api.file_exists(f"{owner}/moved", "c.txt", repo_type=kind)


def test_large_files_are_listed_and_deleted_for_good(api: HfApi, kind: str, thing: str, transport: str) -> None:
    api.upload_file(path_or_fileobj=os.urandom(5000), path_in_repo="w.bin", repo_id=thing, repo_type=kind)
    files = list(api.list_lfs_files(thing, repo_type=kind))
    assert [file.filename for file in files] == ["w.bin"]
    api.permanently_delete_lfs_files(thing, files, repo_type=kind)
    assert api.list_repo_files(thing, repo_type=kind) == [".gitattributes"]
