"""The commit that changed a file or folder last."""

from __future__ import annotations

import random
from pathlib import Path

import pygit2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hub_callbacks.localhub import gitstore, gitwrite, lastcommits
from hub_callbacks.localhub.kept import Kept

MAIN = "refs/heads/main"


def change(git: pygit2.Repository, edits: dict[str, bytes | None]) -> None:
    blobs = {path: None if content is None else str(git.create_blob(content)) for path, content in edits.items()}
    parent = git.references[MAIN].peel(pygit2.Commit)
    gitwrite.commit(git, MAIN, parent, blobs, "me", "change")


def one_by_one(at: pygit2.Commit, path: str) -> str:
    """The answer, by a look at each commit."""
    while at.parents and path in at.parents[0].tree and at.parents[0].tree[path].id == at.tree[path].id:
        at = at.parents[0]
    return str(at.id)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a new start."""
    monkeypatch.setattr(lastcommits, "_kept", Kept(1000))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_that_of_a_look_at_each_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(lastcommits, "_LONG_WAY", 7)
    gitwrite.create(tmp_path / "git", "me", {"a": b"1", "d/a": b"1"})
    git = gitstore.open_repo(tmp_path / "git")
    chance = random.Random(seed)
    for _ in range(40):
        path = chance.choice(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f/g/h", "f/g"])
        change(git, {path: chance.choice([None, b"1", b"2", b"3"])})
        if chance.random() < 0.2:
            forget(monkeypatch)
        at = git.references[MAIN].peel(pygit2.Commit)
        paths = [entry.path for entry in gitstore.list_tree(git, at, "", True)]
        found = lastcommits.last_commits(git, at, [*paths, "no/such/path"])
        assert {path: note.oid for path, note in found.items()} == {path: one_by_one(at, path) for path in paths}


def test_only_what_is_new_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lastcommits, "_LONG_WAY", 20)
    gitwrite.create(tmp_path / "git", "me", {"a": b""})
    git = gitstore.open_repo(tmp_path / "git")
    for number in range(30):
        change(git, {"b": b"%d" % number})
    looks: list[pygit2.Commit] = []

    def look(repo: pygit2.Repository, commit: pygit2.Commit) -> pygit2.Diff:
        looks.append(commit)
        return diff_of(repo, commit)

    diff_of = lastcommits.diff_of
    monkeypatch.setattr(lastcommits, "diff_of", look)
    at = git.references[MAIN].peel(pygit2.Commit)
    lastcommits.last_commits(git, at, ["a"])
    assert looks == [], "it was known since it was made"
    forget(monkeypatch)
    lastcommits.last_commits(git, at, ["a"])
    assert 0 < len(looks) < 20, "a new start goes back to what was written down"


def test_a_merge_hides_no_newer_commit(api: HfApi, model: str) -> None:
    """Its other side did not change the file, though it had an older one."""
    api.upload_file(path_or_fileobj=b"old", path_in_repo="a.txt", repo_id=model, commit_message="old")
    other = [CommitOperationAdd("b.txt", b"other")]
    request = api.create_commit(model, other, commit_message="other side", create_pr=True)
    api.upload_file(path_or_fileobj=b"new", path_in_repo="a.txt", repo_id=model, commit_message="new")
    assert request.pr_num is not None
    api.merge_pull_request(model, request.pr_num)
    found = {info.path: info for info in api.get_paths_info(model, ["a.txt", "b.txt"], expand=True)}
    titles = {path: info.last_commit.title for path, info in found.items() if info.last_commit}
    assert titles == {"a.txt": "new", "b.txt": f"other side (#{request.pr_num})"}
