"""Branches, tags, squashing and pull requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RevisionNotFoundError

from hub_callbacks.localhub import LocalHub


def upload(api: HfApi, repo: str, name: str, **options: object) -> str:
    info = api.upload_file(path_or_fileobj=name.encode(), path_in_repo=name, repo_id=repo, **options)  # type: ignore[call-overload]
    return str(info.oid)


def test_branches_start_anywhere_and_go_their_own_way(api: HfApi, model: str) -> None:
    first = api.model_info(model).sha
    assert first is not None
    upload(api, model, "a")
    api.create_tag(model, tag="v1")
    for name, start in {
        "from-head": None,
        "from-oid": first,
        "from-tag": "v1",
        "dir/deep": "from-oid",
    }.items():
        api.create_branch(model, branch=name, revision=start)
    refs = {ref.name: ref.target_commit for ref in api.list_repo_refs(model).branches}
    assert refs["from-oid"] == refs["dir/deep"] == first
    assert refs["from-head"] == refs["from-tag"] == refs["main"] != first
    upload(api, model, "b", revision="dir/deep")
    assert set(api.list_repo_files(model, revision="dir/deep")) == {".gitattributes", "b"}
    assert Path(api.hf_hub_download(model, "b", revision="dir/deep")).read_text() == "b"
    assert not api.file_exists(model, "b")
    api.delete_branch(model, branch="dir/deep")
    assert "dir/deep" not in {ref.name for ref in api.list_repo_refs(model).branches}


def test_branches_that_exist_or_do_not_are_refused_in_the_hubs_words(api: HfApi, model: str) -> None:
    api.create_branch(model, branch="x")
    api.create_tag(model, tag="t")
    with pytest.raises(HfHubHTTPError, match="Reference refs/heads/x already exists") as error:
        api.create_branch(model, branch="x")
    assert error.value.response.status_code == 409
    api.create_branch(model, branch="x", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="Cannot delete refs/heads/main"):
        api.delete_branch(model, branch="main")
    for name in ("none", "t"):
        with pytest.raises(HfHubHTTPError, match="Invalid rev id"):
            api.delete_branch(model, branch=name)
    with pytest.raises(RevisionNotFoundError):
        api.create_branch(model, branch="y", revision="none")
    api.create_branch(model, branch="t")  # a tag's name is free for a branch


def test_tags_name_commits(api: HfApi, model: str) -> None:
    first = api.model_info(model).sha
    assert first is not None
    upload(api, model, "a")
    api.create_tag(model, tag="light")
    api.create_tag(model, tag="annotated", tag_message="why", revision=first)
    api.create_tag(model, tag="short", revision=first[:7])
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(model).tags}
    assert tags == {"light": api.model_info(model).sha, "annotated": first, "short": first}
    assert api.model_info(model, revision="annotated").sha == first
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag(model, tag="light")
    assert error.value.response.status_code == 409
    api.create_tag(model, tag="light", exist_ok=True)
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(model, tag="with space", revision="none")
    with pytest.raises(BadRequestError):
        api.create_tag(model, tag="with space")
    api.delete_tag(model, tag="light")
    for name in ("light", "main"):
        with pytest.raises(RevisionNotFoundError):
            api.delete_tag(model, tag=name)


def test_squashing_leaves_one_commit_and_the_other_branches_alone(api: HfApi, model: str) -> None:
    upload(api, model, "a")
    api.create_branch(model, branch="other")
    upload(api, model, "b")
    api.super_squash_history(model, commit_message="squashed")
    assert [commit.title for commit in api.list_repo_commits(model)] == ["squashed"]
    assert set(api.list_repo_files(model)) == {".gitattributes", "a", "b"}
    assert len(api.list_repo_commits(model, revision="other")) == 2
    with pytest.raises(RevisionNotFoundError):
        api.super_squash_history(model, branch="none")


def test_a_reader_opens_a_pull_request_and_the_owner_merges_it(
    hub: LocalHub, api: HfApi, stranger: HfApi, model: str, transport: str
) -> None:
    data = os.urandom(5000)
    operations = [CommitOperationAdd("w.bin", data), CommitOperationAdd("a.txt", b"a")]
    info = stranger.create_commit(model, operations, commit_message="Better", create_pr=True)
    assert info.pr_url == f"{hub.endpoint}/{model}/discussions/1"
    assert (info.pr_num, info.pr_revision) == (1, "refs/pr/1")
    assert not api.file_exists(model, "w.bin")
    assert Path(api.hf_hub_download(model, "w.bin", revision="refs/pr/1")).read_bytes() == data
    upload(stranger, model, "b.txt", revision="refs/pr/1")
    requests = api.list_repo_refs(model, include_pull_requests=True).pull_requests
    assert requests is not None and [ref.ref for ref in requests] == ["refs/pr/1"]
    with pytest.raises(HfHubHTTPError):
        stranger.merge_pull_request(model, 1)
    api.merge_pull_request(model, 1)
    assert {"w.bin", "a.txt", "b.txt"} <= set(api.list_repo_files(model))
    assert api.get_discussion_details(model, 1).status == "merged"


def test_discussions_and_pull_requests_share_their_numbers(api: HfApi, stranger: HfApi, model: str) -> None:
    talk = stranger.create_discussion(model, "A question", description="Why?")
    request = api.create_pull_request(model, "A request")
    assert (talk.num, request.num, request.git_reference) == (1, 2, "refs/pr/2")
    assert (request.target_branch, request.is_pull_request) == ("refs/heads/main", True)
    api.comment_discussion(model, 1, "Because.")
    api.change_discussion_status(model, 1, "closed")
    api.rename_discussion(model, 2, new_title="A better request")
    events = api.get_discussion_details(model, 1).events
    assert [event.type for event in events] == ["comment", "comment", "status-change"]
    titles = [(item.num, item.title, item.status) for item in api.get_repo_discussions(model)]
    assert titles == [(2, "A better request", "open"), (1, "A question", "closed")]


def test_a_folder_is_uploaded_into_a_pull_request(api: HfApi, model: str, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.txt").write_text("a")
    (tmp_path / "up" / "w.bin").write_bytes(os.urandom(5000))
    info = api.upload_folder(folder_path=tmp_path / "up", repo_id=model, create_pr=True)
    assert info.pr_revision == "refs/pr/1"
    assert {"a.txt", "w.bin"} <= set(api.list_repo_files(model, revision="refs/pr/1"))


def test_a_pull_request_needs_a_branch(api: HfApi, model: str) -> None:
    for target in ("none", api.model_info(model).sha):
        with pytest.raises(RevisionNotFoundError):
            upload(api, model, "a", revision=target, create_pr=True)
