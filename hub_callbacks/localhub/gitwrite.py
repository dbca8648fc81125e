"""Writing to git: commits, merges, squashing. Each moves its ref in one atomic step."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pygit2

from .errors import HubError
from .gitstore import DEFAULT_BRANCH, describe, signature
from .lastcommits import keep_up

_MAX_PATH = 1024
"""In bytes."""

_ROOT = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_SHORT_NAME = re.compile(r"git~\d+")

Edits = Mapping[str, "str | None"]
"""Path to blob id; None removes the file or folder."""


def create(path: Path, author: str, files: Mapping[str, bytes]) -> None:
    """Makes a bare repository whose main branch holds one "initial commit"."""
    repo = pygit2.init_repository(str(path), bare=True, initial_head=DEFAULT_BRANCH)
    edits = {name: str(repo.create_blob(content)) for name, content in files.items()}
    commit(repo, f"refs/heads/{DEFAULT_BRANCH}", None, edits, author, "initial commit")


def remove_locks(path: Path) -> None:
    """Removes the locks that a killed hub left on refs, which would refuse every later commit.

    Only one hub works on a folder, so at its start no lock is anybody's. No ref is called so.
    """
    for lock in [*path.glob("*.lock"), *(path / "refs").rglob("*.lock")]:
        lock.unlink()


def check_path(path: str) -> str:
    """A path that is safe inside a repository, and wherever it is downloaded to, in its plain form.

    Raises:
        HubError: 422 for one that some file system would take for the folder above, a root or git's own folder.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        size = 0  # half a character
    forms = (path, unicodedata.normalize("NFKC", path))
    if (
        not 0 < size <= _MAX_PATH
        or "\0" in path
        or any(_ROOT.match(form) for form in forms)
        or any(_leads_astray(part) for form in forms for part in re.split(r"[/\\]", form) if part)
    ):
        raise HubError(422, f"Invalid path: {path}")
    return posixpath.normpath(path)


def _leads_astray(part: str) -> bool:
    """Whether a name means ".", ".." or ".git", be it on Windows or a Mac only, as git itself judges it."""
    visible = "".join(letter for letter in part if unicodedata.category(letter) != "Cf").lower()
    plain = visible.partition(":")[0].rstrip(" .")
    return plain in ("", ".git") or _SHORT_NAME.fullmatch(plain) is not None


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
    who = signature(author)
    try:
        oid = repo.create_commit(ref, who, who, message, tree or empty_tree(repo), parents)
    except (pygit2.AlreadyExistsError, pygit2.GitError) as error:
        raise stale_parent() from error
    keep_up(repo, repo[oid])
    return str(oid)


def stale_parent() -> HubError:
    return HubError(412, "The branch was updated since you opened this page. Please refresh and try again.")


def merge(repo: pygit2.Repository, base: str, head: str, author: str, message: str) -> str:
    """Merges one ref into another.

    Returns:
        The merge commit's id.

    Raises:
        HubError: 409, both changed the same lines, or their lines together name a large file that neither names.
    """
    ours, theirs = (repo.references[name].peel(pygit2.Commit) for name in (base, head))
    index = repo.merge_commits(ours, theirs)
    tree = index.write_tree(repo) if index.conflicts is None else None
    if tree is None or _makes_pointers(repo, tree, ours.tree, theirs.tree):
        raise HubError(409, f"{head} cannot be merged: it conflicts with {base}")
    who = signature(author)
    return str(repo.create_commit(base, who, who, message, tree, [ours.id, theirs.id]))


def _makes_pointers(repo: pygit2.Repository, tree: pygit2.Oid, *sides: pygit2.Tree) -> bool:
    """Whether a tree has a pointer to a large file that neither side has, there or under an older name."""
    deltas = [list(repo.diff(side, repo[tree]).deltas) for side in sides]
    new = set.intersection(*({delta.new_file.id for delta in of_side} for of_side in deltas))
    old = {delta.old_file.id for of_side in deltas for delta in of_side}
    return any(describe(repo, "", repo[oid]).lfs for oid in new - old if oid in repo)


def squash(repo: pygit2.Repository, branch: str, author: str, message: str) -> None:
    """Replaces the history of one branch by a single commit with the same files."""
    ref = repo.references[f"refs/heads/{branch}"]
    tip = ref.peel(pygit2.Commit)
    who = signature(author)
    ref.set_target(repo.create_commit(None, who, who, message, tip.tree.id, []))


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
            put_entry(builder, name, tree, pygit2.enums.FileMode.TREE)
        else:
            put_entry(builder, name, edit, pygit2.enums.FileMode.BLOB)
    return builder.write() if len(builder) else None


def put_entry(builder: pygit2.TreeBuilder, name: str, oid: pygit2.Oid | None, mode: int) -> None:
    if oid is not None:
        builder.insert(name, oid, mode)
    elif builder.get(name) is not None:
        builder.remove(name)


def empty_tree(repo: pygit2.Repository) -> pygit2.Oid:
    return repo.TreeBuilder().write()
