"""What git repositories hold: revisions, files, history. They are ordinary bare ones, opened per request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pygit2

from .errors import entry_not_found, revision_not_found

DEFAULT_BRANCH = "main"
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
_MAX_POINTER_SIZE = 200
_SHORT_SHA = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class Lfs:
    """A large file, of which git holds only a pointer."""

    sha256: str
    size: int
    pointer_size: int


@dataclass(frozen=True)
class Entry:
    """A file or folder of a revision; `size` in bytes, 0 for folders."""

    path: str
    oid: str
    is_folder: bool
    size: int = 0
    lfs: Lfs | None = None


@dataclass(frozen=True)
class CommitNote:
    """A commit as lists show it."""

    oid: str
    title: str
    message: str
    author: str
    date: str


def open_repo(path: Path) -> pygit2.Repository:
    return pygit2.Repository(str(path), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)


def open_at(path: Path, revision: str) -> tuple[pygit2.Repository, pygit2.Commit]:
    """A repository and what a revision names in it; see `resolve`."""
    repo = open_repo(path)
    return repo, resolve(repo, revision)


# Revisions


def resolve(repo: pygit2.Repository, revision: str) -> pygit2.Commit:
    """The commit that a branch, tag, full ref, commit id or its first seven characters names.

    Raises:
        HubError: `RevisionNotFound`.
    """
    candidates = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
    if revision.startswith("refs/"):
        candidates.append(revision)
    for name in candidates:
        ref = get_ref(repo, name)
        if ref is not None:
            return ref.peel(pygit2.Commit)
    if _SHORT_SHA.fullmatch(revision):
        try:
            found = repo.get(revision)
        except ValueError:  # it is the beginning of several
            raise revision_not_found(revision) from None
        if isinstance(found, (pygit2.Commit, pygit2.Tag)):
            return found.peel(pygit2.Commit)
    raise revision_not_found(revision)


# Reading


def lookup(repo: pygit2.Repository, at: pygit2.Commit, path: str) -> Entry:
    """One file or folder of a commit.

    Raises:
        HubError: `EntryNotFound`.
    """
    entry = find(repo, at, path)
    if entry is None:
        raise entry_not_found(path, str(at.id))
    return entry


def find(repo: pygit2.Repository, at: pygit2.Commit, path: str) -> Entry | None:
    """Like `lookup`, but None for what is missing."""
    try:
        return describe(repo, path, at.tree[path]) if path else None
    except (KeyError, ValueError, pygit2.GitError):
        return None


def list_tree(repo: pygit2.Repository, at: pygit2.Commit, path: str, recursive: bool) -> Iterator[Entry]:
    """Files and folders below a path, each folder before what is in it.

    Raises:
        HubError: `EntryNotFound`.
    """
    tree = at.tree
    if path:
        folder = lookup(repo, at, path)
        if not folder.is_folder:
            raise entry_not_found(path, str(at.id))
        tree = repo[folder.oid]
    yield from _walk(repo, tree, path, recursive)


def list_files(repo: pygit2.Repository, at: pygit2.Commit) -> list[Entry]:
    """All files of a commit."""
    return [entry for entry in list_tree(repo, at, "", True) if not entry.is_folder]


def read_path(repo: pygit2.Repository, at: pygit2.Commit, path: str) -> bytes | None:
    """The content of a small file, or None where there is no such file."""
    entry = find(repo, at, path)
    return None if entry is None or entry.is_folder or entry.lfs else repo[entry.oid].data


def history(repo: pygit2.Repository, at: pygit2.Commit) -> Iterator[CommitNote]:
    """Commits, newest first."""
    for item in repo.walk(at.id, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.TIME):
        yield note(item)


def note(item: pygit2.Commit) -> CommitNote:
    title, _, message = item.message.partition("\n")
    date = iso_date(item.commit_time)
    return CommitNote(str(item.id), title, message.strip("\n"), item.author.name, date)


def iso_date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# Details


def get_ref(repo: pygit2.Repository, name: str) -> pygit2.Reference | None:
    try:
        return repo.references.get(name)
    except (pygit2.InvalidSpecError, ValueError):
        return None


def signature(author: str) -> pygit2.Signature:
    return pygit2.Signature(author, f"{author}@users.noreply.localhost")


def describe(repo: pygit2.Repository, path: str, item: pygit2.Object) -> Entry:
    """A blob or tree as what stands at a path."""
    if isinstance(item, pygit2.Tree):
        return Entry(path, str(item.id), True)
    if item.size <= _MAX_POINTER_SIZE and (lfs := pointed_at(item.data)):
        return Entry(path, str(item.id), False, lfs.size, lfs)
    return Entry(path, str(item.id), False, item.size)


def pointed_at(content: bytes) -> Lfs | None:
    """What the content of a file points to, if it is a pointer."""
    match = _POINTER.fullmatch(content) if len(content) <= _MAX_POINTER_SIZE else None
    return Lfs(match.group(1).decode(), int(match.group(2)), len(content)) if match else None


def _walk(repo: pygit2.Repository, tree: pygit2.Tree, prefix: str, recursive: bool) -> Iterator[Entry]:
    for item in tree:
        path = f"{prefix}/{item.name}" if prefix else str(item.name)
        yield describe(repo, path, item)
        if recursive and isinstance(item, pygit2.Tree):
            yield from _walk(repo, item, path, True)
