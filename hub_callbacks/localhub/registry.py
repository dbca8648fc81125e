"""Which repositories exist, where they lie, who may see them, and where moved ones went.

A repository is one folder, `repos/<type>s/<owner>/<name>.git`: a bare git repository with the hub's own facts
in `hub.json` beside git's files. Making, moving and deleting one is therefore a single rename.
"""

from __future__ import annotations

import builtins
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pygit2

from . import gitstore, gitwrite
from .accounts import Identity
from .durable import read_json, sync_file, write_json
from .errors import HubError, Moved, bad_request, forbidden, repo_not_found

REPO_TYPES = ("model", "dataset", "space")
_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_FACTS = "hub.json"


@dataclass(frozen=True)
class Repo:
    """A repository's facts outside of git."""

    type: str
    id: str
    path: Path
    private: bool = False
    gated: str | bool = False
    created_at: str = ""
    discussions: tuple[dict[str, Any], ...] = ()

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def web_path(self) -> str:
        """The path of its web page and files, such as `datasets/me/data`."""
        return self.id if self.type == "model" else f"{self.type}s/{self.id}"


class Registry:
    """All repositories below one folder. Ids are found without regard to case."""

    def __init__(self, root: Path) -> None:
        self._root = root / "repos"
        self._trash = root / "tmp"
        self._redirects_file = root / "redirects.json"
        self._lock = threading.RLock()
        self._locks: dict[Path, threading.RLock] = {}
        self._redirects: dict[str, str] = read_json(self._redirects_file, {})
        self._repos: dict[tuple[str, str], Repo] = {}
        for kind in REPO_TYPES:
            (self._root / f"{kind}s").mkdir(parents=True, exist_ok=True)
            for facts in (self._root / f"{kind}s").glob(f"*/*.git/{_FACTS}"):
                gitwrite.remove_locks(facts.parent)
                self._keep(_load(facts.parent))

    def lock(self, repo: Repo) -> threading.RLock:
        """Held while refs or facts of this repository change."""
        with self._lock:
            return self._locks.setdefault(repo.path, threading.RLock())

    def list(self, kind: str, author: str | None, viewer: Identity | None) -> list[Repo]:
        """Repositories that the viewer may see."""
        return [
            repo
            for (repo_type, _), repo in sorted(self._repos.items())
            if repo_type == kind
            and (author is None or repo.owner.lower() == author.lower())
            and _visible(repo, viewer)
        ]

    def heads(self, repos: Iterable[Repo]) -> Iterator[tuple[Repo, pygit2.Repository, pygit2.Commit]]:
        """Opens repositories at the newest commit of their main branch.

        One that was moved meanwhile comes under its new name, and one that was deleted does not come.
        """
        for repo in repos:
            now: Repo | None = repo
            while now is not None:
                try:
                    git, at = gitstore.open_at(now.path, gitstore.DEFAULT_BRANCH)
                except (pygit2.GitError, HubError):
                    before, now = now, self._now(now)
                    if now is not None and now.path == before.path:
                        raise
                    continue
                yield now, git, at
                break

    def _now(self, repo: Repo) -> Repo | None:
        """What became of a repository."""
        self.settle()
        return self._repos.get((repo.type, repo.id.lower())) or self._target(repo.type, repo.id)

    def settle(self) -> None:
        """Waits for the moves and deletions that are under way."""
        with self._lock:
            pass

    def all(self) -> builtins.list[Repo]:
        """All repositories, whoever may see them."""
        with self._lock:
            return [*self._repos.values()]

    def get(self, kind: str, repo_id: str, viewer: Identity | None) -> Repo:
        """A repository that the viewer may see.

        Raises:
            HubError: It is missing, or looks so to this viewer.
            Moved: It has another name now.
        """
        repo = self._repos.get((kind, repo_id.lower()))
        target = self._target(kind, repo_id) if repo is None else None
        if target is not None and _visible(target, viewer):
            raise Moved(repo_id, target.id)
        if repo is None or not _visible(repo, viewer):
            raise repo_not_found(viewer is not None)
        return repo

    def _target(self, kind: str, repo_id: str) -> Repo | None:
        """What has an id that is not its first one."""
        moved_to = self._redirects.get(f"{kind}:{repo_id.lower()}")
        return self._repos.get((kind, moved_to.lower())) if moved_to else None

    def writable(self, kind: str, repo_id: str, viewer: Identity | None) -> Repo:
        """A repository that the viewer may change.

        Raises:
            HubError: Like `get`, and 403 without the right to write.
        """
        repo = self.get(kind, repo_id, viewer)
        check_writer(viewer, repo.owner)
        return repo

    def create(self, repo: Repo, files: Mapping[str, bytes], author: str) -> Repo:
        """Makes the repository with its first commit.

        Raises:
            HubError: 400 for a name that is not possible, 409 where it exists.
        """
        self._check_free(repo.type, repo.id)
        staging = self._trash / f"new-{uuid.uuid4().hex}"
        gitwrite.create(staging, author, files)
        repo = replace(repo, path=self._path(repo.type, repo.id), created_at=gitstore.iso_date(time.time()))
        _write_facts(staging, repo)
        with self._lock:
            self._check_free(repo.type, repo.id)
            _rename(staging, repo.path)
            self._keep(repo)
        return repo

    def delete(self, repo: Repo) -> None:
        trash = self._trash / f"deleted-{uuid.uuid4().hex}"
        with self.lock(repo), self._lock:
            _rename(repo.path, trash)
            del self._repos[(repo.type, repo.id.lower())]
        shutil.rmtree(trash, ignore_errors=True)

    def move(self, repo: Repo, new_id: str) -> Repo:
        """Gives a repository another id; the old one redirects.

        Raises:
            HubError: 400 for a name that is not possible, 409 where it exists.
        """
        with self.lock(repo), self._lock:
            if new_id.lower() != repo.id.lower():
                self._check_free(repo.type, new_id, f"A {repo.type} repository called {new_id} already exists")
            moved = replace(repo, id=new_id, path=self._path(repo.type, new_id))
            _rename(repo.path, moved.path)
            _write_facts(moved.path, moved)
            self._keep(moved)
            self._redirect(repo, new_id)  # before it is gone: somebody may look meanwhile
            if new_id.lower() != repo.id.lower():
                del self._repos[(repo.type, repo.id.lower())]
        return moved

    def _redirect(self, repo: Repo, new_id: str) -> None:
        """All names that the repository has had lead to the new one."""
        kind = f"{repo.type}:"
        older = [name for name, now in self._redirects.items() if name.startswith(kind) and now == repo.id]
        self._redirects |= dict.fromkeys([kind + repo.id.lower(), *older], new_id)
        self._redirects.pop(kind + new_id.lower(), None)
        write_json(self._redirects_file, self._redirects)

    def update(self, repo: Repo, **changes: Any) -> Repo:
        """Stores changed facts."""
        with self.lock(repo), self._lock:
            changed = replace(self._repos[(repo.type, repo.id.lower())], **changes)
            _write_facts(changed.path, changed)
            self._keep(changed)
        return changed

    def refresh(self, repo: Repo) -> Repo:
        """The facts as they are now; read them under `lock` before changing them."""
        return self._repos[(repo.type, repo.id.lower())]

    def _keep(self, repo: Repo) -> None:
        self._repos[(repo.type, repo.id.lower())] = repo

    def _path(self, kind: str, repo_id: str) -> Path:
        return self._root / f"{kind}s" / f"{repo_id}.git"

    def _check_free(self, kind: str, repo_id: str, message: str | None = None) -> None:
        parts = repo_id.split("/")
        possible = len(parts) == 2 and all(map(_NAME.fullmatch, parts))
        if not possible or repo_id.lower().endswith((".git", ".ipynb")):
            raise bad_request(f"Invalid repo name: {repo_id}")
        existing = self._repos.get((kind, repo_id.lower()))
        if existing is not None:
            default = f"You already created this {kind} repo: {existing.id}"
            raise HubError(409, message or default, extra={"existing": existing.id})


def check_writer(viewer: Identity | None, namespace: str) -> None:
    """Raises: HubError: 401 for anonymous callers, 403 for read tokens and other people's namespaces."""
    if viewer is None:
        raise HubError(401, "Invalid username or password.")
    if viewer.role != "write":
        raise forbidden("Your token has read rights only; use a token with write rights")
    if not viewer.may_write(namespace):
        raise forbidden(f'You don\'t have the rights to create or change repos under the namespace "{namespace}"')


def _visible(repo: Repo, viewer: Identity | None) -> bool:
    return not repo.private or (viewer is not None and viewer.may_read(repo.owner))


def _write_facts(folder: Path, repo: Repo) -> None:
    facts = asdict(repo)
    del facts["path"]
    write_json(folder / _FACTS, facts)


def _load(path: Path) -> Repo:
    facts = read_json(path / _FACTS, {})
    # The folder's own place decides over the stored id: a move is one rename, the facts follow after it.
    repo_id = f"{path.parent.name}/{path.name.removesuffix('.git')}"
    facts = {**facts, "id": repo_id, "discussions": tuple(facts.get("discussions", ()))}
    return Repo(path=path, **facts)


def _rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    sync_file(target.parent)
    if source.parent != target.parent:
        sync_file(source.parent)
