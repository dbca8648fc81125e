"""Handlers that put content into a repository: preupload and commit."""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pygit2
from starlette.responses import Response

from . import gitlfs, gitrefs, gitstore, gitwrite, holdings
from .discussions import new_pull_request, pull_request_of
from .errors import HubError, bad_request, repo_not_found, revision_not_found
from .packs import BlobWriter
from .registry import Repo, check_writer
from .repos import check_gate
from .web import Call, ok

_LARGEST_REGULAR_FILE = 10 * 1024 * 1024
_MAX_LINE = _LARGEST_REGULAR_FILE * 4 // 3 + 64 * 1024
_MAX_COMMIT = 16 * 1024**3
_MAX_PREUPLOAD_FILES = 256


def check_may_upload(call: Call, repo: Repo, revision: str) -> None:
    """Owners write everywhere; whoever can read may open a pull request and go on with their own.

    Raises:
        HubError: 401 or 403.
    """
    own_request = call.flag("create_pr") or pull_request_of(repo, revision, call.user)
    check_writer(call.viewer, call.user if own_request else repo.owner)
    check_gate(call, repo)


def preupload(call: Call) -> Response:
    repo = call.repo()
    check_may_upload(call, repo, call.args["revision"])
    git, at = gitstore.open_at(repo.path, call.args["revision"])
    wanted = call.json()
    files = wanted.get("files")
    if not isinstance(files, list):
        raise bad_request('"files" must be an array')
    if len(files) > _MAX_PREUPLOAD_FILES:
        raise HubError(413, f"At most {_MAX_PREUPLOAD_FILES} files can be checked in one call")
    rules = wanted.get("gitIgnore")
    if rules is None:
        rules = (gitstore.read_path(git, at, ".gitignore") or b"").decode("utf-8", "replace")
    if not all(isinstance(file, dict) and "path" in file for file in files):
        raise bad_request('each of "files" must have a "path"')
    paths = [str(file["path"]) for file in files]
    ignored = _ignored(str(rules), paths, call.hub.tmp)
    rows = []
    for path, file in zip(paths, files, strict=True):
        large = int(file.get("size") or 0) > _LARGEST_REGULAR_FILE or _is_lfs(git, at, path)
        existing = gitstore.find(git, at, path)
        oid = existing and not existing.is_folder and (existing.lfs.sha256 if existing.lfs else existing.oid)
        row = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": path in ignored}
        rows.append({**row, "oid": oid} if oid else row)
    return ok({"files": rows, "commitOid": str(at.id)})


def admit_commit(call: Call) -> int:
    check_may_upload(call, call.repo(), call.args["revision"])
    return _MAX_COMMIT


def commit(call: Call) -> Response:
    repo = call.repo()
    revision = call.args["revision"]
    check_may_upload(call, repo, revision)
    git = gitstore.open_repo(repo.path)
    if gitrefs.branch_ref(git, revision) is None:
        raise revision_not_found(revision)
    with call.hub.content.claims.holding() as claim, BlobWriter(git, call.hub.tmp) as blobs:
        return _commit(call, repo, git, _read(call, repo, blobs, claim), blobs)


def _commit(call: Call, repo: Repo, git: pygit2.Repository, wanted: _Wanted, blobs: BlobWriter) -> Response:
    revision = call.args["revision"]
    with call.hub.registry.lock(repo):
        if not repo.path.is_dir():
            raise repo_not_found(logged_in=True)
        ref = gitrefs.branch_ref(git, revision)
        if ref is None:
            raise revision_not_found(revision)
        parent = git.references[ref].peel(pygit2.Commit)
        if wanted.parent and not (len(wanted.parent) >= 7 and str(parent.id).startswith(wanted.parent)):
            raise gitwrite.stale_parent()
        wanted.check_deletions(git, parent)
        blobs.finish()
        number = None
        if call.flag("create_pr"):
            base = gitrefs.branch_name(ref)
            number, ref = new_pull_request(call, repo, wanted.title, wanted.description, str(parent.id), base)
        oid = gitwrite.commit(git, ref, parent, wanted.edits, call.user, wanted.message)
    answer: dict[str, Any] = {
        "success": True,
        "commitOid": oid,
        "commitUrl": f"{call.endpoint}/{repo.web_path}/commit/{oid}",
        "hookOutput": "",
    }
    if number is not None:
        answer["pullRequestUrl"] = f"{call.endpoint}/{repo.web_path}/discussions/{number}"
    return ok(answer)


@dataclass
class _Wanted:
    """What a commit's body asks for. Its blobs are written already, though nothing names them yet."""

    title: str
    description: str
    parent: str | None
    edits: dict[str, str | None] = field(default_factory=dict)
    deletions: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        return f"{self.title}\n\n{self.description}" if self.description else self.title

    def put(self, path: str, oid: str | None) -> None:
        """Later edits win, so each one goes to the end."""
        self.edits.pop(path, None)
        self.edits[path] = oid

    def delete(self, path: str) -> None:
        if path not in self.edits:
            self.deletions.append(path)
        self.put(path, None)

    def check_deletions(self, git: pygit2.Repository, at: pygit2.Commit) -> None:
        """Raises: HubError: `EntryNotFound`, there is nothing to delete."""
        for path in self.deletions:
            if gitstore.find(git, at, path) is None:
                raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")


def _read(call: Call, repo: Repo, blobs: BlobWriter, claim: Callable[[str], None]) -> _Wanted:
    """Reads the NDJSON line by line, so that only one file is in memory at a time."""
    wanted: _Wanted | None = None
    for key, value in _lines(call.received.path):
        if key == "header":
            parent = value.get("parentCommit")
            title = _text(value.get("summary"))
            if not title:
                raise bad_request("A commit needs a summary")
            wanted = _Wanted(title, _text(value.get("description")), parent and str(parent))
            continue
        if wanted is None:
            raise bad_request("A commit starts with its header")
        path = gitwrite.check_path(str(value.get("path") or "").rstrip("/"))
        if key == "file":
            content = _content(value)
            if lfs := gitstore.pointed_at(content):  # a pointer names a large file however it comes
                _check_named(call, repo, path, lfs.sha256, lfs.size, claim)
            wanted.put(path, blobs.add(content))
        elif key == "lfsFile":
            sha256 = str(value.get("oid"))
            size = _check_named(call, repo, path, sha256, value.get("size"), claim)
            wanted.put(path, blobs.add(gitlfs.pointer(sha256, size)))
        elif key in ("deletedFile", "deletedFolder", "deletedEntry"):
            wanted.delete(path)
        else:
            raise bad_request(f"Unknown operation in commit: {key}")
    if wanted is None:
        raise bad_request("A commit starts with its header")
    return wanted


def _text(value: Any) -> str:
    """What people wrote; halves of characters, which JSON can hold and git cannot, become question marks."""
    return str(value or "").strip().encode(errors="replace").decode()


def _lines(body: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with body.open("rb") as file:
        while line := file.readline(_MAX_LINE):
            if len(line) == _MAX_LINE:
                raise _too_large()
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                yield str(item["key"]), dict(item["value"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise bad_request("A commit's body must be lines of JSON with key and value") from error


def _content(value: dict[str, Any]) -> bytes:
    text = str(value.get("content") or "")
    try:
        content = base64.b64decode(text, validate=True) if value.get("encoding") == "base64" else text.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise bad_request(f"The content of {value.get('path')} is no valid base64 or text") from error
    if len(content) > _LARGEST_REGULAR_FILE:
        raise _too_large()
    return content


def _too_large() -> HubError:
    return bad_request(
        "Your push was rejected because it contains files larger than 10 MiB. "
        "Please use https://git-lfs.github.com/ to store large files."
    )


def _check_named(
    call: Call, repo: Repo, path: str, sha256: str, said: int | None, claim: Callable[[str], None]
) -> int:
    """The size of a large file; copies say none.

    Raises:
        HubError: 400, it is not here, or the caller only knows its hash.
    """
    claim(sha256)
    size = call.hub.content.size(sha256)
    if size is None or said not in (None, size) or not holdings.may_name(call, repo, sha256):
        raise bad_request(
            "Your push was rejected because an LFS pointer pointed to a file that does not exist. "
            f"Offending file: {path} (sha256 {sha256})"
        )
    return size


def _is_lfs(git: pygit2.Repository, at: pygit2.Commit, path: str) -> bool:
    flags = pygit2.enums.AttrCheck.INCLUDE_COMMIT | pygit2.enums.AttrCheck.NO_SYSTEM
    return git.get_attr(path, "filter", flags, at.id) == "lfs"


def _ignored(rules: str, paths: list[str], tmp: Path) -> set[str]:
    """Paths that git would ignore by these rules; asked of git itself, in a throw-away folder."""
    if not rules.strip():
        return set()
    with tempfile.TemporaryDirectory(dir=tmp) as folder:
        git = pygit2.init_repository(folder)
        (Path(folder) / ".gitignore").write_text(rules, encoding="utf-8")
        return {path for path in paths if git.path_is_ignored(path)}
