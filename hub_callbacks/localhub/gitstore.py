"""Everything that touches git objects and refs. Repositories are ordinary bare ones, opened per request."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pygit2

from .errors import HubError, bad_request, entry_not_found, revision_not_found

DEFAULT_BRANCH = "main"
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
_MAX_POINTER_SIZE = 200
_SHORT_SHA = re.compile(r"[0-9a-f]{7,40}")
_REF_NAME = re.compile(r"[A-Za-z0-9_][\w./+@%-]*")


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


Edits = Mapping[str, "str | None"]
"""Path to blob id; None removes the file or folder."""


def pointer(sha256: str, size: int) -> bytes:
    """Git LFS pointer file, https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def flush_always() -> None:
    """From now on git objects and refs of this process are flushed to the disk when they are written."""
    pygit2.settings.enable_fsync_gitdir(True)


def create(path: Path, author: str, files: Mapping[str, bytes]) -> None:
    """Makes a bare repository whose main branch holds one "initial commit"."""
    repo = pygit2.init_repository(str(path), bare=True, initial_head=DEFAULT_BRANCH)
    edits = {name: str(repo.create_blob(content)) for name, content in files.items()}
    commit(repo, f"refs/heads/{DEFAULT_BRANCH}", None, edits, author, "initial commit")


def open_repo(path: Path) -> pygit2.Repository:
    return pygit2.Repository(str(path), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)


# Revisions and refs


def branch_ref(repo: pygit2.Repository, revision: str) -> str | None:
    """The full name of the ref that a commit to `revision` would move, if there is one."""
    for name in (f"refs/heads/{revision}", revision):
        if name.startswith(("refs/heads/", "refs/pr/")) and _get_ref(repo, name) is not None:
            return name
    return None


def resolve(repo: pygit2.Repository, revision: str) -> pygit2.Commit:
    """The commit that a branch, tag, full ref, commit id or its first seven characters names.

    Raises:
        HubError: `RevisionNotFound`.
    """
    candidates = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
    if revision.startswith("refs/"):
        candidates.append(revision)
    for name in candidates:
        ref = _get_ref(repo, name)
        if ref is not None:
            return ref.peel(pygit2.Commit)
    if _SHORT_SHA.fullmatch(revision):
        found = repo.get(revision)
        if isinstance(found, (pygit2.Commit, pygit2.Tag)):
            return found.peel(pygit2.Commit)
    raise revision_not_found(revision)


def list_refs(repo: pygit2.Repository, prefix: str) -> list[tuple[str, str]]:
    """Short name and commit id of each ref under a prefix such as `refs/heads/`."""
    names = sorted(name for name in repo.references if name.startswith(prefix))
    return [(name[len(prefix) :], str(repo.references[name].peel(pygit2.Commit).id)) for name in names]


def create_branch(repo: pygit2.Repository, name: str, start: str) -> None:
    """Raises: HubError: the start is missing (404), the name is taken (409) or not possible (400)."""
    target = resolve(repo, start).id
    _check_ref_name(f"refs/heads/{name}", name)
    if _get_ref(repo, f"refs/heads/{name}") is not None:
        raise HubError(409, f"Reference refs/heads/{name} already exists")
    repo.references.create(f"refs/heads/{name}", target)


def delete_branch(repo: pygit2.Repository, name: str) -> None:
    """Raises: HubError: the branch is main (403) or missing (404)."""
    if name == DEFAULT_BRANCH:
        raise HubError(403, f"Cannot delete refs/heads/{DEFAULT_BRANCH}")
    if _get_ref(repo, f"refs/heads/{name}") is None:
        raise revision_not_found(name)
    repo.references.delete(f"refs/heads/{name}")


def create_tag(repo: pygit2.Repository, name: str, revision: str, message: str | None, author: str) -> None:
    """Raises: HubError: the revision is missing (404), the name not possible (400) or taken (409)."""
    target = resolve(repo, revision).id
    _check_ref_name(f"refs/tags/{name}", name)
    if _get_ref(repo, f"refs/tags/{name}") is not None:
        raise HubError(409, f"Tag reference refs/tags/{name} already exists")
    if message:
        repo.create_tag(name, target, pygit2.enums.ObjectType.COMMIT, _signature(author), message)
    else:
        repo.references.create(f"refs/tags/{name}", target)


def delete_tag(repo: pygit2.Repository, name: str) -> None:
    """Raises: HubError: there is no tag of that name (404)."""
    if _get_ref(repo, f"refs/tags/{name}") is None:
        raise revision_not_found(name)
    repo.references.delete(f"refs/tags/{name}")


def create_ref(repo: pygit2.Repository, name: str, oid: str) -> None:
    repo.references.create(name, oid)


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
        return _entry(repo, path, at.tree[path]) if path else None
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


def read(repo: pygit2.Repository, oid: str) -> bytes:
    return repo[oid].data


def read_path(repo: pygit2.Repository, at: pygit2.Commit, path: str) -> bytes | None:
    """The content of a small file, or None where there is no such file."""
    entry = find(repo, at, path)
    return None if entry is None or entry.is_folder or entry.lfs else read(repo, entry.oid)


def history(repo: pygit2.Repository, at: pygit2.Commit) -> Iterator[CommitNote]:
    """Commits, newest first."""
    for item in repo.walk(at.id, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.TIME):
        yield note(item)


def note(item: pygit2.Commit) -> CommitNote:
    title, _, message = item.message.partition("\n")
    date = iso_date(item.commit_time)
    return CommitNote(str(item.id), title, message.strip("\n"), item.author.name, date)


def last_commits(repo: pygit2.Repository, at: pygit2.Commit, paths: Iterable[str]) -> dict[str, CommitNote]:
    """For each path the newest commit that changed it."""
    pending = {path: _oid_at(at, path) for path in paths}
    found: dict[str, CommitNote] = {}
    for item in repo.walk(at.id, pygit2.enums.SortMode.TOPOLOGICAL):
        if not pending:
            break
        parent = item.parents[0] if item.parents else None
        for path, oid in list(pending.items()):
            if parent is None or _oid_at(parent, path) != oid:
                found[path] = note(item)
                del pending[path]
    return found


def iso_date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# Writing


def check_path(path: str) -> str:
    """A path that is safe inside a repository, in its plain form.

    Raises:
        HubError: 422 for one that would leave it.
    """
    parts = re.split(r"[/\\]", path)
    if not path or path.startswith("/") or "\0" in path or ".git" in parts or ".." in parts or "." in parts:
        raise HubError(422, f"Invalid path: {path}")
    return posixpath.normpath(path)


def commit(
    repo: pygit2.Repository,
    ref: str,
    parent: pygit2.Commit | None,
    edits: Edits,
    author: str,
    message: str,
) -> str:
    """Makes one commit and moves the ref from `parent` to it, in one atomic step.

    Returns:
        The commit's id.

    Raises:
        HubError: 412, the ref was moved by somebody else in the meantime.
    """
    tree = _apply(repo, parent.tree if parent else None, _nest(edits))
    parents = [parent.id] if parent else []
    who = _signature(author)
    try:
        return str(repo.create_commit(ref, who, who, message, tree or _empty_tree(repo), parents))
    except (pygit2.AlreadyExistsError, pygit2.GitError) as error:
        raise stale_parent() from error


def stale_parent() -> HubError:
    return HubError(412, "The branch was updated since you opened this page. Please refresh and try again.")


def merge(repo: pygit2.Repository, base: str, head: str, author: str, message: str) -> str:
    """Merges one ref into another.

    Returns:
        The merge commit's id.

    Raises:
        HubError: 409, both changed the same lines.
    """
    ours, theirs = (repo.references[name].peel(pygit2.Commit) for name in (base, head))
    index = repo.merge_commits(ours, theirs)
    if index.conflicts is not None:
        raise HubError(409, f"{head} cannot be merged: it conflicts with {base}")
    who = _signature(author)
    tree = index.write_tree(repo)
    return str(repo.create_commit(base, who, who, message, tree, [ours.id, theirs.id]))


def squash(repo: pygit2.Repository, branch: str, author: str, message: str) -> None:
    """Replaces the history of one branch by a single commit with the same files."""
    ref = repo.references[f"refs/heads/{branch}"]
    tip = ref.peel(pygit2.Commit)
    who = _signature(author)
    ref.set_target(repo.create_commit(None, who, who, message, tip.tree.id, []))


def remove_everywhere(repo: pygit2.Repository, blobs: set[str]) -> None:
    """Rewrites all branches, tags and pull requests without the given blobs."""
    renamed: dict[str, str] = {}
    refs = [name for name in repo.references if name.startswith(("refs/heads/", "refs/pr/", "refs/tags/"))]
    order = pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.REVERSE
    for name in refs:
        tip = repo.references[name].peel(pygit2.Commit)
        for item in repo.walk(tip.id, order):
            if str(item.id) in renamed:
                continue
            tree = _without(repo, item.tree, blobs) or _empty_tree(repo)
            parents = [renamed[str(parent)] for parent in item.parent_ids]
            new = repo.create_commit(None, item.author, item.committer, item.message, tree, parents)
            renamed[str(item.id)] = str(new)
        if renamed[str(tip.id)] != str(tip.id):
            repo.references[name].set_target(renamed[str(tip.id)])


def all_lfs_files(repo: pygit2.Repository) -> Iterator[tuple[Entry, CommitNote, str]]:
    """Each large file of the whole history once: the entry, a commit that has it, and that ref."""
    seen: set[str] = set()
    for name in sorted(repo.references):
        if not name.startswith(("refs/heads/", "refs/pr/", "refs/tags/")):
            continue
        for item in repo.walk(repo.references[name].peel(pygit2.Commit).id):
            for entry in _walk(repo, item.tree, "", True):
                if entry.lfs and entry.oid not in seen:
                    seen.add(entry.oid)
                    yield entry, note(item), name


# Details


def _get_ref(repo: pygit2.Repository, name: str) -> pygit2.Reference | None:
    try:
        return repo.references.get(name)
    except (pygit2.InvalidSpecError, ValueError):
        return None


def _check_ref_name(full: str, short: str) -> None:
    if not _REF_NAME.fullmatch(short) or not pygit2.reference_is_valid_name(full):
        raise bad_request(f"Invalid reference name: {short}")


def _signature(author: str) -> pygit2.Signature:
    return pygit2.Signature(author, f"{author}@users.noreply.localhost")


def _entry(repo: pygit2.Repository, path: str, item: pygit2.Object) -> Entry:
    if isinstance(item, pygit2.Tree):
        return Entry(path, str(item.id), True)
    if item.size <= _MAX_POINTER_SIZE and (match := _POINTER.fullmatch(item.data)):
        size = int(match.group(2))
        return Entry(path, str(item.id), False, size, Lfs(match.group(1).decode(), size, item.size))
    return Entry(path, str(item.id), False, item.size)


def _walk(repo: pygit2.Repository, tree: pygit2.Tree, prefix: str, recursive: bool) -> Iterator[Entry]:
    for item in tree:
        path = f"{prefix}/{item.name}" if prefix else str(item.name)
        yield _entry(repo, path, item)
        if recursive and isinstance(item, pygit2.Tree):
            yield from _walk(repo, item, path, True)


def _oid_at(at: pygit2.Commit, path: str) -> str | None:
    try:
        return str(at.tree[path].id)
    except KeyError:
        return None


class _Folder(dict):
    """Edits below one folder; `cleared` when the folder itself was removed first."""

    cleared = False


def _nest(edits: Edits) -> _Folder:
    root = _Folder()
    for path, oid in edits.items():
        *folders, name = path.split("/")
        folder = root
        for part in folders:
            child = folder.get(part)
            if not isinstance(child, _Folder):
                inner = _Folder()
                inner.cleared = part in folder  # the name was a file or was removed by an earlier edit
                folder[part] = child = inner
            folder = child
        folder[name] = oid
    return root


def _apply(repo: pygit2.Repository, base: pygit2.Tree | None, edits: _Folder) -> pygit2.Oid | None:
    builder = repo.TreeBuilder() if base is None or edits.cleared else repo.TreeBuilder(base)
    for name, edit in edits.items():
        if isinstance(edit, _Folder):
            current = base[name] if base is not None and not edits.cleared and name in base else None
            tree = _apply(repo, current if isinstance(current, pygit2.Tree) else None, edit)
            _put(builder, name, tree, pygit2.enums.FileMode.TREE)
        else:
            _put(builder, name, edit, pygit2.enums.FileMode.BLOB)
    return builder.write() if len(builder) else None


def _put(builder: pygit2.TreeBuilder, name: str, oid: pygit2.Oid | None, mode: int) -> None:
    if oid is not None:
        builder.insert(name, oid, mode)
    elif builder.get(name) is not None:
        builder.remove(name)


def _empty_tree(repo: pygit2.Repository) -> pygit2.Oid:
    return repo.TreeBuilder().write()


def _without(repo: pygit2.Repository, tree: pygit2.Tree, blobs: set[str]) -> pygit2.Oid | None:
    builder = repo.TreeBuilder(tree)
    for item in tree:
        if isinstance(item, pygit2.Tree):
            _put(builder, item.name, _without(repo, item, blobs), pygit2.enums.FileMode.TREE)
        elif str(item.id) in blobs:
            builder.remove(item.name)
    return builder.write() if len(builder) else None
