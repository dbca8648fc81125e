"""Handlers that list a repository's files and commits, and those for branches, tags and history."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pygit2
from starlette.responses import Response

from . import gitlfs, gitrefs, gitstore, gitwrite
from .errors import bad_request
from .lastcommits import last_commits
from .repos import describe_file
from .web import Call, ok, page_response, paginate

_PAGE_SIZE = 1000
_EXPANDED_PAGE_SIZE = 50


def tree(call: Call) -> Response:
    git, at = gitstore.open_at(call.repo().path, call.args["revision"])
    expand = call.flag("expand")
    path = call.args.get("path", "").strip("/")
    entries = gitstore.list_tree(git, at, path, call.flag("recursive"))
    page = paginate(call, entries, _EXPANDED_PAGE_SIZE if expand else _PAGE_SIZE)
    return page_response(call, page, _rows(call, git, at, page.items, expand))


def paths_info(call: Call) -> Response:
    git, at = gitstore.open_at(call.repo().path, call.args["revision"])
    form = call.json() if "json" in call.headers.get("content-type", "") else call.form()
    paths = [str(path).strip("/") for path in form.get("paths", [])]
    found = [gitstore.find(git, at, path) for path in dict.fromkeys(paths)]
    raw = form.get("expand", False)
    expand = str(raw[-1] if isinstance(raw, list) else raw).lower() in ("1", "true")
    return ok(_rows(call, git, at, [entry for entry in found if entry], expand))


def commits(call: Call) -> Response:
    git, at = gitstore.open_at(call.repo().path, call.args["revision"])
    page = paginate(call, gitstore.history(git, at), _PAGE_SIZE)
    rows = []
    for note in page.items:
        row: dict[str, Any] = {
            "id": note.oid,
            "title": note.title,
            "message": note.message,
            "authors": [{"user": note.author}],
            "date": note.date,
        }
        if "formatted" in call.params("expand"):
            title, message = html.escape(note.title), html.escape(note.message)
            row["formatted"] = {"title": title, "message": f"<p>{message}</p>" if message else ""}
        rows.append(row)
    return page_response(call, page, rows)


def refs(call: Call) -> Response:
    git = gitstore.open_repo(call.repo().path)

    def under(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"{prefix}{name}", "targetCommit": oid}
            for name, oid in gitrefs.list_refs(git, prefix)
        ]

    answer = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
    if call.flag("include_prs"):
        answer["pullRequests"] = under("refs/pr/")
    return ok(answer)


@contextmanager
def _changing(call: Call) -> Iterator[pygit2.Repository]:
    """The repository, if the caller may change it; nobody else moves its refs meanwhile."""
    repo = call.writable_repo()
    with call.hub.registry.lock(repo):
        yield gitstore.open_repo(repo.path)


def create_branch(call: Call) -> Response:
    with _changing(call) as git:
        start = call.json().get("startingPoint") or gitstore.DEFAULT_BRANCH
        gitrefs.create_branch(git, call.args["branch"], str(start))
    return ok()


def delete_branch(call: Call) -> Response:
    with _changing(call) as git:
        gitrefs.delete_ref(git, "refs/heads/", call.args["branch"])
    return ok()


def create_tag(call: Call) -> Response:
    with _changing(call) as git:
        wanted = call.json()
        name = str(wanted.get("tag") or "")
        gitrefs.create_tag(git, name, call.args["revision"], wanted.get("message"), call.user)
    return ok()


def delete_tag(call: Call) -> Response:
    with _changing(call) as git:
        gitrefs.delete_ref(git, "refs/tags/", call.args["tag"])
    return ok()


def super_squash(call: Call) -> Response:
    branch = call.args["branch"]
    with _changing(call) as git:
        gitstore.resolve(git, f"refs/heads/{branch}")
        message = str(call.json().get("message") or f"Super-squash branch '{branch}'")
        gitwrite.squash(git, branch, call.user, message)
    return ok()


def lfs_files(call: Call) -> Response:
    git = gitstore.open_repo(call.writable_repo().path)
    rows = [
        {
            "fileOid": entry.oid,
            "filename": entry.path,
            "oid": entry.lfs.sha256,
            "pushedAt": note.date,
            "ref": ref,
            "size": entry.lfs.size,
        }
        for entry, note, ref in gitlfs.all_lfs_files(git)
        if entry.lfs
    ]
    page = paginate(call, rows, _PAGE_SIZE)
    return page_response(call, page, page.items)


def delete_lfs_files(call: Call) -> Response:
    repo = call.writable_repo()
    deletions = call.json().get("deletions")
    if not isinstance(deletions, dict) or not isinstance(deletions.get("sha"), list):
        raise bad_request('"deletions.sha" must be an array')
    if not deletions.get("rewriteHistory", True):
        raise bad_request("This hub removes large files only together with their history (rewriteHistory)")
    blobs = set(map(str, deletions["sha"]))
    git = gitstore.open_repo(repo.path)
    sha256s = gitlfs.sha256s(git, blobs)
    with call.hub.registry.lock(repo):
        gitlfs.remove_everywhere(git, blobs)
    call.hub.housekeeper.collect(sha256s)
    return ok()


def _rows(call: Call, git: Any, at: Any, entries: list[gitstore.Entry], expand: bool) -> list[dict[str, Any]]:
    last = last_commits(git, at, [entry.path for entry in entries]) if expand else {}
    rows = []
    for entry in entries:
        row: dict[str, Any] = {"path": entry.path, "oid": entry.oid}
        if entry.is_folder:
            row |= {"type": "directory", "size": 0}
        else:
            row |= {"type": "file", **describe_file(call, entry, "oid")}
        if note := last.get(entry.path):
            row["lastCommit"] = {"id": note.oid, "title": note.title, "date": note.date}
        rows.append(row)
    return rows
