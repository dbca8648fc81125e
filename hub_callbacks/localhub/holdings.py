"""Which large files belong to a repository: those that its history names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from . import gitlfs, gitstore
from .content import SHA256
from .registry import Repo
from .web import Call


def has(repo: Repo, sha256: str, commit: str | None = None) -> bool:
    """Whether a repository names this content.

    Args:
        repo: Where.
        sha256: Of the content.
        commit: A commit of it to look at first, which is cheap.
    """
    if commit and sha256 in _of_commit(repo.path, commit):
        return True
    git = gitstore.open_repo(repo.path)
    tips = {str(git.references[name].target) for name in git.references}
    return sha256 in _of_history(repo.path, tuple(sorted(tips)))


def may_name(call: Call, repo: Repo, sha256: str) -> bool:
    """Whether a commit of the caller's may name this content: the repository has it, or the caller sent it."""
    known = SHA256.fullmatch(sha256) is not None
    return known and (call.hub.senders.has(call.user, sha256) or has(repo, sha256))


# What commits name never changes, so the answers stay true.


@lru_cache(maxsize=64)
def _of_commit(path: Path, commit: str) -> frozenset[str]:
    git, at = gitstore.open_at(path, commit)
    return frozenset(entry.lfs.sha256 for entry in gitstore.list_files(git, at) if entry.lfs)


@lru_cache(maxsize=32)
def _of_history(path: Path, tips: tuple[str, ...]) -> frozenset[str]:
    del tips
    return frozenset(gitlfs.all_sha256s(gitstore.open_repo(path)))
