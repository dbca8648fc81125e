"""What a commit changed against its first parent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pygit2

from . import gitstore
from .gitstore import Entry

Kind = Literal["added", "modified", "deleted"]

_MAX_FILES_WITH_LINES = 20
_MAX_TEXT = 100_000
_MAX_LINES = 400
_MAX_SHOWN = 300_000
"""Characters of the differences of all files together."""


@dataclass(frozen=True)
class Line:
    """A line of a difference; `origin` is "+", "-", " " or "@" for a heading between the pieces."""

    origin: str
    text: str


@dataclass(frozen=True)
class Change:
    """One file before and after a commit.

    Args:
        kind: What happened to it.
        path: Where it is.
        before: None where it was added.
        after: None where it was deleted.
        lines: The difference of small text files, else empty.
    """

    kind: Kind
    path: str
    before: Entry | None
    after: Entry | None
    lines: tuple[Line, ...] = ()


def changes(repo: pygit2.Repository, commit: pygit2.Commit) -> Iterator[Change]:
    """The changed files, by path."""
    diff = diff_of(repo, commit)
    parent = commit.parents[0] if commit.parents else None
    shown = 0
    for number, delta in enumerate(diff.deltas):
        kind = kind_of(delta)
        path = delta.new_file.path
        before = gitstore.find(repo, parent, path) if parent and kind != "added" else None
        after = gitstore.find(repo, commit, path) if kind != "deleted" else None
        small = all(entry is None or (not entry.lfs and entry.size <= _MAX_TEXT) for entry in (before, after))
        lines = tuple(_lines(repo, before, after)) if small and number < _MAX_FILES_WITH_LINES else ()
        shown += sum(len(line.text) for line in lines)
        lines = lines if shown <= _MAX_SHOWN else ()
        yield Change(kind, path, before, after, lines)


def count_changes(repo: pygit2.Repository, commit: pygit2.Commit) -> Counter[Kind]:
    """How many files a commit added, modified and deleted, without a look into the files."""
    return Counter(kind_of(delta) for delta in diff_of(repo, commit).deltas)


def diff_of(repo: pygit2.Repository, commit: pygit2.Commit) -> pygit2.Diff:
    """A commit against its first parent, or against nothing."""
    if commit.parents:
        return commit.parents[0].tree.diff_to_tree(commit.tree)
    return commit.tree.diff_to_tree(swap=True)


def kind_of(delta: pygit2.DiffDelta) -> Kind:
    """What happened to a file."""
    status = delta.status_char()
    return "added" if status == "A" else "deleted" if status == "D" else "modified"


def _lines(repo: pygit2.Repository, before: Entry | None, after: Entry | None) -> Iterator[Line]:
    blobs = [repo[entry.oid] for entry in (before, after) if entry]
    if any(blob.is_binary for blob in blobs):
        return
    reverse = pygit2.enums.DiffOption.REVERSE
    patch = blobs[0].diff(flags=reverse) if before is None else blobs[0].diff(*blobs[1:])
    count = 0
    for hunk in patch.hunks:
        yield Line("@", hunk.header.strip())
        for line in hunk.lines:
            if line.origin not in "+- ":
                continue
            if (count := count + 1) > _MAX_LINES:
                yield Line("@", "and more")
                return
            yield Line(line.origin, line.content.rstrip("\n"))
