"""Which commit changed a file or folder last: found for all of them at once, and kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pygit2

from .changes import diff_of, kind_of
from .durable import read_json, write_json
from .gitstore import CommitNote, note
from .kept import Kept

_FILE = "last-commits.json"
_LONG_WAY = 200
"""Commits. After so many what was found is written down beside the repository's facts, for the next start."""


@dataclass(frozen=True)
class _Found:
    """For each path at a commit the id of the commit that changed it last.

    Args:
        last: Path to commit id.
        unwritten: How many commits it is ahead of what was written down.
    """

    last: Mapping[str, str]
    unwritten: int


_kept: Kept[_Found] = Kept(200_000)
"""By commit id; sizes are numbers of paths."""


def last_commits(repo: pygit2.Repository, at: pygit2.Commit, paths: Iterable[str]) -> dict[str, CommitNote]:
    """For each path the newest commit that changed it against its first parent."""
    last = (_kept.find(at.id) or _find(repo, at)).last
    return {path: note(repo[last[path]]) for path in paths if path in last}


def keep_up(repo: pygit2.Repository, at: pygit2.Commit) -> None:
    """Takes in a new commit where all before it is known, so that nobody has a long way to go later."""
    if not at.parent_ids or _kept.find(at.parent_ids[0]):
        _find(repo, at)


def _find(repo: pygit2.Repository, at: pygit2.Commit) -> _Found:
    file = Path(repo.path) / _FILE
    if not any(_kept.find(oid) for oid in at.parent_ids[:1]) and (written := read_json(file, None)):
        _kept.keep(pygit2.Oid(hex=written["commit"]), _Found(written["last"], 0), len(written["last"]))
    found: dict[str, str | None] = {}
    steps = 0
    item: pygit2.Commit | None = at
    while item and not (older := _kept.find(item.id)):
        for path, oid in _changed(repo, item):
            found.setdefault(path, oid)
        item = item.parents[0] if item.parents else None
        steps += 1
    if item and older:
        found = {**older.last, **found}
        steps += older.unwritten
    last = {path: oid for path, oid in found.items() if oid}
    if steps > _LONG_WAY:
        try:
            write_json(file, {"commit": str(at.id), "last": last})
            steps = 0
        except OSError:
            pass  # a full disk: it is found again after the next start
    return _kept.keep(at.id, _Found(last, steps), len(last))


def _changed(repo: pygit2.Repository, item: pygit2.Commit) -> Iterator[tuple[str, str | None]]:
    """The paths that a commit changed, and its id, or None for files that it deleted; folders come first."""
    oid = str(item.id)
    deltas = [(delta.new_file.path, kind_of(delta)) for delta in diff_of(repo, item).deltas]
    for path, _ in deltas:
        for folder in PurePosixPath(path).parents:
            yield str(folder), oid
    for path, kind in deltas:
        yield path, None if kind == "deleted" else oid
