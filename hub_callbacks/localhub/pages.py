"""Handlers of the pages that people look at in a browser. They only read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import quote

import pygit2
from starlette.responses import RedirectResponse, Response

from . import gitrefs, gitstore
from .accounts import ASK_FOR_PASSWORD
from .cards import card_at
from .changes import changes, count_changes
from .discussions import find_discussion
from .errors import HubError
from .lastcommits import last_commits
from .markdown import render_card
from .registry import REPO_TYPES, Repo
from .rendering import render, style
from .repos import check_gate
from .web import Call, Handler, following, paginate

_PAGE_SIZE = 50
_FOLDER_PAGE_SIZE = 500
_MAX_TEXT = 500_000
_MAX_LINES = 20_000
_REFS = (
    ("Branches", "refs/heads/", ""),
    ("Tags", "refs/tags/", ""),
    ("Pull requests", "refs/pr/", "refs/pr/"),
)
"""Heading, prefix in git, and what is left of it in a revision's name."""

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")


def _page(handler: Handler) -> Handler:
    """Refusals are pages, too."""
    handler = following(handler)

    @wraps(handler)
    def answer(call: Call) -> Response:
        try:
            return handler(call)
        except HubError as error:
            response = render("error", error.status, viewer=call.viewer, error=error)
            response.headers.update(error.headers)
            return response

    return answer


@dataclass(frozen=True)
class View:
    """A repository at a revision, as its pages need it."""

    repo: Repo
    git: pygit2.Repository
    revision: str
    at: pygit2.Commit

    def address(self, page: str, path: str = "", revision: str | None = None) -> str:
        """The address of a file, folder or list, such as `/me/model/tree/main/logs`."""
        where = quote(revision or self.revision, safe="")
        return f"/{self.repo.web_path}/{page}/{where}" + (f"/{quote(path)}" if path else "")

    def card_address(self, revision: str | None = None) -> str:
        """The address of the card at a revision."""
        revision = revision or self.revision
        default = revision == gitstore.DEFAULT_BRANCH
        return f"/{self.repo.web_path}" + ("" if default else f"?revision={quote(revision, safe='')}")

    def refs(self) -> list[tuple[str, list[str]]]:
        """The names of branches, tags and pull requests, under headings; main comes first."""
        found = []
        for title, prefix, shown in _REFS:
            names = [f"{shown}{name}" for name, _ in gitrefs.list_refs(self.git, prefix)]
            if names:
                found.append((title, sorted(names, key=lambda name: name != gitstore.DEFAULT_BRANCH)))
        return found


def style_sheet(call: Call) -> Response:
    return style()


@_page
def sign_in(call: Call) -> Response:
    """A browser asks for user and password, and keeps them for the pages that follow."""
    if call.viewer is None:
        raise HubError(401, "Signing in was cancelled.", headers=ASK_FOR_PASSWORD)
    return RedirectResponse("/", status_code=303)


@_page
def home_page(call: Call) -> Response:
    return _list(call, None)


@_page
def owner_page(call: Call) -> Response:
    owner = call.hub.accounts.canonical(call.args["owner"])
    if owner is None:
        raise HubError(404, f"There is no user called {call.args['owner']}")
    return _list(call, owner)


def _list(call: Call, owner: str | None) -> Response:
    rows = []
    for kind in REPO_TYPES:
        repos = call.hub.registry.list(kind, owner, call.viewer)
        rows += [(repo, gitstore.note(at), card_at(at)) for repo, _, at in call.hub.registry.heads(repos)]
    rows.sort(key=lambda row: row[1].date, reverse=True)
    page = paginate(call, rows, _PAGE_SIZE)
    return render("home", viewer=call.viewer, owner=owner, rows=page.items, next_start=page.next_start)


@_page
def repo_page(call: Call) -> Response:
    view = _view(call, call.param("revision") or gitstore.DEFAULT_BRANCH)
    readme = gitstore.read_path(view.git, view.at, "README.md")
    card = card_at(view.at)
    files = gitstore.list_files(view.git, view.at)
    return _render(
        call,
        view,
        "repo",
        "card",
        card=_card(view, readme) if readme else None,
        problem=card.problem,
        tags=_tags(card.data),
        last=gitstore.note(view.at),
        files=files,
        total=sum(entry.size for entry in files),
    )


@_page
def tree_page(call: Call) -> Response:
    view = _view(call, call.args["revision"])
    path = call.args.get("path", "").strip("/")
    entries = sorted(gitstore.list_tree(view.git, view.at, path, False), key=lambda entry: not entry.is_folder)
    page = paginate(call, entries, _FOLDER_PAGE_SIZE)
    last = last_commits(view.git, view.at, [entry.path for entry in page.items])
    return _render(
        call, view, "tree", "files", path=path, entries=page.items, last=last, next_start=page.next_start
    )


@_page
def blob_page(call: Call) -> Response:
    view = _view(call, call.args["revision"])
    check_gate(call, view.repo)
    entry = gitstore.lookup(view.git, view.at, call.args["path"].strip("/"))
    if entry.is_folder:
        return RedirectResponse(view.address("tree", entry.path), status_code=302)
    last = last_commits(view.git, view.at, [entry.path])
    return _render(
        call,
        view,
        "blob",
        "files",
        path=entry.path,
        entry=entry,
        last=last.get(entry.path),
        is_picture=entry.path.lower().endswith(_PICTURES),
        lines=_text_lines(view, entry),
    )


@_page
def commits_page(call: Call) -> Response:
    view = _view(call, call.args["revision"])
    page = paginate(call, gitstore.history(view.git, view.at), _PAGE_SIZE)
    rows = [(note, count_changes(view.git, view.git[note.oid])) for note in page.items]
    return _render(call, view, "commits", "commits", rows=rows, next_start=page.next_start)


@_page
def commit_page(call: Call) -> Response:
    view = _view(call, call.args["revision"])
    check_gate(call, view.repo)
    return _render(
        call,
        view,
        "commit",
        "commits",
        commit=gitstore.note(view.at),
        parents=[str(oid) for oid in view.at.parent_ids],
        changes=list(changes(view.git, view.at)),
    )


@_page
def discussion_page(call: Call) -> Response:
    view = _view(call, gitstore.DEFAULT_BRANCH)
    return _render(call, view, "discussion", "", item=find_discussion(call, view.repo))


def _view(call: Call, revision: str) -> View:
    repo = call.repo()
    git, at = gitstore.open_at(repo.path, revision)
    return View(repo, git, revision, at)


def _render(call: Call, view: View, template: str, tab: str, **values: Any) -> Response:
    return render(template, viewer=call.viewer, view=view, tab=tab, endpoint=call.endpoint, **values)


def _card(view: View, readme: bytes) -> str | None:
    """None for what is too long to be rendered."""
    if len(readme) > _MAX_TEXT:
        return None
    return render_card(readme.decode("utf-8", "replace"), view.address)


def _tags(card: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """What the metadata says, in the order of the page."""
    keys = ("pipeline_tag", "library_name", "license", "language", "base_model", "datasets", "metrics", "tags")
    found = []
    for key in keys:
        value = card.get(key)
        values = value if isinstance(value, list) else [value]
        if texts := [str(item) for item in values if isinstance(item, (str, int, float))]:
            found.append((key.replace("pipeline_tag", "task").replace("_name", "").replace("_", " "), texts))
    return found


def _text_lines(view: View, entry: gitstore.Entry) -> list[str] | None:
    """The lines of a small text file; None for all others."""
    if entry.lfs or entry.size > _MAX_TEXT:
        return None
    try:
        text = view.git[entry.oid].data.decode()
    except UnicodeDecodeError:
        return None
    lines = text.splitlines()
    return None if "\0" in text or len(lines) > _MAX_LINES else lines
