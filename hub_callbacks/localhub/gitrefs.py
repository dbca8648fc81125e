"""Branches, tags and the refs of pull requests."""

from __future__ import annotations

import re

import pygit2

from .errors import HubError, bad_request, revision_not_found
from .gitstore import DEFAULT_BRANCH, get_ref, resolve, signature

_BRANCHES = "refs/heads/"
_NAME = re.compile(r"(?!refs/)[A-Za-z0-9_][\w./+@%-]*")


def branch_ref(repo: pygit2.Repository, revision: str) -> str | None:
    """The full name of the ref that a commit to `revision` would move, if there is one."""
    name = revision if revision.startswith((_BRANCHES, "refs/pr/")) else f"{_BRANCHES}{revision}"
    return name if get_ref(repo, name) is not None else None


def branch_name(ref: str) -> str:
    """The name of the branch that a full ref is.

    Raises:
        HubError: 404, it is no branch.
    """
    if not ref.startswith(_BRANCHES):
        raise revision_not_found(ref)
    return ref.removeprefix(_BRANCHES)


def list_refs(repo: pygit2.Repository, prefix: str) -> list[tuple[str, str]]:
    """Short name and commit id of each ref under a prefix such as `refs/heads/`."""
    names = sorted(name for name in repo.references if name.startswith(prefix))
    return [(name[len(prefix) :], str(repo.references[name].peel(pygit2.Commit).id)) for name in names]


def create_branch(repo: pygit2.Repository, name: str, start: str) -> None:
    """Raises: HubError: the start is missing (404), the name is taken (409) or not possible (400)."""
    target = resolve(repo, start).id
    repo.references.create(_free_ref(repo, "refs/heads/", name, "Reference"), target)


def create_tag(repo: pygit2.Repository, name: str, revision: str, message: str | None, author: str) -> None:
    """Raises: HubError: the revision is missing (404), the name not possible (400) or taken (409)."""
    target = resolve(repo, revision).id
    ref = _free_ref(repo, "refs/tags/", name, "Tag reference")
    if message:
        repo.create_tag(name, target, pygit2.enums.ObjectType.COMMIT, signature(author), message)
    else:
        repo.references.create(ref, target)


def delete_ref(repo: pygit2.Repository, prefix: str, name: str) -> None:
    """Raises: HubError: it is the branch main (403) or missing (404)."""
    ref = f"{prefix}{name}"
    if ref == f"refs/heads/{DEFAULT_BRANCH}":
        raise HubError(403, f"Cannot delete {ref}")
    if get_ref(repo, ref) is None:
        raise revision_not_found(name)
    repo.references.delete(ref)


def _free_ref(repo: pygit2.Repository, prefix: str, name: str, kind: str) -> str:
    ref = f"{prefix}{name}"
    if not _NAME.fullmatch(name) or not pygit2.reference_is_valid_name(ref):
        raise bad_request(f"Invalid reference name: {name}")
    if get_ref(repo, ref) is not None:
        raise HubError(409, f"{kind} {ref} already exists")
    return ref
