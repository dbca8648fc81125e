"""`git clone` from the hub."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub

from .browsing import password
from .raw_http import raw

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(*arguments: str, ok: bool = True) -> str:
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, env=environment)
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout + done.stderr


def address(hub: LocalHub, repo: str, token: str | None = None) -> str:
    return f"{hub.endpoint}/{repo}".replace("://", f"://me:{token}@" if token else "://")


@pytest.mark.parametrize("protocol", ["0", "2"])
@pytest.mark.parametrize("suffix", ["", ".git"])
def test_a_clone_has_the_files_the_history_and_the_pointers(
    hub: LocalHub, api: HfApi, model: str, tmp_path: Path, protocol: str, suffix: str
) -> None:
    files = [CommitOperationAdd(f"d/{number}.txt", os.urandom(2000)) for number in range(50)]
    api.create_commit(model, [*files, CommitOperationAdd("w.bin", b"w" * 5000)], commit_message="fill")
    api.create_tag(model, tag="v1")
    place = str(tmp_path / "clone")
    git("-c", f"protocol.version={protocol}", "clone", address(hub, model) + suffix, place)
    log = git("-C", place, "log", "--format=%H %s").splitlines()
    assert log == [f"{commit.commit_id} {commit.title}" for commit in api.list_repo_commits(model)]
    assert len(list((tmp_path / "clone" / "d").iterdir())) == 50
    assert (tmp_path / "clone" / "w.bin").read_text().endswith("size 5000\n")
    assert git("-C", place, "tag").split() == ["v1"]
    git("-C", place, "fsck", "--strict")


def test_a_fetch_brings_what_is_new(hub: LocalHub, api: HfApi, model: str, tmp_path: Path) -> None:
    place = str(tmp_path / "clone")
    git("clone", address(hub, model), place)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=model)
    api.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id=model, create_pr=True)
    git("-C", place, "pull")
    assert (tmp_path / "clone" / "x.txt").read_text() == "x"
    git("-C", place, "fetch", "origin", "refs/pr/1")
    assert "y.txt" in git("-C", place, "ls-tree", "--name-only", "FETCH_HEAD")


def test_many_refs_make_a_zipped_request(hub: LocalHub, api: HfApi, model: str, tmp_path: Path) -> None:
    place = str(tmp_path / "clone")
    for number in range(40):
        sha = api.upload_file(path_or_fileobj=str(number).encode(), path_in_repo="n", repo_id=model).oid
        api.create_tag(model, tag=f"t{number}", revision=sha)
    git("-c", "protocol.version=0", "clone", address(hub, model), place)
    assert len(git("-C", place, "tag").split()) == 40


def test_private_repositories_need_their_owners_token(
    hub: LocalHub, api: HfApi, owner: str, token: str, tmp_path: Path
) -> None:
    api.create_repo("secret", private=True)
    other = hub.add_user(f"other-{owner}")
    repo = f"{owner}/secret"
    assert "terminal prompts disabled" in git("clone", address(hub, repo), str(tmp_path / "a"), ok=False)
    git("clone", address(hub, repo, other), str(tmp_path / "b"), ok=False)
    git("clone", address(hub, repo, token), str(tmp_path / "c"))
    assert (tmp_path / "c" / ".gitattributes").exists()


def test_a_push_is_refused(hub: LocalHub, api: HfApi, token: str, model: str, tmp_path: Path) -> None:
    place = str(tmp_path / "clone")
    git("clone", address(hub, model, token), place)
    git("-C", place, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "mine")
    git("-C", place, "push", ok=False)
    assert [commit.title for commit in api.list_repo_commits(model)] == ["initial commit"]


def test_a_broken_request_ends_in_an_error_and_leaves_no_process(hub: LocalHub, token: str, model: str) -> None:
    for headers in ({"Content-Encoding": "gzip"}, {"Git-Protocol": "version=2; rm"}):
        answer = get_session().post(
            f"{hub.endpoint}/{model}.git/git-upload-pack", headers={"Authorization": password(token), **headers}
        )
        assert answer.status_code in (200, 400)
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    for child in " ".join(path.read_text() for path in children).split():
        assert b"upload-pack" not in Path(f"/proc/{child}/cmdline").read_bytes()


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
def test_git_lfs_gets_the_content(
    hub: LocalHub, api: HfApi, token: str, owner: str, tmp_path: Path, transport: str
) -> None:
    for private in (False, True):
        repo = api.create_repo(f"m{private}", private=private).repo_id
        content = os.urandom(100_000)
        api.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id=repo)
        place = tmp_path / repo
        git("clone", address(hub, repo, token if private else None), str(place))
        git("-C", str(place), "lfs", "install", "--local")
        git("-C", str(place), "lfs", "pull")
        assert (place / "w.bin").read_bytes() == content


def test_lfs_content_of_other_repositories_is_not_given(hub: LocalHub, api: HfApi, token: str, model: str) -> None:
    secret = api.create_repo("secret", private=True).repo_id
    content = os.urandom(5000)
    for repo in (secret, model):
        api.upload_file(
            path_or_fileobj=content[: 4000 if repo == model else 5000], path_in_repo="w.bin", repo_id=repo
        )

    def ask(repo: str, size: int, authorization: str | None = None) -> Any:
        oid = hashlib.sha256(content[:size]).hexdigest()
        return get_session().post(
            f"{hub.endpoint}/{repo}.git/info/lfs/objects/batch",
            headers={"Authorization": authorization} if authorization else {},
            json={"operation": "download", "objects": [{"oid": oid, "size": size}]},
        )

    assert ask(secret, 5000).status_code == 401
    assert ask(model, 5000).json()["objects"][0]["error"]["code"] == 404
    given = ask(model, 4000).json()["objects"][0]["actions"]["download"]["href"]
    assert get_session().get(given).content == content[:4000]
    assert get_session().get(given, headers={"Range": "bytes=10-19"}).content == content[10:20]
    assert get_session().get(given.replace("signature=", "signature=0")).status_code == 403
    assert get_session().put(given, **raw(content[:4000])).status_code == 403
    mine = ask(secret, 5000, password(token)).json()["objects"][0]["actions"]["download"]["href"]
    assert get_session().get(mine).content == content
