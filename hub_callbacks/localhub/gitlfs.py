"""Large files in git's history: the pointers that stand for them, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pygit2

from .gitstore import CommitNote, Entry, describe, note
from .gitwrite import empty_tree, put_entry

_KEPT_REFS = ("refs/heads/", "refs/pr/", "refs/tags/")


def pointer(sha256: str, size: int) -> bytes:
    """Git LFS pointer file, https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def all_lfs_files(repo: pygit2.Repository) -> Iterator[tuple[Entry, CommitNote, str]]:
    """Each large file of the whole history once: the entry, a commit that has it, and that ref."""
    seen: set[pygit2.Oid] = set()
    for name in sorted(repo.references):
        if not name.startswith(_KEPT_REFS):
            continue
        for item in repo.walk(repo.references[name].peel(pygit2.Commit).id):
            if item.id in seen:
                continue
            seen.add(item.id)
            for entry in _large_files(repo, item.tree, "", seen):
                yield entry, note(item), name


def sha256s(repo: pygit2.Repository, blobs: Iterable[str]) -> set[str]:
    """What the pointers among some blobs point to."""
    found = [describe(repo, "", repo[oid]) for oid in blobs if oid in repo]
    return {entry.lfs.sha256 for entry in found if entry.lfs}


def all_sha256s(repo: pygit2.Repository) -> set[str]:
    """All large files of the whole history."""
    return {entry.lfs.sha256 for entry, _, _ in all_lfs_files(repo) if entry.lfs}


def remove_everywhere(repo: pygit2.Repository, blobs: set[str]) -> None:
    """Rewrites all branches, tags and pull requests without the given blobs."""
    renamed: dict[str, str] = {}
    refs = [name for name in repo.references if name.startswith(_KEPT_REFS)]
    order = pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.REVERSE
    for name in refs:
        tip = repo.references[name].peel(pygit2.Commit)
        for item in repo.walk(tip.id, order):
            if str(item.id) in renamed:
                continue
            tree = _without(repo, item.tree, blobs) or empty_tree(repo)
            parents = [renamed[str(parent)] for parent in item.parent_ids]
            new = repo.create_commit(None, item.author, item.committer, item.message, tree, parents)
            renamed[str(item.id)] = str(new)
        if renamed[str(tip.id)] != str(tip.id):
            repo.references[name].set_target(renamed[str(tip.id)])


def _large_files(
    repo: pygit2.Repository, tree: pygit2.Tree, prefix: str, seen: set[pygit2.Oid]
) -> Iterator[Entry]:
    """Most trees of a history are those of the commit before, so each is looked at only once."""
    if tree.id in seen:
        return
    seen.add(tree.id)
    for item in tree:
        path = f"{prefix}/{item.name}" if prefix else str(item.name)
        if isinstance(item, pygit2.Tree):
            yield from _large_files(repo, item, path, seen)
        elif item.id not in seen:
            seen.add(item.id)
            entry = describe(repo, path, item)
            if entry.lfs:
                yield entry


def _without(repo: pygit2.Repository, tree: pygit2.Tree, blobs: set[str]) -> pygit2.Oid | None:
    builder = repo.TreeBuilder(tree)
    for item in tree:
        if isinstance(item, pygit2.Tree):
            put_entry(builder, item.name, _without(repo, item, blobs), pygit2.enums.FileMode.TREE)
        elif str(item.id) in blobs:
            builder.remove(item.name)
    return builder.write() if len(builder) else None
