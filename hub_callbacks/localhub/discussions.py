"""Discussions and pull requests, as far as the client opens them.

Numbers are shared between both. A pull request is the ref `refs/pr/N`, made from the branch it is against.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import pygit2
from starlette.responses import Response

from . import gitrefs, gitstore, gitwrite
from .errors import HubError, bad_request
from .registry import Repo, check_writer
from .repos import check_gate
from .web import Call, ok

_PAGE_SIZE = 50


def pull_request_of(repo: Repo, revision: str, user: str) -> bool:
    """Whether the revision is a pull request that this user opened. A branch may be called like its number."""
    return any(
        item["isPullRequest"] and f"refs/pr/{item['num']}" == revision and item["author"]["name"] == user
        for item in repo.discussions
    )


def new_pull_request(
    call: Call, repo: Repo, title: str, description: str, start: str, base: str
) -> tuple[int, str]:
    """Opens a pull request; the repository's lock must be held.

    Args:
        call: Who opens it.
        repo: Where.
        title: Its title.
        description: Its first comment.
        start: The commit that it starts from.
        base: The branch it is against.

    Returns:
        Its number and its ref.
    """
    number = _open(call, repo, title, description, f"refs/heads/{base}")
    ref = f"refs/pr/{number}"
    gitstore.open_repo(repo.path).references.create(ref, start)
    return number, ref


def create_discussion(call: Call) -> Response:
    repo = call.repo()
    check_writer(call.viewer, call.user)
    wanted = call.json()
    if wanted.get("pullRequest"):
        check_gate(call, repo)
    title = str(wanted.get("title") or "").strip()
    if len(title) < 3:
        raise bad_request('"title" length must be at least 3 characters long')
    description = str(wanted.get("description") or "")
    with call.hub.registry.lock(repo):
        if wanted.get("pullRequest"):
            git = gitstore.open_repo(repo.path)
            start = str(gitstore.resolve(git, f"refs/heads/{gitstore.DEFAULT_BRANCH}").id)
            number, _ = new_pull_request(call, repo, title, description, start, gitstore.DEFAULT_BRANCH)
        else:
            number = _open(call, repo, title, description, None)
    return ok({"num": number, "url": f"{call.endpoint}/{repo.web_path}/discussions/{number}"})


def list_discussions(call: Call) -> Response:
    repo = call.repo()
    found = [item for item in reversed(repo.discussions) if _matches(call, item)]
    start = call.number("p") * _PAGE_SIZE
    rows = [_summary(repo, item) for item in found[start : start + _PAGE_SIZE]]
    return ok({"discussions": rows, "count": len(found), "start": start})


def discussion_details(call: Call) -> Response:
    repo = call.repo()
    item = find_discussion(call, repo)
    details = {**_summary(repo, item), "events": item["events"]}
    if item["isPullRequest"]:
        details |= {"changes": item["changes"], "filesWithConflicts": [], "diff": ""}
    if item["isPullRequest"] and call.flag("diff"):
        check_gate(call, repo)
        git = gitstore.open_repo(repo.path)
        head = git.references.get(f"refs/pr/{item['num']}")
        base = git.references.get(item["changes"]["base"])
        if head is not None and base is not None:
            common = git.merge_base(base.peel(pygit2.Commit).id, head.peel(pygit2.Commit).id)
            if common is not None:
                details["diff"] = git.diff(str(common), str(head.peel(pygit2.Commit).id)).patch or ""
    return ok(details)


def change_discussion(call: Call) -> Response:
    """Comments, status and title."""
    repo = call.repo()
    resource = call.args["resource"]
    wanted = call.json()
    with call.hub.registry.lock(repo):
        item = dict(find_discussion(call, call.hub.registry.refresh(repo)))
        mine = item["author"]["name"] == call.user or resource == "comment"
        check_writer(call.viewer, call.user if mine else repo.owner)
        if resource == "comment":
            event = _event(call, "comment", _comment(call, str(wanted.get("comment") or "")))
        elif resource == "status":
            if wanted.get("status") not in ("open", "closed"):
                raise bad_request('"status" must be one of [open, closed]')
            event = _event(call, "status-change", {"status": wanted["status"]})
            item["status"] = wanted["status"]
        elif resource == "title":
            event = _event(call, "title-change", {"from": item["title"], "to": str(wanted.get("title"))})
            item["title"] = str(wanted.get("title"))
        else:
            raise HubError(404, f"This hub has no way to change a discussion's {resource}")
        item["events"] = [*item["events"], event]
        _store(call, repo, item)
    return ok({"newMessage": event, "newStatus": event, "newTitle": event})


def merge_pull_request(call: Call) -> Response:
    repo = call.writable_repo()
    with call.hub.registry.lock(repo):
        item = dict(find_discussion(call, call.hub.registry.refresh(repo)))
        if not item["isPullRequest"] or item["status"] not in ("open", "draft"):
            raise bad_request("Only an open pull request can be merged")
        oid = gitwrite.merge(
            gitstore.open_repo(repo.path),
            item["changes"]["base"],
            f"refs/pr/{item['num']}",
            call.user,
            f"{item['title']} (#{item['num']})",
        )
        item["status"] = "merged"
        item["changes"] = {**item["changes"], "mergeCommitId": oid}
        item["events"] = [*item["events"], _event(call, "status-change", {"status": "merged"})]
        _store(call, repo, item)
    return ok()


def _open(call: Call, repo: Repo, title: str, description: str, base: str | None) -> int:
    repo = call.hub.registry.refresh(repo)
    refs = gitrefs.list_refs(gitstore.open_repo(repo.path), "refs/pr/")
    taken = [int(name) for name, _ in refs] + [int(item["num"]) for item in repo.discussions]
    number = max(taken, default=0) + 1
    item: dict[str, Any] = {
        "num": number,
        "title": title,
        "author": {"name": call.user},
        "createdAt": gitstore.iso_date(time.time()),
        "status": "open",
        "isPullRequest": base is not None,
        "events": [_event(call, "comment", _comment(call, description))],
    }
    if base is not None:
        item["changes"] = {"base": base}
    call.hub.registry.update(repo, discussions=(*repo.discussions, item))
    return number


def find_discussion(call: Call, repo: Repo) -> dict[str, Any]:
    """The discussion or pull request that the path names."""
    for item in repo.discussions:
        if str(item["num"]) == call.args["number"]:
            return item
    raise HubError(404, "Discussion not found")


def _store(call: Call, repo: Repo, item: dict[str, Any]) -> None:
    others = call.hub.registry.refresh(repo).discussions
    changed = tuple(item if other["num"] == item["num"] else other for other in others)
    call.hub.registry.update(repo, discussions=changed)


def _summary(repo: Repo, item: dict[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in item.items() if key not in ("events", "changes")}
    return {**row, "repo": {"name": repo.id, "type": repo.type}}


def _event(call: Call, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex[:24],
        "type": kind,
        "createdAt": gitstore.iso_date(time.time()),
        "author": {"name": call.user},
        "data": data,
    }


def _comment(call: Call, text: str) -> dict[str, Any]:
    author = {"name": call.user}
    latest = {"raw": text, "html": text, "updatedAt": gitstore.iso_date(time.time()), "author": author}
    return {"edited": False, "hidden": False, "latest": latest, "history": []}


def _matches(call: Call, item: dict[str, Any]) -> bool:
    kind, status, author = call.param("type"), call.param("status"), call.param("author")
    return (
        kind in (None, "all", "pull_request" if item["isPullRequest"] else "discussion")
        and (status in (None, "all") or (status == "open") == (item["status"] in ("open", "draft")))
        and author in (None, item["author"]["name"])
    )
