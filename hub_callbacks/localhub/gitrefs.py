"""Branches, tags and the refs of pull requests."""

from __future__ import annotations

import re

import pygit2

from .errors import HubError, bad_request, revision_not_found
from .gitstore import DEFAULT_BRANCH, get_ref, resolve, signature

_NAME = re.compile(r"[A-Za-z0-9_][\w./+@%-]*")


def branch_ref(repo: pygit2.Repository, revision: str) -> str | None:
    """The full name of the ref that a commit to `revision` would move, if there is one."""
    for name in (f"refs/heads/{revision}", revision):
        if name.startswith(("refs/heads/", "refs/pr/")) and get_ref(repo, name) is not None:
            return name
    return None


def list_refs(repo: pygit2.Repository, prefix: str) -> list[tuple[str, str]]:
    """Short name and commit id of each ref under a prefix such as `refs/heads/`."""
    names = sorted(name for name in repo.references if name.startswith(prefix))
    return [(name[len(prefix) :], str(repo.references[name].peel(pygit2.Commit).id)) for name in names]


def create_branch(repo: pygit2.Repository, name: str, start: str) -> None:
    """Raises: HubError: the start is missing (404), the name is taken (409) or not possible (400)."""
    target = resolve(repo, start).id
    _check_ref_name(f"refs/heads/{name}", name)
    if get_ref(repo, f"refs/heads/{name}") is not None:
        raise HubError(409, f"Reference refs/heads/{name} already exists")
    repo.references.create(f"refs/heads/{name}", target)


def delete_branch(repo: pygit2.Repository, name: str) -> None:
    """Raises: HubError: the branch is main (403) or missing (404)."""
    if name == DEFAULT_BRANCH:
        raise HubError(403, f"Cannot delete refs/heads/{DEFAULT_BRANCH}")
    if get_ref(repo, f"refs/heads/{name}") is None:
        raise revision_not_found(name)
    repo.references.delete(f"refs/heads/{name}")


def create_tag(repo: pygit2.Repository, name: str, revision: str, message: str | None, author: str) -> None:
    """Raises: HubError: the revision is missing (404), the name not possible (400) or taken (409)."""
    target = resolve(repo, revision).id
    _check_ref_name(f"refs/tags/{name}", name)
    if get_ref(repo, f"refs/tags/{name}") is not None:
        raise HubError(409, f"Tag reference refs/tags/{name} already exists")
    if message:
        repo.create_tag(name, target, pygit2.enums.ObjectType.COMMIT, signature(author), message)
    else:
        repo.references.create(f"refs/tags/{name}", target)


def delete_tag(repo: pygit2.Repository, name: str) -> None:
    """Raises: HubError: there is no tag of that name (404)."""
    if get_ref(repo, f"refs/tags/{name}") is None:
        raise revision_not_found(name)
    repo.references.delete(f"refs/tags/{name}")


def create_ref(repo: pygit2.Repository, name: str, oid: str) -> None:
    repo.references.create(name, oid)


def _check_ref_name(full: str, short: str) -> None:
    if not _NAME.fullmatch(short) or not pygit2.reference_is_valid_name(full):
        raise bad_request(f"Invalid reference name: {short}")
